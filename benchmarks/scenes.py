"""`vlrt bench scenes`: the drawn scenes as datasets, in the formats that real ones have.

    vlrt bench scenes -o shapes --format coco --amount 500
    vlrt bench accuracy MODEL --dataset shapes

They are those that the demonstration models are scored on (`vlrt_export.demo`): never trained on,
of 64 pairs of a colour and a shape, of which training never showed eight. Pictures are PNG, exactly
as drawn. `groups.json` tells seen pairs from never seen ones, or the kinds of questions apart.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlrt.checks import checked_count
from vlrt.errors import OptionError
from vlrt.files import writing

from .dataset_files import GROUPS
from .dataset_imagenet import CLASSES
from .dataset_vqa import ANSWERS
from .datasets import FORMATS, MAIN

if TYPE_CHECKING:
    from vlrt_export.demo.captions import Phrase
    from vlrt_export.demo.scenes import Scene

SEED = 4321  # that of `vlrt_export.demo.evaluate`, and so of what the demo checkpoints state
# Pictures of each pair, scenes, questions of each kind, captioned scenes.
AMOUNTS = {"imagenet": 25, "coco": 500, "vqa": 200, "captions": 200}
SEEN, NEVER_SEEN = "seen", "never seen"
_TRIES = 200  # scenes drawn for each that is kept, until there is none to be found


def add(verbs: Any) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser("scenes", help="write drawn scenes as a dataset", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--format", required=True, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument(
        "--amount", type=int, metavar="N",
        help="pictures of each of 64 classes (imagenet, default 25), scenes (coco, 500), questions "
        "of each of five kinds (vqa, 200), captioned scenes (captions, 200)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write a dataset, and say what to do with it."""
    amount = options.amount if options.amount is not None else AMOUNTS.get(options.format, 1)
    number = write(options.output, options.format, amount, options.seed)
    print(f"{number} pictures in {options.output}; count on them with:")
    print(f"vlrt bench accuracy MODEL --dataset {options.output} --format {options.format}")
    return 0


def write(out: Path, format_: str, amount: int, seed: int) -> int:
    """Write drawn scenes as a dataset; nothing is left behind if that fails.

    Args:
        out: a folder that is not there yet, or is empty.
        format_: one of `FORMATS`.
        amount: as `AMOUNTS` counts it.
        seed: of the drawing, 0 or more.

    Returns:
        How many pictures there are.

    Raises:
        OptionError: an unknown format, no amount, a seed below 0, a folder that has something in
            it, or that cannot be written; or more captions than there are different scenes.
    """
    if format_ not in _WRITERS:
        raise OptionError(f"--format is {format_!r}; valid: {', '.join(_WRITERS)}")
    checked_count("--amount", amount)
    if seed < 0:
        raise OptionError(f"--seed is {seed}; valid: a whole number of 0 or more")
    with writing(out):
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise OptionError(f"{out} is there already; choose a folder that is not, or is empty")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            number = _WRITERS[format_](made, amount, seed)
            if out.is_dir():
                out.rmdir()
            made.replace(out)
    return number


def cached(cache: Path, format_: str, amount: int, seed: int) -> Path:
    """A folder of drawn scenes under `cache`, written the first time."""
    import vlrt

    out = cache / f"scenes-{vlrt.__version__}-{format_}-{amount}-{seed}"
    if not out.is_dir():
        write(out, format_, amount, seed)
    return out


def _save(scene_image: Any, path: Path) -> None:
    scene_image.save(path, "PNG", compress_level=1)  # the same pixels at any level


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _pair_groups(names: Sequence[str]) -> dict[str, list[str]]:
    """The names of all pairs, in their order, by whether training showed them."""
    from vlrt_export.demo.scenes import ALL_PAIRS, SEEN_PAIRS

    seen = [pair in SEEN_PAIRS for pair in ALL_PAIRS]
    return {
        SEEN: [name for name, is_seen in zip(names, seen, strict=True) if is_seen],
        NEVER_SEEN: [name for name, is_seen in zip(names, seen, strict=True) if not is_seen],
    }


