"""OWL-ViT's part of `vlrt demo`: where in the picture is which coloured shape?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlrt import boxes as geometry
from vlrt import cards, demo
from vlrt.image import load_image
from vlrt.results import Detections

_THRESHOLD = 0.3
_OVERLAP = 0.4  # of two boxes that overlap by more, one is left out
_IOU = 0.5  # with the truth, from which on a box counts as right


def run(out: Path) -> list[str]:
    """Search the scenes that come with vlrt for all 64 coloured shapes.

    Args:
        out: directory for the picture of the result, `vlrt-demo-owlvit.png`.

    Returns:
        Lines to print.
    """
    shown = demo.Demonstration("owlvit")
    owl, paths, names = shown.model, shown.paths, shown.described["labels"]
    labels = shown.timed(f"{len(names)} labels", lambda: owl.encode_labels(names))
    options = {"threshold": _THRESHOLD, "iou_threshold": _OVERLAP, "class_agnostic": True}
    results = shown.timed(f"{len(paths)} pictures", lambda: owl.detect(paths, labels, **options))
    lines = [f"where is which of {len(names)} coloured shapes?"]
    for path, entry, found in zip(paths, shown.described["pictures"], results, strict=True):
        lines.append(f"  {path.name:<14} {_verdict(entry['objects'], found)}")
    drawn = [
        cards.detection_card(load_image(path), found, title=path.name)
        for path, found in zip(paths, results, strict=True)
    ]
    title = "vlrt demo: open-vocabulary detection in drawn scenes"
    return [*lines, *shown.finish(out, cards.sheet(drawn, title=title, columns=2))]


def _verdict(objects: Sequence[dict[str, Any]], found: Detections) -> str:
    """How many of the objects were found, by label and place, and what went wrong."""
    truth = np.array([thing["box"] for thing in objects], np.float32)
    near = geometry.iou(truth, found.boxes) > _IOU
    same = np.array([[name == thing["label"] for name in found.names] for thing in objects], bool)
    right = near & same.reshape(near.shape)
    missed = [objects[int(i)]["label"] for i in np.flatnonzero(~right.any(axis=1))]
    wrong = [found.names[int(i)] for i in np.flatnonzero(~right.any(axis=0))]
    words = f"{len(objects) - len(missed)} of {len(objects)} found"
    if missed:
        words += f"; MISSED {', '.join(missed)}"
    return words + (f"; WRONG {', '.join(wrong)}" if wrong else "")
