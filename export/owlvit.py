"""OWL-ViT: its image and text graphs, cut so that the query product stays outside of both.

They compute what `transformers/models/owlvit/modeling_owlvit.py` computes. OWLv2 is the same, but
for the names of its tensors and one more head (`export/owlv2.py`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.boxes import center_to_corners, iou
from vlrt.detection import class_logits
from vlrt.families.owlvit import COMPONENTS
from vlrt.ops import l2_normalize, sigmoid

from .checkpoint import Checkpoint
from .clip import check, inputs, samples
from .graph import FLOAT, Graph
from .precision import Recipe
from .reference import TorchModel
from .residual import activated, normed, settled
from .similarity import of_places
from .transformer import patch_count, pictures_at_once, text_embeds, vision_tokens

__all__ = [
    "COMPONENTS", "KEEP_FP32", "PICTURES", "PIXELS_ABS", "TEXTS",
    "Reference", "at_once", "box_bias", "build", "check", "inputs", "mlp_head", "quality",
    "samples", "similarity", "values", "vision",
]  # fmt: skip

Arrays = Mapping[str, NDArray[Any]]

# To verify on: drawn pictures, of which a large model takes half a minute for each, and all texts.
PICTURES, TEXTS = 8, None
PIXELS_ABS = 0.0  # how far the runtime's pixel values may be from transformers'
# The heads take 2 % of the time. In int8 too, they leave the demo checkpoint's mAP where it is and
# move its boxes a little further: mean IoU with the reference 0.983, not 0.987
# (`python -m benchmarks.studies.quantised_layers --checkpoint tests/data/owlvit-shapes`). On a GPU
# fp32 would make them a fifth of it, so the form for CUDA tries them in fp16 first (`for_cuda`).
_HEADS = frozenset({"class_head.*", "box_head.*", "objectness_head.*"})
# What a precision leaves alone, by the names of linear layers (see `Recipe`).
KEEP_FP32 = {"fp16": _HEADS, "int8": _HEADS | {"*.text_projection"}}

# What counts as an object that a variant must find again, and as the same object.
_SCORE = 0.1  # transformers' own threshold
_PLACES = 10
_IOU = 0.75
_TIE = 0.5


def values(checkpoint: Checkpoint) -> dict[str, float]:  # noqa: ARG001  what other families need
    """What no graph holds: nothing; the logits' shift and scale come out of the image."""
    return {}


def at_once(config: Mapping[str, Any]) -> int:
    """How many pictures to verify in one run."""
    return pictures_at_once(config["vision_config"])


def build(checkpoint: Checkpoint, component: str, recipe: Recipe) -> Graph:
    """One graph in one precision.

    Args:
        checkpoint: of model type owlvit.
        component: "vision_model" (pixel_values -> image_class_embeds, logit_shift, logit_scale,
            pred_boxes) or "text_model" (input_ids -> text_embeds); embeddings are not normalised.
        recipe: the precision; but for CUDA, the heads are built for fp32 (`KEEP_FP32`).
    """
    graph = Graph(checkpoint, recipe)
    if component == "text_model":
        return text(graph, checkpoint.config, "owlvit.")
    vision(graph, checkpoint.config, "owlvit.")
    return graph


def text(graph: Graph, config: dict[str, Any], prefix: str) -> Graph:
    """The text graph; texts are always pooled at their highest id."""
    embeds = text_embeds(graph, prefix, config["text_config"], end=None)
    graph.output("text_embeds", embeds, ["batch", config["projection_dim"]])
    return graph


