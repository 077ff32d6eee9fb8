"""The models of `engines.py` in PyTorch, one for each of a bundle's components.

Each takes the tensors that the component's graph takes, in the same order, and gives the same
outputs. Attention is what transformers takes by itself: PyTorch's fused one (sdpa) for CLIP and
OWL-ViT, plain products for ViLT, which has no other.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import CLIPModel, OwlViTForObjectDetection, ViltForQuestionAnswering

from vlrt_export.owlvit import Reference as OwlReference


class ClipImage(nn.Module):
    """pixel_values -> image_embeds."""

    inputs = ("pixel_values",)
    outputs = ("image_embeds",)
    kind = CLIPModel

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.projection = model.vision_model, model.visual_projection

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Embed pictures."""
        return (self.projection(self.tower(pixel_values=pixel_values).pooler_output),)


class ClipText(nn.Module):
    """input_ids -> text_embeds."""

    inputs = ("input_ids",)
    outputs = ("text_embeds",)
    kind = CLIPModel

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.projection = model.text_model, model.text_projection

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Embed texts."""
        return (self.projection(self.tower(input_ids=input_ids).pooler_output),)


class OwlImage(nn.Module):
    """pixel_values -> image_class_embeds, logit_shift, logit_scale, pred_boxes."""

    inputs = ("pixel_values",)
    outputs = ("image_class_embeds", "logit_shift", "logit_scale", "pred_boxes")
    kind = OwlViTForObjectDetection
    vision, heads = OwlReference.vision, OwlReference.heads

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Encode pictures, heads included."""
        made = self.vision(pixel_values)
        return tuple(made[name] for name in self.outputs)


class ViltPair(nn.Module):
    """input_ids, attention_mask, token_type_ids, pixel_values, pixel_mask -> logits."""

    inputs = ("input_ids", "attention_mask", "token_type_ids", "pixel_values", "pixel_mask")
    outputs = ("logits",)
    kind = ViltForQuestionAnswering

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
    mask = torch.ones(batch, 1 + rows * columns, dtype=pixel_mask.dtype)
    return torch.cat([whole, patches], dim=1), mask, None


Component = ClipImage | ClipText | OwlImage | ViltPair
_MODELS = {"clip image": ClipImage, "clip text": ClipText, "owlvit image": OwlImage}


def load(checkpoint: Path, component: str, dtype: torch.dtype, *, unpadded: bool) -> Component:
    """A component of a checkpoint.

    Args:
        checkpoint: its directory.
        component: "clip image", "clip text", "owlvit image" or "vilt".
        dtype: of weights and activations.
        unpadded: of ViLT, the form for pictures without padding.
    """
    vilt = ViltUnpadded if unpadded else ViltPair
    kind = {**_MODELS, "vilt": vilt}[component]
    return kind(kind.kind.from_pretrained(checkpoint, dtype=dtype).eval()).eval()


def tensors(arrays: Sequence[Any], dtype: torch.dtype) -> list[Tensor]:
    """NumPy arrays as tensors, those of fractions in `dtype`."""
    made = [torch.from_numpy(array) for array in arrays]
    return [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in made]
