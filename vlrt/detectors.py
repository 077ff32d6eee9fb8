"""The graphs behind a detector: a tower for pictures and one for texts, or one graph for both.

Either way pictures come in as a stream and leave as one, in order. One that cannot be read becomes
its `ImageError`, in its place, and does not stop the others.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias, cast

from vlrt.bundle import Bundle
from vlrt.checks import check_finite, check_outputs, checked_count
from vlrt.detection import View, class_logits
from vlrt.errors import BundleError, ImageError
from vlrt.image import ImageInput
from vlrt.labels import TextEncoder
from vlrt.processor import Processor
from vlrt.results import EncodedImage, LabelSet
from vlrt.session import Runner
from vlrt.stream import Batch, Stream, read_batches
from vlrt.text import Tokenizer

Picture: TypeAlias = ImageInput | EncodedImage

_VISION = {
    "image_class_embeds": "BPD",
    "logit_shift": "BP",
    "logit_scale": "BP",
    "pred_boxes": "BP4",
}


class Towers:
    """Two graphs that meet in NumPy, so each side is encoded once for any number of the other.

    Args:
        bundle: where they come from.
        vision: from `pixel_values` to `image_class_embeds`, `logit_shift`, `logit_scale`,
            `pred_boxes` and, in OWLv2, `objectness_logits`.
        texts: the other tower.
        processor: makes the pixels.
        info: the model's, for `threads` and `decode`.
    """

    def __init__(
        self,
        bundle: Bundle,
        vision: Runner,
        texts: TextEncoder,
        processor: Processor,
        info: Mapping[str, Any],
    ) -> None:
        self.texts, self.fingerprint = texts, bundle.fingerprint
        self._vision, self._processor, self._info = vision, processor, info
        self._name = bundle.name

    def encode(
        self, images: Iterable[Picture], batch_size: int, *, what: str = "picture"
    ) -> Stream[EncodedImage]:
        """Encode those pictures that are not encoded yet.

        Args:
            images: a stream of them.
            batch_size: pictures in one run of the graph.
            what: to call them in messages.

        Raises:
            OptionError: `batch_size` is not a whole number of 1 or more.
            BundleError: the graph does not give what its family reads.
            InferenceError: it gives numbers that are not finite.
        """
        return self._encode(images, checked_count("batch_size", batch_size), what)

    def _encode(
        self, images: Iterable[Picture], batch_size: int, what: str
    ) -> Stream[EncodedImage]:
        at = 0
        for done, group in groupby(images, lambda image: isinstance(image, EncodedImage)):
            if done:
                for encoded in cast("Iterator[EncodedImage]", group):
                    yield encoded, self._own(encoded)
                    at += 1
                continue
            for batch in read_batches(group, self._processor, batch_size, self._info):
                yield from batch.each(self._run(batch, at, what))
                at += len(batch.sources)

    def views(
        self,
        images: Iterable[Picture],
        labels: LabelSet,
        batch_size: int,
        *,
        every: bool = False,  # noqa: ARG002  which matters where they are fetched from a GPU
    ) -> Stream[View]:
        """Show every picture to a label set (see `encode`).

        Args:
            images, batch_size: as `encode` takes them.
            labels: the N labels.
            every: whether the logits of all labels are wanted, and not of the best alone.
        """
        return self._views(self.encode(images, batch_size), labels)

    def _views(self, stream: Stream[EncodedImage], labels: LabelSet) -> Stream[View]:
        for at, (source, image) in enumerate(stream):
            if isinstance(image, ImageError):
                yield source, image
                continue
            widths = image.class_embeds.shape[1], labels.embeds.shape[1]
            if widths[0] != widths[1]:
                raise BundleError(
                    f"{self._name}: the embeddings of pictures have {widths[0]} numbers, those of "
                    f"labels {widths[1]}"
                )
            logits = class_logits(
                image.class_embeds, image.logit_shift, image.logit_scale, labels.embeds
            )
            check_finite({"logits": logits}, title("picture", at, source))
            yield source, View(logits, image.pred_boxes, image.size_hw)

    def _run(self, batch: Batch, at: int, what: str) -> Iterator[EncodedImage]:
        if not batch.sizes_hw:
            return
        outputs = self._vision.run({"pixel_values": batch.pixel_values})
        objectness = outputs.get("objectness_logits")
        axes = _VISION if objectness is None else _VISION | {"objectness_logits": "BP"}
        graph = f"the vision_model of {self._name}"
        check_outputs(graph, outputs, axes, B=len(batch.sizes_hw))
        for row, (position, size_hw) in enumerate(zip(batch.readable, batch.sizes_hw, strict=True)):
            # Copies, so that one picture that is kept does not keep its batch.
            own = {name: outputs[name][row].copy() for name in axes}
            check_finite(own, title(what, at + position, batch.sources[position]))
            yield EncodedImage(
                class_embeds=own["image_class_embeds"],
                logit_shift=own["logit_shift"],
                logit_scale=own["logit_scale"],
                pred_boxes=own["pred_boxes"],
                objectness_logits=own.get("objectness_logits"),
                size_hw=size_hw,
                model=self.fingerprint,
            )

    def _own(self, encoded: EncodedImage) -> EncodedImage | ImageError:
        if encoded.model == self.fingerprint:
            return encoded
        return ImageError(
            f"this EncodedImage was made by another model ({encoded.model}), not by {self._name} "
            f"({self.fingerprint})"
        )


class OneGraph:
    """A foreign graph that takes the labels again with every picture, one picture at a time.

    Args:
        name: the bundle's.
        runner: from `input_ids`, `attention_mask` [N, L] and `pixel_values` [1, 3, H, W] to
            `logits` [1, P, N] and `pred_boxes` [1, P, 4].
        tokenizer: the bundle's.
        processor: makes the pixels.
        info: the model's, for `threads` and `decode`.
    """

    def __init__(
        self,
        name: str,
        runner: Runner,
        tokenizer: Tokenizer,
        processor: Processor,
        info: Mapping[str, Any],
    ) -> None:
        self._name, self._runner, self._tokenizer = name, runner, tokenizer
        self._processor, self._info = processor, info

    def views(
        self, images: Iterable[Picture], labels: Sequence[str], *, truncate: bool
    ) -> Stream[View]:
        """Show every picture to labels.

        Raises:
            TextError: a label is too long, or holds a lone surrogate.
            BundleError: the graph does not give what its family reads.
            InferenceError: it gives numbers that are not finite.
        """
        ids = self._tokenizer.ids(labels, truncate=truncate)
        # As transformers' processor pads, since the graph was traced on what that gives.
        return self._views(images, self._tokenizer.pad(ids, self._tokenizer.max_length))

    def _views(self, images: Iterable[Picture], tokens: Mapping[str, Any]) -> Stream[View]:
        for at, batch in enumerate(read_batches(images, self._processor, 1, self._info)):
            views = []
            for size_hw in batch.sizes_hw:
                outputs = self._runner.run({**tokens, "pixel_values": batch.pixel_values})
                axes, labels = {"logits": "BPN", "pred_boxes": "BP4"}, len(tokens["input_ids"])
                check_outputs(f"the graph of {self._name}", outputs, axes, B=1, N=labels)
                used = {name: outputs[name][0] for name in axes}
                check_finite(used, title("picture", at, batch.sources[0]))
                views.append(View(**used, size_hw=size_hw))
            yield from batch.each(views)


def title(what: str, position: int, source: Picture) -> str:
    """What to call a picture in errors."""
    file = f" ({str(source)!r:.200})" if isinstance(source, str | os.PathLike) else ""
    return f"{what} {position}{file}"
