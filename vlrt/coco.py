"""Detections in COCO's result format, which `pycocotools` and its like evaluate.

The format is that of https://cocodataset.org/#format-results. Each entry also has `file_name` and
`category`, which evaluators ignore and people read.
"""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from vlrt import boxes as geometry
from vlrt.errors import OptionError
from vlrt.results import Detections


def image_ids(names: Sequence[PurePath]) -> list[int]:
    """The ids of pictures: COCO's own where the files have them, else positions from 1.

    COCO names its files by their ids, 000000039769.jpg. So if every stem is a number, these are the
    ids.

    Raises:
        OptionError: two pictures would have one id.
    """
    stems = [name.stem for name in names]
    if not all(stem.isascii() and stem.isdecimal() for stem in stems):
        return list(range(1, len(names) + 1))
    ids = [int(stem) for stem in stems]
    seen: dict[int, PurePath] = {}
    for image_id, name in zip(ids, names, strict=True):
        if image_id in seen:
            raise OptionError(
                f"{str(seen[image_id])!r} and {str(name)!r} would both be image_id {image_id}, the "
                "number in their names; rename one, or search them apart"
            )
        seen[image_id] = name
    return ids


def entries(found: Detections, *, image_id: int, file_name: str) -> list[dict[str, Any]]:
    """One entry an object, best first, ready for JSON.

    `bbox` is [x, y, width, height] in pixels, cut at the picture's edges; `category_id` is the
    position of the label, from 1.
    """
    corners = geometry.clip(found.boxes, found.size_hw)
    return [
        {
            "image_id": image_id,
            "category_id": int(label_id) + 1,
            "bbox": box,
            "score": float(score),
            "file_name": file_name,
            "category": found.labels[label_id],
        }
        for box, score, label_id in zip(
            geometry.corners_to_xywh(corners).tolist(), found.scores, found.label_ids, strict=True
        )
    ]
