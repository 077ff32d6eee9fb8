"""The graphs behind a detector: a tower for pictures and one for texts, or one graph for both.

Either way pictures come in as a stream and leave as one, in order. One that cannot be read becomes
its `ImageError`, in its place, and does not stop the others.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias, TypeVar, cast

from vlrt.bundle import Bundle
from vlrt.detection import View, check_finite, class_logits
from vlrt.errors import ImageError, OptionError
from vlrt.image import ImageInput
from vlrt.labels import TextEncoder
from vlrt.processor import Processor
from vlrt.results import EncodedImage, LabelSet
from vlrt.session import Runner
from vlrt.stream import Batch, is_list, read_batches
from vlrt.text import Tokenizer

Picture: TypeAlias = ImageInput | EncodedImage
T = TypeVar("T")
U = TypeVar("U")
Stream: TypeAlias = Iterator[tuple[Picture, T | ImageError]]


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
        self.texts = texts
        self._vision, self._processor, self._info = vision, processor, info
        self._name, self._fingerprint = bundle.name, bundle.fingerprint

    def encode(self, images: Iterable[Picture], batch_size: int) -> Stream[EncodedImage]:
        """Encode those pictures that are not encoded yet.

        Raises:
            OptionError: `batch_size` is below 1.
            InferenceError: the graph gives numbers that are not finite.
        """
        if batch_size < 1:
            raise OptionError(f"batch_size is {batch_size}; valid: 1 or more")
        return self._encode(images, batch_size)

    def _encode(self, images: Iterable[Picture], batch_size: int) -> Stream[EncodedImage]:
        at = 0
        for done, group in groupby(images, lambda image: isinstance(image, EncodedImage)):
            if done:
                for encoded in cast("Iterator[EncodedImage]", group):
                    yield encoded, self._own(encoded)
                    at += 1
                continue
            for batch in _read(group, self._processor, batch_size, self._info):
                yield from _in_place(batch, self._run(batch, at))
                at += len(batch.sources)

    def views(self, images: Iterable[Picture], labels: LabelSet, batch_size: int) -> Stream[View]:
        """Show every picture to a label set (see `encode`)."""
        return self._views(self.encode(images, batch_size), labels)

    def _views(self, stream: Stream[EncodedImage], labels: LabelSet) -> Stream[View]:
        for at, (source, image) in enumerate(stream):
            if isinstance(image, ImageError):
                yield source, image
                continue
            logits = class_logits(
                image.class_embeds, image.logit_shift, image.logit_scale, labels.embeds
            )
            check_finite({"logits": logits}, _title(source, at))
            yield source, View(logits, image.pred_boxes, image.size_hw)

    def _run(self, batch: Batch, at: int) -> Iterator[EncodedImage]:
        if not batch.sizes_hw:
            return
        outputs = self._vision.run({"pixel_values": batch.pixel_values})
        objectness = outputs.get("objectness_logits")
        positions = [n for n, error in enumerate(batch.errors) if error is None]
        for row, (position, size_hw) in enumerate(zip(positions, batch.sizes_hw, strict=True)):
            title = _title(batch.sources[position], at + position)
            check_finite({name: array[row] for name, array in outputs.items()}, title)
            yield EncodedImage(
                class_embeds=outputs["image_class_embeds"][row],
                logit_shift=outputs["logit_shift"][row],
                logit_scale=outputs["logit_scale"][row],
                pred_boxes=outputs["pred_boxes"][row],
                objectness_logits=None if objectness is None else objectness[row],
                size_hw=size_hw,
                model=self._fingerprint,
            )

    def _own(self, encoded: EncodedImage) -> EncodedImage | ImageError:
        if encoded.model == self._fingerprint:
            return encoded
        return ImageError(
            f"this EncodedImage was made by another model ({encoded.model}), not by {self._name} "
            f"({self._fingerprint})"
        )


class OneGraph:
    """A foreign graph that takes the labels again with every picture, one picture at a time.

    Args:
        runner: from `input_ids`, `attention_mask` [N, L] and `pixel_values` [1, 3, H, W] to
            `logits` [1, P, N] and `pred_boxes` [1, P, 4].
        tokenizer: the bundle's.
        processor: makes the pixels.
        info: the model's, for `threads` and `decode`.
    """

    def __init__(
        self, runner: Runner, tokenizer: Tokenizer, processor: Processor, info: Mapping[str, Any]
    ) -> None:
        self._runner, self._tokenizer = runner, tokenizer
        self._processor, self._info = processor, info

    def views(
        self, images: Iterable[Picture], labels: Sequence[str], *, truncate: bool
    ) -> Stream[View]:
        """Show every picture to labels.

        Raises:
            TextError: a label is too long, or holds a lone surrogate.
        """
        ids = self._tokenizer.ids(labels, truncate=truncate)
        # As transformers' processor pads, since the graph was traced on what that gives.
        return self._views(images, self._tokenizer.pad(ids, self._tokenizer.max_length))

    def _views(self, images: Iterable[Picture], tokens: Mapping[str, Any]) -> Stream[View]:
        for at, batch in enumerate(_read(images, self._processor, 1, self._info)):
            views = []
            for size_hw in batch.sizes_hw:
                outputs = self._runner.run({**tokens, "pixel_values": batch.pixel_values})
                used = {name: outputs[name][0] for name in ("logits", "pred_boxes")}
                check_finite(used, _title(batch.sources[0], at))
                views.append(View(**used, size_hw=size_hw))
            yield from _in_place(batch, iter(views))


def mapped(function: Callable[[T], U], stream: Stream[T]) -> Stream[U]:
    """Apply a function to what is no error."""
    for source, value in stream:
        yield source, value if isinstance(value, ImageError) else function(value)


def listed(images: Any) -> Sequence[Any]:
    """Several pictures as they are, and one as a list of one."""
    return images if is_list(images) else [images]


def as_given(images: Any, stream: Stream[T]) -> T | list[T]:
    """What a stream gives for one picture or, if several were given, for each of them.

    Raises:
        ImageError: a picture cannot be read; it is named with its position. Or there is none.
    """
    several = is_list(images)
    values = collected(stream, len(images) if several else 1)
    return values if several else values[0]


def collected(stream: Stream[T], number: int) -> list[T]:
    """All that a stream of `number` pictures gives.

    Raises:
        ImageError: a picture cannot be read; it is named with its position. Or there is none.
    """
    values: list[T] = []
    for position, (_, value) in enumerate(stream):
        if isinstance(value, ImageError):
            which = f"picture {position}: " if number > 1 else ""
            raise ImageError(f"{which}{value}") from value
        values.append(value)
    if not values:
        raise ImageError("there are no pictures")
    return values


def _read(
    images: Iterable[Any], processor: Processor, batch_size: int, info: Mapping[str, Any]
) -> Iterator[Batch]:
    return read_batches(
        images,
        processor,
        batch_size=batch_size,
        workers=int(info["threads"]),
        fast=info["decode"] == "fast",
    )


def _in_place(batch: Batch, values: Iterator[T]) -> Stream[T]:
    for source, error in zip(batch.sources, batch.errors, strict=True):
        yield source, next(values) if error is None else error


def _title(source: Picture, position: int) -> str:
    file = f" ({str(source)!r:.200})" if isinstance(source, str | os.PathLike) else ""
    return f"picture {position}{file}"
