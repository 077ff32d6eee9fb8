"""Pictures as a graph takes them, cut into patches.

They are normalised floats, or in the form for CUDA the levels of their pixels, a quarter of the
bytes, which the graph normalises itself.
"""

import math

import numpy as np

from vlrt.files import Settings
from vlrt.levels import Levels
from vlrt.load import import_family
from vlrt.processor import Processor

from .checkpoint import Checkpoint
from .graph import BOOL, FLOAT, INT32, INT64, UINT8, Graph

_LEVELS = 256


def levels_in(processor: Processor) -> Levels | None:
    """What each level of a resized picture becomes, or None where it is no bytes any more.

    That says whether a graph in the form for CUDA takes bytes.
    """
    levels = getattr(processor, "levels", None)
    return levels if isinstance(levels, Levels) else None


def levels_of(checkpoint: Checkpoint) -> Levels | None:
    """`levels_in` the image processor of a checkpoint."""
    family = import_family(checkpoint.model_type)
    settings = Settings("preprocessor_config.json", checkpoint.image_settings())
    return levels_in(family.image_processor(settings))


def square_patches(graph: Graph, size: int, patch: int) -> str:
    """The input `pixel_values`, pictures of one size, as patches.

    Args:
        graph: the graph to add to.
        size: pixels along a side of a picture.
        patch: pixels along a side of a patch; what does not fill one is left out.

    Returns:
        [B, P, 3 * patch * patch] in the graph's type, row by row.
    """
    side = size // patch
    levels = levels_of(graph.checkpoint) if graph.recipe.for_cuda else None
    if levels is None:
        pixels = graph.input("pixel_values", FLOAT, ["batch", 3, size, size])
        pixels = _whole(graph, pixels, size, patch, (2, 3))
        return graph.cut(pixels, 3, patch, (side, side))
    pixels = graph.input("pixel_values", UINT8, ["batch", size, size, 3])
    pixels = _whole(graph, pixels, size, patch, (1, 2))
    cut = graph.op("Reshape", pixels, graph.ints(0, side, patch, side, patch, 3))
    values = _normalised(graph, graph.op("Transpose", cut, perm=[0, 1, 3, 5, 2, 4]), levels)
    return str(graph.op("Reshape", values, graph.ints(0, side * side, 3 * patch * patch)))


def ragged_input(graph: Graph, per: list[int]) -> tuple[str, str, Levels | None]:
    """The inputs `pixel_values` and `pixel_mask`: pictures of a batch padded to one size.

    Args:
        graph: the graph to add to.
        per: how many pictures go with a text, or nothing for one.

    Returns:
        Pictures, [batch, *per, 3, height, width] or as levels [batch, *per, height, width, 3]; the
        mask [batch, *per, height, width], 1 for a picture; and what levels become, if so.
    """
    levels = levels_of(graph.checkpoint) if graph.recipe.for_cuda else None
    rows: tuple[int | str, ...] = ("batch", *per)
    ends = ("height", "width")
    if levels is None:
        pixels = graph.input("pixel_values", FLOAT, [*rows, 3, *ends])
        return pixels, graph.input("pixel_mask", INT64, [*rows, *ends]), None
    pixels = graph.input("pixel_values", UINT8, [*rows, *ends, 3])
    return pixels, graph.input("pixel_mask", UINT8, [*rows, *ends]), levels


def ragged_patches(
    graph: Graph, pixels: str, filled: str, patch: int, levels: Levels | None
) -> str:
    """Patches of pictures of any size that they fill, 0 where there is no picture.

    Args:
        graph: the graph to add to.
        pixels, filled, levels: what `ragged_input` gave, one picture a row.
        patch: pixels along a side of a patch.

    Returns:
        [B, P, 3 * patch * patch] in the graph's type, row by row.
    """
    if levels is None:
        return graph.cut(pixels, 3, patch)
    values = _normalised(graph, _cut_ragged(graph, pixels, patch, (3,)), levels)
    seen = graph.op("Unsqueeze", _cut_ragged(graph, filled, patch, ()), graph.ints(3))
    nothing = graph.floats(np.zeros(1, np.float32), "nothing")
    values = graph.op("Where", graph.cast(seen, BOOL), values, nothing)
    return str(graph.op("Reshape", values, graph.ints(0, -1, 3 * patch * patch)))


def _cut_ragged(graph: Graph, value: str, patch: int, channels: tuple[int, ...]) -> str:
    """[B, H, W, *channels] -> [B, H/patch, W/patch, *channels, patch, patch].

    Along one side after the other: each number of patches is what remains, and the graph never has
    to work out how many there are.
    """
    columns = graph.op("Reshape", value, graph.ints(0, 0, -1, patch * math.prod(channels)))
    columns = graph.op("Transpose", columns, perm=[0, 2, 1, 3])  # [B, W/patch, H, a row of a patch]
    both = graph.op("Reshape", columns, graph.ints(0, 0, -1, patch, patch, *channels))
    inner = [5, 3, 4] if channels else [3, 4]
    return str(graph.op("Transpose", both, perm=[0, 2, 1, *inner]))


def _whole(graph: Graph, pixels: str, size: int, patch: int, axes: tuple[int, int]) -> str:
    """Pictures without what does not fill a patch, as a convolution leaves it out."""
    whole = size - size % patch
    if whole == size:
        return pixels
    cut = graph.ints(0, 0), graph.ints(whole, whole), graph.ints(*axes)
    return str(graph.op("Slice", pixels, *cut))


def _normalised(graph: Graph, levels: str, table: Levels) -> str:
    """Levels uint8 [..., 3, patch, patch] to the values that they become, in the graph's type.

    They are looked up: arithmetic would take one pass over memory for each of its steps, and the
    table holds what all of them come to, to the bit.
    """
    first = np.arange(3, dtype=np.int32).reshape(3, 1, 1) * _LEVELS
    at = graph.op("Add", graph.cast(levels, INT32), graph.constant(first, "first_level"))
    return str(graph.op("Gather", graph.floats(table.table.reshape(-1), "levels"), at))
