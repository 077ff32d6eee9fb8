"""Objects in pictures, in COCO's annotation format (cocodataset.org/#format-data)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as member
from pathlib import Path
from typing import Any

from vlrt.errors import DatasetError

from .dataset_files import (
    by_id,
    entries,
    field,
    need_distinct,
    need_pictures,
    picture_folder,
    read_groups,
    read_json,
)

_SPARE = 1.0  # pixels that a box may reach out of its picture: COCO's own are rounded


@dataclass(frozen=True)
class Thing:
    """An object in a picture.

    Attributes:
        label: its category's position.
        box: x, y, width, height in pixels.
        area: in pixels, of its outline where that is known.
        crowd: it stands for many, and finding it counts for nothing.
    """

    label: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool


@dataclass(frozen=True)
class Scenes:
    """Pictures with all objects of some categories.

    Attributes:
        source: the annotation file.
        pictures: their files.
        sizes_hw: the (height, width) in pixels that the file states for each.
        things: the objects in each.
        labels: the names of the categories.
        groups: positions of labels to count apart, by name.
        sizeless: how many boxes of the file have no width or no height, and were left out.
    """

    source: Path
    pictures: tuple[Path, ...]
    sizes_hw: tuple[tuple[int, int], ...]
    things: tuple[tuple[Thing, ...], ...]
    labels: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]] = member(default_factory=dict)
    sizeless: int = 0
    format = "coco"

    def __len__(self) -> int:
        return len(self.pictures)

    def subset(self, positions: Sequence[int]) -> "Scenes":
        """Some of the pictures; all categories are still looked for."""
        return replace(
            self,
            pictures=tuple(self.pictures[i] for i in positions),
            sizes_hw=tuple(self.sizes_hw[i] for i in positions),
            things=tuple(self.things[i] for i in positions),
        )


def read(file: Path, *, images: Path | None = None) -> Scenes:
    """Read an annotation file, such as COCO's `instances_val2017.json`.

    Boxes of no width or no height, of which COCO's own `instances_train2017.json` has some, can be
    found by nobody: they are left out and counted.

    Args:
        file: with `images`, `categories` and `annotations`.
        images: the folder of the pictures; by default `images` beside the file, or the file's own.

    Raises:
        DatasetError: a picture that is missing; an id that is there twice; an annotation of an
            image or category that there is none of; a box of a negative size, or outside its
            picture.
    """
    found = read_json(file)
    folder = picture_folder(file, images)
    shown = by_id(entries(found, "images", file), "id", file, "image")
    categories = by_id(entries(found, "categories", file), "id", file, "category")
    names = [
        field(entry, "name", str, f"{file}: category {number}")
        for number, entry in categories.items()
    ]
    need_distinct(names, f"{file}: categories have a name")
    labels = {number: position for position, number in enumerate(categories)}
    sizes = {number: _size(entry, f"{file}: image {number}") for number, entry in shown.items()}
    things: dict[int, list[Thing]] = {number: [] for number in shown}
    sizeless = 0
    for number, entry in by_id(
        entries(found, "annotations", file), "id", file, "annotation"
    ).items():
        where = f"{file}: annotation {number}"
        image, category = (field(entry, name, int, where) for name in ("image_id", "category_id"))
        if image not in things:
            raise DatasetError(f"{where} is of image {image}, which is not among the images")
        if category not in labels:
            raise DatasetError(f"{where} is of category {category}, which is not among them")
        thing = _thing(entry, labels[category], sizes[image], where)
        if min(thing.box[2:]) > 0:
            things[image].append(thing)
        else:
            sizeless += 1
    paths = [
        folder / field(entry, "file_name", str, f"{file}: image {number}")
        for number, entry in shown.items()
    ]
    need_distinct(paths, f"{file}: images have a file_name")
    need_pictures(paths, str(file))
    return Scenes(
        file,
        tuple(paths),
        tuple(sizes.values()),
        tuple(tuple(there) for there in things.values()),
        tuple(names),
        read_groups(file.parent, {name: i for i, name in enumerate(names)}, "categories"),
        sizeless,
    )


def _size(entry: Mapping[str, Any], where: str) -> tuple[int, int]:
    height, width = (field(entry, name, int, where) for name in ("height", "width"))
    if min(height, width) < 1:
        raise DatasetError(f"{where} has a size of {width}x{height}; valid: 1 or more each")
    return height, width


def _thing(entry: Mapping[str, Any], label: int, size_hw: tuple[int, int], where: str) -> Thing:
    box = field(entry, "bbox", list, where)
    if len(box) != 4 or not all(_is_number(one) for one in box):
        raise DatasetError(f"{where}: 'bbox' is {box!r:.80}; valid: [x, y, width, height]")
    x, y, width, height = map(float, box)
    if width < 0 or height < 0:
        raise DatasetError(f"{where}: its box {box} has a negative size; valid: 0 or more each way")
    if min(x, y) < -_SPARE or x + width > size_hw[1] + _SPARE or y + height > size_hw[0] + _SPARE:
        raise DatasetError(
            f"{where}: its box {box} reaches out of its picture of {size_hw[1]}x{size_hw[0]}"
        )
    area = entry.get("area", width * height)
    if not _is_number(area) or area < 0:
        raise DatasetError(f"{where}: 'area' is {area!r:.60}; valid: a number of 0 or more")
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DatasetError(f"{where}: 'iscrowd' is {crowd!r:.60}; valid: 0 or 1")
    return Thing(label, (x, y, width, height), float(area), bool(crowd))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