def _write_classes(root: Path, amount: int, seed: int) -> int:
    """Scenes of one object, in a folder for each pair."""
    from vlrt_export.demo.captions import label
    from vlrt_export.demo.evaluate import single_object_scenes
    from vlrt_export.demo.scenes import ALL_PAIRS, HELD_OUT_PAIRS, SEEN_PAIRS

    folders = {pair: "_".join(pair) for pair in ALL_PAIRS}
    number = 0
    for pairs in (SEEN_PAIRS, HELD_OUT_PAIRS):
        scenes = single_object_scenes(pairs, amount, (256, 256), seed)
        for position, scene in enumerate(scenes):
            folder = root / folders[pairs[position // amount]]
            folder.mkdir(exist_ok=True)
            _save(scene.image, folder / f"{position % amount:05d}.png")
            number += 1
    _write_json(root / CLASSES, {folders[pair]: label(pair) for pair in ALL_PAIRS})
    _write_json(root / GROUPS, _pair_groups(list(folders.values())))
    return number


def _write_instances(root: Path, amount: int, seed: int) -> int:
    """Scenes of one to five objects, each with its box."""
    from vlrt_export.demo.captions import label
    from vlrt_export.demo.detection_accuracy import LABELS, fresh_scenes

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (root / "images").mkdir()
    for number, scene in enumerate(fresh_scenes(amount, seed), start=1):
        name = f"{number:012d}.png"
        _save(scene.image, root / "images" / name)
        width, height = scene.image.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": LABELS.index(label((thing.colour, thing.shape))) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(LABELS, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    _write_json(root / MAIN["coco"], content)
    _write_json(root / GROUPS, _pair_groups(LABELS))
    return len(images)


def _write_questions(root: Path, amount: int, seed: int) -> int:
    """Questions of every kind, each about a scene of its own, which ten people answer alike."""
    from vlrt_export.demo.question_accuracy import fresh_questions

    (root / "images").mkdir()
    questions, annotations = [], []
    kinds: dict[str, list[int]] = {}
    for number, (asked, image) in enumerate(fresh_questions(amount, seed), start=1):
        _save(image, root / "images" / f"{number}.png")
        ids = {"question_id": number, "image_id": number}
        questions.append({**ids, "question": asked.question})
        people = [
            {"answer_id": i, "answer": asked.answer, "answer_confidence": "yes"}
            for i in range(1, ANSWERS + 1)
        ]
        annotations.append(
            {
                **ids,
                "question_type": asked.kind,
                "answer_type": _answer_type(asked.answer),
                "multiple_choice_answer": asked.answer,
                "answers": people,
            }
        )
        kinds.setdefault(asked.kind, []).append(number)
    _write_json(root / MAIN["vqa"], {"data_subtype": "drawn", "questions": questions})
    _write_json(root / "annotations.json", {"data_subtype": "drawn", "annotations": annotations})
    _write_json(root / GROUPS, kinds)
    return len(questions)


def _answer_type(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "number" if answer.isdecimal() else "other"


def _write_captions(root: Path, amount: int, seed: int) -> int:
    """Scenes of two or three objects, with a caption that is true of no other of the scenes."""
    import numpy as np

    from vlrt_export.demo.captions import describe, is_true, word_caption
    from vlrt_export.demo.detection_accuracy import SIZES_WH
    from vlrt_export.demo.scenes import draw_scene

    rng = np.random.default_rng((seed, 10 << 32))
    kept: list[tuple[Scene, tuple[Phrase, ...]]] = []
    lines: list[str] = []
    (root / "images").mkdir()
    for _ in range(amount * _TRIES):
        if len(kept) == amount:
            break
        scene = draw_scene(rng, size_wh=SIZES_WH[len(kept) % len(SIZES_WH)], n_objects=(2, 3))
        phrases = describe(rng, scene.objects, (1.0, 1.0, 1.0))
        if any(
            is_true(phrases, other.objects) or is_true(theirs, scene.objects)
            for other, theirs in kept
        ):
            continue
        kept.append((scene, phrases))
        name = f"images/{len(kept):05d}.png"
        _save(scene.image, root / name)
        lines.append(f"{name}\t{word_caption(rng, phrases).text}\n")
    if len(kept) < amount:
        raise OptionError(f"--amount is {amount}; of {len(kept)} scenes no caption fits another")
    (root / MAIN["captions"]).write_text("".join(lines), encoding="utf-8")
    return len(kept)


_WRITERS = {
    "imagenet": _write_classes,
    "coco": _write_instances,
    "vqa": _write_questions,
    "captions": _write_captions,
}
