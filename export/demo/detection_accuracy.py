"""COCO mean average precision of a detector on drawn scenes, by pycocotools.

Independent of any framework: the detector is a callable. Categories are the drawn pairs, and those
that were held out of training are reported apart.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vlrt import boxes as geometry
from vlrt.errors import ExtraMissingError
from vlrt.results import Detections

from .captions import label
from .scenes import ALL_PAIRS, HELD_OUT_PAIRS, MAX_OBJECTS, SEEN_PAIRS, Scene, draw_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .evaluate import Table

LABELS = [label(pair) for pair in ALL_PAIRS]
# Detections a picture that a detector gives, of all labels together. pycocotools itself counts as
# many of each label.
BEST = 100
SIZES_WH = ((320, 320), (427, 320), (320, 427))


Detect = Callable[[Sequence[Image.Image]], Sequence[Detections]]  # of LABELS, in that order


def check_scorer() -> None:
    """See that pycocotools is there, before hours are spent on what it is to score.

    Raises:
        ExtraMissingError: it is not.
    """
    if find_spec("pycocotools") is None:
        raise ExtraMissingError("scoring a detector", "train", "pycocotools")


def fresh_scenes(number: int, seed: int) -> list[Scene]:
    """Scenes of one to five objects of all pairs, square, wide and tall, never trained on."""
    rng = np.random.default_rng((seed, 5 << 32))
    return [
        draw_scene(rng, size_wh=SIZES_WH[i % len(SIZES_WH)], n_objects=(1, MAX_OBJECTS))
        for i in range(number)
    ]


def _truth(scenes: Sequence[Scene]) -> dict[str, Any]:
    """The scenes as a COCO annotation file."""
    annotations: list[dict[str, Any]] = []
    for image_id, scene in enumerate(scenes, start=1):
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": LABELS.index(label((thing.colour, thing.shape))) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    return {
        "info": {},
        "images": [
            {"id": i, "width": s.image.width, "height": s.image.height}
            for i, s in enumerate(scenes, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(LABELS, start=1)],
    }


def _results(found: Sequence[Detections]) -> NDArray[np.float64]:
    """Detections as pycocotools takes them: rows of image, x, y, width, height, score, category."""
    rows = [
        np.column_stack(
            [
                np.full(len(one.scores), image_id),
                geometry.corners_to_xywh(one.boxes),
                one.scores,
                one.label_ids + 1,
            ]
        )
        for image_id, one in enumerate(found, start=1)
    ]
    return np.concatenate(rows).astype(np.float64)


def mean_average_precision(scenes: Sequence[Scene], found: Sequence[Detections]) -> Table:
    """Score: mAP and mAP50 over the pairs seen in training and over those held out of it.

    Raises:
        ValueError: nothing was found at all, or a pair is in none of the scenes.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = _results(found)
    if not len(rows):
        raise ValueError("nothing was found in any of the scenes")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO()
        truth.dataset = _truth(scenes)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # [IoU threshold 0.5..0.95, recall, category, area, most detections]: all areas, the most.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    if (precision < 0).any():
        missing = [LABELS[i] for i in np.flatnonzero((precision < 0).any(axis=(0, 1)))]
        raise ValueError(f"no scene shows {', '.join(missing)}: take more scenes")
    table: Table = {}
    for name, pairs in (("seen", SEEN_PAIRS), ("held_out", HELD_OUT_PAIRS)):
        of = precision[:, :, [ALL_PAIRS.index(pair) for pair in pairs]]
        table[name] = {"mAP": float(of.mean()), "mAP50": float(of[0].mean())}
    return table


def accuracy(detect: Detect, *, scenes: int, seed: int) -> Table:
    """Draw scenes, detect in all of them, and score.

    Raises:
        ExtraMissingError: pycocotools is not installed.
    """
    check_scorer()
    drawn = fresh_scenes(scenes, seed)
    return mean_average_precision(drawn, detect([scene.image for scene in drawn]))
