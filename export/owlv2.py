"""OWLv2: OWL-ViT with a head for how much a place looks like an object at all.

It computes what `transformers/models/owlv2/modeling_owlv2.py` computes.
"""

from typing import Any

from vlrt.families.owlv2 import COMPONENTS

from . import owlvit
from .checkpoint import Checkpoint
from .graph import Graph
from .owlvit import (
    KEEP_FP32,
    PICTURES,
    TEXTS,
    at_once,
    check,
    inputs,
    quality,
    samples,
    similarity,
    values,
)
from .precision import Recipe
from .transformer import patch_count

__all__ = [
    "COMPONENTS", "KEEP_FP32", "PICTURES", "PIXELS_ABS", "TEXTS",
    "Reference", "at_once", "build", "check", "inputs", "quality", "samples", "similarity",
    "values",
]  # fmt: skip

# The runtime resizes in NumPy, transformers in SciPy; the order of sums differs.
PIXELS_ABS = 1e-5


def build(checkpoint: Checkpoint, component: str, recipe: Recipe) -> Graph:
    """One graph in one precision: as OWL-ViT's, and the image also gives `objectness_logits`."""
    graph, config = Graph(checkpoint, recipe), checkpoint.config
    if component == "text_model":
        return owlvit.text(graph, config, "owlv2.")
    features = owlvit.vision(graph, config, "owlv2.")
    objectness = owlvit.mlp_head(graph, features, "objectness_head")
    objectness = graph.op("Squeeze", objectness, graph.ints(2))
    places = patch_count(config["vision_config"])
    graph.output("objectness_logits", objectness, ["batch", places])
    return graph


class Reference(owlvit.Reference):
    """The checkpoint in PyTorch, a component at a time."""

    def heads(self, features: Any, grid: Any) -> dict[str, Any]:
        """What the heads make of features [B, P, D], which are those of grid [B, H, W, D]."""
        objectness = self.model.objectness_predictor(features)
        return super().heads(features, grid) | {"objectness_logits": objectness}
