"""CLIP: pictures and texts in one space, zero-shot classification.

Agrees with `transformers/models/clip/modeling_clip.py` and with its
`pipelines/zero_shot_image_classification.py`, which takes the softmax over
`exp(logit_scale) * cosine`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt.bundle import Bundle
from vlrt.checks import check_outputs, checked_count
from vlrt.errors import BundleError, ImageError, OptionError
from vlrt.files import Settings
from vlrt.image import ImageInput
from vlrt.labels import TextEncoder, open_tokenizer
from vlrt.levels import takes_bytes
from vlrt.ops import cosine_similarity, l2_normalize, softmax
from vlrt.processor import ImageProcessor
from vlrt.results import Classification, LabelSet
from vlrt.session import Runner
from vlrt.similarity import SIMILARITY_RUNNER, Similarity
from vlrt.stream import (
    Batch,
    Several,
    Stream,
    as_given,
    check_several,
    collected,
    is_list,
    listed,
    read_batches,
)
from vlrt.templates import Templates
from vlrt.warmup import Warmable

COMPONENTS = ("vision_model", "text_model")

Embeds = NDArray[np.float32]

# Foreign repositories hold the two towers but not the number between them. These checkpoints state
# theirs: the paper trains it clipped at 100 (section 2.5), and all were released at that value.
_PUBLISHED_LOGIT_SCALE = {
    f"openai/clip-vit-{name}": 100.0
    for name in ("base-patch32", "base-patch16", "large-patch14", "large-patch14-336")
}


def task(_config: Mapping[str, Any]) -> str:
    """What the checkpoint was trained for, as the hub names it."""
    return "zero-shot-image-classification"


def image_processor(settings: Settings) -> ImageProcessor:
    """What turns pictures into `pixel_values`."""
    return ImageProcessor.from_settings(settings)


class Model(Warmable):
    """A CLIP model. Safe to share between threads: it holds nothing of a call.

    Args:
        bundle: its description.
        sessions: a runner for each of `COMPONENTS`.
        info: what `load` decided, for the reader.
        values: `logit_scale`, the factor itself and not its logarithm.

    Attributes:
        methods: what the model can be asked for.

    Raises:
        OptionError: a value that this family does not know.
    """

    methods = ("classify", "encode_labels", "encode_images", "encode_texts")

    def __init__(
        self,
        bundle: Bundle,
        sessions: Mapping[str, Runner],
        *,
        info: Mapping[str, Any],
        values: Mapping[str, float],
    ) -> None:
        unknown = sorted(set(values) - {"logit_scale"})
        if unknown:
            raise OptionError(f"this family takes one value, logit_scale; given: {unknown}")
        self.info = dict(info)
        self.processor = image_processor(bundle.preprocessor)
        if takes_bytes(self.info):
            self.processor = self.processor.as_bytes()
        self.tokenizer = open_tokenizer(bundle, self.info)
        self._vision = sessions["vision_model"]
        self._similarity: Similarity | None = None
        if SIMILARITY_RUNNER in sessions:
            self._similarity = Similarity(self._vision, sessions[SIMILARITY_RUNNER])
        self._texts = TextEncoder(bundle, self.tokenizer, sessions["text_model"])
        self._logit_scale = values.get(
            "logit_scale", _PUBLISHED_LOGIT_SCALE.get(str(bundle.config.get("_name_or_path")))
        )
        self._name = bundle.name

    @property
    def logit_scale(self) -> float:
        """What cosine similarities are multiplied by before the softmax.

        Raises:
            BundleError: a foreign bundle does not state it; it is never guessed.
        """
        if self._logit_scale is None:
            raise BundleError(
                f"{self._name} does not state its logit_scale, which classification needs; pass "
                'vlrt.load(..., values={"logit_scale": 100.0}), if that is the checkpoint\'s value'
            )
        return self._logit_scale

    @overload
    def classify(
        self,
        images: Several,
        labels: Iterable[str] | LabelSet,
        *,
        templates: Templates | None = ...,
        truncate: bool = ...,
        batch_size: int = ...,
    ) -> list[Classification]: ...

    @overload
    def classify(
        self,
        images: ImageInput,
        labels: Iterable[str] | LabelSet,
        *,
        templates: Templates | None = ...,
        truncate: bool = ...,
        batch_size: int = ...,
    ) -> Classification: ...

    def classify(
        self,
        images: ImageInput | Several,
        labels: Iterable[str] | LabelSet,
        *,
        templates: Templates | None = None,
        truncate: bool = False,
        batch_size: int = 16,
    ) -> Classification | list[Classification]:
        """Score pictures against labels.

        Args:
            images: one picture, or a list or tuple of them (see `vlrt.load_image` for the kinds).
            labels: label texts, or a set that `encode_labels` made.
            templates: prompts with one `{}` each, averaged over, or a mapping from every label to
                its own; the label itself by default.
            truncate: cut label texts that are too long instead of refusing them.
            batch_size: pictures in one run of the graph.

        Returns:
            A Classification for one picture, a list of them for a list.

        Raises:
            ImageError, TextError, LabelError, OptionError: bad input, named.
            BundleError: a foreign bundle that does not state its `logit_scale`.
        """
        found = self.iter_classify(
            listed(images), labels, templates=templates, truncate=truncate, batch_size=batch_size
        )
        return as_given(images, found)

    def iter_classify(
        self,
        images: Iterable[ImageInput],
        labels: Iterable[str] | LabelSet,
        *,
        templates: Templates | None = None,
        truncate: bool = False,
        batch_size: int = 16,
    ) -> Stream[Classification]:
        """Do what `classify` does on a stream of pictures, in bounded memory.

        Options and labels are checked at once; pictures are consumed lazily, and one that cannot be
        read does not stop the others.

        Returns:
            An iterator over the pictures, each with its Classification or its ImageError, in order.
        """
        check_several(images, "iter_classify")
        encoded = self._texts.label_set(labels, templates=templates, truncate=truncate)
        scale = np.float32(self.logit_scale)
        scored = self._scored(images, encoded, scale, checked_count("batch_size", batch_size))

        def found() -> Stream[Classification]:
            for batch, logits in scored:
                rows = zip(softmax(logits), logits, strict=True)
                yield from batch.each(Classification(encoded.labels, *row) for row in rows)

        return found()

    def encode_labels(
        self,
        labels: Iterable[str],
        *,
        templates: Templates | None = None,
        truncate: bool = False,
    ) -> LabelSet:
        """Encode labels once, for any number of pictures.

        Args:
            labels: distinct label texts, at least one.
            templates: prompts with one `{}` each, or a mapping from every label to its own. The
                embeddings over all of a label's, each of length 1, are averaged and scaled back to
                length 1.
            truncate: cut texts that are too long instead of refusing them.

        Raises:
            LabelError: no labels, a label that is not a string, empty, or there twice.
            TextError: a text too long, or with a lone surrogate, or a template without one `{}`.
            OptionError: a mapping of templates that lacks a label, or has one too many.
        """
        return self._texts.encode_labels(labels, templates=templates, truncate=truncate)

    def encode_texts(
        self, texts: Sequence[str], *, truncate: bool = False, normalize: bool = True
    ) -> Embeds:
        """Embed texts.

        Args:
            texts: a list of non-empty strings.
            truncate: cut a text longer than the model takes, instead of refusing it.
            normalize: scale each embedding to length 1; otherwise as the projection left it
                (transformers' `text_embeds` before the division).

        Returns:
            float32 [N, D], in the order of the texts.

        Raises:
            TextError: a text is not a string, empty, too long or holds a lone surrogate.
        """
        return self._texts.encode_texts(texts, truncate=truncate, normalize=normalize)

    def encode_images(
        self, images: Sequence[ImageInput], *, normalize: bool = True, batch_size: int = 16
    ) -> Embeds:
        """Embed pictures; the next batch is decoded while one runs.

        Args:
            images: a list of pictures (see `vlrt.load_image` for the kinds).
            normalize: scale each embedding to length 1.
            batch_size: pictures in one run of the graph; bounds the memory.

        Returns:
            float32 [N, D], in the order of the pictures.

        Raises:
            ImageError: a picture cannot be read; the message names it and its position.
            OptionError: not a list, or a `batch_size` that is not a whole number of 1 or more.
        """
        if not is_list(images):
            raise OptionError("encode_images takes a list of pictures; wrap one as [picture]")
        batches = self._batches(images, checked_count("batch_size", batch_size))
        if not images:
            raise ImageError("there are no pictures to encode")
        rows = (row for batch, embeds in batches for row in batch.each(embeds))
        found = np.stack(collected(rows, len(images)))
        return l2_normalize(found) if normalize else found

    def iter_image_embeds(
        self, images: Iterable[ImageInput], *, normalize: bool = True, batch_size: int = 16
    ) -> Iterator[tuple[list[ImageError | None], Embeds]]:
        """Embed a stream of pictures, batch by batch, in bounded memory.

        Options are checked at once; pictures are consumed lazily.

        Returns:
            An iterator over the batches: an error or None for each of its pictures, and float32
            [number of None, D] for those that could be read ([0, 0] if none could).
        """
        check_several(images, "iter_image_embeds")
        batches = self._batches(images, checked_count("batch_size", batch_size))
        return (
            (batch.errors, l2_normalize(embeds) if normalize else embeds)
            for batch, embeds in batches
        )

    def _scored(
        self, images: Iterable[ImageInput], labels: LabelSet, scale: np.float32, batch_size: int
    ) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
        """Each batch with the logits of its readable pictures, float32 [B, labels]."""
        if self._similarity is None:
            for batch, embeds in self._batches(images, batch_size):
                texts = labels.embeds if len(embeds) else embeds  # of a batch of errors alone
                yield batch, (l2_normalize(embeds) @ texts.T) * scale
            return
        for batch in read_batches(images, self.processor, batch_size, self.info):
            logits = np.empty((0, len(labels.labels)), np.float32)
            if batch.sizes_hw:
                factor = np.array([scale], np.float32)
                logits = self._similarity.of_pictures(
                    batch.pixel_values, labels, ("logits",), logit_scale=factor
                )["logits"]
            yield batch, logits

    def _batches(
        self, images: Iterable[ImageInput], batch_size: int
    ) -> Iterator[tuple[Batch, Embeds]]:
        """Each batch with the embeddings of its readable pictures, as the projection left them."""
        for batch in read_batches(images, self.processor, batch_size, self.info):
            if not batch.sizes_hw:  # not one of them could be read
                yield batch, np.empty((0, 0), np.float32)
                continue
            outputs = self._vision.run({"pixel_values": batch.pixel_values})
            graph = f"the vision_model of {self._name}"
            check_outputs(graph, outputs, {"image_embeds": "BD"}, B=len(batch.sizes_hw))
            yield batch, outputs["image_embeds"]

    def image_similarity(
        self, images: Sequence[ImageInput], others: Sequence[ImageInput] | None = None
    ) -> NDArray[np.float32]:
        """Cosine similarity of pictures with other pictures, or with each other.

        Returns:
            float32 [len(images), len(others)], in -1..1.
        """
        embeds = self.encode_images(images)
        return cosine_similarity(embeds, embeds if others is None else self.encode_images(others))

    def _run(self, pictures: list[Image.Image], text: str) -> object:  # noqa: ARG002
        return self.encode_images(pictures, batch_size=len(pictures))

    def _run_texts(self, texts: list[str]) -> object:
        return self.encode_texts(texts)
