"""CLIP: pictures and texts in one space, zero-shot classification.

Agrees with `transformers/models/clip/modeling_clip.py` and with its
`pipelines/zero_shot_image_classification.py`, which takes the softmax over
`exp(logit_scale) * cosine`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from vlrt.bundle import Bundle
from vlrt.errors import BundleError, ImageError, OptionError
from vlrt.files import Settings
from vlrt.image import ImageInput
from vlrt.labels import TextEncoder, open_tokenizer
from vlrt.ops import cosine_similarity, l2_normalize, softmax
from vlrt.processor import ImageProcessor, Processor
from vlrt.results import Classification, LabelSet
from vlrt.session import Runner
from vlrt.stream import is_list, read_batches

COMPONENTS = ("vision_model", "text_model")
TASK = "zero-shot-image-classification"

Embeds = NDArray[np.float32]

# Foreign repositories hold the two towers but not the number between them. These checkpoints state
# theirs: the paper trains it clipped at 100 (section 2.5), and all were released at that value.
_PUBLISHED_LOGIT_SCALE = {
    f"openai/clip-vit-{name}": 100.0
    for name in ("base-patch32", "base-patch16", "large-patch14", "large-patch14-336")
}


def image_processor(settings: Settings) -> Processor:
    """What turns pictures into `pixel_values`."""
    return ImageProcessor.from_settings(settings)


class Model:
    """A CLIP model. Safe to share between threads: it holds nothing of a call.

    Args:
        bundle: its description.
        sessions: a runner for each of `COMPONENTS`.
        info: what `load` decided, for the reader.
        values: `logit_scale`, the factor itself and not its logarithm.
    """

    def __init__(
        self,
        bundle: Bundle,
        sessions: Mapping[str, Runner],
        *,
        info: Mapping[str, Any],
        values: Mapping[str, float],
    ) -> None:
        self.info = dict(info)
        self.processor = image_processor(bundle.preprocessor)
        self.tokenizer = open_tokenizer(bundle)
        self._vision = sessions["vision_model"]
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
        images: list[ImageInput] | tuple[ImageInput, ...],
        labels: Sequence[str] | LabelSet,
        *,
        templates: Sequence[str] | None = ...,
        truncate: bool = ...,
        batch_size: int = ...,
    ) -> list[Classification]: ...

    @overload
    def classify(
        self,
        images: ImageInput,
        labels: Sequence[str] | LabelSet,
        *,
        templates: Sequence[str] | None = ...,
        truncate: bool = ...,
        batch_size: int = ...,
    ) -> Classification: ...

    def classify(
        self,
        images: ImageInput | Sequence[ImageInput],
        labels: Sequence[str] | LabelSet,
        *,
        templates: Sequence[str] | None = None,
        truncate: bool = False,
        batch_size: int = 16,
    ) -> Classification | list[Classification]:
        """Score pictures against labels.

        Args:
            images: one picture, or a list or tuple of them (see `vlrt.load_image` for the kinds).
            labels: label texts, or a set that `encode_labels` made.
            templates: prompts with one `{}` each, averaged over; the label itself by default.
            truncate: cut label texts that are too long instead of refusing them.
            batch_size: pictures in one run of the graph.

        Returns:
            A Classification for one picture, a list of them for a list.

        Raises:
            ImageError, TextError, LabelError: bad input, named.
            BundleError: a foreign bundle that does not state its `logit_scale`.
        """
        labels = self._texts.label_set(labels, templates=templates, truncate=truncate)
        many = is_list(images)
        batch = cast("Sequence[ImageInput]", images if many else [images])
        embeds = self.encode_images(batch, batch_size=batch_size)
        logits = (embeds @ labels.embeds.T) * np.float32(self.logit_scale)
        scores = softmax(logits)
        found = [
            Classification(labels.labels, row_scores, row_logits)
            for row_scores, row_logits in zip(scores, logits, strict=True)
        ]
        return found if many else found[0]

    def encode_labels(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        truncate: bool = False,
    ) -> LabelSet:
        """Encode labels once, for any number of pictures.

        Args:
            labels: distinct label texts, at least one.
            templates: prompts with one `{}` each. The embeddings over all of them, each of length
                1, are averaged and scaled back to length 1.
            truncate: cut texts that are too long instead of refusing them.

        Raises:
            LabelError: no labels, a label that is not a string, empty, or there twice.
            TextError: a text too long, or with a lone surrogate, or a template without one `{}`.
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
        """
        if not is_list(images):
            raise OptionError("encode_images takes a list of pictures; wrap one as [picture]")
        parts: list[Embeds] = []
        at = 0
        for errors, embeds in self.iter_image_embeds(
            images, normalize=normalize, batch_size=batch_size
        ):
            for position, error in enumerate(errors, start=at):
                if error is not None:
                    which = f"picture {position}: " if len(images) > 1 else ""
                    raise ImageError(f"{which}{error}") from error
            at += len(errors)
            parts.append(embeds)
        if not parts:
            raise ImageError("there are no pictures to encode")
        return np.concatenate(parts)

    def iter_image_embeds(
        self, images: Iterable[ImageInput], *, normalize: bool = True, batch_size: int = 16
    ) -> Iterator[tuple[list[ImageError | None], Embeds]]:
        """Embed a stream of pictures, batch by batch, in bounded memory.

        Yields:
            For each batch, an error or None for each of its pictures, and float32 [number of None,
            D] for those that could be read ([0, 0] if none could).
        """
        if batch_size < 1:
            raise OptionError(f"batch_size is {batch_size}; valid: 1 or more")
        for batch in read_batches(
            images,
            self.processor,
            batch_size=batch_size,
            workers=int(self.info["threads"]),
            fast=self.info["decode"] == "fast",
        ):
            if not len(batch.pixel_values):  # not one of them could be read
                yield batch.errors, np.empty((0, 0), np.float32)
                continue
            embeds = self._vision.run({"pixel_values": batch.pixel_values})["image_embeds"]
            yield batch.errors, l2_normalize(embeds) if normalize else embeds

    def image_similarity(
        self, images: Sequence[ImageInput], others: Sequence[ImageInput] | None = None
    ) -> NDArray[np.float32]:
        """Cosine similarity of pictures with other pictures, or with each other.

        Returns:
            float32 [len(images), len(others)], in -1..1.
        """
        embeds = self.encode_images(images)
        return cosine_similarity(embeds, embeds if others is None else self.encode_images(others))
