"""What the models return: frozen values, checked when made.

They do no I/O, but for a `LabelSet`, which can be kept in a file.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt import boxes as geometry
from vlrt.checks import checked_count
from vlrt.errors import LabelError, OptionError
from vlrt.ops import top_k


@dataclass(frozen=True, eq=False)
class Classification:
    """Scores over a set of labels, of one picture or of what else was asked about.

    Attributes:
        labels: N label texts, in the order in which they were given.
        scores: float32 [N], the softmax over the labels; sums to 1. A single label therefore always
            scores 1, as in transformers.
        logits: float32 [N], what the softmax was taken over: of CLIP, cosine similarity times the
            checkpoint's own logit scale.
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
class Answers:
    """The likeliest answers to one question about one picture, or words for one gap in a text.

    Attributes:
        question: what was asked: the question, or the text with its gap.
        answers: K answers, best first; at least one.
        scores: float32 [K], in 0..1 and never rising. Of a question each is a sigmoid of its own,
            as several answers may be right, so they do not sum to 1; of a gap they are a softmax
            over the vocabulary.
    """

    question: str
    answers: tuple[str, ...]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not self.answers or self.scores.shape != (len(self.answers),):
            raise ValueError(
                f"scores {self.scores.shape} must have shape ({len(self.answers)},), one number an "
                "answer, of which there is one at least"
            )
        if not (self.scores[:-1] >= self.scores[1:]).all():
            raise ValueError(f"scores must be the best first: {self.scores.tolist()!r:.60}")

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def best(self) -> tuple[str, float]:
        """The answer with the highest score, and that score."""
        return self.answers[0], float(self.scores[0])

    def to_dict(self) -> dict[str, Any]:
        """`{"question", "answers": [{"answer", "score"}, ...]}`, best first, ready for JSON."""
        pairs = zip(self.answers, self.scores.tolist(), strict=True)
        answers = [{"answer": answer, "score": score} for answer, score in pairs]
        return {"question": self.question, "answers": answers}


@dataclass(frozen=True, eq=False)
class Matches:
    """How well each of N pictures and each of M texts belong together.

    Attributes:
        texts: the M texts, in the order in which they were given.
        logits: float32 [N, M], higher where the two fit better; comparable across both axes.
    """

    texts: tuple[str, ...]
    logits: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.logits.shape[1] != len(self.texts):
            raise ValueError(
                f"logits {self.logits.shape} must have shape (N, {len(self.texts)}), a row a "
                "picture and a column a text"
            )

    def __len__(self) -> int:
        return len(self.logits)

    def rank_texts(self, image: int = 0, k: int | None = None) -> list[tuple[str, float]]:
        """The `k` texts that fit one picture best, as (text, logit), best first; all by default.

        Raises:
            OptionError: there is no picture at that position, or `k` is not a whole number of 1 or
                more.
        """
        row = self.logits[_position("image", image, len(self.logits))]
        return [(self.texts[i], float(row[i])) for i in top_k(row, _number(k))]

    def rank_images(self, text: int = 0, k: int | None = None) -> list[tuple[int, float]]:
        """The `k` pictures that fit one text best, as (position, logit), best first.

        Raises:
            OptionError: there is no text at that position, or `k` is not a whole number of 1 or
                more.
        """
        column = self.logits[:, _position("text", text, len(self.texts))]
        return [(int(i), float(column[i])) for i in top_k(column, _number(k))]

    def to_dict(self) -> dict[str, Any]:
        """`{"images": [{"texts": [{"text", "logit"}, ...]}, ...]}`, ready for JSON.

        Pictures are in the order in which they were given, the texts of each best first.
        """
        return {
            "images": [
                {"texts": [{"text": text, "logit": logit} for text, logit in self.rank_texts(i)]}
                for i in range(len(self))
            ]
        }


def _number(k: int | None) -> int | None:
    return None if k is None else checked_count("k", k)


