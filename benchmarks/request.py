"""What `vlrt bench footprint` and `load` ask of a model: one picture, and labels or a question."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlrt import load, load_image
from vlrt.errors import BenchmarkError, OptionError

from .subject import Subject, resolve

# Words that the tokenizers of the demo bundles know as well as those of full-size models.
LABELS = ("a red circle", "a blue square", "a green triangle", "a yellow star")
QUESTION = "what colour is the circle?"
SIZE_WH = (640, 480)
# What can be asked of a model, by its task.
METHODS = {
    "zero-shot-image-classification": "classify",
    "zero-shot-object-detection": "detect",
    "visual-question-answering": "ask",
}


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        picture: the path of a JPEG or another picture.
        drawn: whether it was drawn for this, and is not the user's.
        labels: of a classification or detection.
        question: of an answer.
    """

    picture: Path
    drawn: bool
    labels: tuple[str, ...]
    question: str

    def facts(self, method: str) -> dict[str, Any]:
        """For a result's settings: what one of `METHODS` is asked."""
        picture = f"a drawn scene, {SIZE_WH[0]}x{SIZE_WH[1]}" if self.drawn else str(self.picture)
        if method == "ask":
            return {"picture": picture, "question": self.question}
        return {"picture": picture, "labels": list(self.labels)}

    def job(self) -> dict[str, Any]:
        """For a program that is given JSON."""
        return {
            "picture": str(self.picture),
            "labels": list(self.labels),
            "question": self.question,
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """What to ask."""
    parser.add_argument("--picture", type=Path, metavar="FILE", help="default: a drawn scene")
    parser.add_argument(
        "--labels", nargs="+", metavar="LABEL", default=list(LABELS),
        help="to classify or find (default: four coloured shapes)",
    )  # fmt: skip
    parser.add_argument(
        "--question", default=QUESTION, help="to answer about the picture (default: %(default)s)"
    )


def request(options: argparse.Namespace, folder: Path) -> Request:
    """What the command line asks; a picture that it does not name is drawn into a folder.

    Raises:
        ImageError: the picture cannot be read.
    """
    picture = options.picture or folder / "scene.jpg"
    if options.picture is None:
        import numpy as np

        from vlrt_export.demo.scenes import draw_scene

        drawn = draw_scene(
            np.random.default_rng(2),  # both objects are seen, neither alone
            size_wh=SIZE_WH,
            n_objects=2,
            pairs=[("red", "circle"), ("yellow", "star")],
        )
        drawn.image.save(picture, quality=90)
    load_image(picture)
    labels = tuple(options.labels)
    return Request(Path(picture).resolve(), options.picture is None, labels, options.question)


def method(subject: Subject) -> str:
    """What can be asked of a model: "classify", "detect" or "ask".

    Raises:
        BenchmarkError: none of these.
    """
    if subject.task not in METHODS:
        raise BenchmarkError(
            f"{subject.name} is for {subject.task!r}, which is not measured here; valid: "
            f"{', '.join(METHODS)}"
        )
    return METHODS[subject.task]


def subject_of(options: argparse.Namespace, *also: str) -> Subject:
    """What the command line names, in the variants that it names.

    Where it names none, or "auto", these are the one that `precision="auto"` takes on this
    machine's CPU and those of `also` that there are.

    Raises:
        OptionError: "auto" is there beside others.
        BenchmarkError: the model answers to none of `METHODS`.
        VlrtError: as `subject.resolve` says.
    """
    automatic = options.precision in (None, ["auto"])
    if automatic:
        options.precision = None  # "auto" is no variant of a bundle's
    elif "auto" in options.precision:
        given = " ".join(options.precision)
        raise OptionError(f"--precision is {given!r}; valid: auto alone, or variants")
    found = resolve(options)
    method(found)
    if not automatic:
        return found
    taken = str(load(found.bundle, device="cpu").info["precision"])
    kept = tuple(p for p in found.precisions if p in {taken, *also})
    note = f"Variants: {taken} is what precision auto takes here"
    beside = [p for p in kept if p != taken]
    note += f"; and {', '.join(beside)}." if beside else "."
    return replace(found, precisions=kept, notes=(*found.notes, note))
