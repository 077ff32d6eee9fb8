"""CLIP: its two towers as graphs.

The towers compute what `transformers/models/clip/modeling_clip.py` computes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.families.clip import COMPONENTS, TASK
from vlrt.ops import cosine_similarity

from .checkpoint import Checkpoint
from .graph import FLOAT, INT64, Graph
from .precision import Recipe
from .reference import TorchModel
from .transformer import encoder

__all__ = ["COMPONENTS", "TASK", "Reference", "build", "inputs", "logits", "values"]

# Older checkpoints say eos_token_id=2, which was never the id of their end-of-text token;
# transformers then takes the highest id of the text (`CLIPTextModel.forward`).
_WRONG_EOS = 2


def values(checkpoint: Checkpoint) -> dict[str, float]:
    """What no graph holds: `logit_scale`, the factor itself, exp of the checkpoint's parameter."""
    return {"logit_scale": float(np.exp(checkpoint.tensor("logit_scale")))}


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


def inputs(made: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    """Each component's share of what preprocessing makes."""
    return {
        "vision_model": {"pixel_values": made["pixel_values"]},
        "text_model": {"input_ids": made["input_ids"]},
    }


def _vision(graph: Graph, config: dict[str, Any]) -> Graph:
    tower, size = config["vision_config"], config["vision_config"]["image_size"]
    width, prefix, epsilon = tower["hidden_size"], "vision_model.", tower["layer_norm_eps"]
    pixels = graph.input("pixel_values", FLOAT, ["batch", tower["num_channels"], size, size])
    patches = graph.patches(pixels, f"{prefix}embeddings.patch_embedding", tower["patch_size"])
    position = graph.weight(f"{prefix}embeddings.position_embedding.weight")
    placed = graph.add(patches, graph.floats(position[1:], "vision.patch_positions"))
    token = (graph.weight(f"{prefix}embeddings.class_embedding") + position[0]).reshape(1, 1, -1)
    token = graph.expand_to_batch(graph.floats(token, "vision.class_token"), pixels, width)
    value = graph.op("Concat", graph.cast(token, graph.type_of(placed)), placed, axis=1)
    value = graph.layer_norm(value, f"{prefix}pre_layrnorm", epsilon)
    value = encoder(graph, value, prefix, tower, length=len(position))
    pooled = graph.op("Gather", value, graph.scalar(0), axis=1)
    pooled = graph.layer_norm(pooled, f"{prefix}post_layernorm", epsilon)
    embeds = graph.linear(pooled, "visual_projection", is_head=True)
    graph.output("image_embeds", embeds, ["batch", config["projection_dim"]])
    return graph


def _text(graph: Graph, config: dict[str, Any]) -> Graph:
    tower, prefix = config["text_config"], "text_model."
    ids = graph.input("input_ids", INT64, ["batch", "length"])
    position = graph.weight(f"{prefix}embeddings.position_embedding.weight")
    words = graph.embedding(ids, f"{prefix}embeddings.token_embedding")
    length = graph.op("Shape", ids, start=1, end=2)
    places = graph.op(
        "Slice", graph.floats(position, "text.positions"), graph.ints(0), length, graph.ints(0)
    )
    value = encoder(
        graph, graph.add(words, places), prefix, tower, length=len(position), causal=True
    )
    # Texts end with an end-of-text token, and padding may have the same id: the first one counts.
    # Everything behind it is invisible to it, so no attention mask is needed.
    if tower["eos_token_id"] == _WRONG_EOS:
        marks = ids
    else:
        marks = graph.cast(graph.op("Equal", ids, graph.scalar(tower["eos_token_id"])), INT64)
    end = graph.op("ArgMax", marks, axis=1, keepdims=1)
    end = graph.op("Unsqueeze", end, graph.ints(2))
    pooled = graph.op("GatherND", value, end, batch_dims=1)
    pooled = graph.op("Squeeze", pooled, graph.ints(1))
    pooled = graph.layer_norm(pooled, f"{prefix}final_layer_norm", tower["layer_norm_eps"])
    embeds = graph.linear(pooled, "text_projection", is_head=True)
    graph.output("text_embeds", embeds, ["batch", config["projection_dim"]])
    return graph


class Reference(TorchModel):
    """The checkpoint in PyTorch, a component at a time."""

    def run(self, component: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What `build`'s graph of the component must compute, under the same names."""
        tower, projection, output = {
            "vision_model": (self.model.vision_model, self.model.visual_projection, "image_embeds"),
            "text_model": (self.model.text_model, self.model.text_projection, "text_embeds"),
        }[component]
        return self.outputs(
            inputs, lambda **named: {output: projection(tower(**named).pooler_output)}
        )


def logits(outputs: Mapping[str, NDArray[Any]], scale: Mapping[str, float]) -> NDArray[np.float32]:
    """Logits [pictures, texts] out of both components' outputs."""
    cosines = cosine_similarity(outputs["image_embeds"], outputs["text_embeds"])
    return cosines * np.float32(scale["logit_scale"])
