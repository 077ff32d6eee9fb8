"""OWL-ViT: finding objects by text, or by a picture of one.

Agrees with `transformers/models/owlvit/modeling_owlvit.py`. A picture is encoded once for any
number of label sets, and labels once for any number of pictures; the two meet in NumPy.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt import boxes as geometry
from vlrt import detection
from vlrt.bundle import Bundle
from vlrt.detection import Options, Threshold, View
from vlrt.detectors import OneGraph, Picture, Stream, Towers, as_given, collected, listed, mapped
from vlrt.errors import BundleError, ImageError, OptionError
from vlrt.files import Settings
from vlrt.labels import TextEncoder, checked_labels, example_names, open_tokenizer
from vlrt.ops import l2_normalize
from vlrt.processor import ImageProcessor, Processor
from vlrt.results import Detections, EncodedImage, LabelSet
from vlrt.session import Runner

COMPONENTS = ("vision_model", "text_model")
FOREIGN_COMPONENTS = (("model",),)
FOREIGN_NOTE = (
    "texts and pictures share one graph, which takes one picture at a time and encodes the labels "
    "again for each; a bundle that `vlrt export` makes of the checkpoint is faster and can do more"
)
TASK = "zero-shot-object-detection"

Boxes = NDArray[np.float32]


def image_processor(settings: Settings) -> Processor:
    """What turns pictures into `pixel_values`; an integer `size` means a square."""
    return ImageProcessor.from_settings(settings, default_to_square=True)


class Model:
    """An OWL-ViT model. Safe to share between threads: it holds nothing of a call.

    Args:
        bundle: its description.
        sessions: a runner for each of `COMPONENTS`, or for the one of `FOREIGN_COMPONENTS`.
        info: what `load` decided, for the reader.
        values: empty; every number of these models is in their graphs.
    """

    _image_processor = staticmethod(image_processor)

    def __init__(
        self,
        bundle: Bundle,
        sessions: Mapping[str, Runner],
        *,
        info: Mapping[str, Any],
        values: Mapping[str, float],
    ) -> None:
        if values:
            raise OptionError(f"this family takes no values; given: {', '.join(sorted(values))}")
        self.info = dict(info)
        self.processor: Processor = self._image_processor(bundle.preprocessor)
        self.tokenizer = open_tokenizer(bundle)
        self._graphs: Towers | OneGraph
        if set(sessions) == set(COMPONENTS):
            texts = TextEncoder(bundle, self.tokenizer, sessions["text_model"])
            vision = sessions["vision_model"]
            self._graphs = Towers(bundle, vision, texts, self.processor, self.info)
        else:
            self._graphs = OneGraph(sessions["model"], self.tokenizer, self.processor, self.info)
        self._name, self._fingerprint = bundle.name, bundle.fingerprint

    def detect(
        self,
        images: Picture | Sequence[Picture],
        labels: Sequence[str] | LabelSet,
        *,
        threshold: Threshold = 0.1,
        iou_threshold: float | None = None,
        class_agnostic: bool = False,
        multi_label: bool = False,
        soft_nms: float | None = None,
        top_k: int | None = None,
        templates: Sequence[str] | None = None,
        truncate: bool = False,
        batch_size: int = 4,
    ) -> Detections | list[Detections]:
        """Find the objects that labels name.

        The defaults give what `post_process_object_detection` of transformers gives; `multi_label`
        gives what its pipeline gives.

        Args:
            images: one picture, or a list or tuple of them (see `vlrt.load_image` for the kinds),
                or what `encode_image` made of them. They may differ in size.
            labels: label texts, or a set that `encode_labels` or `encode_examples` made.
            threshold: the score, 0..1, that an object must exceed: one for all labels, one a label,
                or a mapping from every label to its own.
            iou_threshold: of two boxes of one label that overlap by more than this (IoU, 0..1),
                only the better one is kept; None keeps both.
            class_agnostic: compare boxes of different labels with each other too.
            multi_label: report a box for every label that exceeds its threshold there, and not for
                its best label alone.
            soft_nms: instead of `iou_threshold`, the sigma by which overlapping boxes lose score
                (0.5 in Bodla et al. 2017).
            top_k: at most so many objects in each picture.
            templates: prompts with one `{}` each, averaged over; the label itself by default.
            truncate: cut label texts that are too long instead of refusing them.
            batch_size: pictures in one run of the graph.

        Returns:
            Detections for one picture, a list of them for a list. Boxes are in pixels of the
            original picture.

        Raises:
            ImageError, TextError, LabelError, OptionError: bad input, named.
            InferenceError: the graph gives numbers that are not finite.
            BundleError: something that a foreign bundle of one graph cannot do.
        """
        found = self.iter_detect(
            listed(images),
            labels,
            threshold=threshold,
            iou_threshold=iou_threshold,
            class_agnostic=class_agnostic,
            multi_label=multi_label,
            soft_nms=soft_nms,
            top_k=top_k,
            templates=templates,
            truncate=truncate,
            batch_size=batch_size,
        )
        return as_given(images, found)

    def iter_detect(
        self,
        images: Iterable[Picture],
        labels: Sequence[str] | LabelSet,
        *,
        threshold: Threshold = 0.1,
        iou_threshold: float | None = None,
        class_agnostic: bool = False,
        multi_label: bool = False,
        soft_nms: float | None = None,
        top_k: int | None = None,
        templates: Sequence[str] | None = None,
        truncate: bool = False,
        batch_size: int = 4,
    ) -> Stream[Detections]:
        """Do what `detect` does on a stream of pictures, in bounded memory.

        Options and labels are checked at once; pictures are consumed lazily, and one that cannot be
        read does not stop the others.

        Returns:
            An iterator over the pictures, each with its Detections or its ImageError, in order.
        """
        options = Options(iou_threshold, class_agnostic, multi_label, soft_nms, top_k)
        names = labels.labels if isinstance(labels, LabelSet) else checked_labels(labels)
        limits = detection.limits(threshold, names)
        if isinstance(self._graphs, OneGraph):
            if isinstance(labels, LabelSet) or templates is not None:
                self._need_towers("label sets and templates")
            views = self._graphs.views(images, names, truncate=truncate)
        else:
            encoded = self._graphs.texts.label_set(labels, templates=templates, truncate=truncate)
            views = self._graphs.views(images, encoded, batch_size)

        def found(view: View) -> Detections:
            boxes = self._pixel_boxes(view)
            chosen = detection.select(view.logits, boxes, limits, options)
            return Detections(names, *chosen, view.size_hw)

        return mapped(found, views)

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
            templates: prompts with one `{}` each, averaged over; the label itself by default.
            truncate: cut texts that are too long instead of refusing them.

        Raises:
            LabelError: no labels, a label that is not a string, empty, or there twice.
            TextError: a text too long, or with a lone surrogate, or a template without one `{}`.
            BundleError: a foreign bundle of one graph cannot do this.
        """
        texts = self._need_towers("encode_labels").texts
        return texts.encode_labels(labels, templates=templates, truncate=truncate)

    def encode_image(
        self, images: Picture | Sequence[Picture], *, batch_size: int = 4
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
        pictures: Picture | Sequence[Picture],
        *,
        names: Sequence[str] | None = None,
        boxes: Sequence[Sequence[float] | None] | None = None,
    ) -> LabelSet:
        """Encode what example pictures show, to be found in other pictures.

        Args:
            pictures: one example or several, each of one object.
            names: what to call them; by default a file's name without its suffix, or "example 1".
                Several may share a name.
            boxes: for each picture where in it the object is, (x0, y0, x1, y1) in its pixels, or
                None: all over it.

        Returns:
            A set with a row an example, for `detect_like`, and for `detect` too.

        Raises:
            ImageError: a picture cannot be read, or nothing is found in it.
            LabelError: names too many or too few, or one that is not a string, or empty.
            OptionError: boxes too many or too few, or one that is none.
            BundleError: a foreign bundle of one graph cannot do this.
        """
        encode, sources = self._need_towers("encode_examples").encode, listed(pictures)
        called = example_names(sources, names)
        placed = [None] * len(sources) if boxes is None else list(boxes)
        if len(placed) != len(sources):
            raise OptionError(f"{len(placed)} boxes were given for {len(sources)} examples")
        examples = collected(encode(sources, batch_size=4), len(sources))
        embeds = []
        for name, box, example in zip(called, placed, examples, strict=True):
            area = None if box is None else detection.checked_box(box, example.size_hw)
            place = self._example_place(example, area)
            if place is None:
                where = "" if box is None else f" at {list(box)}"
                raise ImageError(f"nothing was found in the example picture {name!r}{where}")
            embeds.append(example.class_embeds[place])
        return LabelSet(called, l2_normalize(np.stack(embeds)), self._fingerprint)

    def detect_like(
        self,
        images: Picture | Sequence[Picture],
        examples: Picture | Sequence[Picture] | LabelSet,
        *,
        threshold: float = 0.0,
        iou_threshold: float | None = 0.3,
        top_k: int | None = None,
        batch_size: int = 4,
    ) -> Detections | list[Detections]:
        """Find what looks like one of some examples.

        The defaults give the boxes that `post_process_image_guided_detection` of transformers
        gives, and as `alphas` its scores, where the best match always has 1. `scores` are the true
        ones: how much an object looks like its example.

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
        examples: Picture | Sequence[Picture] | LabelSet,
        *,
        threshold: float = 0.0,
        iou_threshold: float | None = 0.3,
        top_k: int | None = None,
        batch_size: int = 4,
    ) -> Stream[Detections]:
        """Do what `detect_like` does on a stream of pictures (see `iter_detect`)."""
        towers = self._need_towers("detect_like")
        options = Options(iou_threshold=iou_threshold, top_k=top_k)
        lowest = detection.checked_unit("threshold", threshold)
        if not isinstance(examples, LabelSet):
            examples = self.encode_examples(examples)
        labels = towers.texts.label_set(examples)

        def found(view: View) -> Detections:
            corners = geometry.center_to_corners(view.pred_boxes)
            nearest = view.logits.argmax(axis=1)
            scores = detection.sigmoid(view.logits.max(axis=1))
            places, alphas = detection.guided(corners, scores, lowest, options)
            boxes = self.processor.to_pixels(corners[places], view.size_hw)
            return Detections(
                labels.labels, boxes, scores[places], nearest[places], view.size_hw, alphas
            )

        return mapped(found, towers.views(images, labels, batch_size))

    def _example_place(self, example: EncodedImage, box: Boxes | None) -> int | None:
        """Which place stands for the object, all over the picture or in a box in its pixels."""
        if box is None:
            corners = geometry.center_to_corners(example.pred_boxes)
            return detection.example_place(example.class_embeds, corners, detection.WHOLE)
        return detection.example_place(example.class_embeds, self._pixel_boxes(example), box)

    def _pixel_boxes(self, seen: View | EncodedImage) -> Boxes:
        return self.processor.to_pixels(geometry.center_to_corners(seen.pred_boxes), seen.size_hw)

    def _need_towers(self, what: str) -> Towers:
        if isinstance(self._graphs, Towers):
            return self._graphs
        raise BundleError(
            f"{self._name} has one graph for texts and pictures together, so {what} cannot be had; "
            "make a bundle of the checkpoint that can: vlrt export CHECKPOINT -o DIRECTORY"
        )
