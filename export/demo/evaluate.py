"""Accuracy of a picture and text encoder pair among the labels of all drawn pairs.

Independent of any framework: the encoders are two callables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .captions import Phrase, label, phrase_text
from .scenes import ALL_PAIRS, COLOURS, HELD_OUT_PAIRS, SEEN_PAIRS, Pair, Scene, draw_scene
from .shapes import SHAPES

Array = NDArray[np.floating]
EncodeImages = Callable[[list[Image.Image]], Array]
EncodeTexts = Callable[[list[str]], Array]
Table = dict[str, dict[str, float]]

SEED = 4321  # of the pictures to evaluate on
_CHUNK = 64  # pictures drawn and encoded at a time


def _unit(rows: Array) -> Array:
    """Rows divided by their lengths."""
    unit: Array = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit


def single_object_scenes(
    pairs: Sequence[Pair], per_pair: int, size_wh: tuple[int, int], seed: int
) -> list[Scene]:
    """`per_pair` scenes of each pair in turn: one object of any size on any background."""
    rng = np.random.default_rng((seed, 2 << 32))
    return [
        draw_scene(rng, size_wh=size_wh, pairs=[pair]) for pair in pairs for _ in range(per_pair)
    ]


def _accuracies(
    images: Array, pairs: Sequence[Pair], encode_texts: EncodeTexts
) -> dict[str, float]:
    """Top-1 accuracies of unit picture vectors [n, width] against each kind of label."""
    colours, shapes = list(COLOURS), list(SHAPES)
    kinds = {
        "pair": ([label(p) for p in ALL_PAIRS], [ALL_PAIRS.index(p) for p in pairs]),
        "colour": (
            [phrase_text(Phrase(colour=c)) for c in colours],
            [colours.index(p[0]) for p in pairs],
        ),
        "shape": (
            [phrase_text(Phrase(shape=s)) for s in shapes],
            [shapes.index(p[1]) for p in pairs],
        ),
    }
    result = {}
    for kind, (texts, truth) in kinds.items():
        best = (images @ _unit(encode_texts(texts)).T).argmax(axis=-1)
        result[kind] = float((best == np.array(truth)).mean())
    return result


def pair_accuracy(
    encode_images: EncodeImages,
    encode_texts: EncodeTexts,
    *,
    per_pair: int = 20,
    size_wh: tuple[int, int] = (256, 256),
    seed: int = SEED,
) -> Table:
    """Top-1 accuracy on single-object scenes, for seen and held-out pairs apart.

    The encoders return float arrays [n, width] that need not be normalised. "pair" is the choice
    among all 64 labels, "colour" and "shape" the choice among eight each.
    """
    table: Table = {}
    for name, pairs in (("seen", SEEN_PAIRS), ("held_out", HELD_OUT_PAIRS)):
        scenes = single_object_scenes(pairs, per_pair, size_wh, seed)
        pictures = [scene.image for scene in scenes]
        chunks = [
            _unit(encode_images(pictures[at : at + _CHUNK]))
            for at in range(0, len(pictures), _CHUNK)
        ]
        truth = [pair for pair in pairs for _ in range(per_pair)]
        table[name] = _accuracies(np.concatenate(chunks), truth, encode_texts)
    return table


def format_table(table: Table) -> str:
    """One line for a log: every accuracy in per cent."""
    return "; ".join(
        f"{name}: " + ", ".join(f"{kind} {value:.1%}" for kind, value in row.items())
        for name, row in table.items()
    )
