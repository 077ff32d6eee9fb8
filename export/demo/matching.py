"""The bipartite matching loss of OWL-ViT: focal classification, L1 and GIoU boxes.

Minderer et al. 2022, "Simple Open-Vocabulary Object Detection with Vision Transformers", section
3.3, after DETR (Carion et al. 2020). Each object goes to the one prediction that suits it best; all
other predictions learn to stay silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import image_transforms
from transformers.loss import loss_for_object_detection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .detection_batches import Target


@dataclass(frozen=True)
class Weights:
    """What each part of the loss counts, and the shape of the focal loss (Lin et al. 2017)."""

    classes: float = 2.0
    l1: float = 2.0
    giou: float = 2.0
    alpha: float = 0.3
    gamma: float = 2.0


def giou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of every box with every other, both (centre x, centre y, width, height): [n, m]."""
    corners: Any = image_transforms.center_to_corners_format
    pairwise: Any = loss_for_object_detection.generalized_box_iou
    result: Tensor = pairwise(corners(a), corners(b))
    return result


def focal(logits: Tensor, truth: Tensor, weights: Weights) -> Tensor:
    """The focal loss of each number: easy ones count little, wrong ones and positives more."""
    chance = logits.sigmoid()
    missed = truth * (1 - chance) + (1 - truth) * chance
    balance = truth * weights.alpha + (1 - truth) * (1 - weights.alpha)
    entropy = binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return balance * missed**weights.gamma * entropy


@torch.no_grad()
def assign(logits: Tensor, boxes: Tensor, target: Target, weights: Weights) -> Tensor:
    """Which prediction each object goes to: int64 [k], all different.

    logits: [places, q]; boxes: [places, 4], (centre x, centre y, width, height) in 0..1.
    """
    theirs = torch.from_numpy(target.boxes)
    truth = torch.from_numpy(target.positive).float()
    gain = focal(logits, torch.ones_like(logits), weights) - focal(
        logits, torch.zeros_like(logits), weights
    )
    # Averaged over the queries that are true of the object, however many they are.
    classes = gain @ (truth / truth.sum(dim=1, keepdim=True).clamp_min(1)).T
    l1 = torch.cdist(boxes, theirs, p=1)
    cost = weights.classes * classes + weights.l1 * l1 - weights.giou * giou(boxes, theirs)
    places, objects = linear_sum_assignment(cost.numpy())
    assigned = torch.empty(len(theirs), dtype=torch.int64)
    assigned[objects] = torch.from_numpy(places)
    return assigned


def matching_loss(
    logits: Tensor, boxes: Tensor, targets: Sequence[Target], weights: Weights
) -> Tensor:
    """The loss of a batch, a scalar, divided by the number of objects in it.

    logits: float32 [n, places, q]; boxes: float32 [n, places, 4].
    """
    truth = torch.zeros_like(logits)
    counted = torch.ones_like(logits)
    total = logits.new_zeros(())
    objects = 0
    for at, target in enumerate(targets):
        places = assign(logits[at], boxes[at], target, weights)
        truth[at, places] = torch.from_numpy(target.positive).float()
        counted[at, places] = 1 - torch.from_numpy(target.open_).float()
        theirs = torch.from_numpy(target.boxes)
        ours = boxes[at, places]
        total = total + weights.l1 * (ours - theirs).abs().sum()
        total = total + weights.giou * (1 - giou(ours, theirs).diagonal()).sum()
        objects += len(places)
    classes = (focal(logits, truth, weights) * counted).sum()
    return (total + weights.classes * classes) / max(objects, 1)
