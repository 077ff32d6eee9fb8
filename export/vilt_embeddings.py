"""What ViLT's transformer sees: a text and its pictures as one row of tokens, and its mask."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import ExportError
from vlrt.families.vilt import task

from .graph import FLOAT, HIDDEN, INT64, Graph
from .pixels import ragged_input, ragged_patches

EMBEDDINGS = "vilt.embeddings."
TEXT_EMBEDDINGS = f"{EMBEDDINGS}text_embeddings."
_END = 1 << 62


def pictures_each(config: Mapping[str, Any]) -> int:
    """How many pictures go with a text."""
    return 2 if task(config) == "images-and-text-classification" else 1


def embed(graph: Graph, config: dict[str, Any]) -> tuple[str, str]:
    """The graph's inputs, embedded.

    Returns:
        Text and pictures [B, L + 1 + P, D], where B counts pictures if there are several with a
        text (in the order of `_without_pairs`), and the mask of them, as `encoder` takes it.
    """
    each = pictures_each(config)
    per = [each] if each > 1 else []
    ids = graph.input("input_ids", INT64, ["batch", "length"])
    seen = graph.input("attention_mask", INT64, ["batch", "length"])
    kinds = graph.input("token_type_ids", INT64, ["batch", "length"])
    pixels, filled, levels = ragged_input(graph, per)
    text = _embed_text(graph, config, ids, kinds)
    if per:
        text, seen = (_repeated(graph, value, each) for value in (text, seen))
        pixels, filled = (_without_pairs(graph, value, each) for value in (pixels, filled))
    patch = config["patch_size"]
    patches = ragged_patches(graph, pixels, filled, patch, levels)
    # A patch is padding where its first pixel is.
    corners = [graph.ints(*pair) for pair in ((0, 0), (_END, _END), (1, 2), (patch, patch))]
    grid = graph.op("Slice", filled, *corners)
    if graph.recipe.for_cuda:  # which has all operators for floats, and few for whole numbers
        grid, seen = (graph.cast(value, FLOAT) for value in (grid, seen))
    shown = _with_class_token(graph, grid)
    picture = _embed_pictures(graph, config, patches, grid, shown)
    tokens = graph.op("Concat", *graph.widened(text, picture), axis=1)
    return tokens, _mask(graph, graph.op("Concat", seen, shown, axis=1))


def _with_class_token(graph: Graph, grid: str) -> str:
    """Patches that are no padding, [B, h, w], as tokens behind the class token: [B, 1 + h * w]."""
    flat = graph.op("Flatten", grid, axis=1)
    one = graph.constant(np.ones((), np.float32 if graph.recipe.for_cuda else np.int64), "one_seen")
    return str(graph.op("Pad", flat, graph.ints(0, 1, 0, 0), one))


def _embed_text(graph: Graph, config: dict[str, Any], ids: str, kinds: str) -> str:
    """Token ids and their kinds [B, L] -> [B, L, D]."""
    value = graph.embedding(ids, f"{TEXT_EMBEDDINGS}word_embeddings")
    name = f"{TEXT_EMBEDDINGS}token_type_embeddings.weight"
    value = graph.add(value, graph.op("Gather", graph.floats(graph.weight(name), name), kinds))
    name = f"{TEXT_EMBEDDINGS}position_embeddings.weight"
    length = graph.op("Shape", ids, start=1, end=2)
    places = graph.floats(graph.weight(name), name)
    value = graph.add(value, graph.op("Slice", places, graph.ints(0), length, graph.ints(0)))
    value = graph.layer_norm(value, f"{TEXT_EMBEDDINGS}LayerNorm", config["layer_norm_eps"])
    return graph.add(value, _modality(graph, 0, 1))


def _embed_pictures(graph: Graph, config: dict[str, Any], cut: str, grid: str, shown: str) -> str:
    """Cut patches [B, P, K], where `grid` says which are no padding -> [B, 1 + P, D]."""
    table = graph.weight(f"{EMBEDDINGS}position_embeddings")[0]
    side = config["image_size"] // config["patch_size"]
    if len(table) != side**2 + 1:
        raise ExportError(
            f"the checkpoint has {len(table)} positions; an image_size of {config['image_size']} "
            f"in patches of {config['patch_size']} needs {side**2 + 1}"
        )
    projection = f"{EMBEDDINGS}patch_embeddings.projection"
    patches = graph.embed_patches(cut, projection)
    places = _positions(graph, table[1:].reshape(side, side, -1), grid)
    patches = graph.add(patches, graph.cast(places, graph.type_of(patches)))
    token = graph.weight(f"{EMBEDDINGS}cls_token") + table[0]
    token = _class_token(graph, graph.floats(token, "vilt.class_token"), shown, table.shape[1])
    tokens = graph.op("Concat", *graph.widened(token, patches), axis=1)
    each = pictures_each(config)
    kind = _modality(graph, 1, 1 + each)
    if each > 1:
        kind = _kinds(graph, shown, each)
    return graph.add(tokens, kind)


def _kinds(graph: Graph, shown: str, each: int) -> str:
    """What tells the first picture of a pair from the second, for every row: [B, 1, D]."""
    if not graph.recipe.for_cuda:
        batch = graph.op("Shape", "pixel_values", start=0, end=1)
        repeats = graph.op("Concat", batch, graph.ints(1, 1), axis=0)
        return str(graph.op("Tile", _modality(graph, 1, 1 + each), repeats))
    parts = graph.op("Split", _seen(graph, shown), outputs=each, axis=0, num_outputs=each)
    rows = [
        graph.op("Mul", graph.cast(part, graph.float_type), _modality(graph, kind, kind + 1))
        for kind, part in enumerate(parts, start=1)
    ]
    return str(graph.op("Concat", *rows, axis=0))


def _class_token(graph: Graph, row: str, shown: str, width: int) -> str:
    """The class token's row [1, 1, D] for every picture: [B, 1, D]."""
    if not graph.recipe.for_cuda:
        return graph.expand_to_batch(row, shown, width)
    # Shapes would be put together by the CPU.
    return str(graph.op("Mul", row, graph.cast(_seen(graph, shown), graph.type_of(row))))


