"""The engines that vlrt is compared with, a file each, behind one protocol.

A file of this folder is an engine; `--against` takes its name, with "-" for "_", or the `NAME` that
it states. Its module has

    NAME: str                   optional
    NEEDS: tuple[str, ...]      packages by the names they are imported by
    INSTALL: str                how to get them: 'pip install "vlrt[peers]"'
    NEEDS_CHECKPOINT: bool      optional, False if it is not there: whether it runs the checkpoint

    def missing(options) -> str | None
        Optional: what to do first, where it takes more than packages that can be found here.
    def entries(subject: Subject, plan: Plan) -> list[Entry]
        The contenders that it enters, in the parent; none, if it cannot run such a model.
    def refused(subject, plan) -> dict[str, str]
        Optional: the contenders that it does not enter here, and why.
    def prepare(entry, subject, plan, cache: Path) -> dict
        Optional, in the parent, before any contender is started: conversions and the like, kept in
        `cache` for the next time. What it gives is added to the contender's job.
    def load(job: Mapping[str, Any]) -> dict[str, Stage]
        In the contender's own process: what it runs of each of `job["stages"]`.

`load` runs under an interpreter of its own, which may not have vlrt: at their top, the files of
this folder import the standard library, NumPy and each other, and all else inside of functions.

A job is JSON, the same for all contenders of one batch but for what is its own:

    threads, cpus, device       "cpu" or "cuda"; the process is pinned before `load` is called
    family, bundle, checkpoint  paths; checkpoint is None where there is none
    precision                   the entry's
    batch, pictures             paths of JPEGs or others, as many as the batch
    labels, question            texts: of CLIP and of detectors; of ViLT
    threshold, iou_threshold    of detectors
    arrays                      an .npz of the stages' inputs (see `inputs`)
    stages                      those to load: of the entry's, those that this batch measures

A stage's name may have a detail, as in "encode text, 12 tokens" and "encode image, 64 pictures",
whose inputs are other arrays; `kind` gives the name without it. What a run gives is named as
follows, each array with the samples of the batch first:

    decode                  picture: uint8 [H, W, 3], the first of them
    preprocess, decode and preprocess
                            pixel_values and, of ViLT, pixel_mask
    encode image            image_embeds; of detectors image_class_embeds, logit_shift,
                            logit_scale, pred_boxes (OWLv2: and objectness_logits)
    encode text             text_embeds
    encode image and text   logits
    post-process, end to end
                            scores [B, labels] in their order; of detectors what `found` makes of
                            boxes and scores; of ViLT scores [B, 5], best first
    suppress                kept: which boxes, in ascending order

An output that a contender cannot give is left out; at least one of each stage must be there.
"""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from sys import executable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..plan import Plan
    from ..subject import Subject

Arrays = dict[str, NDArray[Any]]

DECODE, PREPROCESS, FROM_FILE = "decode", "preprocess", "decode and preprocess"
IMAGE, TEXT, BOTH = "encode image", "encode text", "encode image and text"
FINISH, SUPPRESS = "post-process", "suppress"
END, END_READY = "end to end", "end to end, labels ready"
# In the order of the tables.
STAGES = {
    "clip": (DECODE, PREPROCESS, FROM_FILE, IMAGE, TEXT, FINISH, END, END_READY),
    "owlvit": (DECODE, PREPROCESS, FROM_FILE, IMAGE, TEXT, FINISH, SUPPRESS, END, END_READY),
    "vilt": (DECODE, PREPROCESS, FROM_FILE, BOTH, FINISH, END),
}
STAGES["owlv2"] = STAGES["owlvit"]

OURS = "ours"
# Modules here that are no engines.
_SHARED = ("opened", "towers")

# What a tower gives that a GPU's head takes there: embeddings of every place of a picture, which
# nobody wants in the host's memory.
_STAYING = dict.fromkeys(("owlvit", "owlv2"), frozenset({"image_class_embeds"}))

BEST = 10  # detections that are compared, of each picture
ANSWERS = 5


