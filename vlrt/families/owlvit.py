"""OWL-ViT: finding objects by text, or by a picture of one.

Agrees with `transformers/models/owlvit/modeling_owlvit.py`. A picture is encoded once for any
number of label sets, and labels once for any number of pictures; the two meet in NumPy.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt import boxes as geometry
from vlrt import detection
from vlrt.bundle import Bundle
from vlrt.checks import checked_count
from vlrt.detection import Options, SearchOptions, Threshold, View
from vlrt.detectors import OneGraph, Picture, Towers
from vlrt.detectors_on_device import TowersOnDevice
from vlrt.errors import OptionError
from vlrt.examples import ByExample
from vlrt.files import Settings
from vlrt.labels import TextEncoder, checked_labels, open_tokenizer
from vlrt.levels import takes_bytes
from vlrt.processor import ImageProcessor, Processor
from vlrt.results import Detections, EncodedImage, LabelSet
from vlrt.session import Runner
from vlrt.similarity import SIMILARITY_RUNNER
from vlrt.stream import Several, Stream, as_given, check_several, listed, mapped
from vlrt.templates import Templates
from vlrt.warmup import Warmable

if TYPE_CHECKING:
    from typing import Unpack  # from Python 3.11 on

COMPONENTS = ("vision_model", "text_model")
FOREIGN_COMPONENTS = (("model",),)
FOREIGN_NOTE = (
    "texts and pictures share one graph, which takes one picture at a time and encodes the labels "
    "again for each; a bundle that `vlrt export` makes of the checkpoint is faster and can do more"
)

Boxes = NDArray[np.float32]
Labels: TypeAlias = Iterable[str] | LabelSet


def task(_config: Mapping[str, Any]) -> str:
    """What the checkpoint was trained for, as the hub names it."""
    return "zero-shot-object-detection"


def image_processor(settings: Settings) -> Processor:
    """What turns pictures into `pixel_values`; an integer `size` means a square."""
    return ImageProcessor.from_settings(settings, default_to_square=True)


class Model(ByExample, Warmable):
    """An OWL-ViT model. Safe to share between threads: it holds nothing of a call.

    Args:
        bundle: its description.
        sessions: a runner for each of `COMPONENTS`, or for the one of `FOREIGN_COMPONENTS`.
        info: what `load` decided, for the reader.
        values: empty; every number of these models is in their graphs.

    Attributes:
        methods: what the model can be asked for; with a graph of one piece, `detect` alone.
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
        if takes_bytes(self.info):
            self.processor = self.processor.as_bytes()
        self.tokenizer = open_tokenizer(bundle, self.info)
        self._graphs: Towers | OneGraph
        if set(sessions) >= set(COMPONENTS):
            texts = TextEncoder(bundle, self.tokenizer, sessions["text_model"])
            vision = sessions["vision_model"]
            parts = (bundle, vision, texts, self.processor, self.info)
            if SIMILARITY_RUNNER in sessions:
                self._graphs = TowersOnDevice(*parts, sessions[SIMILARITY_RUNNER])
            else:
                self._graphs = Towers(*parts)
            self.methods: tuple[str, ...] = ("detect", "detect_like", "encode_labels")
        else:
            graph = sessions["model"]
            self._graphs = OneGraph(bundle.name, graph, self.tokenizer, self.processor, self.info)
            self.methods = ("detect",)
        self._name = bundle.name

    @overload
    def detect(
        self, images: Several, labels: Labels, **options: "Unpack[SearchOptions]"
    ) -> list[Detections]: ...

    @overload
    def detect(
        self, images: Picture, labels: Labels, **options: "Unpack[SearchOptions]"
    ) -> Detections: ...

    def detect(
        self,
        images: Picture | Several,
        labels: Labels,
        *,
        threshold: Threshold = 0.1,
        iou_threshold: float | None = None,
        class_agnostic: bool = False,
        multi_label: bool = False,
        soft_nms: float | None = None,
        top_k: int | None = None,
        templates: Templates | None = None,
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
                (0.5 in Bodla et al. 2017). Where thresholds differ, a box below its own but above
                the lowest is not reported, and still makes others lose score.
            top_k: at most so many objects in each picture.
            templates: prompts with one `{}` each, averaged over, or a mapping from every label to
                its own; the label itself by default.
            truncate: cut label texts that are too long instead of refusing them.
            batch_size: pictures in one run of the graph.

        Returns:
            Detections for one picture, a list of them for a list. Boxes are in pixels of the
            original picture.

        Raises:
            ImageError, TextError, LabelError, OptionError: bad input, named.
            InferenceError: the graph gives numbers that are not finite.
            BundleError: something that a foreign bundle of one graph cannot do, or a graph that
                does not give what this family reads.
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
        labels: Labels,
        *,
        threshold: Threshold = 0.1,
        iou_threshold: float | None = None,
        class_agnostic: bool = False,
        multi_label: bool = False,
        soft_nms: float | None = None,
        top_k: int | None = None,
        templates: Templates | None = None,
        truncate: bool = False,
        batch_size: int = 4,
    ) -> Stream[Detections]:
        """Do what `detect` does on a stream of pictures, in bounded memory.

        Options and labels are checked at once; pictures are consumed lazily, and one that cannot be
        read does not stop the others.

        Returns:
            An iterator over the pictures, each with its Detections or its ImageError, in order.
        """
        check_several(images, "iter_detect")
        options = Options(iou_threshold, class_agnostic, multi_label, soft_nms, top_k)
        asked = labels if isinstance(labels, LabelSet) else checked_labels(labels)
        names = asked.labels if isinstance(asked, LabelSet) else asked
        limits = detection.limits(threshold, names)
        if isinstance(self._graphs, OneGraph):
            checked_count("batch_size", batch_size)
            if isinstance(asked, LabelSet) or templates is not None:
                self._need_towers("label sets and templates")
            views = self._graphs.views(images, names, truncate=truncate)
        else:
            encoded = self._graphs.texts.label_set(asked, templates=templates, truncate=truncate)
            views = self._graphs.views(images, encoded, batch_size, every=multi_label)

        def found(view: View) -> Detections:
            boxes = self._pixel_boxes(view)
            chosen = detection.select(view.logits, boxes, limits, options, view.best)
            return Detections(names, *chosen, view.size_hw)

        return mapped(found, views)

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
            templates: prompts with one `{}` each, averaged over, or a mapping from every label to
                its own; the label itself by default.
            truncate: cut texts that are too long instead of refusing them.

        Raises:
            LabelError: no labels, a label that is not a string, empty, or there twice.
            TextError: a text too long, or with a lone surrogate, or a template without one `{}`.
            OptionError: a mapping of templates that lacks a label, or has one too many.
            BundleError: a foreign bundle of one graph cannot do this.
        """
        texts = self._need_towers("encode_labels").texts
        return texts.encode_labels(labels, templates=templates, truncate=truncate)

    def _example_place(self, example: EncodedImage, box: Boxes | None) -> int | None:
        """Which place stands for the object, all over the picture or in a box in its pixels."""
        if box is None:
            corners = geometry.center_to_corners(example.pred_boxes)
            return detection.example_place(example.class_embeds, corners, detection.WHOLE)
        return detection.example_place(example.class_embeds, self._pixel_boxes(example), box)

    @property
    def _reads_together(self) -> bool:
        return isinstance(self._graphs, OneGraph)

    @property
    def _takes_several(self) -> bool:
        return False

    def _run(self, pictures: list[Image.Image], text: str) -> object:
        if isinstance(self._graphs, OneGraph):
            return self.detect(pictures, [text])
        return self.encode_image(pictures, batch_size=len(pictures))

    def _run_texts(self, texts: list[str]) -> object:
        return self._need_towers("encode_labels").texts.encode_texts(texts)