def vision(graph: Graph, config: dict[str, Any], prefix: str) -> str:
    """The image graph.

    Args:
        graph: the graph to add to.
        config: the checkpoint's.
        prefix: of the towers' tensors, such as "owlvit.".

    Returns:
        What the heads see, [B, P, D], for further heads.
    """
    tower, places = config["vision_config"], patch_count(config["vision_config"])
    stream = vision_tokens(graph, f"{prefix}vision_model.", tower, "pre_layernorm")
    # The product of tokens may pass fp16's limit. What follows is little work, and in fp32 as well.
    name, epsilon = f"{prefix}vision_model.post_layernorm", tower["layer_norm_eps"]
    if graph.recipe.for_cuda:
        tokens = graph.cast(normed(graph, stream, name, epsilon)[0], FLOAT)
    else:
        tokens = graph.layer_norm(graph.cast(settled(graph, stream), FLOAT), name, epsilon)
    features = _features(graph, tokens, places, epsilon)

    embeds = graph.linear(features, "class_head.dense0")
    width = config["text_config"]["hidden_size"]
    graph.output("image_class_embeds", embeds, ["batch", places, width])
    both = graph.linear(features, "class_head.logit_shift", "class_head.logit_scale")
    shift, scale = graph.op("Split", both, outputs=2, axis=-1, num_outputs=2)
    scale = _elu_and_one(graph, scale)
    for output, column in (("logit_shift", shift), ("logit_scale", scale)):
        row = graph.op("Squeeze", column, graph.ints(2))
        graph.output(output, row, ["batch", places])
    boxes = mlp_head(graph, features, "box_head")
    bias = graph.floats(box_bias(tower["image_size"] // tower["patch_size"]), "box_bias", FLOAT)
    boxes = graph.op("Sigmoid", graph.add(boxes, bias))
    graph.output("pred_boxes", boxes, ["batch", places, 4])
    return features


def _features(graph: Graph, tokens: str, places: int, epsilon: float) -> str:
    """Each place's token by the class token, normalised: fp32 [B, 1 + P, D] -> [B, P, D].

    For CUDA they have the type that the heads take.
    """
    if not graph.recipe.for_cuda:
        sizes = graph.ints(1, places)
        whole, patches = graph.op("Split", tokens, sizes, outputs=2, axis=1)
        return graph.layer_norm(graph.op("Mul", patches, whole), "layer_norm", epsilon)
    # CUDA's Split into unequal parts uploads their sizes, from memory that is gone when a captured
    # graph is run again; and two slices of one value become a Split. So the class token goes along.
    ends = graph.ints(0), graph.ints(1), graph.ints(1 + places)
    whole = graph.op("Slice", tokens, *ends[:2], graph.ints(1))
    merged = graph.layer_norm(graph.op("Mul", tokens, whole), "layer_norm", epsilon)
    merged = graph.cast(merged, graph.kind_of("class_head.dense0"))
    return str(graph.op("Slice", merged, *ends[1:], graph.ints(1)))


def _elu_and_one(graph: Graph, value: str) -> str:
    """ELU, and 1 added to it, which makes it positive."""
    one = graph.floats(np.ones(1, np.float32), "one", FLOAT)
    if not graph.recipe.for_cuda:
        return graph.add(graph.op("Elu", value), one)
    # CUDA has no ELU. Of the two parts, x and exp(x) - 1, one is 0; the ones cancel.
    value = graph.cast(value, FLOAT)
    nothing = graph.floats(np.zeros(1, np.float32), "nothing", FLOAT)
    below = graph.op("Exp", graph.op("Min", value, nothing))
    return graph.add(graph.op("Max", value, nothing), below)


def mlp_head(graph: Graph, value: str, name: str) -> str:
    """Three linear layers with GELU between them: [B, P, D] -> [B, P, N]."""
    for number in (0, 1):
        value = activated(graph, value, f"{name}.dense{number}", "gelu")
    return graph.linear(value, f"{name}.dense2")


def box_bias(side: int) -> NDArray[np.float32]:
    """What is added to a predicted box in front of the sigmoid, float32 [side * side, 4].

    It places the box of each patch at that patch, and makes it as large as one. The arithmetic is
    that of transformers, in float32: `compute_box_bias`.
    """
    edges = np.arange(1, side + 1, dtype=np.float32) / np.float32(side)
    y, x = np.meshgrid(edges, edges, indexing="ij")
    size = np.full_like(x, 1 / side)
    wanted = np.stack([x, y, size, size], axis=-1).reshape(-1, 4)
    small = np.float32(1e-4)
    bias: NDArray[np.float32] = np.log(wanted + small) - np.log1p(small - wanted)
    return bias


def similarity(checkpoint: Checkpoint) -> Graph:
    """Every place of pictures against labels (see `export.similarity`)."""
    return of_places(checkpoint, patch_count(checkpoint.config["vision_config"]))


class Reference(TorchModel):
    """The checkpoint in PyTorch, a component at a time."""

    def run(self, component: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """What `build`'s graph of the component must compute, under the same names."""
        return self.outputs(
            inputs, {"vision_model": self.vision, "text_model": self.text}[component]
        )

    def text(self, input_ids: Any) -> dict[str, Any]:
        """The text graph's output."""
        towers = getattr(self.model, self.model.base_model_prefix)
        pooled = towers.text_model(input_ids=input_ids).pooler_output
        return {"text_embeds": towers.text_projection(pooled)}

    def vision(self, pixel_values: Any) -> dict[str, Any]:
        """The image graph's outputs."""
        grid, _ = self.model.image_embedder(pixel_values=pixel_values)
        return self.heads(grid.flatten(1, 2), grid)

    def heads(self, features: Any, grid: Any) -> dict[str, Any]:
        """What the heads make of features [B, P, D], which are those of grid [B, H, W, D]."""
        from torch.nn.functional import elu

        head = self.model.class_head
        return {
            "image_class_embeds": head.dense0(features),
            "logit_shift": head.logit_shift(features)[..., 0],
            "logit_scale": elu(head.logit_scale(features))[..., 0] + 1,
            "pred_boxes": self.model.box_predictor(features, grid),
        }


def quality(
    found: Arrays,
    expected: Arrays,
    values: Mapping[str, float],  # noqa: ARG001  what other families need
    inputs: Mapping[str, Arrays],  # noqa: ARG001
    tokenizer: Any,  # noqa: ARG001
) -> dict[str, Any]:
    """How many objects are found again, place by place, and no others.

    An object is a place whose best label scores more than 0.1 by the reference. If they are fewer
    than the pictures, because the pictures or texts do not suit the checkpoint, the 10 places of
    each picture that score best take their part.

    Args:
        found, expected: the outputs of both components, of a variant and of the reference.
        values, inputs, tokenizer: not needed.

    Returns:
        `agreement`, the share of the `compared` objects that are the same: the box at that place
        has an IoU of 0.75 or more with the reference's, and its label is the reference's best, or
        one that the reference puts within half a logit of it: a tie that falls the other way is no
        fault of the variant. Compared are also the `invented` objects, which are never the same:
        the variant scores them more than 0.1, and to the reference they are half a logit short.
        Of the reference's objects also the mean of all those `iou`s, the `largest_score_error`, and
        the `min_object_cosine` of the embeddings that queries are compared with.
        Of OWLv2 also `example_agreement`: the share of the pictures in which the place of the
        highest objectness, which stands for a picture that is an example, is the reference's, or
        one that it puts within half a logit of it.
    """
    ours, theirs = _logits(found), _logits(expected)
    best = sigmoid(theirs.max(axis=-1))
    objects = best > _SCORE
    if objects.sum() < len(objects):
        places = np.argsort(-best, axis=1, kind="stable")[:, :_PLACES]
        objects = np.zeros_like(objects)
        np.put_along_axis(objects, places, True, axis=1)
    short = theirs.max(axis=-1) < np.log(_SCORE / (1 - _SCORE)) - _TIE
    invented = (sigmoid(ours.max(axis=-1)) > _SCORE) & short & ~objects
    ties = _as_good(ours[objects], theirs[objects])
    boxes = [center_to_corners(outputs["pred_boxes"][objects]) for outputs in (found, expected)]
    overlap = np.array([iou(a[None], b[None])[0, 0] for a, b in zip(*boxes, strict=True)])
    errors = np.abs(sigmoid(ours.max(axis=-1)) - best)[objects]
    same = ties & (overlap >= _IOU) & np.isfinite(errors)
    embeds = [l2_normalize(each["image_class_embeds"][objects]) for each in (found, expected)]
    compared = len(same) + int(invented.sum())
    counted: dict[str, Any] = {
        "agreement": float(same.sum() / compared),
        "compared": compared,
        "of": f"objects of the reference have the same label and a box of IoU {_IOU} or more",
        "invented": int(invented.sum()),
        "pictures": len(theirs),
        "labels": int(theirs.shape[-1]),
        "mean_iou": float(overlap.mean()),
        "largest_score_error": float(errors.max()),
        "min_object_cosine": float((embeds[0] * embeds[1]).sum(axis=-1).min()),
    }
    name = "objectness_logits"
    if name in expected:
        counted["example_agreement"] = float(_as_good(found[name], expected[name]).mean())
    return counted


def _as_good(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of each row [R, N], whether `theirs` puts our best within a tie of its own best: [R]."""
    rows = np.arange(len(theirs))
    behind = theirs.max(axis=1) - theirs[rows, ours.argmax(axis=1)]
    good: NDArray[np.bool_] = behind <= _TIE
    return good


def _logits(outputs: Arrays) -> NDArray[np.float32]:
    """Every place of every picture against every text: [pictures, P, texts]."""
    names = ("image_class_embeds", "logit_shift", "logit_scale")
    embeds, shift, scale = (outputs[name] for name in names)
    rows = zip(embeds, shift, scale, strict=True)
    return np.stack([class_logits(*row, outputs["text_embeds"]) for row in rows])
