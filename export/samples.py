"""Pictures and texts to verify on and to take scales from: drawn ones, or the user's own."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from vlrt.errors import ExportError, ImageError
from vlrt.files import text_lines
from vlrt.image import load_image
from vlrt.load import import_family

from .checkpoint import Checkpoint
from .demo.captions import describe, word_caption
from .demo.questions import KINDS, ask
from .demo.scenes import ALL_PAIRS, MAX_OBJECTS, Plan, draw_plan, draw_scene

T = TypeVar("T")

DRAWN = "drawn"  # what `vlrt export --calibrate` takes for the built-in pictures and texts
FEWEST_TO_SPLIT = 8
# Of the user's own, as many times what a family verifies on: half of them for scales.
_MOST_PICTURES = 2
_MOST_TEXTS = 512
_VALID = f"valid: a directory of pictures, a text file with one text a line, or {DRAWN!r}"

_VERIFY, _CALIBRATE = 0, 1  # seeds: what is verified on is never what scales were taken from
_SIZES_WH = [(320, 320), (480, 270), (240, 400), (640, 128)]
_SENTENCES = {
    _VERIFY: [
        "a photo of a cat",
        "two dogs playing in the snow",
        "an aerial view of a harbour at night",
        "a handwritten letter, dated 1912",
        "a diagram of a neural network with three layers",
        "the cover of a paperback novel",
        "a bowl of ripe strawberries on a wooden kitchen table beside an open window",
        "nothing",
    ],
    # Scales for texts of all kinds: words of everyday, names, numbers, marks, other languages.
    _CALIBRATE: [
        "a photo of a dog",
        "a close-up photo of the face of an old man with a beard",
        "a low resolution satellite photo of annual crop land",
        "the Eiffel Tower seen from the Seine, Paris, 14 July 1989",
        "children flying kites on a beach while their parents watch",
        "a bad photo of a hard to see train",
        "a blurry black and white x-ray",
        "graffiti that says STOP!",
        "3 + 4 = 7",
        "ein roter Apfel auf einem Holztisch",
        "un chat qui dort sur le canapé",
        "a jar of honey, a loaf of bread & a knife (on a chopping board)",
        "a busy street in Tokyo with neon signs in the rain",
        "an astronaut riding a horse, oil on canvas",
        "a screenshot of a web page",
        "x",
    ],
}


@dataclass(frozen=True)
class Samples:
    """What an export verifies on, and what it takes scales from.

    Attributes:
        images, texts: to verify on; the family makes pairs of them where it needs pairs.
        calibration_images, calibration_texts: to take scales from; empty for none.
        source: where they are from, in words.
        drawn: all are built in.
        held_out: nothing that is verified on is taken scales from.
        asked_for: which inputs the caller gave data for, "pixel_values", "input_ids" or both. A
            graph that takes none of them has scales of each batch's own: what is built in may not
            suit it.
    """

    images: list[Image.Image]
    texts: list[str]
    calibration_images: list[Image.Image] = field(default_factory=list)
    calibration_texts: list[str] = field(default_factory=list)
    source: str = "the caller's"
    drawn: bool = False
    held_out: bool = True
    asked_for: frozenset[str] = frozenset({"pixel_values", "input_ids"})

    def __post_init__(self) -> None:
        if not self.images or not self.texts:
            raise ExportError("there is no picture or no text to verify on; valid: one of each")
        if bool(self.calibration_images) != bool(self.calibration_texts):
            raise ExportError(
                "scales are to come from pictures alone, or from texts alone; valid: both or none"
            )


def default(family: Any, checkpoint: Checkpoint) -> Samples:
    """What is built in, to verify on alone.

    Args:
        family: its module in `export`, which says how many.
        checkpoint: what it was trained for decides on captions or questions.
    """
    return Samples(
        _images(family, checkpoint, _VERIFY),
        _texts(family, checkpoint, _VERIFY),
        source="drawn scenes",
        drawn=True,
    )


def read(paths: Sequence[str | os.PathLike[str]], family: Any, checkpoint: Checkpoint) -> Samples:
    """The user's own pictures and texts, to take scales from and to verify on.

    Every second picture and every second text is for scales, and the others are for verification;
    all serve both where there are fewer than 8 of a kind. Many are thinned out evenly, in the order
    of their names or lines, to twice what the family verifies on, or to 512 texts. What there
    is none of is built in.

    Args:
        paths: directories of pictures, and UTF-8 text files with one text a line; or "drawn" alone,
            for what is built in.
        family, checkpoint: as `default` takes them.

    Raises:
        ExportError: a path is none of these, cannot be read, is empty or of the wrong kind.
    """
    given = [os.fspath(path) for path in paths]
    files, lines = ([], []) if given == [DRAWN] else _gathered(given)
    chosen = _thinned(files, _MOST_PICTURES * family.PICTURES)
    kept = _thinned(lines, _MOST_PICTURES * family.TEXTS if family.TEXTS else _MOST_TEXTS)
    images = _halves([_picture(path) for path in chosen])
    texts = _halves(kept)
    if not chosen:
        images = _images(family, checkpoint, _VERIFY), _images(family, checkpoint, _CALIBRATE)
    if not kept:
        texts = _texts(family, checkpoint, _VERIFY), _texts(family, checkpoint, _CALIBRATE)
    words = [
        _counted(chosen, files, "pictures") if files else "drawn scenes",
        _counted(kept, lines, "texts") if lines else "built-in texts",
    ]
    drawn = not files and not lines
    names = ", ".join(Path(path).resolve().name for path in given)  # a manifest is for others
    return Samples(
        images[0],
        texts[0],
        images[1],
        texts[1],
        source="drawn scenes" if drawn else f"{' and '.join(words)}, of {names}",
        drawn=drawn,
        asked_for=frozenset(
            name for name, own in (("pixel_values", chosen), ("input_ids", kept)) if own or drawn
        ),
        held_out=all(not own or len(own) >= FEWEST_TO_SPLIT for own in (chosen, kept)),
    )


def drawn_pictures(number: int, seed: int = _VERIFY) -> list[Image.Image]:
    """Drawn scenes of one to five objects, square, wide, tall and very wide."""
    return [
        draw_scene(
            np.random.default_rng((seed, at)), size_wh=_size_wh(at), n_objects=(1, MAX_OBJECTS)
        ).image
        for at in range(number)
    ]


def texts(number: int | None = None) -> list[str]:
    """Labels of every colour and shape, and sentences of one to fifteen words.

    Args:
        number: so many of them, from the first to the last; None for all.
    """
    found = [f"a {colour} {shape}" for colour, shape in ALL_PAIRS] + _SENTENCES[_VERIFY]
    return _thinned(found, len(found) if number is None else number)


def captions(number: int, seed: int = _CALIBRATE) -> list[str]:
    """Captions of two or three objects, in many wordings, and sentences about other things."""
    sentences = _thinned(_SENTENCES[seed], number // 3)
    worded = []
    for at in range(number - len(sentences)):
        rng = np.random.default_rng((seed, at, 1))
        scene = draw_scene(rng, size_wh=(8, 8), n_objects=(2, 3))  # nobody looks at it
        worded.append(word_caption(rng, describe(rng, scene.objects, (0.3, 0.8, 0.8))).text)
    return sentences + worded


def questions(number: int, seed: int = _VERIFY) -> list[tuple[Plan, str]]:
    """Scenes to draw, and a question about each: of every kind in turn, which the scene answers."""
    made = []
    for at in range(number):
        rng = np.random.default_rng((seed, at, 2))
        plan, asked = ask(rng, list(KINDS)[at % len(KINDS)], _size_wh(at))
        made.append((plan, asked.question))
    return made


def _size_wh(at: int) -> tuple[int, int]:
    return _SIZES_WH[at % len(_SIZES_WH)]


def _images(family: Any, checkpoint: Checkpoint, seed: int) -> list[Image.Image]:
    """What is built in; of a model that answers, the scenes of `_texts`, one for each."""
    if not _answers(checkpoint):
        return drawn_pictures(family.PICTURES, seed)
    return [
        draw_plan(plan, _size_wh(at)).image
        for at, (plan, _) in enumerate(questions(family.PICTURES, seed))
    ]


def _texts(family: Any, checkpoint: Checkpoint, seed: int) -> list[str]:
    """What is built in: questions for a model that answers, labels and captions for others."""
    if _answers(checkpoint):
        return [question for _, question in questions(family.TEXTS, seed)]
    if seed == _VERIFY:
        return texts(family.TEXTS)
    return captions(family.TEXTS or len(texts()), seed)


def _answers(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint was trained to answer questions."""
    task = import_family(checkpoint.model_type).task(checkpoint.json("config.json"))
    return bool(task == "visual-question-answering")


