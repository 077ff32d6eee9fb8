"""CLIP: its two towers as graphs.

The towers compute what `transformers/models/clip/modeling_clip.py` computes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt.families.clip import COMPONENTS
from vlrt.ops import cosine_similarity

from .checkpoint import Checkpoint
from .graph import Graph
from .precision import Recipe
from .reference import TorchModel
from .residual import normed
from .similarity import of_pictures
from .transformer import pictures_at_once, text_embeds, vision_tokens

__all__ = [
    "COMPONENTS", "KEEP_FP32", "PICTURES", "PIXELS_ABS", "TEXTS",
    "Reference", "at_once", "build", "check", "inputs", "quality", "samples", "similarity",
    "values",
]  # fmt: skip

Arrays = Mapping[str, NDArray[Any]]

PICTURES, TEXTS = 32, None  # drawn and written ones, to verify on; None for all there are
PIXELS_ABS = 0.0  # how far the runtime's pixel values may be from transformers'
# What a precision leaves alone, by the names of linear layers (see `Recipe`).
KEEP_FP32 = {"int8": frozenset({"visual_projection", "text_projection"})}
# Older checkpoints say eos_token_id=2, which was never the id of their end-of-text token;
# transformers then takes the highest id of the text (`CLIPTextModel.forward`).
_WRONG_EOS = 2
_CLEAR = 1  # by how much of a logit the best label must lead


def check(checkpoint: Checkpoint) -> None:
    """Nothing is refused but what `build` finds."""


def samples(
    checkpoint: Checkpoint,  # noqa: ARG001  what other families need
    images: list[Image.Image],
    texts: list[str],
) -> tuple[list[Image.Image], list[str]]:
    """Pictures and texts to verify on: as they are, for each picture meets each text."""
    return images, texts


def inputs(made: Arrays) -> dict[str, dict[str, NDArray[Any]]]:
    """What each graph takes of what the processor and the tokenizer make."""
    return {
        "vision_model": {"pixel_values": made["pixel_values"]},
        "text_model": {"input_ids": made["input_ids"]},
    }


def values(checkpoint: Checkpoint) -> dict[str, float]:
    """What no graph holds: `logit_scale`, the factor itself, exp of the checkpoint's parameter."""
    return {"logit_scale": float(np.exp(checkpoint.tensor("logit_scale")))}


def at_once(config: Mapping[str, Any]) -> int:
    """How many pictures to verify in one run."""
    return pictures_at_once(config["vision_config"])


def build(checkpoint: Checkpoint, component: str, recipe: Recipe) -> Graph:
    """One tower in one precision.

    Args:
        checkpoint: of model type clip.
        component: "vision_model" (pixel_values -> image_embeds) or "text_model"
            (input_ids -> text_embeds); embeddings are not normalised.
        recipe: the precision.
    """
    graph = Graph(checkpoint, recipe)
    return {"vision_model": _vision, "text_model": _text}[component](graph, checkpoint.config)


def _vision(graph: Graph, config: dict[str, Any]) -> Graph:
    tower, prefix = config["vision_config"], "vision_model."
    stream = vision_tokens(graph, prefix, tower, "pre_layrnorm", first=1)
    token, _ = normed(graph, stream, f"{prefix}post_layernorm", tower["layer_norm_eps"])
    pooled = graph.op("Squeeze", token, graph.ints(1))
    embeds = graph.linear(pooled, "visual_projection")
    graph.output("image_embeds", embeds, ["batch", config["projection_dim"]])
    return graph


def _text(graph: Graph, config: dict[str, Any]) -> Graph:
    tower = config["text_config"]
    end = None if tower["eos_token_id"] == _WRONG_EOS else tower["eos_token_id"]
    embeds = text_embeds(graph, "", tower, end=end)
    graph.output("text_embeds", embeds, ["batch", config["projection_dim"]])
    return graph


def similarity(checkpoint: Checkpoint) -> Graph:
    """Pictures against labels (see `export.similarity`)."""
    return of_pictures(checkpoint)


class Reference(TorchModel):
    """The checkpoint in PyTorch, a component at a time."""

    def run(self, component: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """What `build`'s graph of the component must compute, under the same names."""
        tower, projection, output = {
            "vision_model": (self.model.vision_model, self.model.visual_projection, "image_embeds"),
            "text_model": (self.model.text_model, self.model.text_projection, "text_embeds"),
        }[component]
        return self.outputs(
            inputs, lambda **named: {output: projection(tower(**named).pooler_output)}
        )


def quality(
    found: Arrays,
    expected: Arrays,
    values: Mapping[str, float],
    inputs: Mapping[str, Arrays],  # noqa: ARG001  what other families need
    tokenizer: Any,  # noqa: ARG001
) -> dict[str, Any]:
    """How often the best label is the same.

    Args:
        found, expected: the outputs of both components, of a variant and of the reference.
        values: what `values` returned.
        inputs, tokenizer: not needed.

    Returns:
        `agreement` over the `compared` pictures: those whose best label the reference puts ahead by
        a logit of 1 or more (2.7 times as likely). A tie that falls the other way is no fault of
        the variant. None without any. `top1_agreement` is over all pictures.
    """
    ours, theirs = (
        cosine_similarity(outputs["image_embeds"], outputs["text_embeds"])
        * np.float32(values["logit_scale"])
        for outputs in (found, expected)
    )
    best_two = np.sort(theirs, axis=1)[:, -2:]
    clear = best_two[:, -1] - best_two[:, 0] >= _CLEAR
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    return {
        "agreement": float(same[clear].mean()) if clear.any() else None,
        "compared": int(clear.sum()),
        "of": "clear-cut pictures have the same best label",
        "pictures": len(theirs),
        "labels": int(theirs.shape[1]),
        "top1_agreement": float(same.mean()),
    }
