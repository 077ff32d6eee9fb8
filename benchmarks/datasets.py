"""What accuracy is counted on: the four formats, which of them a model takes, and a part of one."""

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vlrt.errors import OptionError

from . import dataset_captions, dataset_coco, dataset_imagenet, dataset_vqa
from .dataset_captions import Captions
from .dataset_coco import Scenes
from .dataset_imagenet import Classes
from .dataset_vqa import Questions

Dataset: TypeAlias = Classes | Scenes | Questions | Captions

FORMATS = ("imagenet", "coco", "vqa", "captions")
# What a model is for, as the hub names it -> what shows how well it does that; first the usual.
SERVING: Mapping[str, tuple[str, ...]] = {
    "zero-shot-image-classification": ("imagenet", "captions"),
    "zero-shot-object-detection": ("coco",),
    "visual-question-answering": ("vqa",),
    "image-text-retrieval": ("captions",),
}
# The main file of each format in a folder that `vlrt bench scenes` wrote.
MAIN = {"coco": "instances.json", "vqa": "questions.json", "captions": "captions.tsv"}


@dataclass(frozen=True)
class Wanted:
    """A dataset on the command line; None is what its reader takes by default.

    Attributes:
        format: one of `FORMATS`.
        path: a file, or a folder.
        images: where the pictures are.
        annotations: the answers to questions.
        classes: the labels of classes.
    """

    format: str
    path: Path
    images: Path | None = None
    annotations: Path | None = None
    classes: Path | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a dataset, and how much of it to take."""
    parser.add_argument(
        "--dataset", type=Path, metavar="PATH",
        help="a folder of classes, COCO annotations, VQA questions, or a captions file; or a "
        "folder that `vlrt bench scenes` wrote (default: scenes drawn afresh)",
    )  # fmt: skip
    parser.add_argument(
        "--format", metavar="FORMAT", help=f"of --dataset: {', '.join(FORMATS)} (default: guessed)"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR",
        help="the pictures of coco, vqa and captions (default: images beside the file, or its own "
        "folder)",
    )  # fmt: skip
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE",
        help="the answers of vqa (default: beside the questions, by its name)",
    )  # fmt: skip
    parser.add_argument(
        "--classes", type=Path, metavar="FILE",
        help="the labels of imagenet's folders: a JSON object, or lines of folder, tab, label "
        "(default: classes.json in the folder, or the folders' names)",
    )  # fmt: skip


def valid_formats(task: str) -> tuple[str, ...]:
    """The formats that serve a model.

    Raises:
        OptionError: none does.
    """
    if task not in SERVING:
        raise OptionError(
            f"there is no accuracy of {task} here; valid are models for: {', '.join(SERVING)}"
        )
    return SERVING[task]


def wanted(options: argparse.Namespace, task: str) -> Wanted:
    """What the command line names; the format is guessed where one alone fits.

    Raises:
        OptionError: an unknown format or one that does not serve the model, a path that is not
            there or whose format is not clear, or an option that has no effect.
    """
    valid = valid_formats(task)
    check_format(options.format, valid, task)
    path: Path = options.dataset
    if not path.exists():
        raise OptionError(f"--dataset {path} is not there")
    format_ = options.format or _guessed(path, valid)
    taken = {
        "images": format_ != "imagenet",
        "annotations": format_ == "vqa",
        "classes": format_ == "imagenet",
    }
    for name, has_effect in taken.items():
        if getattr(options, name) is not None and not has_effect:
            raise OptionError(f"--{name} has no effect on the format {format_}; leave it out")
    return Wanted(format_, path, options.images, options.annotations, options.classes)


def check_format(name: str | None, valid: tuple[str, ...], task: str) -> None:
    """See that a format, if one was given, serves a model.

    Raises:
        OptionError: it does not.
    """
    if name is not None and name not in FORMATS:
        raise OptionError(f"--format is {name!r}; valid: {', '.join(FORMATS)}")
    if name is not None and name not in valid:
        raise OptionError(f"--format {name} does not show {task}; valid: {', '.join(valid)}")


def _guessed(path: Path, valid: tuple[str, ...]) -> str:
    if len(valid) == 1:
        return valid[0]
    if path.is_file():
        return "captions"
    has_captions = (path / MAIN["captions"]).is_file()
    has_classes = any(p.is_dir() and p.name != "images" for p in path.iterdir())
    if has_captions == has_classes:
        what = (
            "both captions.tsv and folders" if has_captions else "neither captions.tsv nor folders"
        )
        raise OptionError(f"--dataset {path} has {what}; pass --format {' or '.join(valid)}")
    return "captions" if has_captions else "imagenet"


def read(given: Wanted) -> Dataset:
    """Read a dataset, strictly.

    Raises:
        DatasetError: something is wrong with its files, which the error names.
        OptionError: the path is a folder where a file belongs, or a file where a folder does.
    """
    if given.format == "imagenet":
        return dataset_imagenet.read(given.path, classes=given.classes)
    path = given.path
    if path.is_dir():
        path = path / MAIN[given.format]
        if not path.is_file():
            raise OptionError(
                f"{given.path} is a folder without {path.name}; valid for {given.format}: its file"
            )
    if given.format == "coco":
        return dataset_coco.read(path, images=given.images)
    if given.format == "captions":
        return dataset_captions.read(path, images=given.images)
    return dataset_vqa.read(path, annotations=given.annotations, images=given.images)


def limited(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """As many of its items as are wanted, drawn from a seed, in their order; all without a limit.

    Raises:
        OptionError: there are not as many.
    """
    if limit is None:
        return dataset
    if limit > len(dataset):
        raise OptionError(f"--limit is {limit}; {dataset.source} has {len(dataset)}")
    drawn = np.random.default_rng(seed).choice(len(dataset), limit, replace=False)
    return dataset.subset(sorted(drawn.tolist()))


def facts(dataset: Dataset, whole: int) -> dict[str, Any]:
    """For a result: what was counted on. `whole` is how much there was to take from."""
    return {
        "format": dataset.format,
        "source": str(dataset.source),
        "sha256": _sha256(dataset),
        "items": len(dataset),
        "of": whole,
        "groups": {name: len(members) for name, members in dataset.groups.items()},
    }


def state(dataset: Dataset) -> str:
    """A digest that changes when a picture's file does, by its size and when it was written."""
    files = {str(path): path.stat() for path in dataset.pictures}
    known = [(name, one.st_size, one.st_mtime_ns) for name, one in files.items()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _sha256(dataset: Dataset) -> str:
    """Of all that is known of the items, with their pictures' names; the pixels are not in it."""
    content = asdict(dataset)
    del content["source"]
    content.pop("sizeless", None)  # these are no part of it
    content["pictures"] = ["/".join(path.parts[-2:]) for path in dataset.pictures]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
