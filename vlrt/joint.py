"""A graph that reads a picture and a text together, on every pair of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlrt.ahead import read_each
from vlrt.checks import check_finite, check_outputs
from vlrt.errors import ImageError, TextError
from vlrt.levels import Pixels
from vlrt.ragged import RaggedProcessor, batches_by_shape, size_hw
from vlrt.session import Runner
from vlrt.stream import Stream, collected
from vlrt.text import Tokenizer

T = TypeVar("T")
Logits = NDArray[np.float32]
Ids = Sequence[Sequence[int]]

# Batches are made out of so many batches' worth of pairs, so that like shapes find each other.
_WINDOW = 4


class JointGraph:
    """A graph of picture and text. Safe to share between threads: it holds nothing of a call.

    Args:
        name: the bundle's.
        runner: from `input_ids`, `attention_mask`, `token_type_ids` [B, L], `pixel_values`
            [B, 3, H, W] (or [B, 2, 3, H, W], of two pictures with each text) and `pixel_mask`
            [B, H, W] (or [B, 2, H, W]) to `logits` [B, ...].
        tokenizer: the bundle's.
        processor: makes the pixels.
        info: the model's, for `threads` and `decode`.
        patch: pixels along a side of a patch, each of which is a token.
        axes: those of `logits`, as `check_outputs` takes them.
        sizes: of the axes whose sizes are known.
    """

    def __init__(
        self,
        name: str,
        runner: Runner,
        tokenizer: Tokenizer,
        processor: RaggedProcessor,
        info: Mapping[str, Any],
        patch: int,
        axes: str,
        **sizes: int,
    ) -> None:
        self._name, self._runner, self._tokenizer = name, runner, tokenizer
        self._processor, self._info = processor, info
        self._patch, self._axes, self._sizes = patch, axes, sizes

    def encode(
        self, texts: str | Iterable[str], *, truncate: bool, what: str = "text"
    ) -> tuple[tuple[str, ...], Ids]:
        """Texts, of which there may be one alone, and their token ids.

        Raises:
            TextError: there are none, or one is not a string, empty, too long or holds a lone
                surrogate; the message calls it `what`.
        """
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(texts, Iterable):  # what else it is, the tokenizer says
            texts = tuple(texts)
        ids = self._tokenizer.ids(texts, truncate=truncate, what=what)
        if not ids:
            raise TextError(f"there are no {what}s; give at least one")
        return tuple(texts), ids

    def rows(
        self,
        images: Iterable[Any],
        ids: Ids,
        batch_size: int,
        read: Callable[[Logits, int], T],
    ) -> Stream[list[T]]:
        """Show every picture to every text, in bounded memory.

        A picture is decoded and processed once for all its texts.

        Args:
            images: a stream of them.
            ids: token ids of each text, at least one.
            batch_size: pairs in one run of the graph.
            read: makes the result out of a pair's logits (a view of its batch's, not to be kept)
                and the text's position.

        Yields:
            Every picture, in order, with the results of its texts in theirs, or its ImageError.
        """
        number = max(1, _WINDOW * batch_size // len(ids))
        stream = read_each(images, self._processor, number, self._info)
        at = 0
        while done := self._window(list(islice(stream, number)), at, ids, batch_size, read):
            yield from done
            at += len(done)

    def _window(
        self,
        pictures: Sequence[tuple[Any, Pixels | ImageError]],
        at: int,
        ids: Ids,
        batch_size: int,
        read: Callable[[Logits, int], T],
    ) -> list[tuple[Any, list[T] | ImageError]]:
        """What `rows` gives for a few pictures, of which the first is the stream's number `at`."""
        pairs = [
            (position, pixels, text)
            for position, (_, pixels) in enumerate(pictures)
            if not isinstance(pixels, ImageError)
            for text in range(len(ids))
        ]
        results: dict[tuple[int, int], T] = {}
        for batch in batches_by_shape([size_hw(pixels) for _, pixels, _ in pairs], batch_size):
            chosen = [pairs[i] for i in batch]
            images = self._processor.batch([pixels for _, pixels, _ in chosen])
            logits = self._run([ids[text] for _, _, text in chosen], images)
            for (position, _, text), row in zip(chosen, logits, strict=True):
                check_finite({"logits": row}, f"picture {at + position}, text {text}")
                results[position, text] = read(row, text)
        return [
            (source, pixels)
            if isinstance(pixels, ImageError)
            else (source, [results[position, text] for text in range(len(ids))])
            for position, (source, pixels) in enumerate(pictures)
        ]

    def together(self, images: Sequence[Any], ids: Sequence[int]) -> Logits:
        """Show several pictures at once to one text.

        Returns:
            Its logits, without the batch's axis.

        Raises:
            ImageError: a picture cannot be read; it is named with its position.
        """
        read = read_each(images, self._processor, len(images), self._info)
        arrays = self._processor.batch(collected(read, len(images)))
        logits: Logits = self._run([ids], {name: array[None] for name, array in arrays.items()})[0]
        check_finite({"logits": logits}, f"{len(images)} pictures together")
        return logits

    def _run(self, ids: Ids, images: Mapping[str, NDArray[Any]]) -> Logits:
        height, width = images["pixel_mask"].shape[-2:]
        seen = 1 + (height // self._patch) * (width // self._patch)  # and the class token
        tokens = self._tokenizer.pad(ids, beside=seen)
        kinds = np.zeros_like(tokens["input_ids"])  # all of one text; a second one would have 1
        outputs = self._runner.run({**tokens, "token_type_ids": kinds, **images})
        graph = f"the graph of {self._name}"
        batch, length = tokens["input_ids"].shape
        check_outputs(graph, outputs, {"logits": self._axes}, B=batch, L=length, **self._sizes)
        logits: Logits = outputs["logits"]
        return logits
