"""What a comparison of latencies measures, and the pictures and arrays that it measures it on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from vlrt.errors import BundleError, OptionError
from vlrt.files import file_sha256

from .peers import (
    BOTH,
    FINISH,
    IMAGE,
    STAGES,
    SUPPRESS,
    TEXT,
    Arrays,
    kind,
    levels_of,
    number_of_pictures,
    sized,
)
from .peers.opened import Opened
from .request import LABELS
from .subject import Subject

THRESHOLD, IOU_THRESHOLD = 0.1, 0.5


@dataclass(frozen=True)
class Plan:
    """What is measured, the same for all contenders.

    Attributes:
        batches: pictures in a run, one after the other.
        pictures: paths, as many as the largest batch has.
        drawn: whether they are drawn scenes, and not the user's.
        size_wh: of drawn pictures, (width, height) in pixels.
        labels: of CLIP and of detectors.
        question: of ViLT.
        tokens: lengths of texts for further rows of "encode text".
        sizes: numbers of pictures for further rows of "encode image" or "encode image and text",
            which the processes of the first batch measure as well.
        stages: which of the family's, in the order of the tables.
        threads: inside an engine.
        cpus: that every contender is pinned to.
        device: "cpu" or "cuda".
        rounds: turns of each contender on each row.
        turn_s: seconds in a turn, about.
        warm_up_s: seconds after which warming up one stage ends, stable or not.
        threshold, iou_threshold: of detectors, the lowest score of an object, and the overlap
            (IoU) from which on the worse of two boxes is suppressed.
        optimum_python: the interpreter of an environment with optimum-onnx, if one was named.
    """

    batches: tuple[int, ...]
    pictures: tuple[Path, ...]
    drawn: bool
    size_wh: tuple[int, int]
    labels: tuple[str, ...]
    question: str
    tokens: tuple[int, ...]
    stages: tuple[str, ...]
    threads: int
    cpus: tuple[int, ...]
    device: str
    rounds: int
    turn_s: float
    warm_up_s: float
    threshold: float = THRESHOLD
    iou_threshold: float = IOU_THRESHOLD
    optimum_python: str | None = None
    sizes: tuple[int, ...] = ()

    @property
    def most(self) -> int:
        """Pictures in the largest run."""
        return max(*self.batches, *self.sizes, 0)

    def on(self, pictures: Sequence[Path], stages: Sequence[str]) -> "Plan":
        """The same on pictures, for as much of it as these stages are."""
        return replace(self, pictures=tuple(pictures), stages=tuple(stages))

    def paths(self, batch: int) -> list[str]:
        """The pictures of a batch."""
        return [str(path) for path in self.pictures[:batch]]

    def rows(self, batch: int) -> list[str]:
        """What is measured of a batch, in the order of the tables.

        What no batch changes, labels and one picture's boxes, is measured with the first alone.
        """
        rows = []
        for stage in self.stages:
            if batch == self.batches[0] or stage not in (TEXT, SUPPRESS):
                rows.append(stage)
            if stage == TEXT:
                rows += [f"{TEXT}, {length} tokens" for length in self.tokens]
            if stage in (IMAGE, BOTH) and batch == self.batches[0]:
                rows += [sized(stage, number) for number in self.sizes]
        return rows

    def items(self, row: str, batch: int) -> int:
        """Pictures or, of "encode text", texts in a run."""
        if row == TEXT:
            return len(self.labels)
        return 1 if row == SUPPRESS else number_of_pictures(row) or batch

    def facts(self) -> dict[str, Any]:
        """All that decides what is measured, ready for JSON; drawn pictures by how they are drawn.

        Those of the user are told apart by what is in the files.
        """
        told = asdict(self) | {"pictures": []}
        if not self.drawn:
            told["size_wh"] = None
            distinct = dict.fromkeys(self.pictures)
            told["pictures"] = [[path.name, file_sha256(path)] for path in distinct]
        return told


def check(plan: Plan, subject: Subject) -> None:
    """Refuse what the model cannot be measured on.

    Raises:
        OptionError: a family, a task or a length of texts that cannot be measured.
    """
    if subject.family not in STAGES:
        raise OptionError(f"{subject.name} is of {subject.family}; valid: {', '.join(STAGES)}")
    if subject.family == "vilt" and subject.task != "visual-question-answering":
        raise OptionError(
            f"{subject.name} is for {subject.task}; latency is measured of ViLT models for "
            "visual-question-answering"
        )
    unknown = [stage for stage in plan.stages if stage not in STAGES[subject.family]]
    if unknown:
        raise OptionError(
            f"{subject.family} has no stage {unknown[0]!r}; valid: "
            + ", ".join(repr(stage) for stage in STAGES[subject.family])
        )
    if plan.tokens and TEXT not in plan.stages:
        raise OptionError(
            f"--tokens {plan.tokens[0]} adds rows to {TEXT!r}, which is not measured here; leave "
            "it out"
        )
    if plan.sizes and not {IMAGE, BOTH} & set(plan.stages):
        raise OptionError(
            f"--sizes {plan.sizes[0]} adds rows to {IMAGE!r} or {BOTH!r}, which are not measured "
            "here; leave it out"
        )


def drawn_pictures(folder: Path, number: int, size_wh: tuple[int, int]) -> tuple[Path, ...]:
    """JPEGs of drawn scenes, kept in `folder` for the next time.

    Each shows one to four of the things that `request.LABELS` names, so that there is something to
    find.
    """
    from vlrt_export.demo.scenes import draw_scene

    folder.mkdir(parents=True, exist_ok=True)
    named = [(colour, shape) for _, colour, shape in (label.split() for label in LABELS)]
    paths = []
    for position in range(number):
        path = folder / f"drawn-{size_wh[0]}x{size_wh[1]}-{position}.jpg"
        if not path.is_file():
            rng = np.random.default_rng((0, position))
            made = path.with_suffix(".part")
            scene = draw_scene(rng, size_wh=size_wh, n_objects=(1, len(named)), pairs=named)
            scene.image.save(made, "JPEG", quality=90)
            made.replace(path)
        paths.append(path)
    return tuple(paths)


def given_pictures(paths: Sequence[Path], number: int) -> tuple[Path, ...]:
    """The user's pictures, again from the first where there are too few.

    Raises:
        ImageError: one of them cannot be read; it is named.
    """
    from vlrt.image import load_image

    for path in paths:
        load_image(path)
    return tuple(islice(cycle(path.resolve() for path in paths), number))


def make_arrays(subject: Subject, plan: Plan, batch: int, path: Path) -> None:
    """Write what the stages of a batch are run on, as `peers.inputs` reads it.

    Made once, by vlrt in fp32 or its first variant, out of the batch's pictures and texts.

    Raises:
        TextError: a label or the question is too long for the model.
        BundleError: the bundle does not state what its family needs.
    """
    precision = "fp32" if "fp32" in subject.precisions else subject.precisions[0]
    names = ("model",) if subject.family == "vilt" else ("vision_model", "text_model")
    if not {FINISH, SUPPRESS} & set(plan.stages):
        names = ()  # what towers start from takes no graph
    # On the CPU: what a run there gives is the same wherever the contenders run.
    opened = Opened(subject.bundle, precision, "cpu", plan.threads, names)
    seen = opened.read(plan.paths(batch), "exact")
    if subject.family == "vilt":
        made = _pairs(opened, [plan.question] * batch, seen)
    else:
        made = _towers(opened, subject.family, plan, batch, seen)
        made |= _texts(opened, plan.tokens, batch)
    tower = BOTH if subject.family == "vilt" else IMAGE
    if plan.sizes and batch == plan.batches[0]:
        most = max(plan.sizes)
        more = opened.read(plan.paths(most), "exact")
        if subject.family == "vilt":
            more = _pairs(opened, [plan.question] * most, more, finish=False)[BOTH]
        made[f"{tower}, pictures"] = more
    named: dict[str, Any] = {}
    if plan.device != "cpu" and subject.family != "owlv2":  # whose pictures are no whole levels
        table = named["level_table"] = opened.processor.levels.table
        for stage in [stage for stage in made if kind(stage) == tower]:
            made[stage] = _as_levels(made[stage], table)
    named |= {
        f"{stage}/{name}": array for stage, own in made.items() for name, array in own.items()
    }
    np.savez(path, **named)


def _as_levels(arrays: Arrays, table: Any) -> Arrays:
    """The same, with pictures as `peers.inputs` tells of GPUs."""
    kept = {name: array for name, array in arrays.items() if name != "pixel_values"}
    return {"levels": levels_of(arrays["pixel_values"], table), **kept}


def _pairs(
    opened: Opened, questions: Sequence[str], seen: Arrays, *, finish: bool = True
) -> dict[str, Arrays]:
    tokens = opened.tokenizer.pad(opened.tokenizer.ids(questions, what="question"))
    both = {**tokens, "token_type_ids": np.zeros_like(tokens["input_ids"]), **seen}
    if not finish or not opened.graphs:
        return {BOTH: both}
    return {BOTH: both, FINISH: opened.graphs["model"].run(both)}


def _towers(opened: Opened, family: str, plan: Plan, batch: int, seen: Arrays) -> dict[str, Arrays]:
    from vlrt.image import decode
    from vlrt.ops import l2_normalize

    tokens = opened.tokenizer.pad(opened.tokenizer.ids(plan.labels, what="label"))
    made = {IMAGE: seen, TEXT: dict(tokens)}
    if not opened.graphs:
        return made
    finish = made[FINISH] = opened.graphs["vision_model"].run(seen)
    finish["text_embeds"] = l2_normalize(opened.graphs["text_model"].run(tokens)["text_embeds"])
    if family == "clip":
        scale = opened.bundle.values.get("logit_scale")
        if scale is None:
            raise BundleError(f"{opened.bundle.name} does not state its logit_scale")
        finish["logit_scale"] = np.asarray(scale, np.float32)
        return made
    sizes = [decode(path).original_size_hw for path in plan.paths(batch)]
    finish["size_hw"] = np.array(sizes, np.int64)
    made[SUPPRESS] = _boxes(opened, finish)
    return made


def _boxes(opened: Opened, finish: Arrays) -> Arrays:
    """Every place of the first picture, with its best label."""
    from vlrt.boxes import center_to_corners
    from vlrt.detection import class_logits
    from vlrt.ops import sigmoid

    embeds, shift, scale = (
        finish[name][0] for name in ("image_class_embeds", "logit_shift", "logit_scale")
    )
    logits = class_logits(embeds, shift, scale, finish["text_embeds"])
    corners = center_to_corners(finish["pred_boxes"][0])
    height, width = finish["size_hw"][0].tolist()
    return {
        "boxes": opened.processor.to_pixels(corners, (height, width)),
        "scores": sigmoid(logits.max(axis=1)),
        "labels": logits.argmax(axis=1).astype(np.int64),
    }


def _texts(opened: Opened, lengths: Sequence[int], number: int) -> dict[str, Arrays]:
    """Texts of so many tokens: captions of drawn scenes, cut in the middle.

    Raises:
        OptionError: the model does not take such a length.
    """
    longest, shortest = opened.tokenizer.max_length, 3
    made = {}
    for length in lengths:
        if not shortest <= length <= longest:
            raise OptionError(f"--tokens is {length}; valid: {shortest} to {longest}")
        rng = np.random.default_rng(length)
        rows = []
        for _ in range(number):
            # More than any length takes; its last token ends the text, as it does in a shorter one.
            ids = opened.tokenizer.ids([_caption(rng, length)], truncate=True)[0]
            rows.append([*ids[: length - 1], ids[-1]])
        made[f"{TEXT}, {length} tokens"] = dict(opened.tokenizer.pad(rows))
    return made


def _caption(rng: np.random.Generator, words: int) -> str:
    """Colours and shapes in some order, at least so many words."""
    from vlrt_export.demo.scenes import ALL_PAIRS

    pairs = [ALL_PAIRS[at] for at in rng.integers(len(ALL_PAIRS), size=words)]
    return " and ".join(f"a {colour} {shape}" for colour, shape in pairs)
