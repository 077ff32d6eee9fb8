"""The components of checkpoints in PyTorch, for the engines that start from it.

Each takes the tensors that the component's graph takes, in the same order, and gives the same
outputs. Attention is what transformers takes by itself: PyTorch's fused one (sdpa) for CLIP and
OWL-ViT, plain products for ViLT, which has no other. No engine by itself: it imports PyTorch, so
engines import it inside of functions.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import (
    CLIPModel,
    Owlv2ForObjectDetection,
    OwlViTForObjectDetection,
    ViltForQuestionAnswering,
)

from vlrt_export.owlvit import Reference as OwlReference

from . import BOTH, IMAGE, TEXT, Arrays, inputs, kind, level_table


class ClipImage(nn.Module):
    """pixel_values -> image_embeds."""

    inputs = ("pixel_values",)
    outputs: tuple[str, ...] = ("image_embeds",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.projection = model.vision_model, model.visual_projection

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Embed pictures."""
        return (self.projection(self.tower(pixel_values=pixel_values).pooler_output),)


class ClipText(nn.Module):
    """input_ids -> text_embeds. Padding behind a text's end changes nothing before it."""

    inputs = ("input_ids",)
    outputs: tuple[str, ...] = ("text_embeds",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.projection = model.text_model, model.text_projection

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Embed texts."""
        return (self.projection(self.tower(input_ids=input_ids).pooler_output),)


class OwlText(ClipText):
    """The same of a detector."""

    def __init__(self, model: Any) -> None:
        super().__init__(getattr(model, model.base_model_prefix))


class OwlImage(nn.Module):
    """pixel_values -> image_class_embeds, logit_shift, logit_scale, pred_boxes."""

    inputs = ("pixel_values",)
    outputs: tuple[str, ...] = ("image_class_embeds", "logit_shift", "logit_scale", "pred_boxes")
    vision = OwlReference.vision

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Encode pictures, heads included."""
        made = self.vision(pixel_values)
        return tuple(made[name] for name in self.outputs)

    def heads(self, features: Any, grid: Any) -> dict[str, Any]:
        """What the heads make of features [B, P, D], which are those of grid [B, H, W, D]."""
        made: dict[str, Any] = OwlReference.heads(cast("Any", self), features, grid)
        return made


class Owlv2Image(OwlImage):
    """The same, and objectness_logits."""

    outputs = (*OwlImage.outputs, "objectness_logits")

    def heads(self, features: Any, grid: Any) -> dict[str, Any]:
        """What the heads make of features [B, P, D], which are those of grid [B, H, W, D]."""
        made = super().heads(features, grid)
        return made | {"objectness_logits": self.model.objectness_predictor(features)}


class ViltPair(nn.Module):
    """input_ids, attention_mask, token_type_ids, pixel_values, pixel_mask -> logits."""

    inputs = ("input_ids", "attention_mask", "token_type_ids", "pixel_values", "pixel_mask")
    outputs: tuple[str, ...] = ("logits",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Answer questions about pictures."""
        return (self.model(**dict(zip(self.inputs, given, strict=True))).logits,)


class ViltUnpadded(ViltPair):
    """The same for pictures without padding, its patches left in their order.

    transformers picks the patches that are no padding, in random order, which neither
    torch.compile nor OpenVINO takes in. Without padding there is nothing to pick, no output depends
    on the order, and so this computes the same, a little faster.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        embeddings = model.vilt.embeddings
        embeddings.visual_embed = partial(_embed_patches, embeddings)


def _embed_patches(
    embeddings: Any, pixel_values: Tensor, pixel_mask: Tensor, max_image_length: int
) -> tuple[Tensor, Tensor, None]:
    """In place of `ViltEmbeddings.visual_embed`: hidden states [B, 1 + P, D], and their mask."""
    del max_image_length
    patches = embeddings.patch_embeddings(pixel_values)
    batch, width, rows, columns = patches.shape
    first, places = embeddings.position_embeddings.split(
        [1, embeddings.position_embeddings.shape[1] - 1], dim=1
    )
    side = embeddings.config.image_size // embeddings.config.patch_size
    grid = places.transpose(1, 2).view(1, width, side, side)
    grid = interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=True)
    patches = (patches + grid).flatten(2).transpose(1, 2)
    whole = (embeddings.cls_token + first).expand(batch, -1, -1)
    mask = torch.ones(batch, 1 + rows * columns, dtype=pixel_mask.dtype, device=pixel_mask.device)
    return torch.cat([whole, patches], dim=1), mask, None


class FromLevels(nn.Module):
    """A component that takes pictures as levels, and makes pixel_values of them on its device.

    Args:
        part: the component.
        table: float32 [3, 256], the value that each level of each channel becomes, on a line.
        dtype: of what it becomes, as the component takes it.
    """

    def __init__(self, part: "Component", table: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.part, self.dtype = part, dtype
        self.outputs = part.outputs
        self.inputs = tuple("levels" if n == "pixel_values" else n for n in part.inputs)
        self.at = self.inputs.index("levels")
        first, last = (torch.from_numpy(np.ascontiguousarray(table[:, at])) for at in (0, 255))
        self.register_buffer("scale", (last - first) / 255)
        self.register_buffer("first", first)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Run the component on levels uint8 [B, H, W, 3] and its other inputs, in their order."""
        values = given[self.at] * self.scale + self.first
        pixels = values.permute(0, 3, 1, 2).to(self.dtype).contiguous()
        return self.part(*given[: self.at], pixels, *given[self.at + 1 :])


class Upload:
    """Arrays, put in memory of the host that a GPU fetches from by itself, to tensors there.

    The tensors are the same ones at every call.
    """

    def __init__(self, arrays: Sequence[Any], dtype: torch.dtype, device: str) -> None:
        self.tensors = tensors(arrays, dtype, device)
        self.pinned = [
            torch.from_numpy(array).to(tensor.dtype).pin_memory()
            for array, tensor in zip(arrays, self.tensors, strict=True)
        ]

    def __call__(self) -> list[Tensor]:
        """Copy, in the current stream; what runs in it next finds the arrays there."""
        for pinned, tensor in zip(self.pinned, self.tensors, strict=True):
            tensor.copy_(pinned, non_blocking=True)
        return self.tensors


class Download:
    """Tensors of a GPU to pinned memory of the host, kept for it; returns when all is there.

    Args:
        names: of the tensors.
        stays: those of them that are left where they are.
    """

    def __init__(self, names: Sequence[str], stays: Collection[str]) -> None:
        self.stays = [name in stays for name in names]
        self.pinned: list[Tensor] = []

    def __call__(self, made: Sequence[Tensor]) -> list[Tensor]:
        """The tensors, copied into buffers that the next call writes again."""
        if not self.pinned:
            self.pinned = [
                one if stays else torch.empty(one.shape, dtype=one.dtype, pin_memory=True)
                for one, stays in zip(made, self.stays, strict=True)
            ]
        found = []
        for pinned, one, stays in zip(self.pinned, made, self.stays, strict=True):
            found.append(one if stays else pinned.copy_(one, non_blocking=True))
        torch.cuda.synchronize()
        return found


Component = ClipImage | ClipText | OwlImage | ViltPair
_MODELS: dict[str, Any] = {
    "clip": CLIPModel,
    "owlvit": OwlViTForObjectDetection,
    "owlv2": Owlv2ForObjectDetection,
    "vilt": ViltForQuestionAnswering,
}
_COMPONENTS: dict[tuple[str, str], type[Component]] = {
    ("clip", IMAGE): ClipImage,
    ("clip", TEXT): ClipText,
    ("owlvit", IMAGE): OwlImage,
    ("owlvit", TEXT): OwlText,
    ("owlv2", IMAGE): Owlv2Image,
    ("owlv2", TEXT): OwlText,
    ("vilt", BOTH): ViltPair,
}


def load_model(checkpoint: Path, family: str, dtype: torch.dtype) -> Any:
    """The whole model of transformers, for inference, on the CPU."""
    return _MODELS[family].from_pretrained(checkpoint, dtype=dtype).eval()


def component(model: Any, family: str, stage: str, *, unpadded: bool) -> Component:
    """The part of a model that one stage is.

    Args:
        model: as `load_model` gives it; `unpadded` changes it.
        family: "clip", "owlvit", "owlv2" or "vilt".
        stage: "encode image", "encode text" or "encode image and text".
        unpadded: of ViLT, the form for pictures without padding, which engines that compile need.
    """
    kind = ViltUnpadded if unpadded and family == "vilt" else _COMPONENTS[family, stage]
    return kind(model).eval()


def load(
    checkpoint: Path, family: str, stage: str, dtype: torch.dtype, *, unpadded: bool
) -> Component:
    """One component of a checkpoint (see `component`)."""
    return component(load_model(checkpoint, family, dtype), family, stage, unpadded=unpadded)


def tensors(arrays: Sequence[Any], dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """NumPy arrays as tensors on a device, those of fractions in `dtype`."""
    made = [torch.from_numpy(array).to(device) for array in arrays]
    return [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in made]


def given_to(
    job: Mapping[str, Any], model: Any, stage: str, dtype: torch.dtype, *, unpadded: bool
) -> tuple[Any, list[Any]]:
    """What computes a stage on a job's device, and the arrays that it is run on, in its order.

    On a GPU it takes pictures as levels, a quarter of the bytes, as vlrt's graphs do there.

    Args:
        job: see `peers`.
        model: as `load_model` gives it, on the job's device.
        stage: with its detail.
        dtype: that the model computes in.
        unpadded: see `component`.

    Raises:
        ValueError: the pictures have padding between them, and it must be without.
    """
    arrays: Arrays = inputs(job, stage, levels=True)
    part: Any = component(model, job["family"], kind(stage), unpadded=unpadded)
    if unpadded:
        check_unpadded(arrays)
    if "levels" in arrays:
        part = FromLevels(part, level_table(job), dtype).to(job["device"])
    return part, [arrays[name] for name in part.inputs]


def numpy_of(tensor: Tensor) -> Any:
    """A tensor as an array in memory, fractions as float32."""
    return cast("Any", tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()


def check_unpadded(arrays: dict[str, Any]) -> None:
    """Refuse pictures with padding between them, which `ViltUnpadded` would take for pictures.

    Raises:
        ValueError: there is some.
    """
    if "pixel_mask" in arrays and not arrays["pixel_mask"].all():
        raise ValueError(
            "this engine runs ViLT in one fixed shape, and the pictures of this batch differ in "
            "theirs; give pictures of one shape, or leave the engine out of --against"
        )