@dataclass(frozen=True, eq=False)
class Entry:
    """One contender.

    Attributes:
        name: of all, such as "openvino-int8".
        engine: whose it is, as `--against` calls it; "vlrt" for ours.
        precision: "fp32", "bf16", "fp16" or one of few bits, for how exact it must be.
        stages: what it can run, out of `STAGES`.
        job: what its `load` needs beside what all are given.
        python: its interpreter.
        exact: whether its pixels must be the base's bit for bit. Those of others are reported.
        free: stages whose results are reported, and need not be those of the base.
        module: which has its `load`; filled in by `entered`.
    """

    name: str
    engine: str
    precision: str
    stages: tuple[str, ...]
    job: Mapping[str, Any] = field(default_factory=dict)
    python: str = executable
    exact: bool = False
    free: tuple[str, ...] = ()
    module: str = ""


@dataclass(frozen=True)
class Stage:
    """What a contender runs of one stage.

    Attributes:
        run: one run, to a result in the host's memory: on a GPU, too, it ends when that is there.
            What is `staying` is ready on the GPU then.
        outputs: a result as arrays by name.
    """

    run: Callable[[], Any]
    outputs: Callable[[Any], Mapping[str, NDArray[Any]]]


def engines() -> dict[str, ModuleType]:
    """The engines to compare with, by the names that `--against` takes."""
    names = [found.name for found in pkgutil.iter_modules(__path__)]
    modules = [import_module(f"{__name__}.{n}") for n in names if n not in (OURS, *_SHARED)]
    return {getattr(m, "NAME", _default_name(m)): m for m in modules}


def entered(module: ModuleType, subject: "Subject", plan: "Plan") -> list[Entry]:
    """The contenders that an engine enters, each with the module that loads it."""
    package, _, name = module.__name__.rpartition(".")
    # Run from a checkout, the package is called `benchmarks`, but never in a contender's process.
    path = f"vlrt_benchmarks.peers.{name}" if package == __name__ else module.__name__
    return [replace(entry, module=path) for entry in module.entries(subject, plan)]


def _default_name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2].replace("_", "-")


def kind(stage: str) -> str:
    """A stage's name without its detail."""
    name, _, _ = stage.partition(", ")
    return stage if stage == END_READY else name


def number_of_pictures(stage: str) -> int | None:
    """How many a stage's detail states, as in "encode image, 64 pictures"; None where it does not.

    "encode image, pictures" is where the arrays of the largest such number are kept.
    """
    _, _, detail = stage.partition(", ")
    number, _, unit = detail.partition(" ")
    return int(number) if unit == "pictures" else None


def sized(stage: str, number: int) -> str:
    """A stage on so many pictures, whatever the batch."""
    return f"{stage}, {number} pictures"


def inputs(job: Mapping[str, Any], stage: str, *, levels: bool = False) -> Arrays:
    """The arrays that a stage is run on, by the names of the graph's inputs.

    For a GPU, pictures are kept as they are cheapest to upload: `levels` uint8 [B, H, W, 3], from
    0 to 255, resized as the model takes them. Engines that take levels ask for them, and others get
    pixel_values float32 [B, 3, H, W], which are the same pictures, bit for bit.

    Of "encode image" that is pixel_values; of "encode text" input_ids and attention_mask; of
    "encode image and text" both, pixel_mask and token_type_ids; of "post-process" image_embeds,
    text_embeds (unit length) and logit_scale of CLIP; image_class_embeds, logit_shift, logit_scale,
    pred_boxes, text_embeds and size_hw int64 [B, 2] of detectors; logits of ViLT; of "suppress"
    boxes float32 [N, 4] (x0, y0, x1, y1), scores float32 [N] and labels int64 [N].
    """
    number = number_of_pictures(stage)
    start = f"{stage if number is None else kind(stage) + ', pictures'}/"
    with np.load(job["arrays"]) as file:
        names = [name for name in file if name.startswith(start)]
        made = {name.removeprefix(start): file[name] for name in names}
        if number is not None:
            made = {name: array[:number] for name, array in made.items()}
        if "levels" in made and not levels:
            made["pixel_values"] = values_of(made.pop("levels"), file["level_table"])
    return made