def _seen(graph: Graph, shown: str) -> str:
    """A one for each picture, [B, 1, 1]: that its class token is seen."""
    seen = graph.op("Slice", shown, graph.ints(0), graph.ints(1), graph.ints(1))
    return str(graph.op("Unsqueeze", seen, graph.ints(2)))


def _modality(graph: Graph, start: int, end: int) -> str:
    """What tells text (0) from pictures (1, and 2 for the second): [end - start, 1, D]."""
    name = f"{EMBEDDINGS}token_type_embeddings.weight"
    return graph.floats(graph.weight(name)[start:end, None], f"{name}.{start}-{end}")


def _positions(graph: Graph, table: NDArray[np.float32], grid: str) -> str:
    """A table of positions, stretched over each picture's patches.

    Bilinear with its corners at the corner patches (PyTorch's `align_corners=True`), in fp32, as
    two products: one along the rows, one along the columns.

    Args:
        graph: the graph to add to.
        table: float32 [S, S, D].
        grid: [B, h, w], 1 for the patches of the picture, which fill its upper left corner.

    Returns:
        fp32 [B, h * w, D]; what padding gets means nothing.
    """
    side, width = table.shape[1:]
    down, across = (
        _stretch(graph, graph.op("Gather", grid, graph.scalar(0), axis=axis), side)
        for axis in (2, 1)
    )
    if graph.recipe.for_cuda:
        # One product for each picture, whose rows are all in line: for those that share a factor
        # CUDA uploads addresses, from memory that is gone when a captured graph is run again.
        rows = table.transpose(1, 0, 2).reshape(side, -1)
        flat = graph.floats(rows, f"{EMBEDDINGS}position_embeddings.columns", FLOAT)
        value = graph.op("Reshape", graph.op("MatMul", across, flat), graph.ints(0, 0, side, width))
        value = graph.op("Transpose", value, perm=[0, 2, 1, 3])
        value = graph.op("MatMul", down, graph.op("Reshape", value, graph.ints(0, 0, -1)))
        return str(graph.op("Reshape", value, graph.ints(0, -1, width)))
    flat = graph.floats(table.reshape(side, -1), f"{EMBEDDINGS}position_embeddings", FLOAT)
    value = graph.op("Reshape", graph.op("MatMul", down, flat), graph.ints(0, 0, side, width))
    value = graph.op("MatMul", graph.op("Unsqueeze", across, graph.ints(1)), value)
    return str(graph.op("Reshape", value, graph.ints(0, -1, width)))


