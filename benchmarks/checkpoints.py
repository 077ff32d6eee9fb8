"""Full-size checkpoints with seeded weights, for benchmarks without a hub.

Weights from a seed show size, speed and memory as the real ones do, and say nothing of quality.
"""

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    CLIPModel,
    OwlViTForObjectDetection,
    ViltForQuestionAnswering,
)


def seeded_checkpoint(snapshot: Path, root: Path) -> Path:
    """A seeded checkpoint, kept under `root` for the next time."""
    checkpoint = root / "checkpoint"
    if not (checkpoint / "model.safetensors").is_file():
        _make_checkpoint(snapshot, checkpoint)
    return checkpoint


def _settle_clip(model: Any) -> None:
    model.logit_scale.fill_(math.log(100))  # the value of all published checkpoints


def _settle_owlvit(model: Any) -> None:
    """Heads that give boxes of all sizes, and a score above 0.1 now and then.

    transformers draws them with a deviation of 1, which drives every sigmoid to 0 or 1.
    """
    for layer in (model.box_head, model.class_head):
        for parameter in layer.parameters():
            parameter.mul_(0.02)
    model.class_head.logit_shift.bias.fill_(-0.2)
    model.class_head.logit_scale.bias.fill_(30)


def _settle_vilt(model: Any) -> None:
    """Answers of which a few stand out, as after training, and positions that matter.

    transformers draws logits that are all near 0, and leaves position embeddings at 0.
    """
    answers = model.classifier[-1]
    answers.weight.mul_(4)
    answers.bias.fill_(-6)
    model.vilt.embeddings.position_embeddings.normal_(std=model.config.initializer_range)


_MODELS = {
    "clip": (CLIPModel, _settle_clip),
    "owlvit": (OwlViTForObjectDetection, _settle_owlvit),
    "vilt": (ViltForQuestionAnswering, _settle_vilt),
}


def _make_checkpoint(snapshot: Path, out: Path) -> None:
    print(f"making a seeded checkpoint in {out}", file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(snapshot)
    if config.model_type not in _MODELS:
        raise SystemExit(f"{snapshot} is a {config.model_type}; valid: {', '.join(_MODELS)}")
    kind, settle = _MODELS[config.model_type]
    model = kind(config)
    with torch.no_grad():
        settle(model)
    # Vocabularies stay as they are: transformers reads a tokenizer.json more slowly.
    for path in snapshot.iterdir():
        shutil.copyfile(path, out / path.name)
    model.save_pretrained(out)  # last: its weights say that the checkpoint is complete