def staying(job: Mapping[str, Any]) -> frozenset[str]:
    """The outputs of a tower that stay on a job's device, for all contenders alike."""
    return frozenset() if job["device"] == "cpu" else _STAYING.get(job["family"], frozenset())


def level_table(job: Mapping[str, Any]) -> NDArray[np.float32]:
    """The value that each level of each channel becomes, [3, 256], of a job that has levels."""
    with np.load(job["arrays"]) as file:
        table: NDArray[np.float32] = file["level_table"]
    return table


def values_of(levels: NDArray[np.uint8], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Levels [B, H, W, 3] as what a model takes, float32 [B, 3, H, W], by a table [3, 256]."""
    return np.stack([table[channel][levels[..., channel]] for channel in range(3)], axis=1)


def levels_of(values: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What `values_of` makes these values of: the level whose value is nearest.

    Args:
        values: float32 [B, 3, H, W].
        table: float32 [3, 256], on a line but for rounding.
    """
    made = np.empty((len(values), *values.shape[2:], 3), np.uint8)
    for channel, row in enumerate(table):
        made[..., channel] = np.rint((values[:, channel] - row[0]) * (255 / (row[255] - row[0])))
    return made


def found(boxes: Sequence[NDArray[Any]], scores: Sequence[NDArray[Any]], lowest: float) -> Arrays:
    """Detections of several pictures as two arrays.

    Args:
        boxes: of each picture [K, 4], (x0, y0, x1, y1) in its pixels.
        scores: of each picture [K], in any order.
        lowest: the score that stands where a picture has less than `BEST`: the threshold, so that
            an object that is just below it in one engine makes a small difference.

    Returns:
        boxes float32 [B, BEST, 4], of no detection 0, and scores float32 [B, BEST], best first.
    """
    made = {
        "boxes": np.zeros((len(boxes), BEST, 4), np.float32),
        "scores": np.full((len(boxes), BEST), lowest, np.float32),
    }
    for picture, (own_boxes, own_scores) in enumerate(zip(boxes, scores, strict=True)):
        best = np.argsort(-np.asarray(own_scores), kind="stable")[:BEST]
        made["boxes"][picture, : len(best)] = np.asarray(own_boxes)[best]
        made["scores"][picture, : len(best)] = np.asarray(own_scores)[best]
    return made


def resized_hw(subject: "Subject", plan: "Plan") -> dict[str, tuple[int, int]]:
    """Of ViLT, by path the (height, width) that each picture becomes; in the parent.

    Empty for other families, which make all pictures one size.
    """
    if subject.family != "vilt":
        return {}
    from vlrt.bundle import open_bundle
    from vlrt.image import load_image
    from vlrt.load import import_family

    processor = import_family("vilt").image_processor(open_bundle(subject.bundle).preprocessor)
    sizes = {str(path): load_image(path).size for path in dict.fromkeys(plan.pictures)}
    return {path: processor.resized_hw(high, wide) for path, (wide, high) in sizes.items()}


def several_shapes(subject: "Subject", plan: "Plan") -> str:
    """Why an engine that takes no padding cannot run ViLT on these pictures; empty if it can.

    A single picture is of one shape; those of larger batches are padded where theirs differ.
    """
    shapes = sorted(set(resized_hw(subject, plan).values()))
    if len(shapes) < 2:
        return ""
    told = ", ".join(f"{height}x{width}" for height, width in shapes)
    return (
        f"it takes pictures of one shape alone, and these become several (height x width: {told}); "
        "give pictures of one shape, or --batch 1"
    )


def of_towers(engine: str, precisions: Sequence[str], family: str) -> list[Entry]:
    """The contenders of an engine that runs the towers alone, one for each precision."""
    stages = tuple(stage for stage in STAGES[family] if stage in (IMAGE, TEXT, BOTH))
    return [Entry(f"{engine}-{one}", engine, one, stages) for one in precisions]


def cached(cache: Path, *parts: str) -> Path:
    """A folder in the cache, made if it is not there."""
    folder = cache.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
