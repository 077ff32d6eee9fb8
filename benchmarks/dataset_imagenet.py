"""A folder of classes, as ImageNet's: a subfolder of pictures for each class."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlrt.errors import DatasetError
from vlrt.files import text_lines

from .dataset_files import SUFFIXES, few, need_distinct, read_groups, read_json

CLASSES = "classes.json"  # in the folder: the label of each class
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Classes:
    """Pictures of one class each.

    Attributes:
        source: the folder.
        pictures: their files.
        truth: of each picture, the position of its label.
        labels: what there is to choose from.
        groups: positions of labels to count apart, by name.
    """

    source: Path
    pictures: tuple[Path, ...]
    truth: tuple[int, ...]
    labels: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    format = "imagenet"

    def __len__(self) -> int:
        return len(self.pictures)

    def subset(self, positions: Sequence[int]) -> "Classes":
        """Some of the pictures, to be told apart by all the labels."""
        return replace(
            self,
            pictures=tuple(self.pictures[i] for i in positions),
            truth=tuple(self.truth[i] for i in positions),
        )


def read(root: Path, *, classes: Path | None = None) -> Classes:
    """Read a folder of classes.

    Args:
        root: has a folder for each class. Its files, and all names that begin with a dot, count for
            nothing.
        classes: a JSON object, or lines of a folder's name, a tab and its label; by default
            `classes.json` in the folder if it is there, or else the folders' names, with spaces for
            underscores. Classes that have no folder are labels to choose from all the same.

    Raises:
        DatasetError: no classes, a class without pictures or without a label, two with the same
            label, a file that is no picture, or folders named by WordNet ids alone.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder; valid: one with a folder for each class")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DatasetError(f"{root} has no folders in it; valid: one for each class")
    if classes is None and (root / CLASSES).is_file():
        classes = root / CLASSES
    labels = _from_names(root, folders) if classes is None else _from_file(classes)
    unnamed = [path.name for path in folders if path.name not in labels]
    if unnamed:
        raise DatasetError(f"{classes} has no label for {len(unnamed)} folders: {few(unnamed)}")
    if len(labels) < 2:
        raise DatasetError(f"{root} has one class, {folders[0].name}; valid: two to tell apart")
    need_distinct(labels.values(), f"{classes or root}: classes have a label")
    position = {name: number for number, name in enumerate(labels)}
    pairs = [(picture, position[path.name]) for path in folders for picture in _pictures(path)]
    return Classes(
        root,
        tuple(picture for picture, _ in pairs),
        tuple(truth for _, truth in pairs),
        tuple(labels.values()),
        read_groups(root, position, "classes"),
    )


def _pictures(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    strange = [path for path in files if path.suffix.lower() not in SUFFIXES or path.is_dir()]
    if strange:
        raise DatasetError(
            f"{folder} has what is no picture: {few(strange)}; valid: {' '.join(SUFFIXES)}"
        )
    if not files:
        raise DatasetError(f"{folder} is empty; valid: a folder with pictures of the class")
    return files


def _from_names(root: Path, folders: Sequence[Path]) -> dict[str, str]:
    if all(_WORDNET.fullmatch(path.name) for path in folders):
        raise DatasetError(
            f"{root}: its folders have WordNet ids for names, such as {folders[0].name}, which no "
            "model knows; pass --classes FILE with the label of each"
        )
    return {path.name: path.name.replace("_", " ").strip() for path in folders}


def _from_file(path: Path) -> dict[str, str]:
    """Labels by folder, in the file's order."""
    if path.suffix == ".json":
        labels = read_json(path)
        for name, label in labels.items():
            if not isinstance(label, str) or not label.strip():
                raise DatasetError(f"{path}: {name!r} has the label {label!r:.60}; valid: a text")
        return labels
    try:
        lines = text_lines(str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as text: {error}") from error
    pairs = [line.split("\t") for line in lines]
    for number, pair in enumerate(pairs, start=1):
        if len(pair) != 2 or not all(part.strip() for part in pair):
            raise DatasetError(
                f"{path}: label {number} is {lines[number - 1]!r:.60}; valid: a folder's name, a "
                "tab and its label"
            )
    need_distinct((name for name, _ in pairs), f"{path} names a folder")
    return {name.strip(): label.strip() for name, label in pairs}
