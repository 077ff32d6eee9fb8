"""ViLT: one graph, in which the tokens of a picture and of a text attend to each other.

It computes what `transformers/models/vilt/modeling_vilt.py` computes, without what depends on the
data: transformers picks the patches that are no padding, in random order; here all patches stay
where they are, and a mask hides the padding. No output depends on the order, for a patch knows its
place by its position embedding alone.
"""

from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt.errors import ExportError
from vlrt.families.vilt import COMPONENTS, task

from .checkpoint import Checkpoint
from .graph import Graph
from .joint_quality import quality
from .precision import Recipe
from .reference import TorchModel
from .residual import Stream, activated, normed
from .transformer import LayerNames, encoder, samples_at_once
from .verify import SLICE
from .vilt_embeddings import EMBEDDINGS, TEXT_EMBEDDINGS, embed, pictures_each

__all__ = [
    "COMPONENTS", "KEEP_FP32", "PICTURES", "PIXELS_ABS", "TEXTS",
    "Reference", "at_once", "build", "check", "inputs", "quality", "samples", "values",
]  # fmt: skip

Arrays = Mapping[str, NDArray[Any]]

PICTURES, TEXTS = 24, 24  # drawn and written ones, to verify on: as many pairs
PIXELS_ABS = 0.0  # how far the runtime's pixel values may be from transformers'
# What a precision leaves alone, by the names of linear layers (see `Recipe`). The heads see one
# token of each pair. Not so the decoder of masked words, which is as large as the token table and
# as good in int8: they are the same numbers.
KEEP_FP32 = {
    "int8": frozenset(
        {"vilt.pooler.dense", "classifier.*", "rank_output", "mlm_score.transform.dense"}
    )
}

_LAYERS = LayerNames(
    layer="encoder.layer.{}.",
    norm1="layernorm_before",
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    out="attention.output.dense",
    norm2="layernorm_after",
    fc1="intermediate.dense",
    fc2="output.dense",
)
_MASKED_WORDS = "fill-mask"
_MASK = "[MASK]"  # BERT's, whose vocabulary ViLT has
_OLD_BIAS = "mlm_score.bias"  # where the decoder's was before transformers 5
_HEAD_EPSILON = 1e-5  # PyTorch's own, for the LayerNorm of a classifier


def check(checkpoint: Checkpoint) -> None:
    """Refuse what no graph can be exact to, or no bundle serve.

    Raises:
        ExportError: naming the setting.
    """
    config, pictures = checkpoint.config, pictures_each(checkpoint.config)
    limit, patch = config["max_image_length"], config["patch_size"]
    if not isinstance(limit, int) or limit >= 0:
        raise ExportError(
            f"max_image_length is {limit!r}; valid: -1. With a limit, transformers leaves out "
            "patches at random, so that there is no result to agree with"
        )
    for key in ("image_size", "patch_size"):
        if not isinstance(config[key], int) or config[key] < 1:
            raise ExportError(f"{key} is {config[key]!r}; valid: one whole number, for a square")
    divisor = checkpoint.image_settings().get("size_divisor")
    if isinstance(divisor, int) and divisor % patch:
        raise ExportError(
            f"size_divisor is {divisor}: pictures of such sides are no whole patches; valid: a "
            f"multiple of patch_size, {patch}"
        )
    if pictures > 1 and config["num_images"] != pictures:
        raise ExportError(f"num_images is {config['num_images']}; valid: {pictures}, to compare")
    kinds = len(checkpoint.tensor(f"{EMBEDDINGS}token_type_embeddings.weight"))
    if kinds <= pictures:
        raise ExportError(
            f"modality_type_vocab_size is {kinds}; valid: {pictures + 1} or more, one for the text "
            "and one for each picture"
        )
    if "classifier.3.weight" in checkpoint.tensors:
        stated = len(checkpoint.json("config.json").get("id2label") or ())
        scored = len(checkpoint.tensor("classifier.3.weight"))
        if stated != scored:
            raise ExportError(
                f"id2label in config.json has {stated} answers, and the checkpoint scores {scored}"
            )


