"""Pre-norm transformer encoders, as CLIP's two towers and its descendants have them."""

from typing import Any

from .graph import Graph


def encoder(
    graph: Graph,
    value: str,
    prefix: str,
    config: dict[str, Any],
    *,
    length: int,
    causal: bool = False,
) -> str:
    """Run the residual stream [B, L, D] through `{prefix}encoder.layers.*` (CLIP's tensor names).

    Args:
        graph: the graph to add to.
        value: the embedded tokens.
        prefix: of the tower's tensors, such as "vision_model.".
        config: the tower's settings: num_hidden_layers, num_attention_heads, hidden_act,
            layer_norm_eps.
        length: about how many tokens there will be.
        causal: a token sees only those before it.
    """
    epsilon = config["layer_norm_eps"]
    for number in range(config["num_hidden_layers"]):
        layer = f"{prefix}encoder.layers.{number}."
        normed = graph.layer_norm(value, f"{layer}layer_norm1", epsilon)
        packed = graph.linear(normed, *(f"{layer}self_attn.{part}_proj" for part in "qkv"))
        query, key, val = graph.op("Split", packed, outputs=3, axis=-1, num_outputs=3)
        attended = graph.attention(
            query, key, val, config["num_attention_heads"], length=length, causal=causal
        )
        value = graph.add(value, graph.linear(attended, f"{layer}self_attn.out_proj"))
        normed = graph.layer_norm(value, f"{layer}layer_norm2", epsilon)
        hidden = graph.activation(graph.linear(normed, f"{layer}mlp.fc1"), config["hidden_act"])
        value = graph.add(value, graph.linear(hidden, f"{layer}mlp.fc2"))
    return value
