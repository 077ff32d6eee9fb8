"""The residual stream of a transformer, and the blocks that read it and add to it.

In the form for CUDA, what goes along with a product is left to the operator behind it: the bias of
a product, the sum with the stream and the LayerNorm of the sum are one pass over memory there, and
so are a bias and GELU, or the biases of queries, keys and values and their attention.
"""

from collections.abc import Sequence
from typing import NamedTuple

from .builder import CONTRIB
from .graph import Graph


class Stream(NamedTuple):
    """A residual stream, [B, L, D].

    Attributes:
        value: what was added up.
        more: what is to be added to it, [B, L, D], or "".
        bias: what is to be added to `more`, the name of a linear layer, or "".
    """

    value: str
    more: str = ""
    bias: str = ""


def branch(graph: Graph, stream: str, value: str, layer: str) -> Stream:
    """A stream to which a linear layer of a value is to be added."""
    if not graph.recipe.for_cuda:
        return Stream(stream, graph.linear(value, layer))
    bias = layer if graph.has(f"{layer}.bias") else ""
    return Stream(stream, graph.linear(value, layer, biased=False), bias)


def normed(
    graph: Graph, stream: Stream, name: str, epsilon: float, *feeds: tuple[str, ...]
) -> tuple[str, str]:
    """The LayerNorm of a stream, as `Graph.layer_norm` takes its arguments, and the stream."""
    if not (graph.recipe.for_cuda and stream.more):
        value = settled(graph, stream)
        return graph.layer_norm(value, name, epsilon, *feeds), value
    value, more = graph.widened(stream.value, stream.more)
    kind = graph.type_of(value)
    numbers = [f"{name}.weight", f"{name}.bias", *([f"{stream.bias}.bias"] if stream.bias else [])]
    normal, _, _, total = graph.op(
        "SkipLayerNormalization",
        value,
        more,
        *(graph.floats(graph.weight(number), number, kind) for number in numbers),
        outputs=4,
        domain=CONTRIB,
        epsilon=epsilon,
    )
    return normal, total


def settled(graph: Graph, stream: Stream) -> str:
    """A stream with all that is to be added to it."""
    if not stream.more:
        return stream.value
    more = stream.more
    if stream.bias:
        bias = f"{stream.bias}.bias"
        more = graph.add(more, graph.floats(graph.weight(bias), bias, graph.type_of(more)))
    return graph.add(stream.value, more)


def activated(graph: Graph, value: str, layer: str, kind: str) -> str:
    """A linear layer of a value, and `quick_gelu` or `gelu` of it."""
    bias = graph.packed_bias((layer,))
    if not graph.recipe.for_cuda or kind != "gelu" or bias is None:
        return graph.activation(graph.linear(value, layer), kind)
    product = graph.linear(value, layer, biased=False)
    bias_name = graph.floats(bias, f"{layer}.bias", graph.type_of(product))
    return str(graph.op("BiasGelu", product, bias_name, domain=CONTRIB))


def attention(
    graph: Graph,
    asking: str,
    tokens: str,
    layers: tuple[str, str, str],
    out: str,
    heads: int,
    *,
    width: int,
    length: int,
    causal: bool,
    mask: str | None,
) -> str:
    """Attention with its products, but for the one of its result.

    Args:
        graph: the graph to add to.
        asking: [B, F, D], normalised, the tokens that have queries; `tokens` for all.
        tokens: [B, L, D], normalised.
        layers: the linear layers of queries, keys and values.
        out: the linear layer that takes the result.
        heads, width, length, causal, mask: as `Graph.attention` takes them.

    Returns:
        [B, F, D].
    """
    all_ask = asking == tokens
    if graph.recipe.for_cuda:
        if all_ask:
            return _packed_attention(graph, tokens, layers, heads, causal=causal, mask=mask)
        return _attention_of_few(graph, asking, tokens, layers, heads, mask=mask)
    divisor = graph.balance((out,))  # attention mixes tokens, never channels
    if all_ask:
        packed = graph.linear(tokens, *layers, last_divided=divisor)
        query, key, value = graph.op("Split", packed, outputs=3, axis=-1, num_outputs=3)
    else:
        packed = graph.linear(tokens, *layers[1:], last_divided=divisor)
        query = graph.linear(asking, layers[0])
        key, value = graph.op("Split", packed, outputs=2, axis=-1, num_outputs=2)
    return graph.attention(
        query, key, value, heads,
        width=width, length=length, causal=causal, mask=mask, divisor=divisor,
    )  # fmt: skip


def _packed_attention(
    graph: Graph,
    tokens: str,
    layers: Sequence[str],
    heads: int,
    *,
    causal: bool,
    mask: str | None,
) -> str:
    """Attention of all tokens to each other: one product for all, whose biases come after it."""
    name = "+".join(layers)
    kind, bias = graph.kind_of(name), graph.packed_bias(layers)
    result = graph.op(
        "Attention",
        graph.cast(tokens, kind),
        graph.floats(graph.packed_weight(layers), f"{name}.weight", kind),
        "" if bias is None else graph.floats(bias, f"{name}.bias", kind),
        *([] if mask is None else ["", "", graph.cast(mask, kind)]),
        domain=CONTRIB,
        num_heads=heads,
        unidirectional=int(causal),
    )
    graph.layers[name] = (tokens, result)
    return str(result)


def _attention_of_few(
    graph: Graph,
    few: str,
    tokens: str,
    layers: Sequence[str],
    heads: int,
    *,
    mask: str | None,
) -> str:
    """Attention of a few tokens to all; the biases of its products come with it."""
    packed = graph.linear(tokens, *layers[1:], biased=False)
    query = graph.linear(few, layers[0], biased=False)
    parts = graph.widened(query, *graph.op("Split", packed, outputs=2, axis=-1, num_outputs=2))
    kind, bias = graph.type_of(parts[0]), graph.packed_bias(layers)
    return str(
        graph.op(
            "MultiHeadAttention",
            *parts,
            "" if bias is None else graph.floats(bias, f"{'+'.join(layers)}.bias", kind),
            *([] if mask is None else ["", graph.cast(mask, kind)]),
            domain=CONTRIB,
            num_heads=heads,
        )
    )
