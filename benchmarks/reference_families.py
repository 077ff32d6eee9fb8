"""What `reference.py` loads: transformers' CLIP and OWL-ViT with the methods of vlrt's.

As vlrt does, a call encodes its labels once and not again with every batch, which is the best that
a user of transformers can do with its public parts.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import ImageError, OptionError
from vlrt.labels import checked_labels
from vlrt.results import Classification, Detections, LabelSet
from vlrt.stream import is_list, listed
from vlrt.templates import Templates, fill_all
from vlrt_export.reference import pil_processor_class

T = TypeVar("T")
Embeds = NDArray[np.float32]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_TEXTS = 256  # in one run of a text tower; 1000 labels in 80 templates each are 80,000
PROCESSORS = {"clip": "CLIP", "owlvit": "OwlViT", "owlv2": "Owlv2", "vilt": "Vilt"}


class Reference(ABC):
    """What the families share: a model, its image processor and its tokenizer.

    Args:
        checkpoint: its directory.
        config: its `config.json`.
        dtype: a key of `DTYPES`.
        device: as torch names it.

    Attributes:
        model: transformers' own, on the device.
        info: what it is, for the reader.
    """

    def __init__(self, checkpoint: Path, config: dict[str, Any], dtype: str, device: str) -> None:
        import torch
        import transformers

        logs: Any = transformers.logging
        logs.disable_progress_bar()
        self.info = {"family": config["model_type"], "precision": dtype, "device": device}
        self.device, self.dtype = device, getattr(torch, DTYPES[dtype])
        kind: Any = getattr(transformers, self._class_name(config))
        self.model: Any = kind.from_pretrained(checkpoint, dtype=self.dtype).eval().to(device)
        tokenizers: Any = transformers.AutoTokenizer
        self.tokenizer = tokenizers.from_pretrained(checkpoint)
        self.image_processor: Any = pil_processor_class(PROCESSORS[config["model_type"]])
        self.image_processor = self.image_processor.from_pretrained(checkpoint)
        self._name = f"{checkpoint} in PyTorch, {dtype}"

    @abstractmethod
    def _class_name(self, config: dict[str, Any]) -> str:
        """Transformers' class of such a model."""

    def read(self, images: Sequence[Any]) -> list[Any]:
        """Pictures, given as paths or as PIL images, decoded to RGB.

        Raises:
            ImageError: one of them cannot be read.
        """
        from transformers.image_utils import load_image

        pictures = []
        for image in images:
            try:
                given = image if hasattr(image, "convert") else str(image)
                pictures.append(load_image(given))
            except (OSError, ValueError) as error:
                raise ImageError(f"{str(image)!r:.200} cannot be read: {error}") from error
        return pictures

    def process(self, pictures: Sequence[Any]) -> Any:
        """What the image processor makes of decoded pictures: tensors by name, on the device."""
        made = self.image_processor(images=list(pictures), return_tensors="pt")
        return made.to(self.device).to(self.dtype)

    def tokenize(self, texts: Sequence[str], *, truncate: bool = False) -> Any:
        """What the tokenizer makes of texts, padded to the longest: tensors by name."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=truncate, return_tensors="pt")
        return tokens.to(self.device)


class TwoTowers(Reference):
    """A tower for pictures and one for texts."""

    @property
    def _towers(self) -> Any:
        """The part of the model that has the text tower and its projection."""
        return getattr(self.model, self.model.base_model_prefix, self.model)

    def encode_texts(
        self, texts: Sequence[str], *, truncate: bool = False, normalize: bool = True
    ) -> Embeds:
        """Embed texts: float32 [N, D], in their order."""
        import torch

        rows = []
        with torch.inference_mode():
            for chunk in chunks(list(texts), _TEXTS):
                tokens = self.tokenize(chunk, truncate=truncate)
                pooled = self._towers.text_model(**tokens).pooler_output
                embeds = self._towers.text_projection(pooled)
                rows.append(_unit(embeds) if normalize else embeds)
            return array(torch.cat(rows))

    def encode_labels(
        self,
        labels: Iterable[str],
        *,
        templates: Templates | None = None,
        truncate: bool = False,
    ) -> LabelSet:
        """Encode labels once; over several templates as vlrt does, and CLIP's authors did.

        The embeddings over all of a label's templates, each of length 1, are averaged and scaled
        back to length 1.
        """
        names = checked_labels(labels)
        if templates is None:
            return LabelSet(names, self.encode_texts(names, truncate=truncate), self._name)
        prompts = fill_all(templates, names)
        rows = self.encode_texts([one for own in prompts for one in own], truncate=truncate)
        ends = np.cumsum([len(own) for own in prompts])[:-1]
        means = np.stack([own.mean(axis=0) for own in np.split(rows, ends)])
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        return LabelSet(names, (means / lengths).astype(np.float32), self._name)

    def _label_set(
        self, labels: Iterable[str] | LabelSet, templates: Templates | None, *, truncate: bool
    ) -> LabelSet:
        if isinstance(labels, LabelSet):
            return labels
        return self.encode_labels(labels, templates=templates, truncate=truncate)

    def _tensor(self, array: Embeds) -> Any:
        import torch

        return torch.from_numpy(array).to(self.device, self.dtype)


class ClipReference(TwoTowers):
    """`CLIPModel`."""

    def _class_name(self, config: dict[str, Any]) -> str:  # noqa: ARG002  what others need
        return "CLIPModel"

    def encode_images(
        self, images: Sequence[Any], *, normalize: bool = True, batch_size: int = 16
    ) -> Embeds:
        """Embed pictures: float32 [N, D], in their order."""
        import torch

        with torch.inference_mode():
            rows = [
                self._embeds(chunk, normalize=normalize) for chunk in chunks(images, batch_size)
            ]
            return array(torch.cat(rows))

    def _embeds(self, images: Sequence[Any], *, normalize: bool) -> Any:
        pixels = self.process(self.read(images))
        pooled = self.model.vision_model(**pixels).pooler_output
        embeds = self.model.visual_projection(pooled)
        return _unit(embeds) if normalize else embeds

    def classify(
        self,
        images: Any,
        labels: Iterable[str] | LabelSet,
        *,
        templates: Templates | None = None,
        truncate: bool = False,
        batch_size: int = 16,
    ) -> Any:
        """Score pictures against labels, as `vlrt.families.clip.Model.classify` does."""
        import torch

        encoded = self._label_set(labels, templates, truncate=truncate)
        found: list[Classification] = []
        with torch.inference_mode():
            texts = self._tensor(encoded.embeds)
            for chunk in chunks(listed(images), batch_size):
                embeds = self._embeds(chunk, normalize=True)
                logits = (embeds @ texts.T * self.model.logit_scale.exp()).float()
                rows = zip(array(logits.softmax(dim=-1)), array(logits), strict=True)
                found += [Classification(encoded.labels, *row) for row in rows]
        return as_given(images, found)


class OwlReference(TwoTowers):
    """`OwlViTForObjectDetection` or `Owlv2ForObjectDetection`."""

    def _class_name(self, config: dict[str, Any]) -> str:
        return f"{PROCESSORS[config['model_type']]}ForObjectDetection"

    def detect(
        self,
        images: Any,
        labels: Iterable[str] | LabelSet,
        *,
        threshold: float = 0.1,
        multi_label: bool = False,
        top_k: int | None = None,
        templates: Templates | None = None,
        truncate: bool = False,
        batch_size: int = 4,
    ) -> Any:
        """Find the objects that labels name, as `vlrt.families.owlvit.Model.detect` does.

        By the processor's own `post_process_object_detection`; with `multi_label` as the pipeline
        of transformers counts, a box for every label that exceeds the threshold there.
        """
        import torch

        encoded = self._label_set(labels, templates, truncate=truncate)
        found: list[Detections] = []
        with torch.inference_mode():
            queries = self._tensor(encoded.embeds)
            for chunk in chunks(listed(images), batch_size):
                pictures = self.read(chunk)
                outputs = self.search(self.process(pictures)["pixel_values"], queries)
                sizes_hw = [(picture.height, picture.width) for picture in pictures]
                kept = self.image_processor.post_process_object_detection(
                    outputs, threshold=-1.0 if multi_label else threshold, target_sizes=sizes_hw
                )
                for one, logits, size_hw in zip(kept, outputs.logits, sizes_hw, strict=True):
                    chosen = _every_label(one, logits, threshold) if multi_label else one
                    found.append(_detections(encoded.labels, chosen, size_hw, top_k))
        return as_given(images, found)

    def search(self, pixel_values: Any, queries: Any) -> Any:
        """Show pictures to encoded labels, part by part as the model's own `forward` does.

        Args:
            pixel_values: [B, 3, H, W].
            queries: [N, D], unit text embeddings.

        Returns:
            `logits` [B, P, N] and `pred_boxes` [B, P, 4], float32, as the processor takes them.
        """
        grid = self.model.image_embedder(pixel_values=pixel_values)[0]
        features = grid.flatten(1, 2)
        of_each = queries.expand(len(features), -1, -1)
        logits = self.model.class_predictor(features, of_each)[0]
        boxes = self.model.box_predictor(features, grid)
        return SimpleNamespace(logits=logits.float(), pred_boxes=boxes.float())


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Items, so many at a time.

    Raises:
        OptionError: there are none.
    """
    if not items:
        raise OptionError("there is nothing to run the model on: no picture or no text")
    return (items[start : start + size] for start in range(0, len(items), size))


