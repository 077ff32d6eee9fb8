"""The product of pictures and labels as a graph of its own, for GPUs and many labels.

Thousands of labels make a number for each of them and for each place of each picture. On a GPU that
is little work, but much to fetch: so there the graph fetches what is best alone.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlrt.bundle import SIMILARITY
from vlrt.detection import class_logits
from vlrt.errors import GateError
from vlrt.ops import cosine_similarity

from .checkpoint import Checkpoint
from .graph import FLOAT, Graph
from .precision import Recipe
from .recipes import producer, save
from .verify import parity, run_twice

if TYPE_CHECKING:
    from .run import Run

Arrays = dict[str, NDArray[Any]]

# The lengths of embeddings that are zero throughout; as in `vlrt.ops.l2_normalize`, they stay zero.
_SHORTEST = 1e-30
_EPSILON = 1e-6  # transformers' own, which it adds to lengths
# Of logits, as shares of the largest: sums in another order.
_LARGEST_ERROR = 1e-5


def of_pictures(checkpoint: Checkpoint) -> Graph:
    """Pictures against labels, as `vlrt.families.clip` computes it.

    `image_embeds` [B, D] of any length, `text_embeds` [N, D] of length 1 and `logit_scale` [1] to
    `logits` [B, N].
    """
    graph, width = Graph(checkpoint, Recipe("fp32")), checkpoint.config["projection_dim"]
    images = graph.input("image_embeds", FLOAT, ["batch", width])
    texts = graph.input("text_embeds", FLOAT, ["labels", width])
    scale = graph.input("logit_scale", FLOAT, [1])
    length = graph.op("ReduceL2", images, graph.ints(-1), keepdims=1)
    units = graph.op("Div", images, graph.op("Max", length, _number(graph, _SHORTEST)))
    cosines = graph.op("MatMul", units, graph.op("Transpose", texts, perm=[1, 0]))
    graph.output("logits", graph.op("Mul", cosines, scale), ["batch", "labels"])
    return graph


def of_places(checkpoint: Checkpoint, places: int) -> Graph:
    """Every place of pictures against labels, as `vlrt.detection.class_logits` computes it.

    `image_class_embeds` [B, P, D], `logit_shift` and `logit_scale` [B, P] and `text_embeds` [N, D],
    of any length, to `logits` [B, P, N], and of each place the highest, `best_logits` [B, P], and
    which label has it, `best_labels` [B, P], the first of equals.
    """
    graph, width = Graph(checkpoint, Recipe("fp32")), checkpoint.config["projection_dim"]
    embeds = graph.input("image_class_embeds", FLOAT, ["batch", places, width])
    shift, factor = (
        graph.op("Unsqueeze", graph.input(name, FLOAT, ["batch", places]), graph.ints(2))
        for name in ("logit_shift", "logit_scale")
    )
    texts = graph.input("text_embeds", FLOAT, ["labels", width])
    units = graph.op("Div", texts, _length(graph, texts))
    products = graph.op("MatMul", embeds, graph.op("Transpose", units, perm=[1, 0]))
    cosines = graph.op("Div", products, _length(graph, embeds))
    logits = graph.op("Mul", graph.op("Add", cosines, shift), factor)
    best = graph.op("ReduceMax", logits, graph.ints(-1), keepdims=0)
    which = graph.op("ArgMax", logits, axis=-1, keepdims=0)
    graph.output("logits", logits, ["batch", places, "labels"])
    graph.output("best_logits", best, ["batch", places])
    graph.output("best_labels", which, ["batch", places])
    return graph


def _length(graph: Graph, value: str) -> str:
    length = graph.op("ReduceL2", value, graph.ints(-1), keepdims=1)
    return str(graph.op("Add", length, _number(graph, _EPSILON)))


def _number(graph: Graph, value: float) -> str:
    return graph.floats(np.array(value, np.float32), f"number_{value:g}")


def write(run: "Run") -> dict[str, Any] | None:
    """Write the graph of a family that has one, and prove it against NumPy.

    Returns:
        Its entry in the manifest; None for a family without one.

    Raises:
        GateError: it computes something else.
    """
    build = getattr(run.family, "similarity", None)
    if build is None:
        return None
    path = run.root / SIMILARITY
    save(build(run.checkpoint).model(producer()), path)
    seen = {name: array for part in run.expected.values() for name, array in part.items()}
    inputs, wanted = _expected(seen, run.values)
    session = run.open(path)
    # All at once: labels are no samples, of which a slice could be taken.
    found, repeatable = run_twice(session, inputs, len(seen["text_embeds"]) + len(wanted["logits"]))
    numbers = parity(found, wanted)
    worst = max(entry["max_abs_error_unit"] for entry in numbers.values())
    if not (repeatable and worst <= _LARGEST_ERROR):
        raise GateError(
            f"the graph of similarities is off by {worst:.1e}, limit {_LARGEST_ERROR:.0e}; or a "
            f"second run gave another result: {not repeatable}"
        )
    run.say(f"  {SIMILARITY}: largest error {worst:.1e}")
    return {"files": [SIMILARITY], "parity": numbers, "repeatable": repeatable}


def _expected(seen: Arrays, values: dict[str, float]) -> tuple[Arrays, Arrays]:
    """What the graph is given, of what the towers gave; and what NumPy makes of it."""
    texts = seen["text_embeds"]
    if "image_embeds" in seen:
        scale = np.array([values["logit_scale"]], np.float32)
        units = texts / np.linalg.norm(texts, axis=1, keepdims=True)
        inputs = {"image_embeds": seen["image_embeds"], "text_embeds": units, "logit_scale": scale}
        return inputs, {"logits": cosine_similarity(seen["image_embeds"], texts) * scale}
    names = ("image_class_embeds", "logit_shift", "logit_scale")
    inputs = {name: seen[name] for name in names} | {"text_embeds": texts}
    rows = zip(*(seen[name] for name in names), strict=True)
    logits = np.stack([class_logits(a, shift, scale, texts) for a, shift, scale in rows])
    return inputs, {"logits": logits, "best_logits": logits.max(axis=-1)}
