"""Examples: pictures of one object each, which stand for what is looked for."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from vlrt import boxes as geometry
from vlrt import detection
from vlrt.checks import checked_count, checked_unit
from vlrt.detection import LikeOptions, Options, View
from vlrt.detectors import OneGraph, Picture, Towers
from vlrt.errors import BundleError, ImageError, LabelError, OptionError
from vlrt.labels import checked_labels
from vlrt.ops import l2_normalize, sigmoid
from vlrt.processor import Processor
from vlrt.results import Detections, EncodedImage, LabelSet
from vlrt.stream import Several, Stream, as_given, check_several, collected, listed, mapped

if TYPE_CHECKING:
    from typing import Unpack  # from Python 3.11 on

Boxes = NDArray[np.float32]
Examples: TypeAlias = Picture | Several | LabelSet


class ByExample(ABC):
    """The half of a detector that finds what looks like something; a family adds the rest.

    Attributes:
        processor: makes the pixels.
    """

    processor: Processor
    _name: str
    _graphs: Towers | OneGraph

    @overload
    def encode_image(self, images: Several, *, batch_size: int = ...) -> list[EncodedImage]: ...

    @overload
    def encode_image(self, images: Picture, *, batch_size: int = ...) -> EncodedImage: ...

    def encode_image(
        self, images: Picture | Several, *, batch_size: int = 4
    ) -> EncodedImage | list[EncodedImage]:
        """Encode pictures once, to be searched again and again.

        Args:
            images: one picture, or a list or tuple of them (see `vlrt.load_image` for the kinds).
            batch_size: pictures in one run of the graph.

        Returns:
            An EncodedImage for one picture, a list of them for a list.

        Raises:
            ImageError: a picture cannot be read; the message names it.
            InferenceError: the graph gives numbers that are not finite.
            BundleError: a foreign bundle of one graph cannot do this.
        """
        encode = self._need_towers("encode_image").encode
        return as_given(images, encode(listed(images), batch_size))

    def encode_examples(
        self,
        pictures: Picture | Several,
        *,
        names: Iterable[str] | None = None,
        boxes: Iterable[Sequence[float] | None] | None = None,
    ) -> LabelSet:
        """Encode what example pictures show, to be found in other pictures.

        A model always takes the place that suits best, and cannot tell an empty picture: one with
        nothing in it matches background. OWL-ViT takes, of the boxes that cover the picture (or
        `boxes`) best, the one least like the rest of it; OWLv2 the one most like an object or,
        given a box, the one nearest to it.

        Args:
            pictures: one example or several, each of one object.
            names: what to call them; by default a file's name without its suffix, or "example 0".
                Several may share a name.
            boxes: for each picture where in it the object is, (x0, y0, x1, y1) in its pixels, or
                None: all over it.

        Returns:
            A set with a row an example, for `detect_like`, and for `detect` too.

        Raises:
            ImageError: a picture cannot be read, or no place overlaps it or its box.
            LabelError: names too many or too few, or one that is not a string, or empty.
            OptionError: boxes too many or too few, or one that is none.
            BundleError: a foreign bundle of one graph cannot do this.
        """
        towers = self._need_towers("encode_examples")
        sources = listed(pictures)
        called, placed = example_names(sources, names), _placed(boxes, len(sources))
        stream = towers.encode(sources, batch_size=4, what="example")
        seen = collected(stream, len(sources), what="example")
        embeds = []
        for name, box, example in zip(called, placed, seen, strict=True):
            area = None if box is None else detection.checked_box(box, example.size_hw)
            place = self._example_place(example, area)
            if place is None:
                where = "" if box is None else f" at {np.asarray(box).tolist()}"
                raise ImageError(f"nothing was found in the example picture {name!r}{where}")
            embeds.append(example.class_embeds[place])
        return LabelSet(called, l2_normalize(np.stack(embeds)), towers.fingerprint)

    @overload
    def detect_like(
        self, images: Several, examples: Examples, **options: "Unpack[LikeOptions]"
    ) -> list[Detections]: ...

    @overload
    def detect_like(
        self, images: Picture, examples: Examples, **options: "Unpack[LikeOptions]"
    ) -> Detections: ...

    def detect_like(
        self,
        images: Picture | Several,
        examples: Examples,
        *,
        threshold: float = 0.0,
        iou_threshold: float | None = 0.3,
        top_k: int | None = None,
        batch_size: int = 4,
    ) -> Detections | list[Detections]:
        """Find what looks like one of some examples.

        The defaults give the boxes that `post_process_image_guided_detection` of transformers
        gives, and as `alphas` its scores, where the best match always has 1. `scores` are the true
        ones: how much an object looks like its example. As in transformers, whatever scores below a
        tenth of the picture's best, over all examples, is left out in any case.

        Args:
            images: as `detect` takes them.
            examples: pictures of one object each, or a set that `encode_examples` made.
            threshold: the score, 0..1, that an object must reach.
            iou_threshold: of two boxes that overlap by more than this (IoU, 0..1), whatever their
                examples, only the better one is kept; None keeps both.
            top_k: at most so many objects in each picture.
            batch_size: pictures in one run of the graph.

        Returns:
            Detections for one picture, a list of them for a list; `label_ids` say which example.

        Raises:
            As `detect` and `encode_examples` do.
        """
        found = self.iter_detect_like(
            listed(images),
            examples,
            threshold=threshold,
            iou_threshold=iou_threshold,
            top_k=top_k,
            batch_size=batch_size,
        )
        return as_given(images, found)

    def iter_detect_like(
        self,
        images: Iterable[Picture],
        examples: Examples,
        *,
        threshold: float = 0.0,
        iou_threshold: float | None = 0.3,
        top_k: int | None = None,
        batch_size: int = 4,
    ) -> Stream[Detections]:
        """Do what `detect_like` does on a stream of pictures (see `iter_detect`)."""
        check_several(images, "iter_detect_like")
        towers = self._need_towers("detect_like")
        options = Options(iou_threshold=iou_threshold, top_k=top_k)
        checked_count("batch_size", batch_size)
        lowest = checked_unit("threshold", threshold)
        if not isinstance(examples, LabelSet):
            examples = self.encode_examples(examples)
        labels = towers.texts.label_set(examples)

        def found(view: View) -> Detections:
            corners = geometry.center_to_corners(view.pred_boxes)
            nearest, logits = view.best_of_each()
            scores = sigmoid(logits)
            places, alphas = detection.guided(corners, scores, lowest, options)
            boxes = self.processor.to_pixels(corners[places], view.size_hw)
            return Detections(
                labels.labels, boxes, scores[places], nearest[places], view.size_hw, alphas
            )

        return mapped(found, towers.views(images, labels, batch_size))

    @abstractmethod
    def _example_place(self, example: EncodedImage, box: Boxes | None) -> int | None:
        """Which place stands for the object, all over the picture or in a box in its pixels."""

    def _pixel_boxes(self, seen: View | EncodedImage) -> Boxes:
        return self.processor.to_pixels(geometry.center_to_corners(seen.pred_boxes), seen.size_hw)

    def _need_towers(self, what: str) -> Towers:
        if isinstance(self._graphs, Towers):
            return self._graphs
        raise BundleError(
            f"{self._name} has one graph for texts and pictures together, so {what} cannot be had; "
            "make a bundle of the checkpoint that can: vlrt export CHECKPOINT -o DIRECTORY"
        )


def example_names(sources: Sequence[Any], names: Iterable[str] | None = None) -> tuple[str, ...]:
    """What to call example pictures; by default a file's name without its suffix, or "example 0".

    Raises:
        LabelError: a name is not a string, or empty, or there is not one a picture.
    """
    if names is None:
        return tuple(
            (isinstance(source, str | os.PathLike) and Path(source).stem.strip())
            or f"example {position}"
            for position, source in enumerate(sources)
        )
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise LabelError(f"names must be a list of strings, one an example, not {names!r:.60}")
    given = tuple(names)
    if len(given) != len(sources):
        raise LabelError(f"{len(given)} names were given for {len(sources)} examples")
    return tuple(checked_labels([name])[0] for name in given)


def _placed(
    boxes: Iterable[Sequence[float] | None] | None, number: int
) -> Sequence[Sequence[float] | None]:
    if boxes is None:
        return [None] * number
    if isinstance(boxes, str) or not isinstance(boxes, Iterable):
        raise OptionError(
            f"boxes must be a list, a box or None for each example, not {boxes!r:.60}"
        )
    placed = list(boxes)
    if len(placed) != number:
        raise OptionError(f"{len(placed)} boxes were given for {number} examples")
    return placed
