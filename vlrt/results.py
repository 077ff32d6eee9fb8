"""What the models return: frozen values, checked when made, that do no I/O."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import LabelError
from vlrt.ops import top_k


@dataclass(frozen=True, eq=False)
class Classification:
    """One picture's scores over a set of labels.

    Attributes:
        labels: N label texts, in the order in which they were given.
        scores: float32 [N], the softmax over the labels; sums to 1. A single label therefore always
            scores 1, as in transformers.
        logits: float32 [N], cosine similarity times the checkpoint's own logit scale.
    """

    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    logits: NDArray[np.float32]

    def __post_init__(self) -> None:
        expected = (len(self.labels),)
        if self.scores.shape != expected or self.logits.shape != expected:
            raise ValueError(
                f"scores {self.scores.shape} and logits {self.logits.shape} must have shape "
                f"{expected}, one number a label"
            )

    @property
    def best(self) -> tuple[str, float]:
        """The label with the highest score, and that score."""
        return self.top(1)[0]

    def top(self, k: int | None = None) -> list[tuple[str, float]]:
        """The `k` best (label, score) pairs, best first; all of them by default."""
        return [(self.labels[i], float(self.scores[i])) for i in top_k(self.scores, k)]

    def to_dict(self) -> dict[str, Any]:
        """`{"labels": [{"label", "score", "logit"}, ...]}`, best first, ready for JSON."""
        return {
            "labels": [
                {
                    "label": self.labels[i],
                    "score": float(self.scores[i]),
                    "logit": float(self.logits[i]),
                }
                for i in top_k(self.scores)
            ]
        }


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Labels encoded once, to be used on any number of pictures. A plain value: it pickles.

    Attributes:
        labels: N label texts.
        embeds: float32 [N, D], of length 1 each.
        model: fingerprint of the text graph that made them; only models that share it accept them.
    """

    labels: tuple[str, ...]
    embeds: NDArray[np.float32]
    model: str

    def __post_init__(self) -> None:
        if self.embeds.ndim != 2 or len(self.embeds) != len(self.labels):
            raise LabelError(
                f"embeds {self.embeds.shape} must have shape ({len(self.labels)}, D), a row a label"
            )

    def __len__(self) -> int:
        return len(self.labels)
