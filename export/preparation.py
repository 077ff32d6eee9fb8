"""Samples to what the graphs take of them, by the runtime's own preprocessing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from vlrt.bundle import FOR_CUDA
from vlrt.files import read_settings
from vlrt.text import Tokenizer, token_limit

from .pixels import levels_in

Arrays = dict[str, NDArray[Any]]


class Preparation:
    """What stands in front of a checkpoint's graphs.

    Args:
        family: the export module of its family.
        runtime: the runtime's.
        root: a directory with the settings files of a bundle.
    """

    def __init__(self, family: Any, runtime: Any, root: Path) -> None:
        self._family = family
        self._processor = runtime.image_processor(read_settings(root, "preprocessor_config.json"))
        self._for_cuda = self._processor
        if levels_in(self._processor) is not None:
            self._for_cuda = self._processor.as_bytes()
        settings = read_settings(root, "tokenizer_config.json")
        limit = token_limit(settings, read_settings(root, "config.json"))
        self.tokenizer = Tokenizer(root / "tokenizer.json", settings, limit)

    def inputs(
        self, images: Sequence[Image.Image], texts: Sequence[str], *, form: str = ""
    ) -> dict[str, Arrays]:
        """What each component takes of pictures and texts, or its graph in a form."""
        processor = self._for_cuda if form == FOR_CUDA else self._processor
        return self._join(self._texts(texts), processor.inputs(images))

    def one_by_one(
        self, images: Sequence[Image.Image], texts: Sequence[str]
    ) -> dict[str, list[Arrays]]:
        """What each component takes of samples, each by itself: none is padded to another's size.

        Args:
            images, texts: one or more, as the family's `samples` gives them: where a component
                takes both, they are pairs, of as many pictures with each text.
        """
        each = max(1, len(images) // len(texts))
        first_text, first = self._texts(texts[:1]), self._processor.inputs(images[:each])
        found: dict[str, list[Arrays]] = {}
        for component, taken in self._join(first_text, first).items():
            if "pixel_values" not in taken:
                parts = ((self._texts([text]), first) for text in texts)
            elif "input_ids" not in taken:
                parts = ((first_text, self._processor.inputs([image])) for image in images)
            else:
                parts = (
                    (
                        self._texts([text]),
                        self._processor.inputs(images[at * each : (at + 1) * each]),
                    )
                    for at, text in enumerate(texts)
                )
            found[component] = [self._join(*pair)[component] for pair in parts]
        return found

    def _texts(self, texts: Sequence[str]) -> Arrays:
        made: Arrays = self.tokenizer.pad(self.tokenizer.ids(list(texts), truncate=True))
        return made

    def _join(self, texts: Arrays, pictures: Arrays) -> dict[str, Arrays]:
        given: dict[str, Arrays] = self._family.inputs(texts | pictures)
        return given
