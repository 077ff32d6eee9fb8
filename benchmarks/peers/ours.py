"""vlrt's own variants: the graphs in its sessions, and what it does in front of and behind them."""

from collections.abc import Callable, Mapping
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
    level_table,
    staying,
    values_of,
)
from .opened import Opened, parts

if TYPE_CHECKING:
    from ..plan import Plan
    from ..subject import Subject

NAME = "vlrt"
NEEDS: tuple[str, ...] = ()  # without ONNX Runtime nothing is measured, and vlrt says so itself
INSTALL = 'pip install "vlrt[cpu]"'

_GRAPHS = {IMAGE: "vision_model", TEXT: "text_model", BOTH: "model"}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """Every variant; on a GPU each as CUDA graphs too; the fastest with JPEGs decoded smaller."""
    stages, precisions = STAGES[subject.family], subject.precisions
    if plan.device != "cpu":
        precisions = tuple(p for p in precisions if p in _on_cuda(subject))
    made = [Entry(f"vlrt-{p}", NAME, p, stages, exact=True) for p in precisions]
    if plan.device != "cpu":
        graphs = {"cuda_graph": True}
        made += [
            Entry(f"vlrt-{p}-cuda-graph", NAME, p, stages, graphs, exact=True) for p in precisions
        ]
    fastest = fastest_of(subject, plan.device)
    reduced = (FROM_FILE, END)
    job = {"decode": "fast"}
    fast = Entry(f"vlrt-{fastest}-fast", NAME, fastest, reduced, job, free=reduced)
    return [*made, fast]


def _on_cuda(subject: "Subject") -> list[str]:
    """The precisions of the bundle that CUDA has kernels for."""
    from vlrt.bundle import open_bundle
    from vlrt.choice import runs_on_cuda
    from vlrt.load import import_family

    bundle = open_bundle(subject.bundle)
    return runs_on_cuda(bundle, parts(import_family(subject.family), bundle))


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


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """The stages of one variant."""
    from vlrt.image import load_image

    wanted = {_GRAPHS[kind(stage)] for stage in job["stages"] if kind(stage) in _GRAPHS}
    opened = Opened(
        Path(job["bundle"]),
        job["precision"],
        job["device"],
        job["threads"],
        sorted(wanted),
        _more(job),
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
            made[stage] = _encode(job, opened.graphs[_GRAPHS[kind(stage)]], stage)
        elif stage == SUPPRESS:
            made[stage] = _suppress(job)
        else:
            made[stage] = _POST_PROCESS[job["family"]](job, opened)
    return made


def _encode(job: Mapping[str, Any], graph: Any, stage: str) -> Stage:
    """A run of a graph."""
    given, keep = _given(job, graph, stage), staying(job) & set(graph.outputs)
    if not keep:
        return Stage(partial(graph.run, given), dict)
    fetch = [name for name in graph.outputs if name not in keep]
    return Stage(
        partial(graph.run_on_device, given, fetch=fetch, keep=keep),
        lambda found: {
            name: value.numpy() if name in keep else value for name, value in found.items()
        },
    )


def _given(job: Mapping[str, Any], graph: Any, stage: str) -> Arrays:
    """What a graph takes of a stage: one for CUDA takes levels, any other what they become.

    On a GPU pictures are in memory that it fetches from by itself, where vlrt's processors write.
    """
    from vlrt import pinned

    given = inputs(job, stage, levels=True)
    if "levels" in given:
        made: Any = given.pop("levels")
        if graph.inputs["pixel_values"].dtype != np.uint8:
            made = values_of(made, level_table(job))
        given["pixel_values"] = pinned.empty(made.shape, made.dtype)
        given["pixel_values"][...] = made
    return given


def _more(job: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry asks of `vlrt.load` beside precision, device and threads."""
    return {"cuda_graph": True} if job.get("cuda_graph") else {}


def _model(job: Mapping[str, Any], decode: str) -> Any:
    """The whole, as a user loads it."""
    import vlrt

    return vlrt.load(
        job["bundle"],
        precision=job["precision"],
        device=job["device"],
        threads=job["threads"],
        decode=decode,
        **_more(job),
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
