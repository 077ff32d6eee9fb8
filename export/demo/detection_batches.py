"""Training batches of scenes with boxes and queries. No torch here: worker processes import this.

Every batch depends on (seed, step) alone, so a resumed run sees the same data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vlrt import boxes as geometry

from .captions import Phrase, open_to_held_out, truth_table, word_caption
from .scenes import COLOURS, MAX_OBJECTS, SEEN_PAIRS, Scene, draw_plan, plan_scene, recolour
from .shapes import SHAPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Width over height of what is drawn, before it is squeezed into the square that the model sees.
ASPECTS = (1, 1, 4 / 3, 3 / 4)
# No phrase names a held-out pair.
PHRASES: tuple[Phrase, ...] = (
    *(Phrase(colour=colour, shape=shape) for colour, shape in SEEN_PAIRS),
    *(Phrase(shape=shape) for shape in SHAPES),
    *(Phrase(colour=colour) for colour in COLOURS),
)


@dataclass(frozen=True)
class Target:
    """What there is to find in one picture of k objects, given q queries.

    boxes: float32 [k, 4], (centre x, centre y, width, height) in 0..1.
    positive: bool [k, q], which queries are true of which object.
    open_: bool [k, q], which would complete an object to a held-out pair: neither right nor wrong
        (see `captions.open_to_held_out`).
    """

    boxes: NDArray[np.float32]
    positive: NDArray[np.bool_]
    open_: NDArray[np.bool_]


@dataclass(frozen=True)
class SceneBatch:
    """Pictures, uint8 [n, side, side, 3], the texts of all queries, and a target a picture."""

    pixels: NDArray[np.uint8]
    texts: list[str]
    targets: list[Target]


@dataclass(frozen=True)
class SceneRecipe:
    """What batches are made of: `pictures` of `side` by `side` pixels each."""

    seed: int
    side: int
    pictures: int
    recoloured: float = 0.3  # share of objects in a colour of no name


def squeezed(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """A picture as the model's own processor resizes it: uint8 [side, side, 3]."""
    return np.array(image.resize((side, side), Image.Resampling.BICUBIC))


def relative_boxes(scene: Scene) -> NDArray[np.float32]:
    """The objects' boxes as the model gives them, (centre x, centre y, width, height) in 0..1."""
    corners = np.array([thing.box for thing in scene.objects], np.float32)
    width, height = scene.image.size
    relative: NDArray[np.float32] = np.divide(corners, [width, height] * 2, dtype=np.float32)
    return geometry.corners_to_center(relative)


def make_scenes(recipe: SceneRecipe, step: int) -> SceneBatch:
    """Draw the batch of one step."""
    rng = np.random.default_rng((recipe.seed, step, 3))
    captions = [word_caption(rng, [phrase]) for phrase in PHRASES]
    pixels, targets = [], []
    for _ in range(recipe.pictures):
        aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
        size_wh = (int(recipe.side * max(aspect, 1)), int(recipe.side * max(1 / aspect, 1)))
        plan = plan_scene(rng, size_wh=size_wh, n_objects=(1, MAX_OBJECTS), pairs=SEEN_PAIRS)
        # Shapes in colours of no name teach that a shape does not depend on the colour.
        scene = draw_plan(recolour(rng, plan, recipe.recoloured), size_wh)
        pixels.append(squeezed(scene.image, recipe.side))
        # One object at a time: what a query says of it, and not of the scene.
        alone = [Scene(scene.image, (thing,), scene.background, plan) for thing in scene.objects]
        positive = truth_table(captions, alone)
        open_ = open_to_held_out(captions, alone) & ~positive
        targets.append(Target(relative_boxes(scene), positive, open_))
    return SceneBatch(np.stack(pixels), [caption.text for caption in captions], targets)
