"""What transformers offers for the whole way: its pipelines, from a path to labels and scores.

Labels are taken as they stand (`hypothesis_template="{}"`), and pictures go through the PIL
processors. The one for detection runs the whole model once for each label, and rounds boxes to
whole pixels. transformers 5.23 has none for questions about pictures; what 5.0 had, and the models'
pages show, puts one pair after the other through processor and model, and so does this.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import ANSWERS, END, Arrays, Entry, Stage, found

if TYPE_CHECKING:
    from ..plan import Plan
    from ..subject import Subject

NEEDS = ("torch", "transformers")
INSTALL = 'pip install "vlrt[export]"'
NEEDS_CHECKPOINT = True

_TASKS = {
    "clip": "zero-shot-image-classification",
    "owlvit": "zero-shot-object-detection",
    "owlv2": "zero-shot-object-detection",
}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:  # noqa: ARG001  what others need
    """In fp32, its default."""
    return [Entry("pipeline-fp32", "pipeline", "fp32", (END,))]


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """From paths to results."""
    import torch

    from ..reference import load_reference

    torch.set_grad_enabled(False)
    parts = load_reference(Path(job["checkpoint"]), "fp32", job["device"], job["threads"])
    if job["family"] == "vilt":
        return {END: _questions(job, parts)}
    import transformers

    make: Any = transformers.pipeline  # of a kind for each task
    made = make(
        _TASKS[job["family"]],
        model=parts.model,
        image_processor=parts.image_processor,
        tokenizer=parts.tokenizer,
        device=job["device"],
    )
    return {END: _classify(job, made) if job["family"] == "clip" else _detect(job, made)}


def _classify(job: Mapping[str, Any], pipe: Any) -> Stage:
    paths, labels = job["pictures"], job["labels"]

    def run() -> Any:
        return pipe(paths, candidate_labels=labels, hypothesis_template="{}", batch_size=len(paths))

    def outputs(pictures: Sequence[Sequence[Mapping[str, Any]]]) -> Arrays:
        rows = [{one["label"]: one["score"] for one in own} for own in pictures]
        return {"scores": np.array([[row[label] for label in labels] for row in rows], np.float32)}

    return Stage(run, outputs)


def _detect(job: Mapping[str, Any], pipe: Any) -> Stage:
    labels, threshold = job["labels"], job["threshold"]
    asked = [{"image": path, "candidate_labels": labels} for path in job["pictures"]]
    return Stage(
        # Of pairs of a picture and a label, which is what it puts through the model.
        lambda: pipe(asked, threshold=threshold, batch_size=len(asked)),
        lambda pictures: _best_of_places(pictures, threshold),
    )


def _best_of_places(pictures: Sequence[Sequence[Mapping[str, Any]]], threshold: float) -> Arrays:
    """Detections of which each box has its best label alone, as the other contenders report them.

    The pipeline reports a box for every label, each rounded alike, so that they are told by it.
    """
    boxes, scores = [], []
    for own in pictures:
        best: dict[tuple[int, ...], float] = {}
        for one in own:
            place = tuple(one["box"][side] for side in ("xmin", "ymin", "xmax", "ymax"))
            best[place] = max(one["score"], best.get(place, 0.0))
        boxes.append(np.array(list(best), np.float32).reshape(-1, 4))
        scores.append(np.array(list(best.values()), np.float32))
    return found(boxes, scores, threshold)


def _questions(job: Mapping[str, Any], parts: Any) -> Stage:
    def answer(path: str) -> Any:
        picture = parts.image_processor(images=parts.read([path]), return_tensors="pt")
        tokens = parts.tokenizer([job["question"]], return_tensors="pt")
        given = {**tokens.to(job["device"]), **picture.to(job["device"])}
        return parts.model(**given).logits[0].sigmoid().topk(ANSWERS).values.cpu()

    return Stage(
        lambda: [answer(path) for path in job["pictures"]],
        lambda scores: {"scores": np.stack([one.numpy() for one in scores])},
    )
