"""Pre-norm transformers: CLIP's towers, which OWL-ViT takes over, and all families' encoder."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vlrt.errors import ExportError

from .graph import INT64, Graph
from .pixels import square_patches
from .residual import Stream, activated, attention, branch, normed, settled


@dataclass(frozen=True)
class LayerNames:
    """What a family calls the parts of its layers; `layer` has a `{}` for the number."""

    layer: str
    norm1: str
    query: str
    key: str
    value: str
    out: str
    norm2: str
    fc1: str
    fc2: str


CLIP_LAYERS = LayerNames(
    layer="encoder.layers.{}.",
    norm1="layer_norm1",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.out_proj",
    norm2="layer_norm2",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)


def vision_tokens(
    graph: Graph,
    prefix: str,
    tower: dict[str, Any],
    first_norm: str,
    *,
    first: int | None = None,
) -> Stream:
    """The input `pixel_values` through a vision transformer.

    Args:
        graph: the graph to add to.
        prefix: of the tower's tensors, such as "vision_model.".
        tower: its settings.
        first_norm: the name of the LayerNorm in front of the encoder.
        first: how many of the first tokens are wanted; None for all.

    Returns:
        [B, 1 + P, D]: the class token, then the P patches row by row; without the last LayerNorm.
        Or [B, first, D].

    Raises:
        ExportError: the checkpoint has positions for another number of patches.
    """
    size, patch, embeddings = tower["image_size"], tower["patch_size"], f"{prefix}embeddings."
    cut = square_patches(graph, size, patch)
    patches = graph.embed_patches(cut, f"{embeddings}patch_embedding")
    position = graph.weight(f"{embeddings}position_embedding.weight")
    if len(position) != patch_count(tower) + 1:
        raise ExportError(
            f"the checkpoint has {len(position)} positions; pictures of {size} pixels in patches "
            f"of {patch} need {patch_count(tower) + 1}"
        )
    table = position.copy()
    table[0] += graph.weight(f"{embeddings}class_embedding")
    # The class token, which is the same for all, comes with the positions.
    room = graph.op("Pad", patches, graph.ints(0, 1, 0, 0, 0, 0))
    value = graph.add(room, graph.floats(table, "vision.positions"))
    value = graph.layer_norm(value, f"{prefix}{first_norm}", tower["layer_norm_eps"])
    few = None if first is None else graph.ints(first)
    return encoder(graph, Stream(value), prefix, tower, length=len(position), first=few)


def text_embeds(graph: Graph, prefix: str, tower: dict[str, Any], *, end: int | None) -> str:
    """The input `input_ids` through a causal text transformer and its projection.

    Args:
        graph: the graph to add to.
        prefix: of the checkpoint's tensors: "", or such as "owlvit.".
        tower: the tower's settings.
        end: the id of the end-of-text token, or None for the highest id of each text.

    Returns:
        [N, D], pooled at the end of each text, not normalised.
    """
    own = f"{prefix}text_model."
    ids = graph.input("input_ids", INT64, ["batch", "length"])
    position = graph.weight(f"{own}embeddings.position_embedding.weight")
    words = graph.embedding(ids, f"{own}embeddings.token_embedding")
    length = graph.op("Shape", ids, start=1, end=2)
    places = graph.op(
        "Slice", graph.floats(position, "text.positions"), graph.ints(0), length, graph.ints(0)
    )
    embedded = Stream(graph.add(words, places))
    stream = encoder(graph, embedded, own, tower, length=len(position), causal=True)
    # Texts end with an end-of-text token, and padding may have the same id: the first one counts.
    # Everything behind it is invisible to it, so no attention mask is needed.
    marks = ids if end is None else graph.cast(graph.op("Equal", ids, graph.scalar(end)), INT64)
    at = graph.op("Unsqueeze", graph.first_highest(marks), graph.ints(2))
    last = f"{own}final_layer_norm", tower["layer_norm_eps"]
    if graph.recipe.for_cuda:  # the LayerNorm of all tokens comes with their sum
        pooled = _pooled(graph, normed(graph, stream, *last)[0], at)
    else:
        pooled = graph.layer_norm(_pooled(graph, settled(graph, stream), at), *last)
    return graph.linear(pooled, f"{prefix}text_projection")


def _pooled(graph: Graph, value: str, at: str) -> str:
    """The token of each row of [N, L, D] at its place (int64 [N, 1, 1]): [N, D]."""
    pooled = graph.op("GatherND", value, at, batch_dims=1)
    return str(graph.op("Squeeze", pooled, graph.ints(1)))


def encoder(
    graph: Graph,
    stream: Stream,
    prefix: str,
    config: dict[str, Any],
    *,
    length: int,
    names: LayerNames = CLIP_LAYERS,
    causal: bool = False,
    mask: str | None = None,
    first: str | None = None,
) -> Stream:
    """Run the residual stream [B, L, D] through the layers of an encoder.

    Args:
        graph: the graph to add to.
        stream: the embedded tokens.
        prefix: of the tower's tensors, such as "vision_model.".
        config: the tower's settings: hidden_size, num_hidden_layers, num_attention_heads,
            hidden_act, layer_norm_eps.
        length: about how many tokens there will be.
        names: of the layers' tensors.
        causal: a token sees only those before it.
        mask: what is added to the scores of each key, [B, 1, 1, L], or None.
        first: how many of the first tokens are wanted, int64 [1]; the last layer leaves out the
            others, which nothing reads any more. None for all.

    Returns:
        [B, L, D], or [B, first, D].
    """
    epsilon, layers = config["layer_norm_eps"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    wide = None if mask is None else _for_queries(graph, mask)
    for number in range(layers):
        layer = prefix + names.layer.format(number)
        of_query, of_key, of_value = (
            f"{layer}{name}" for name in (names.query, names.key, names.value)
        )
        norm, out = f"{layer}{names.norm1}", f"{layer}{names.out}"
        few = first if number == layers - 1 else None
        feeds = ((of_key, of_value), (of_query,)) if few else ((of_query, of_key, of_value),)
        tokens, value = normed(graph, stream, norm, epsilon, *feeds)
        asking = tokens
        if few:
            value, asking = (graph.first_tokens(each, few) for each in (value, tokens))
            wide = None if mask is None else _for_queries(graph, mask, few)
        attended = attention(
            graph, asking, tokens, (of_query, of_key, of_value), out, heads,
            width=config["hidden_size"], length=length, causal=causal, mask=wide,
        )  # fmt: skip
        stream = branch(graph, value, attended, out)
        fc1 = f"{layer}{names.fc1}"
        tokens, value = normed(graph, stream, f"{layer}{names.norm2}", epsilon, (fc1,))
        hidden = activated(graph, tokens, fc1, config["hidden_act"])
        stream = branch(graph, value, hidden, f"{layer}{names.fc2}")
    return stream


def _for_queries(graph: Graph, mask: str, number: str | None = None) -> str:
    """A mask [B, 1, 1, L] repeated for L queries, or so many (int64 [1]): [B, 1, number, L]."""
    if graph.recipe.for_cuda:  # where shapes would be put together by the CPU
        nothing = graph.floats(np.zeros(1, np.float32), "nothing", graph.type_of(mask))
        column = graph.op("Mul", graph.op("Transpose", mask, perm=[0, 1, 3, 2]), nothing)
        if number is not None:
            column = graph.op("Slice", column, graph.ints(0), number, graph.ints(2))
        return str(graph.op("Add", column, mask))
    if number is None:
        number = graph.op("Shape", mask, start=3)
    shape = graph.op("Concat", graph.ints(1, 1), number, graph.ints(1), axis=0)
    return str(graph.op("Expand", mask, shape))


def patch_count(tower: dict[str, Any]) -> int:
    """How many whole patches a vision tower cuts its square pictures into."""
    return int(tower["image_size"] // tower["patch_size"]) ** 2


def samples_at_once(tokens: int, heads: int, budget: int = 1 << 30) -> int:
    """How many samples to verify in one run, from 1 to 8.

    Eager attention keeps one matrix of all tokens by all tokens for each head, and one more while
    it takes the softmax; both of them stay within `budget` bytes each.

    Args:
        tokens: of one sample.
        heads: of a layer.
        budget: bytes.
    """
    matrix = heads * tokens**2 * np.dtype(np.float32).itemsize
    return int(min(8, max(1, budget // matrix)))


def pictures_at_once(tower: dict[str, Any]) -> int:
    """How many pictures of a vision tower to verify in one run."""
    return samples_at_once(patch_count(tower) + 1, tower["num_attention_heads"])