def _stretch(graph: Graph, filled: str, side: int) -> str:
    """Weights that stretch `side` places over those that are filled.

    Place i of n is at i * (side - 1) / (n - 1), and the weight of a neighbour falls from 1 to 0
    with its distance: a hat.

    Args:
        graph: the graph to add to.
        filled: int64 or, for CUDA, fp32 [B, N], ones and then zeros.
        side: how many places there are to stretch.

    Returns:
        fp32 [B, N, side].
    """
    one = graph.floats(np.ones(1, np.float32), "one", FLOAT)
    last = graph.floats(np.full(1, side - 1, np.float32), "last_place", FLOAT)
    places = graph.floats(np.arange(side, dtype=np.float32), "places", FLOAT)
    if graph.recipe.for_cuda:
        # What fills a place counts it: a range of as many as there are would be made on the CPU.
        # Its sums of rows are cuDNN's.
        count_up_to = graph.op("CumSum", filled, graph.scalar(1))
        index = graph.op("Sub", count_up_to, one)
        ends = graph.ints(-1), graph.ints(_END), graph.ints(1)
        count = graph.op("Slice", count_up_to, *ends)
    else:
        number = graph.op("Squeeze", graph.op("Shape", filled, start=1, end=2), graph.ints(0))
        index = graph.cast(graph.op("Range", graph.scalar(0), number, graph.scalar(1)), FLOAT)
        count = graph.cast(graph.op("ReduceSum", filled, graph.ints(1), keepdims=1), FLOAT)
    step = graph.op("Div", last, graph.op("Max", graph.op("Sub", count, one), one))
    at = graph.op("Mul", step, index)
    away = graph.op("Abs", graph.op("Sub", graph.op("Unsqueeze", at, graph.ints(2)), places))
    return str(graph.op("Relu", graph.op("Sub", one, away)))


def _mask(graph: Graph, tokens: str) -> str:
    """What hides padding from attention: [B, 1, 1, L + 1 + P], 0 or `HIDDEN`.

    Args:
        graph: the graph to add to.
        tokens: int64 or, for CUDA, fp32 [B, L + 1 + P], 1 for those of texts and pictures.
    """
    one = graph.ints(1)
    if graph.recipe.for_cuda:
        one = graph.floats(np.ones(1, np.float32), "one", FLOAT)
    padding = graph.cast(graph.op("Sub", one, tokens), FLOAT)
    hidden = graph.op("Mul", padding, graph.floats(np.array([HIDDEN]), "hidden", FLOAT))
    return str(graph.op("Unsqueeze", graph.cast(hidden, graph.float_type), graph.ints(1, 2)))


def _repeated(graph: Graph, value: str, number: int) -> str:
    """Each row of [B, ...] so many times, in the order of `_without_pairs`: [B * number, ...]."""
    if graph.recipe.for_cuda:
        return str(graph.op("Concat", *[value] * number, axis=0))
    row = graph.op("Unsqueeze", value, graph.ints(1))
    return _without_pairs(graph, graph.op("Concat", *[row] * number, axis=1), number)


def _without_pairs(graph: Graph, value: str, each: int) -> str:
    """[B, 2, ...] -> [B * 2, ...], pair by pair; for CUDA first all first ones, then the second.

    So no shape has to be put together, which the CPU would do.
    """
    if graph.recipe.for_cuda:
        parts = graph.op("Split", value, outputs=each, axis=1, num_outputs=each)
        rows = [graph.op("Squeeze", part, graph.ints(1)) for part in parts]
        return str(graph.op("Concat", *rows, axis=0))
    shape = graph.op("Concat", graph.ints(-1), graph.op("Shape", value, start=2), axis=0)
    return str(graph.op("Reshape", value, shape))
