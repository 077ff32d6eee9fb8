"""Pictures against labels on a GPU, where what the towers gave is already."""

import threading
from collections.abc import Collection, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from vlrt.device import OnDevice
from vlrt.results import LabelSet

# Where pictures and labels may be compared.
SIMILARITIES = ("numpy", "device")
# What `vlrt.load` calls it, beside the components of a family.
SIMILARITY_RUNNER = "similarity"


class Similarity:
    """The graph of similarities. Safe to share between threads.

    Args:
        vision: the graph of pictures.
        session: from what that gives and `text_embeds` to `logits` and the like (see
            `export/similarity.py`).
    """

    def __init__(self, vision: Any, session: Any) -> None:
        self._vision, self._session, self._lock = vision, session, threading.Lock()
        # Labels are uploaded once, and are there for as long as the caller has them.
        self._labels: WeakKeyDictionary[LabelSet, OnDevice] = WeakKeyDictionary()

    def of_pictures(
        self,
        pixel_values: NDArray[Any],
        labels: LabelSet,
        wanted: Collection[str],
        **more: NDArray[np.float32],
    ) -> dict[str, NDArray[np.float32]]:
        """Show pictures to labels; what the graph of pictures gives for it stays on the GPU.

        Args:
            pixel_values: of B pictures, as that graph takes them.
            labels: the N labels.
            wanted: names of outputs of either graph; the others are not fetched.
            more: what else the graph of similarities takes.

        Returns:
            What is wanted, [B, ...].
        """
        given = set(self._session.inputs) - {"text_embeds", *more}
        there = [name for name in wanted if name in self._session.outputs]
        before = [name for name in wanted if name not in there]
        pictures = {"pixel_values": pixel_values}
        seen = self._vision.run_on_device(pictures, fetch=before, keep=given)
        between = {name: seen[name] for name in given} | more
        found = self.of_values(between, labels, len(pixel_values), there)
        return found | {name: seen[name] for name in before}

    def of_values(
        self,
        values: Mapping[str, NDArray[np.float32] | OnDevice],
        labels: LabelSet,
        rows: int,
        wanted: Collection[str],
    ) -> dict[str, NDArray[np.float32]]:
        """Compare what pictures gave with labels (see `of_pictures`), on the GPU or not.

        Args:
            values: all inputs but the labels, of `rows` pictures or, padded, of more.
            labels: the N labels.
            rows: how many pictures there are.
            wanted: names of outputs.
        """
        with self._lock:
            texts = self._labels.get(labels)
            if texts is None:
                texts = self._labels[labels] = self._session.upload(labels.embeds)
        found = self._session.run_on_device({**values, "text_embeds": texts}, fetch=wanted)
        return {name: found[name][:rows] for name in wanted}
