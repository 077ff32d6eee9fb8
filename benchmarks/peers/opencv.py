"""OpenCV: its suppression of boxes that overlap a better one of the same label, for detectors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import STAGES, SUPPRESS, Entry, Stage, inputs

if TYPE_CHECKING:
    from ..plan import Plan
    from ..subject import Subject

NEEDS = ("cv2",)
INSTALL = "pip install opencv-python-headless"

_LOWEST = 0.0  # boxes whose score is not above it are left out; all are, for scores are sigmoids


def refused(subject: "Subject", plan: "Plan") -> dict[str, str]:  # noqa: ARG001  what others need
    """What it has no contender for here, and why."""
    if SUPPRESS not in STAGES[subject.family]:
        return {"opencv": "it is compared in suppressing boxes, which detectors alone have"}
    return {}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """One, of detectors."""
    if refused(subject, plan):
        return []
    return [Entry("opencv", "opencv", "fp32", (SUPPRESS,))]


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """`NMSBoxesBatched`, on corners: the boxes it wants, with width and height, are made each time.

    What detectors give are corners, so whoever takes OpenCV for them pays for that too.
    """
    import cv2

    cv2.setNumThreads(job["threads"])
    given = inputs(job, SUPPRESS)
    boxes: Any = given["boxes"]
    scores: Any = given["scores"]
    labels: Any = given["labels"].astype(np.int32)

    def run() -> Any:
        sized: Any = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        return cv2.dnn.NMSBoxesBatched(sized, scores, labels, _LOWEST, job["iou_threshold"])

    return {SUPPRESS: Stage(run, lambda kept: {"kept": np.sort(np.asarray(kept, np.intp))})}
