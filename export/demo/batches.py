"""Training batches of pictures and captions. No torch here: worker processes import this.

Every batch depends on (seed, step) alone, so a resumed run sees the same data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .backgrounds import BACKGROUNDS
from .captions import (
    Caption,
    Phrase,
    alter,
    describe,
    open_to_held_out,
    truth_table,
    word_caption,
)
from .scenes import (
    COLOURS,
    MAX_OBJECTS,
    OTHER_COLOUR,
    SEEN_PAIRS,
    SIZES,
    Scene,
    draw_plan,
    draw_scene,
    plan_scene,
    recolour,
)
from .shapes import SHAPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

PICTURE = 64  # picture side in pixels


@dataclass(frozen=True)
class Batch:
    """Pictures and distinct captions.

    pixels: uint8 [pictures, side, side, 3].
    own: bool [pictures, captions], which captions were written for which picture.
    negative: bool [pictures, captions], which captions are fair counter-examples: false of the
        picture, and not open to a held-out pair (see `captions.open_to_held_out`).
    """

    pixels: NDArray[np.uint8]
    texts: list[str]
    own: NDArray[np.bool_]
    negative: NDArray[np.bool_]


@dataclass(frozen=True)
class Recipe:
    """What batches are made of.

    The first `easy` share of the run has single large objects on plain ground; full scenes then
    come in linearly and are all there is from `full` on.
    """

    seed: int
    steps: int
    pictures: int
    easy: float = 0.05
    full: float = 0.35
    singles: float = 0.6  # share of one-object pictures among full scenes
    recoloured: float = 0.35  # share of one-object pictures in a colour of no name


def _hardness(recipe: Recipe, step: int) -> float:
    """The share of full scenes at a step, 0 to 1."""
    done = step / max(recipe.steps, 1)
    return float(np.clip((done - recipe.easy) / (recipe.full - recipe.easy), 0, 1))


def _scene(rng: np.random.Generator, recipe: Recipe, hardness: float) -> Scene:
    size_wh = (PICTURE, PICTURE)
    hard = rng.random() < hardness
    if hard and rng.random() >= recipe.singles:
        return draw_scene(rng, size_wh=size_wh, n_objects=(2, MAX_OBJECTS), pairs=SEEN_PAIRS)
    plan = plan_scene(
        rng,
        size_wh=size_wh,
        pairs=SEEN_PAIRS,
        sizes=tuple(SIZES) if hard else ("large",),
        backgrounds=BACKGROUNDS if hard else ("plain",),
    )
    # Shapes in colours of no name teach that a shape does not depend on the colour.
    if rng.random() < recipe.recoloured:
        plan = recolour(rng, plan)
    return draw_plan(plan, size_wh)


def _phrases(rng: np.random.Generator, scene: Scene) -> list[tuple[Phrase, ...]]:
    """One caption of a single attribute, and one of up to three objects in more detail."""
    objects = scene.objects
    named = objects[0].colour != OTHER_COLOUR
    one = [objects[rng.integers(len(objects))]]
    # Colours are learned at once, shapes need the practice.
    by_shape = not named or rng.random() < 0.7
    single = describe(rng, one, (0.05, 0.0, 1.0) if by_shape else (0.05, 1.0, 0.0))
    count = min(int(rng.integers(1, 4)), len(objects))
    chosen = rng.permutation(len(objects))[:count]
    keep = (0.3, 0.85, 0.85) if named else (0.3, 0.0, 1.0)
    full = describe(rng, [objects[i] for i in chosen], keep)
    return [single, full]


def make_batch(recipe: Recipe, step: int) -> Batch:
    """Draw the batch of one step."""
    rng = np.random.default_rng((recipe.seed, step))
    hardness = _hardness(recipe, step)
    scenes = [_scene(rng, recipe, hardness) for _ in range(recipe.pictures)]
    captions: dict[str, Caption] = {}
    owners: list[tuple[int, str]] = []
    for at, scene in enumerate(scenes):
        described = _phrases(rng, scene)
        for phrases in described:
            caption = word_caption(rng, phrases)
            captions[caption.text] = caption
            owners.append((at, caption.text))
        # A caption that is off by one attribute: a hard negative for its picture.
        wrong = word_caption(rng, alter(rng, described[-1]))
        captions[wrong.text] = wrong
    columns = {text: column for column, text in enumerate(captions)}
    own = np.zeros((len(scenes), len(captions)), dtype=np.bool_)
    for at, text in owners:
        own[at, columns[text]] = True
    pixels = np.stack([np.asarray(scene.image) for scene in scenes])
    told = list(captions.values())
    negative = ~truth_table(told, scenes) & ~open_to_held_out(told, scenes)
    return Batch(pixels, list(captions), own, negative)


def corpus(seed: int, count: int = 4000) -> list[str]:
    """Caption texts that together use every word, for training the tokenizer."""
    rng = np.random.default_rng((seed, 1 << 32))
    texts = []
    for _ in range(count):
        scene = draw_scene(rng, size_wh=(8, 8), pairs=SEEN_PAIRS, backgrounds=BACKGROUNDS[:1])
        texts += [word_caption(rng, phrases).text for phrases in _phrases(rng, scene)]
    words = {word for text in texts for word in text.split()}
    missing = {*COLOURS, *SHAPES, *SIZES} - words
    if missing:
        raise RuntimeError(f"the corpus of captions lacks {sorted(missing)}")
    return texts
