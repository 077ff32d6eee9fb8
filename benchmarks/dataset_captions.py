"""Captions of pictures: lines of a path, a tab and a caption, or COCO's captions format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as member
from pathlib import Path

from vlrt.errors import DatasetError
from vlrt.files import text_lines

from .dataset_files import (
    by_id,
    entries,
    few,
    field,
    need_distinct,
    need_pictures,
    picture_folder,
    read_json,
)


@dataclass(frozen=True)
class Captions:
    """Pictures with one or more captions each.

    Attributes:
        source: the file.
        pictures: their files.
        captions: all of them.
        owners: of each caption, the position of its picture.
        groups: none; only so that all datasets have them.
    """

    source: Path
    pictures: tuple[Path, ...]
    captions: tuple[str, ...]
    owners: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]] = member(default_factory=dict)
    format = "captions"

    def __len__(self) -> int:
        return len(self.pictures)

    def subset(self, positions: Sequence[int]) -> "Captions":
        """Some of the pictures with their captions, and no others to search among."""
        moved = {old: new for new, old in enumerate(positions)}
        kept = [
            (text, moved[owner])
            for text, owner in zip(self.captions, self.owners, strict=True)
            if owner in moved
        ]
        return replace(
            self,
            pictures=tuple(self.pictures[i] for i in positions),
            captions=tuple(text for text, _ in kept),
            owners=tuple(owner for _, owner in kept),
        )


def read(file: Path, *, images: Path | None = None) -> Captions:
    """Read a captions file: COCO's JSON, or else lines of text.

    Args:
        file: such as COCO's `captions_val2017.json`, or a line a caption: the picture's path, which
            may be relative to `images`, a tab, and the caption.
        images: the folder of the pictures; by default of JSON `images` beside the file if it is
            there, and else the file's own.

    Raises:
        DatasetError: a picture that is missing or has no caption, an id of no image, an empty
            caption, or a line of another kind.
    """
    is_json = file.suffix == ".json"
    pairs = _from_json(file, images) if is_json else _from_lines(file, images)
    pictures = {path: number for number, path in enumerate(dict.fromkeys(p for p, _ in pairs))}
    need_pictures(pictures, str(file))
    return Captions(
        file,
        tuple(pictures),
        tuple(text for _, text in pairs),
        tuple(pictures[path] for path, _ in pairs),
    )


def _from_lines(file: Path, images: Path | None) -> list[tuple[Path, str]]:
    try:
        lines = text_lines(str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} cannot be read as text: {error}") from error
    if not lines:
        raise DatasetError(f"{file} has no captions")
    folder = file.parent if images is None else picture_folder(file, images)
    pairs = []
    for number, line in enumerate(lines, start=1):
        name, _, text = line.partition("\t")
        if not text.strip():
            raise DatasetError(
                f"{file}: caption {number} is {line!r:.60}; valid: a picture's path, a tab and its "
                "caption"
            )
        pairs.append((folder / name.strip(), text.strip()))
    return pairs


def _from_json(file: Path, images: Path | None) -> list[tuple[Path, str]]:
    found = read_json(file)
    folder = picture_folder(file, images)
    shown = by_id(entries(found, "images", file), "id", file, "image")
    paths = {
        number: folder / field(entry, "file_name", str, f"{file}: image {number}")
        for number, entry in shown.items()
    }
    need_distinct(paths.values(), f"{file}: images have a file_name")
    pairs = []
    for number, entry in by_id(
        entries(found, "annotations", file), "id", file, "annotation"
    ).items():
        where = f"{file}: annotation {number}"
        image = field(entry, "image_id", int, where)
        if image not in paths:
            raise DatasetError(f"{where} is of image {image}, which is not among the images")
        pairs.append((paths[image], field(entry, "caption", str, where).strip()))
    described = {path for path, _ in pairs}
    bare = [number for number, path in paths.items() if path not in described]
    if bare:
        raise DatasetError(f"{file}: {len(bare)} of its images have no caption: {few(bare)}")
    return pairs