def _gathered(paths: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files of all directories, and the lines of all text files."""
    files: list[Path] = []
    lines: list[str] = []
    if not paths:
        raise ExportError(f"no path was given to calibrate on; {_VALID}")
    if DRAWN in paths:
        raise ExportError(f"{DRAWN!r} brings pictures and texts and stands alone; {_VALID}")
    for path in paths:
        try:
            if Path(path).is_dir():
                files += _files(path)
            elif Path(path).exists():
                lines += _lines(path)
            else:
                raise ExportError(f"{path!r} does not exist; {_VALID}")
        except (OSError, UnicodeDecodeError) as error:
            raise ExportError(f"{path!r} cannot be read: {error}; {_VALID}") from error
    return files, lines


def _files(directory: str) -> list[Path]:
    found = [path for path in sorted(Path(directory).iterdir()) if path.is_file()]
    if not found:
        raise ExportError(f"the directory {directory!r} holds no pictures")
    return found


def _lines(file: str) -> list[str]:
    found = text_lines(file)
    if any("\0" in line for line in found):
        raise ExportError(f"{file!r} is no text file; {_VALID}")
    if not found:
        raise ExportError(f"{file!r} holds no texts")
    return found


def _picture(path: Path) -> Image.Image:
    try:
        return load_image(path)
    except ImageError as error:
        raise ExportError(f"{str(path.parent)!r} must hold pictures alone: {error}") from error


def _thinned(items: list[T], most: int) -> list[T]:
    """At most so many, evenly spread, from the first to the last."""
    at = np.linspace(0, len(items) - 1, min(most, len(items)))
    return [items[round(position)] for position in at]


def _halves(items: list[T]) -> tuple[list[T], list[T]]:
    """What to verify on and what to take scales from; few items serve both."""
    if len(items) < FEWEST_TO_SPLIT:
        return items, items
    return items[1::2], items[::2]


def _counted(chosen: Sequence[object], of: Sequence[object], kind: str) -> str:
    number = f"{len(chosen)}" if len(chosen) == len(of) else f"{len(chosen)} of {len(of)}"
    return f"{number} {kind}"