def _unit(embeds: Any) -> Any:
    return embeds / embeds.norm(p=2, dim=-1, keepdim=True)


def array(tensor: Any) -> Embeds:
    """A tensor of any precision and place as NumPy's float32."""
    array: Embeds = tensor.float().cpu().numpy()
    return array


def as_given(given: Any, found: list[Any]) -> Any:
    """One result for one picture, a list of them for a list."""
    return found if is_list(given) else found[0]


def _every_label(every: dict[str, Any], logits: Any, threshold: float) -> dict[str, Any]:
    """A box for each label that scores more than the threshold at a place.

    Args:
        every: `boxes` [P, 4] of all places, in pixels.
        logits: [P, N].
        threshold: that score.
    """
    scores = logits.sigmoid()
    places, label_ids = (scores > threshold).nonzero(as_tuple=True)
    boxes = every["boxes"][places]
    return {"boxes": boxes, "scores": scores[places, label_ids], "labels": label_ids}


def _detections(
    labels: tuple[str, ...], found: dict[str, Any], size_hw: tuple[int, int], top_k: int | None
) -> Detections:
    scores = array(found["scores"])
    order = np.argsort(-scores, kind="stable")[:top_k]
    label_ids = found["labels"].cpu().numpy().astype(np.intp)
    return Detections(
        labels, array(found["boxes"])[order], scores[order], label_ids[order], size_hw
    )