def _position(name: str, position: int, number: int) -> int:
    if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < number:
        raise OptionError(f"{name} is {position!r}; valid: 0 to {number - 1}, {number} were given")
    return position


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Labels encoded once, to be used on any number of pictures. A plain value: it pickles.

    Attributes:
        labels: N label texts, or the names of example pictures; at least one, and none empty.
        embeds: float32 [N, D], of length 1 each.
        model: fingerprint of the weights that made them; only models that share it accept them.

    Raises:
        LabelError: labels or embeds that are not such.
    """

    labels: tuple[str, ...]
    embeds: NDArray[np.float32]
    model: str

    def __post_init__(self) -> None:
        if not self.labels:
            raise LabelError("a label set needs at least one label")
        for position, label in enumerate(self.labels):
            if not isinstance(label, str) or not label.strip():
                raise LabelError(f"label {position} is {label!r:.60}; valid: a text, not empty")
        if self.embeds.ndim != 2 or len(self.embeds) != len(self.labels):
            raise LabelError(
                f"embeds {self.embeds.shape} must have shape ({len(self.labels)}, D), a row a label"
            )
        if self.embeds.dtype != np.float32 or not np.isfinite(self.embeds).all():
            raise LabelError(f"embeds of {self.embeds.dtype} must be float32 and finite")

    def __len__(self) -> int:
        return len(self.labels)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a `.npz` file, which holds plain arrays and no pickle.

        Raises:
            LabelError: the name does not end in `.npz`, or the file cannot be written.
        """
        if Path(path).suffix != ".npz":
            raise LabelError(f"label sets are kept in .npz files, not in {str(path)!r}")
        labels, model = np.array(self.labels), np.array(self.model)
        try:
            with Path(path).open("wb") as file:
                np.savez(file, labels=labels, embeds=self.embeds, model=model)
        except OSError as error:
            raise LabelError(f"{str(path)!r:.200} cannot be written: {error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LabelSet":
        """Read what `save` wrote.

        Raises:
            LabelError: the file cannot be read, or is no label set.
        """
        # NumPy and zipfile raise whatever they stumble over, so everything is caught here, and
        # nothing is hidden: it is raised again under one type, with its cause.
        try:
            return cls(*_read_label_set(Path(path)))
        except Exception as error:
            why = f"{str(path)!r:.200} cannot be read as a label set: {error}"
            raise LabelError(why) from error


def _read_label_set(path: Path) -> tuple[tuple[str, ...], NDArray[np.float32], str]:
    # Opened here, because NumPy leaves a file open that turns out to be broken.
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise LabelError("it holds one array, not an archive of them")
        with arrays:
            labels, embeds, model = (arrays[name] for name in ("labels", "embeds", "model"))
    if labels.ndim != 1 or labels.dtype.kind != "U" or model.ndim or model.dtype.kind != "U":
        raise LabelError(
            f"labels {labels.dtype} {labels.shape} and model {model.dtype} {model.shape} must be a "
            "list of texts and a text"
        )
    return tuple(labels.tolist()), embeds, str(model)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture encoded once, to be searched for any number of label sets. It pickles.

    It has P places (patches), each of which may show an object.

    Attributes:
        class_embeds: float32 [P, D], what is at each place, comparable with label embeddings; of
            any length.
        logit_shift, logit_scale: float32 [P], the logit of a label is (cosine + shift) * scale.
        pred_boxes: float32 [P, 4], (centre x, centre y, width, height) in 0..1 of the square that
            the model saw.
        objectness_logits: float32 [P], OWLv2's own opinion on whether there is an object; or None.
        size_hw: (height, width) of the original picture in pixels.
        model: fingerprint of the weights that made it.
    """

    class_embeds: NDArray[np.float32]
    logit_shift: NDArray[np.float32]
    logit_scale: NDArray[np.float32]
    pred_boxes: NDArray[np.float32]
    objectness_logits: NDArray[np.float32] | None
    size_hw: tuple[int, int]
    model: str

    def __post_init__(self) -> None:
        places = (len(self.pred_boxes),)
        shapes = {
            "class_embeds": self.class_embeds.shape[:-1],
            "logit_shift": self.logit_shift.shape,
            "logit_scale": self.logit_scale.shape,
            "pred_boxes": self.pred_boxes.shape[:-1],
        }
        if self.objectness_logits is not None:
            shapes["objectness_logits"] = self.objectness_logits.shape
        if self.pred_boxes.shape[1:] != (4,) or set(shapes.values()) != {places}:
            raise ValueError(
                f"each array needs one row a place, and pred_boxes 4 columns: {shapes}"
            )


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one picture, the best score first.

    Attributes:
        labels: the K labels (or names of examples) that were looked for.
        boxes: float32 [N, 4], (x0, y0, x1, y1) in pixels of the original picture; a model may put
            them a little outside of it (see `clipped`).
        scores: float32 [N], in 0..1.
        label_ids: intp [N], which of `labels` each one is.
        size_hw: (height, width) of the original picture in pixels.
        alphas: float32 [N] in 0..1, the display scores that transformers returns for detection by
            example, where the best match always has 1; None for detection by text.
    """

    labels: tuple[str, ...]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    label_ids: NDArray[np.intp]
    size_hw: tuple[int, int]
    alphas: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        number = len(self.scores)
        rows = [self.scores.shape, self.label_ids.shape]
        if self.alphas is not None:
            rows.append(self.alphas.shape)
        if self.boxes.shape != (number, 4) or set(rows) != {(number,)}:
            raise ValueError(
                f"boxes {self.boxes.shape} must have shape ({number}, 4), and scores, label_ids "
                f"and alphas ({number},): {rows}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The label of each object."""
        return [self.labels[i] for i in self.label_ids]

    def clipped(self) -> "Detections":
        """The same with every box cut at the picture's edges; none is left out."""
        return replace(self, boxes=geometry.clip(self.boxes, self.size_hw))

    def to_dict(self) -> dict[str, Any]:
        """`{"width", "height", "detections": [{"label", "score", "box": {"xmin", ...}}, ...]}`.

        Best first, ready for JSON. By example, each also has its display score, `alpha`.
        """
        found = []
        for i, name in enumerate(self.names):
            corners = zip(("xmin", "ymin", "xmax", "ymax"), self.boxes[i].tolist(), strict=True)
            entry: dict[str, Any] = {
                "label": name,
                "score": float(self.scores[i]),
                "box": dict(corners),
            }
            if self.alphas is not None:
                entry["alpha"] = float(self.alphas[i])
            found.append(entry)
        height, width = self.size_hw
        return {"width": width, "height": height, "detections": found}
