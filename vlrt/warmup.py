"""Running a model once in each shape before anyone waits for it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from PIL import Image

from vlrt.buckets import LENGTH_STEP
from vlrt.checks import checked_count
from vlrt.errors import OptionError
from vlrt.text import Tokenizer


class Warmed(NamedTuple):
    """What one shape took.

    Attributes:
        what: "pictures", "texts", or "pictures and texts" of a model that reads them together.
        batch_size: how many of them.
        size_hw: (height, width) of the pictures, or None where there are none.
        tokens: of each text, at the most, or None where there are none.
        first_s: seconds of the first run, which chooses kernels, takes memory, records or builds.
        next_s: seconds of the second.
    """

    what: str
    batch_size: int
    size_hw: tuple[int, int] | None
    tokens: int | None
    first_s: float
    next_s: float


class Warmable(ABC):
    """What every model has for it; a family says how to run its graphs.

    Attributes:
        info: what `vlrt.load` decided.
        tokenizer: the bundle's.
    """

    info: Mapping[str, Any]
    tokenizer: Tokenizer

    @property
    def _reads_together(self) -> bool:
        """Whether pictures and texts go into one graph."""
        return False

    def warmup(
        self,
        batch_sizes: Sequence[int] = (1,),
        *,
        sizes_hw: Sequence[tuple[int, int]] = ((480, 640),),
        lengths: Sequence[int] | None = None,
    ) -> list[Warmed]:
        """Run the model twice in each shape: on CUDA, the first run of each is the slow one.

        Args:
            batch_sizes: of pictures, and of texts where they have a graph of their own. On a GPU
                batches are padded to sizes of 1, 2, 3, 4, 6, 8, 12, 16, ..., so that one of each is
                enough.
            sizes_hw: (height, width) of pictures. They matter to ViLT, which keeps a picture's
                shape; to other models all are one size.
            lengths: of texts, in tokens, specials included. By default, on a GPU all that texts are
                padded to, every 8 tokens up to the model's limit; else one.

        Returns:
            What each shape took.

        Raises:
            OptionError: a size, a length or a number is none.
        """
        batches = [checked_count("batch_sizes", size) for size in batch_sizes]
        for size_hw in sizes_hw:
            if len(size_hw) != 2:
                raise OptionError(f"sizes_hw has {size_hw!r}; valid: (height, width) in pixels")
            for side in size_hw:
                checked_count("sizes_hw", side)
        texts = {self._tokens(text): text for text in map(self._text, self._lengths(lengths))}
        shapes = self._together if self._reads_together else self._apart
        return [
            Warmed(*shape, *(_seconds(run) for _ in range(2)))
            for *shape, run in shapes(batches, sizes_hw, texts)
        ]

    @property
    def _takes_several(self) -> bool:
        """Whether a graph that reads both is ever run on more than one pair."""
        return True

    @abstractmethod
    def _run(self, pictures: list[Image.Image], text: str) -> object:
        """Run the graph of pictures on a batch; on pairs with a text, if it reads both."""

    def _run_texts(self, texts: list[str]) -> object:
        """Run the graph of texts on a batch."""
        raise AssertionError(texts)  # a model that reads both together is not asked to

    def _needed_text(self) -> str:
        """What a text must begin with."""
        return "a"

    def _apart(
        self, batches: list[int], sizes_hw: Sequence[tuple[int, int]], texts: Mapping[int, str]
    ) -> Iterator[tuple[Any, ...]]:
        """Each shape, and how to run it, of a model of two graphs."""
        for size in batches:
            for size_hw in sizes_hw[:1]:
                run = partial(self._run, [_blank(size_hw)] * size, "")
                yield "pictures", size, size_hw, None, run
            for tokens, text in texts.items():
                yield "texts", size, None, tokens, partial(self._run_texts, [text] * size)

    def _together(
        self, batches: list[int], sizes_hw: Sequence[tuple[int, int]], texts: Mapping[int, str]
    ) -> Iterator[tuple[Any, ...]]:
        """Each shape, and how to run it, of a model of one graph."""
        for size in batches if self._takes_several else [1]:
            for size_hw in sizes_hw:
                for tokens, text in texts.items():
                    run = partial(self._run, [_blank(size_hw)] * size, text)
                    yield "pictures and texts", size, size_hw, tokens, run

    def _lengths(self, asked: Sequence[int] | None) -> list[int]:
        most = self.tokenizer.max_length
        if asked is None:
            if not self.info.get("padded"):
                return [min(most, LENGTH_STEP)]
            # With a picture's tokens beside them texts are padded to other lengths, one of which
            # may be shorter than a step.
            shortest = [1] if self._reads_together else []
            steps = [*shortest, *range(LENGTH_STEP, most + LENGTH_STEP, LENGTH_STEP)]
            return sorted({min(most, length) for length in steps})
        for length in asked:
            if checked_count("lengths", length) > most:
                raise OptionError(f"lengths has {length}; the model takes up to {most} tokens")
        return list(asked)

    def _text(self, tokens: int) -> str:
        """A text of so many tokens, or of the fewest that there can be."""
        text = self._needed_text()
        while (count := self._tokens(text)) < tokens:
            longer = f"{text} a"
            if not count < self._tokens(longer) <= tokens:  # the limit cuts it, or it is too long
                break
            text = longer
        return text

    def _tokens(self, text: str) -> int:
        return len(self.tokenizer.ids([text], truncate=True)[0])


def _blank(size_hw: tuple[int, int]) -> Image.Image:
    height, width = size_hw
    return Image.new("RGB", (width, height))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