def samples(
    checkpoint: Checkpoint, images: list[Image.Image], texts: list[str]
) -> tuple[list[Image.Image], list[str]]:
    """Pairs to verify on: picture i with text i, or pictures 2i and 2i + 1.

    What there is less of is used again. A model of masked words gets one masked in each text.
    """
    config = checkpoint.config
    each = pictures_each(config)
    number = max(len(texts), -(-len(images) // each))
    paired = list(islice(cycle(texts), number))
    if task(config) == _MASKED_WORDS:
        paired = [_with_mask(text, position) for position, text in enumerate(paired)]
    return list(islice(cycle(images), number * each)), paired


def inputs(made: Arrays) -> dict[str, dict[str, NDArray[Any]]]:
    """What the graph takes of what the processor and the tokenizer make.

    Pictures of which there are twice as many as texts are stacked two by two. All tokens are of the
    first kind of a text.
    """
    ids = made["input_ids"]
    each = len(made["pixel_values"]) // len(ids)
    stacked = {
        name: made[name].reshape(-1, each, *made[name].shape[1:]) if each > 1 else made[name]
        for name in ("pixel_values", "pixel_mask")
    }
    texts = {"input_ids": ids, "attention_mask": made["attention_mask"]}
    kinds = made.get("token_type_ids", np.zeros_like(ids))
    return {"model": {**texts, "token_type_ids": kinds, **stacked}}


def values(checkpoint: Checkpoint) -> dict[str, float]:  # noqa: ARG001  what other families need
    """What no graph holds: nothing."""
    return {}


def at_once(config: Mapping[str, Any]) -> int:
    """How many pairs to verify in one run."""
    tokens = _most_patches(config) + 1 + config["max_position_embeddings"]
    return samples_at_once(pictures_each(config) * tokens, config["num_attention_heads"])


def build(checkpoint: Checkpoint, component: str, recipe: Recipe, *, masked: bool = True) -> Graph:
    """The graph in one precision.

    Args:
        checkpoint: of model type vilt, one that `check` does not refuse.
        component: "model" (input_ids, attention_mask, token_type_ids, pixel_values, pixel_mask ->
            logits).
        recipe: the precision.
        masked: hide padding. A graph without serves batches that have none, of texts and of
            pictures.
    """
    assert component in COMPONENTS
    graph, config = Graph(checkpoint, recipe), checkpoint.config
    tokens, mask = embed(graph, config)
    words = task(config) == _MASKED_WORDS
    # Nothing reads the other tokens of the last layer.
    first = graph.op("Shape", "input_ids", start=1, end=2) if words else graph.ints(1)
    stream = encoder(
        graph,
        Stream(tokens),
        "vilt.",
        config,
        length=_most_patches(config),
        names=_LAYERS,
        mask=mask if masked else None,
        first=first,
    )
    hidden, _ = normed(graph, stream, "vilt.layernorm", config["layer_norm_eps"])
    if words:
        logits, axes = _score_words(graph, hidden, config), ["batch", "length"]
    else:
        logits, axes = _score_pair(graph, hidden, config), ["batch"]
    graph.output("logits", logits, [*axes, "labels"])
    return graph


def _score_pair(graph: Graph, hidden: str, config: dict[str, Any]) -> str:
    """The first token of each pair, normalised [B, 1, D] -> logits [B, labels]."""
    each = pictures_each(config)
    width = each * config["hidden_size"]
    pooled = graph.op("Tanh", graph.linear(hidden, "vilt.pooler.dense"))
    if each > 1 and graph.recipe.for_cuda:  # all first pictures stand before all second ones
        parts = graph.op("Split", pooled, outputs=each, axis=0, num_outputs=each)
        pooled = graph.op("Concat", *parts, axis=-1)
    pooled = graph.op("Reshape", pooled, graph.ints(-1, width))
    if task(config) == "image-text-retrieval":
        return graph.linear(pooled, "rank_output")
    value = graph.linear(pooled, "classifier.0")
    value = graph.layer_norm(value, "classifier.1", _HEAD_EPSILON)
    return graph.linear(graph.activation(value, "gelu"), "classifier.3")


def _score_words(graph: Graph, hidden: str, config: dict[str, Any]) -> str:
    """The tokens of each text, normalised [B, L, D] -> logits [B, L, words]."""
    value = activated(graph, hidden, "mlm_score.transform.dense", config["hidden_act"])
    value = graph.layer_norm(value, "mlm_score.transform.LayerNorm", config["layer_norm_eps"])
    # Files that hold shared weights once leave out the decoder's, which are the token table's.
    name = "mlm_score.decoder"
    renamed = graph.has(_OLD_BIAS) and not graph.has(f"{name}.bias")
    bias = _OLD_BIAS if renamed else f"{name}.bias"
    table = name if graph.has(f"{name}.weight") else f"{TEXT_EMBEDDINGS}word_embeddings"
    return graph.product(value, graph.weight(f"{table}.weight").T, graph.weight(bias), name)


def _with_mask(text: str, position: int) -> str:
    """The text with one of its words masked, another one for each position."""
    if _MASK in text:
        return text
    words = text.split()
    words[position % len(words)] = _MASK
    return " ".join(words)


def _most_patches(config: Mapping[str, Any]) -> int:
    """How many patches a batch has at most, padding and all, with pictures of the usual size."""
    longer = int(1333 / 800 * config["image_size"])  # as `vlrt/ragged.py` resizes
    return int(longer // config["patch_size"]) ** 2


class Reference(TorchModel):
    """The checkpoint in PyTorch."""

    @staticmethod
    def model_class(checkpoint: Checkpoint) -> Any:
        """The class that the checkpoint names; not all of its tasks have a name in optimum."""
        import transformers

        return getattr(transformers, checkpoint.config["architectures"][0])

    def __init__(self, checkpoint: Checkpoint, at_once: int = SLICE) -> None:
        super().__init__(checkpoint, at_once)
        if _OLD_BIAS in checkpoint.tensors and "mlm_score.decoder.bias" not in checkpoint.tensors:
            # transformers 5 looks for it under its new name alone, and would leave it out.
            bias = self.model.mlm_score.decoder.bias
            bias.data.copy_(bias.new_tensor(checkpoint.tensor(_OLD_BIAS)))

    def run(self, component: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """What `build`'s graph must compute, under the same names."""
        assert component in COMPONENTS
        return self.outputs(inputs, lambda **named: {"logits": self.model(**named).logits})
