"""PyTorch as most people run it: transformers' models and processors, not compiled.

Results come from the models' public parts, as `reference.py` puts them together: labels are encoded
once a call, and not again with each picture. On a GPU, a run of a tower starts and ends in the
host's memory, as one of vlrt does, and so waits for the GPU; it uploads pictures as levels, and
normalises them there.
"""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
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
    Entry,
    Stage,
    found,
    inputs,
    kind,
    staying,
)

if TYPE_CHECKING:
    from ..plan import Plan
    from ..subject import Subject

NAME = "torch"
NEEDS = ("torch", "transformers")
INSTALL = 'pip install "vlrt[export]"'
NEEDS_CHECKPOINT = True

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "fp16")}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """One for each precision that PyTorch computes in well on such a device."""
    stages = tuple(stage for stage in STAGES[subject.family] if stage != SUPPRESS)
    return [
        Entry(f"torch-{precision}", NAME, precision, stages, exact=True)
        for precision in PRECISIONS[plan.device]
    ]


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """The stages of one precision."""
    import torch

    from ..reference import load_reference

    torch.set_grad_enabled(False)
    model = load_reference(Path(job["checkpoint"]), job["precision"], job["device"], job["threads"])
    return {stage: _stage(job, model, stage) for stage in job["stages"]}


def _stage(job: Mapping[str, Any], model: Any, stage: str) -> Stage:
    paths = job["pictures"]
    if stage == DECODE:
        return Stage(lambda: model.read(paths), lambda made: {"picture": np.asarray(made[0])})
    if stage == PREPROCESS:
        pictures = model.read(paths)
        return Stage(lambda: _processed(model, pictures), _arrays)
    if stage == FROM_FILE:
        return Stage(lambda: _processed(model, model.read(paths)), _arrays)
    if stage in (END, END_READY):
        return _end_to_end(job, model, ready=stage == END_READY)
    if kind(stage) in (IMAGE, TEXT, BOTH):
        return _encode(job, model, stage)
    return _POST_PROCESS[job["family"]](job, model)


def _processed(model: Any, pictures: Any) -> Any:
    """What the processor makes, in fp32 whatever the model computes in."""
    return model.image_processor(images=pictures, return_tensors="pt")


def _arrays(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _encode(job: Mapping[str, Any], model: Any, stage: str) -> Stage:
    from .towers import given_to, numpy_of, tensors

    dtype, device = model.dtype, job["device"]
    part, given = given_to(job, model.model, stage, dtype, unpadded=False)
    names, stays = part.outputs, staying(job)
    # Copies are part of the work only where they go to another device.
    ready = tensors(given, dtype, device) if device == "cpu" else None

    def run() -> list[Any]:
        made = part(*(ready if ready is not None else tensors(given, dtype, device)))
        return [one if name in stays else one.cpu() for name, one in zip(names, made, strict=True)]

    return Stage(run, lambda made: {n: numpy_of(one) for n, one in zip(names, made, strict=True)})


def _end_to_end(job: Mapping[str, Any], model: Any, *, ready: bool) -> Stage:
    paths, size = job["pictures"], len(job["pictures"])
    if job["family"] == "vilt":
        return Stage(
            lambda: model.ask(paths, job["question"], top_k=ANSWERS, batch_size=size),
            lambda made: {"scores": np.stack([one.scores for one in made])},
        )
    labels = model.encode_labels(job["labels"]) if ready else job["labels"]
    if job["family"] == "clip":
        return Stage(
            lambda: model.classify(paths, labels, batch_size=size),
            lambda made: {"scores": np.stack([one.scores for one in made])},
        )
    threshold = job["threshold"]
    return Stage(
        lambda: model.detect(paths, labels, threshold=threshold, batch_size=size),
        lambda made: found([one.boxes for one in made], [one.scores for one in made], threshold),
    )


def _given(job: Mapping[str, Any]) -> dict[str, Any]:
    """What post-processing starts from: fp32, where the model left it."""
    import torch

    arrays = inputs(job, FINISH)
    return {name: torch.from_numpy(array).to(job["device"]) for name, array in arrays.items()}


def _classify(job: Mapping[str, Any], model: Any) -> Stage:  # noqa: ARG001  what others need
    given = _given(job)
    images, texts, scale = given["image_embeds"], given["text_embeds"], given["logit_scale"]

    def run() -> Any:
        units = images / images.norm(p=2, dim=-1, keepdim=True)
        return (units @ texts.T * scale).softmax(dim=-1).cpu()

    return Stage(run, lambda scores: {"scores": scores.numpy()})


def _detect(job: Mapping[str, Any], model: Any) -> Stage:
    """The product of the class head, as transformers computes it, and the processor's own part."""
    import torch

    given, threshold = _given(job), job["threshold"]
    embeds, queries = given["image_class_embeds"], given["text_embeds"]
    sizes = [tuple(size) for size in given["size_hw"].tolist()]

    def run() -> Any:
        places = embeds / (torch.linalg.norm(embeds, dim=-1, keepdim=True) + 1e-6)
        asked = queries / (torch.linalg.norm(queries, dim=-1, keepdim=True) + 1e-6)
        logits = torch.einsum("bpd,qd->bpq", places, asked)
        logits = (logits + given["logit_shift"][..., None]) * given["logit_scale"][..., None]
        outputs = SimpleNamespace(logits=logits, pred_boxes=given["pred_boxes"])
        kept = model.image_processor.post_process_object_detection(
            outputs, threshold=threshold, target_sizes=sizes
        )
        return [{name: tensor.cpu() for name, tensor in one.items()} for one in kept]

    return Stage(
        run,
        lambda made: found(
            [one["boxes"].numpy() for one in made], [one["scores"].numpy() for one in made],
            threshold,
        ),
    )  # fmt: skip


def _answer(job: Mapping[str, Any], model: Any) -> Stage:  # noqa: ARG001  what others need
    logits = _given(job)["logits"]

    def run() -> Any:
        return logits.sigmoid().topk(ANSWERS, dim=-1).values.cpu()

    return Stage(run, lambda scores: {"scores": scores.numpy()})


_POST_PROCESS = {"clip": _classify, "owlvit": _detect, "owlv2": _detect, "vilt": _answer}
