"""Full-size checkpoints with seeded weights, and their bundles, for benchmarks without a hub.

Weights from a seed show size, speed and memory as the real ones do, and say nothing of quality.
"""

import math
import shutil
import sys
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from vlrt_export.pipeline import export


def make_seeded(snapshot: Path, root: Path, precision: str) -> tuple[Path, Path]:
    """A seeded CLIP checkpoint, kept for the next time, and its bundle, always made anew.

    Args:
        snapshot: a hub snapshot without weights: config, image settings, vocabulary.
        root: where to keep both.
        precision: as `vlrt export` takes it.

    Returns:
        The checkpoint's and the bundle's directory.
    """
    checkpoint, bundle = root / "checkpoint", root / f"bundle-{precision}"
    if not (checkpoint / "model.safetensors").is_file():
        _make_checkpoint(snapshot, checkpoint)
    export(
        str(checkpoint),
        bundle,
        precisions=[precision],
        overwrite=True,
        say=lambda line: print(line, file=sys.stderr),
    )
    return checkpoint, bundle


def _make_checkpoint(snapshot: Path, out: Path) -> None:
    print(f"making a seeded checkpoint in {out}", file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig.from_pretrained(snapshot))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(100))  # the value of all published checkpoints
    # vocab.json and merges.txt stay as they are: transformers reads a tokenizer.json more slowly.
    for path in snapshot.iterdir():
        shutil.copyfile(path, out / path.name)
    model.save_pretrained(out)  # last: its weights say that the checkpoint is complete
