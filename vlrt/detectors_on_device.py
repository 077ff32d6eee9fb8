"""A detector's towers on a GPU, where their product with the labels is made too.

Of a picture, NumPy would be given the embeddings of all its places; here it is given the best label
of each place alone, whatever the number of labels.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vlrt.bundle import Bundle
from vlrt.checks import check_finite, checked_count
from vlrt.detection import Best, View
from vlrt.detectors import Picture, Towers, title
from vlrt.labels import TextEncoder
from vlrt.processor import Processor
from vlrt.results import EncodedImage, LabelSet
from vlrt.session import Runner
from vlrt.similarity import Similarity
from vlrt.stream import Batch, Stream, read_batches

# What is fetched from the graph of similarities.
_EVERY, _BEST = ("logits",), ("best_logits", "best_labels")
_NONE = np.empty((0, 0), np.float32)


class TowersOnDevice(Towers):
    """Two graphs that meet on a GPU (see `Towers`).

    Args:
        bundle, vision, texts, processor, info: as `Towers` takes them.
        similarity: the graph of similarities.
    """

    def __init__(
        self,
        bundle: Bundle,
        vision: Runner,
        texts: TextEncoder,
        processor: Processor,
        info: Mapping[str, Any],
        similarity: Runner,
    ) -> None:
        super().__init__(bundle, vision, texts, processor, info)
        self._similarity = Similarity(vision, similarity)

    def views(
        self, images: Iterable[Picture], labels: LabelSet, batch_size: int, *, every: bool = False
    ) -> Stream[View]:
        """Show every picture to a label set (see `Towers.views`)."""
        return self._shown(images, labels, checked_count("batch_size", batch_size), every=every)

    def _shown(
        self, images: Iterable[Picture], labels: LabelSet, batch_size: int, *, every: bool
    ) -> Stream[View]:
        wanted = _EVERY if every else _BEST
        at = 0
        for done, group in groupby(images, lambda image: isinstance(image, EncodedImage)):
            if done:
                for encoded in cast("Iterable[EncodedImage]", group):
                    own = self._own(encoded)
                    if isinstance(own, EncodedImage):
                        yield encoded, self._of_encoded(own, labels, wanted, at)
                    else:
                        yield encoded, own
                    at += 1
                continue
            for batch in read_batches(group, self._processor, batch_size, self._info):
                yield from self._of_batch(batch, labels, wanted, at)
                at += len(batch.sources)

    def _of_encoded(
        self, encoded: EncodedImage, labels: LabelSet, wanted: tuple[str, ...], at: int
    ) -> View:
        values = {
            "image_class_embeds": encoded.class_embeds[None],
            "logit_shift": encoded.logit_shift[None],
            "logit_scale": encoded.logit_scale[None],
        }
        found = self._similarity.of_values(values, labels, 1, wanted)
        found["pred_boxes"] = encoded.pred_boxes[None]
        return _view(found, 0, encoded.size_hw, title("picture", at, encoded))

    def _of_batch(
        self, batch: Batch, labels: LabelSet, wanted: tuple[str, ...], at: int
    ) -> Stream[View]:
        views: list[View] = []
        if batch.sizes_hw:
            pixels, names = batch.pixel_values, (*wanted, "pred_boxes")
            found = self._similarity.of_pictures(pixels, labels, names)
            views = [
                _view(found, row, size_hw, title("picture", at + place, batch.sources[place]))
                for row, (place, size_hw) in enumerate(
                    zip(batch.readable, batch.sizes_hw, strict=True)
                )
            ]
        yield from batch.each(views)


def _view(
    found: Mapping[str, NDArray[np.float32]], row: int, size_hw: tuple[int, int], what: str
) -> View:
    """One picture of what the graphs found."""
    own = {name: array[row] for name, array in found.items()}
    check_finite(own, what)
    if "logits" in own:
        return View(own["logits"], own["pred_boxes"], size_hw)
    best = Best(own["best_labels"].astype(np.intp), own["best_logits"])
    return View(_NONE, own["pred_boxes"], size_hw, best)
