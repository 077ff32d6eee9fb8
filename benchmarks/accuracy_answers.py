"""What a contender says about the items of a dataset, as JSON, a part of them at a time.

Contenders have vlrt's methods, whoever computes: `vlrt.load`'s models and those of `reference.py`.
"""

import base64
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import DatasetError
from vlrt.ops import top_k
from vlrt.results import Detections
from vlrt.templates import Templates

from .accuracy_boxes import BEST
from .dataset_captions import Captions
from .dataset_coco import Scenes
from .dataset_imagenet import Classes
from .dataset_vqa import Questions
from .datasets import Dataset

CHUNK = 64  # pictures between one line of the journal and the next
TOP = 5
Keep = Callable[[str, Callable[[], Any]], Any]  # `Journal.keep` of a contender
Load = Callable[[], Any]


class Asker:
    """One contender at work, loaded when the first answer is wanted that the journal lacks.

    Args:
        load: loads it.
        keep: the journal's, under the contender's name.
        batch: pictures in one run, or None for each method's own default.
        joint: whether it takes pictures and texts together alone, so that it matches every pair.
        templates: of labels.
        say: told how far it is.
    """

    def __init__(
        self,
        load: Load,
        keep: Keep,
        *,
        batch: int | None,
        joint: bool = False,
        templates: Templates | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._load, self._keep, self._say = load, keep, say
        self._batch = {} if batch is None else {"batch_size": batch}
        self._joint, self._templates = joint, templates
        self._model: Any = None
        self._labels: Any = None

    def answers(self, dataset: Dataset) -> list[Any]:
        """One answer an item, in order; of captions, the similarities of each picture with all.

        Of classes: the positions of the best labels, best first. Of scenes: `boxes`, `scores` and
        `labels`. Of questions: a text. Of captions: float32 [captions].
        """
        if isinstance(dataset, Captions):
            return list(self._similarities(dataset))
        answers: dict[str, Callable[[Any], list[Any]]] = {
            "imagenet": self._classified,
            "coco": self._detected,
            "vqa": self._answered,
        }
        answer = answers[dataset.format]
        parts = []
        for start, stop in _parts(len(dataset)):
            self._say(f"{start} of {len(dataset)}")
            part = dataset.subset(range(start, stop))
            parts.append(self._keep(f"{start}", partial(answer, part)))
        return [one for part in parts for one in part]

    @property
    def model(self) -> Any:
        """The contender itself."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def _encoded(self, labels: Sequence[str]) -> tuple[Any, dict[str, Any]]:
        """The labels, encoded once where the contender can; and what goes with them if not."""
        prompts = {"templates": self._templates, "truncate": True}
        if self.model.info.get("components") == ["model"]:  # a foreign graph for both
            return labels, prompts
        if self._labels is None:
            self._labels = self.model.encode_labels(labels, **prompts)
        return self._labels, {}

    def _classified(self, part: Classes) -> list[list[int]]:
        labels, prompts = self._encoded(part.labels)
        found = self.model.classify(list(part.pictures), labels, **prompts, **self._batch)
        return [[int(i) for i in top_k(one.logits, TOP)] for one in found]

    def _detected(self, part: Scenes) -> list[dict[str, Any]]:
        labels, prompts = self._encoded(part.labels)
        found = self.model.detect(
            list(part.pictures),
            labels,
            threshold=0.0,
            multi_label=True,
            top_k=BEST,
            **prompts,
            **self._batch,
        )
        for path, stated, one in zip(part.pictures, part.sizes_hw, found, strict=True):
            if one.size_hw != stated:
                raise DatasetError(
                    f"{part.source} says that {path} is {stated[1]}x{stated[0]}; it is "
                    f"{one.size_hw[1]}x{one.size_hw[0]}"
                )
        return [_as_json(one) for one in found]

    def _answered(self, part: Questions) -> list[str]:
        """Questions that stand together and are about one picture are asked together."""
        pairs = zip(part.pictures, part.questions, strict=True)
        said: list[str] = []
        for picture, group in itertools.groupby(pairs, lambda pair: pair[0]):
            asked = [question for _, question in group]
            found = self.model.ask(picture, asked, top_k=1, truncate=True, **self._batch)
            said += [one.best[0] for one in found]
        return said

    def _similarities(self, dataset: Captions) -> Iterator[NDArray[np.float32]]:
        encode = self._matched if self._joint else self._pictures
        texts = np.empty((0, 0), np.float32)
        if not self._joint:
            rows = [
                self._array(f"captions {start}", partial(self._texts, dataset.captions[start:stop]))
                for start, stop in _parts(len(dataset.captions))
            ]
            texts = np.concatenate(rows)
        for start, stop in _parts(len(dataset)):
            self._say(f"{start} of {len(dataset)}")
            pictures = list(dataset.pictures[start:stop])
            found = self._array(f"{start}", partial(encode, pictures, dataset.captions))
            yield from found if self._joint else found @ texts.T

    def _matched(self, pictures: list[Any], texts: Sequence[str]) -> NDArray[np.float32]:
        found = self.model.match(pictures, list(texts), truncate=True, **self._batch)
        logits: NDArray[np.float32] = found.logits
        return logits

    def _texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        embeds: NDArray[np.float32] = self.model.encode_texts(list(texts), truncate=True)
        return embeds

    def _pictures(self, pictures: list[Any], _: Sequence[str]) -> NDArray[np.float32]:
        embeds: NDArray[np.float32] = self.model.encode_images(pictures, **self._batch)
        return embeds

    def _array(self, key: str, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Rows that the journal keeps as the bytes that they are."""

        def packed() -> dict[str, Any]:
            rows = np.ascontiguousarray(make(), "<f4")
            return {"rows": len(rows), "base64": base64.b64encode(rows.tobytes()).decode()}

        kept = self._keep(key, packed)
        flat = np.frombuffer(base64.b64decode(kept["base64"]), "<f4").astype(np.float32)
        return flat.reshape(kept["rows"], -1)


def _parts(number: int) -> Iterator[tuple[int, int]]:
    """From where to where the parts of so many items are."""
    return ((start, min(start + CHUNK, number)) for start in range(0, number, CHUNK))


def _as_json(found: Detections) -> dict[str, Any]:
    """Detections in nine digits, which is all that float32 has."""
    return {
        "boxes": [[float(f"{x:.9g}") for x in box] for box in found.boxes.tolist()],
        "scores": [float(f"{score:.9g}") for score in found.scores.tolist()],
        "labels": found.label_ids.tolist(),
    }
