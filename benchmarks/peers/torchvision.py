"""torchvision: its suppression of boxes that overlap a better one of the same label."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import STAGES, SUPPRESS, Entry, Stage, inputs

if TYPE_CHECKING:
    from ..plan import Plan
    from ..subject import Subject

NEEDS = ("torch", "torchvision")
INSTALL = "pip install torch torchvision"


def refused(subject: "Subject", plan: "Plan") -> dict[str, str]:  # noqa: ARG001  what others need
    """What it has no contender for here, and why."""
    if SUPPRESS not in STAGES[subject.family]:
        return {"torchvision": "it is compared in suppressing boxes, which detectors alone have"}
    return {}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """One, of detectors."""
    if refused(subject, plan):
        return []
    return [Entry("torchvision", "torchvision", "fp32", (SUPPRESS,))]


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """`batched_nms`, on tensors that are on the device already."""
    import torch
    from torchvision.ops import batched_nms

    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    given = inputs(job, SUPPRESS)
    boxes, scores, labels = (
        torch.from_numpy(given[name]).to(job["device"]) for name in ("boxes", "scores", "labels")
    )
    return {
        SUPPRESS: Stage(
            lambda: batched_nms(boxes, scores, labels, job["iou_threshold"]).cpu(),
            lambda kept: {"kept": np.sort(kept.numpy())},
        )
    }
