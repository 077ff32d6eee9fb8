"""vlrt's own variants: the graphs in its sessions, and what it does in front of and behind them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import (
    ANSWERS,
    BOTH,
    DECODE,
    END,
    END_READY,
    FINISH,
    FROM_FILE,
    IMAGE,
    PREPROCESS,
    STAGES,
    SUPPRESS,
    TEXT,
    Arrays,
    Entry,
    Stage,
    found,
    inputs,
    kind,
)

if TYPE_CHECKING:
    from vlrt.bundle import Bundle

    from ..plan import Plan
    from ..subject import Subject

NAME = "vlrt"
NEEDS: tuple[str, ...] = ()  # without ONNX Runtime nothing is measured, and vlrt says so itself
INSTALL = 'pip install "vlrt[cpu]"'

_GRAPHS = {IMAGE: "vision_model", TEXT: "text_model", BOTH: "model"}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """Every variant; and the fastest one with JPEGs decoded at a reduced size."""
    stages = STAGES[subject.family]
    made = [
        Entry(f"vlrt-{precision}", NAME, precision, stages, exact=True)
        for precision in subject.precisions
    ]
    fastest = fastest_of(subject, plan.device)
    reduced = (FROM_FILE, END)
    job = {"decode": "fast"}
    fast = Entry(f"vlrt-{fastest}-fast", NAME, fastest, reduced, job, free=reduced)
    return [*made, fast]


def fastest_of(subject: "Subject", device: str) -> str:
    """Of the variants that are measured the one that "auto" takes where nothing was tuned.

    The last, where it takes one that is not measured.

    Raises:
        BundleError: see `parts`.
    """
    from vlrt.bundle import open_bundle
    from vlrt.choice import choose_precision
    from vlrt.kernels import int8_kernels
    from vlrt.load import import_family

    bundle = open_bundle(subject.bundle)
    components = parts(import_family(subject.family), bundle)
    chosen = choose_precision(bundle, components, "auto", device, int8_kernels()).precision
    return chosen if chosen in subject.precisions else subject.precisions[-1]


def parts(family: Any, bundle: "Bundle") -> tuple[str, ...]:
    """The graphs of a bundle, each a stage.

    Raises:
        BundleError: it is not made of the family's own, but of one graph for all, say.
    """
    from vlrt.errors import BundleError
    from vlrt.load import components_of

    components = components_of(family, bundle)
    if components != family.COMPONENTS:
        raise BundleError(
            f"{bundle.name} is made of {', '.join(components)}; stages are measured apart, which "
            f"takes a bundle made of {', '.join(family.COMPONENTS)}: export one with `vlrt export`"
        )
    return components


class Opened:
    """A bundle's graphs, chosen and set as `vlrt.load` does, and what goes with them.

    Args:
        bundle: its directory.
        precision: of the graphs.
        device: "cpu" or "cuda".
        threads: inside an operator.
        names: of the graphs to open.

    Raises:
        BundleError: it is not made of the family's own graphs.
    """

    def __init__(
        self, bundle: Path, precision: str, device: str, threads: int, names: Sequence[str]
    ) -> None:
        from vlrt.bundle import open_bundle
        from vlrt.choice import choose_precision
        from vlrt.kernels import int8_kernels
        from vlrt.labels import open_tokenizer
        from vlrt.load import import_family
        from vlrt.session import Session, place

        self.bundle, self.threads = open_bundle(bundle), threads
        family = import_family(str(self.bundle.config["model_type"]))
        placement = place(device)
        components = parts(family, self.bundle)
        choice = choose_precision(
            self.bundle, components, precision, placement.kind, int8_kernels()
        )
        files = self.bundle.fetch(components, choice.precision, form=choice.form)
        self.processor = family.image_processor(self.bundle.preprocessor)
        self.tokenizer = open_tokenizer(self.bundle)
        self.graphs = {
            name: Session(
                files[name], placement, threads=threads, exact_products=choice.exact_products
            )
            for name in names
        }

    def processed(self, pictures: Sequence[Any]) -> Arrays:
        """RGB pictures, one after the other, each resized in all threads."""
        from vlrt.ragged import RaggedProcessor

        if isinstance(self.processor, RaggedProcessor):
            return self.processor.batch(
                [self.processor.pixels(one, threads=self.threads) for one in pictures]
            )
        pixels = self.processor.empty(len(pictures))
        for picture, slot in zip(pictures, pixels, strict=True):
            self.processor.into(picture, slot, self.threads)
        return {"pixel_values": pixels}

    def read(self, paths: Sequence[str], decode: str) -> Arrays:
        """Files, decoded and processed as the models do it: several at once, in threads."""
        from vlrt.ahead import read_each
        from vlrt.ragged import RaggedProcessor
        from vlrt.stream import collected, read_batches

        info = {"threads": self.threads, "decode": decode}
        if isinstance(self.processor, RaggedProcessor):
            stream = read_each(paths, self.processor, len(paths), info)
            return self.processor.batch(collected(stream, len(paths)))
        batch = next(read_batches(paths, self.processor, max(2, len(paths)), info))
        for error in filter(None, batch.errors):
            raise error
        return {"pixel_values": batch.pixel_values}


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """The stages of one variant."""
    from vlrt.image import load_image

    wanted = {_GRAPHS[kind(stage)] for stage in job["stages"] if kind(stage) in _GRAPHS}
    opened = Opened(
        Path(job["bundle"]), job["precision"], job["device"], job["threads"], sorted(wanted)
    )
    paths, decode = job["pictures"], job.get("decode", "exact")
    whole = _model(job, decode) if {END, END_READY} & set(job["stages"]) else None
    made: dict[str, Stage] = {}
    for stage in job["stages"]:
        if stage == DECODE:
            made[stage] = Stage(
                lambda: [load_image(path) for path in paths],
                lambda pictures: {"picture": np.asarray(pictures[0])},
            )
        elif stage == PREPROCESS:
            pictures = [load_image(path) for path in paths]
            made[stage] = Stage(partial(opened.processed, pictures), dict)
        elif stage == FROM_FILE:
            made[stage] = Stage(lambda: opened.read(paths, decode), dict)
        elif stage in (END, END_READY):
            made[stage] = _end_to_end(job, whole, ready=stage == END_READY)
        elif kind(stage) in _GRAPHS:
            graph = opened.graphs[_GRAPHS[kind(stage)]]
            made[stage] = Stage(partial(graph.run, inputs(job, stage)), dict)
        elif stage == SUPPRESS:
            made[stage] = _suppress(job)
        else:
            made[stage] = _POST_PROCESS[job["family"]](job, opened)
    return made


def _model(job: Mapping[str, Any], decode: str) -> Any:
    """The whole, as a user loads it."""
    import vlrt

    return vlrt.load(
        job["bundle"],
        precision=job["precision"],
        device=job["device"],
        threads=job["threads"],
        decode=decode,
    )


def _end_to_end(job: Mapping[str, Any], model: Any, *, ready: bool) -> Stage:
    """What a user calls of the model, from paths to results."""
    paths = job["pictures"]
    size = max(2, len(paths))  # all in one run
    if job["family"] == "vilt":
        return Stage(
            lambda: model.ask(paths, job["question"], top_k=ANSWERS, batch_size=size),
            lambda found: {"scores": np.stack([one.scores for one in found])},
        )
    labels = model.encode_labels(job["labels"]) if ready else job["labels"]
    if job["family"] == "clip":
        return Stage(
            lambda: model.classify(paths, labels, batch_size=size),
            lambda found: {"scores": np.stack([one.scores for one in found])},
        )
    threshold = job["threshold"]
    return Stage(
        lambda: model.detect(paths, labels, threshold=threshold, batch_size=size),
        lambda seen: found([one.boxes for one in seen], [one.scores for one in seen], threshold),
    )


def _suppress(job: Mapping[str, Any]) -> Stage:
    from vlrt.boxes import nms

    given = inputs(job, SUPPRESS)
    return Stage(
        lambda: nms(given["boxes"], given["scores"], job["iou_threshold"], given["labels"]),
        lambda kept: {"kept": np.sort(kept)},
    )


def _classify(job: Mapping[str, Any], opened: Opened) -> Stage:  # noqa: ARG001
    from vlrt.ops import l2_normalize, softmax

    given = inputs(job, FINISH)
    images, texts, scale = given["image_embeds"], given["text_embeds"], given["logit_scale"]
    return Stage(
        lambda: softmax((l2_normalize(images) @ texts.T) * scale),
        lambda scores: {"scores": scores},
    )


def _detect(job: Mapping[str, Any], opened: Opened) -> Stage:
    from vlrt.boxes import center_to_corners
    from vlrt.detection import Options, class_logits, limits, select

    given, threshold = inputs(job, FINISH), job["threshold"]
    least, options = limits(threshold, job["labels"]), Options()
    names = ("image_class_embeds", "logit_shift", "logit_scale", "pred_boxes", "size_hw")

    def run() -> list[Any]:
        found = []
        for embeds, shift, scale, boxes, size_hw in zip(*(given[n] for n in names), strict=True):
            logits = class_logits(embeds, shift, scale, given["text_embeds"])
            corners = opened.processor.to_pixels(center_to_corners(boxes), tuple(size_hw.tolist()))
            found.append(select(logits, corners, least, options))
        return found

    return Stage(
        run,
        lambda seen: found([one.boxes for one in seen], [one.scores for one in seen], threshold),
    )


def _answer(job: Mapping[str, Any], opened: Opened) -> Stage:  # noqa: ARG001
    from vlrt.ops import sigmoid, top_k

    logits = inputs(job, FINISH)["logits"]
    return Stage(
        lambda: [sigmoid(row[top_k(row, ANSWERS)]) for row in logits],
        lambda scores: {"scores": np.stack(scores)},
    )


_POST_PROCESS: dict[str, Callable[[Mapping[str, Any], Opened], Stage]] = {
    "clip": _classify,
    "owlvit": _detect,
    "owlv2": _detect,
    "vilt": _answer,
}
