"""Training batches of pictures with a question each. No torch here: worker processes import this.

Every batch depends on (seed, step) alone, so a resumed run sees the same data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .questions import ANSWERS, KINDS, Asked, ask
from .scenes import MAX_OBJECTS, Scene, draw_plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Width and height over the shorter side; all pictures of a batch have the same.
FRAMES_WH = ((1.0, 1.0), (1.0, 1.0), (4 / 3, 1.0), (1.0, 4 / 3))


@dataclass(frozen=True)
class QuestionBatch:
    """Pictures with a question each.

    pixels: uint8 [n, h, w, 3].
    questions: n texts.
    answers: their ids, int64 [n].
    pointers: where in the picture the objects are that a question is about, bool
        [n, h / patch, w / patch, 4]: patches within the box of the one or of the other (of a
        question about sides), then those that hold the middle of such a box.
    places: the middles themselves, float32 [n, 4]: (x, y) of the one and of the other, in 0..1 of
        the picture; not a number where a question is not about a single object.
    """

    pixels: NDArray[np.uint8]
    questions: list[str]
    answers: NDArray[np.int64]
    pointers: NDArray[np.bool_]
    places: NDArray[np.float32]


@dataclass(frozen=True)
class QuestionRecipe:
    """What batches are made of.

    side: the shorter side of all pictures, in pixels; 4/3 of it should be whole patches too.
    patch: side of the squares that pictures are cut into, in pixels.
    pictures: in a batch of squares; of larger pictures there are fewer, so that every step costs
        about the same.
    counting, sides: the share of questions of these two kinds, which take longest to learn; the
        other three share the rest.
    easy: the share of the run at whose start scenes have at most two objects. Full scenes come in
        by and by over another such share.
    """

    seed: int
    steps: int
    side: int
    patch: int
    pictures: int
    counting: float = 0.25
    sides: float = 0.25
    easy: float = 0.1


def make_questions(recipe: QuestionRecipe, step: int) -> QuestionBatch:
    """Draw the batch of one step."""
    rng = np.random.default_rng((recipe.seed, step, 4))
    wide, high = FRAMES_WH[int(rng.integers(len(FRAMES_WH)))]
    size_wh = (round(recipe.side * wide), round(recipe.side * high))
    rest = (1 - recipe.counting - recipe.sides) / (len(KINDS) - 2)
    shares = [{"count": recipe.counting, "side": recipe.sides}.get(kind, rest) for kind in KINDS]
    kinds = rng.choice(list(KINDS), size=round(recipe.pictures / (wide * high)), p=shares)
    hardness = np.clip(step / max(recipe.steps * recipe.easy, 1) - 1, 0, 1)
    limits = np.where(rng.random(len(kinds)) < hardness, MAX_OBJECTS, 2)
    made = [
        ask(rng, str(kind), size_wh, most=int(most))
        for kind, most in zip(kinds, limits, strict=True)
    ]
    scenes = [draw_plan(plan, size_wh) for plan, _ in made]
    return QuestionBatch(
        np.stack([np.asarray(scene.image) for scene in scenes]),
        [asked.question for _, asked in made],
        np.array([ANSWERS.index(asked.answer) for _, asked in made]),
        np.stack(
            [
                _pointers(scene, asked, recipe.patch)
                for scene, (_, asked) in zip(scenes, made, strict=True)
            ]
        ),
        np.stack([_places(scene, asked) for scene, (_, asked) in zip(scenes, made, strict=True)]),
    )


def _pointers(scene: Scene, asked: Asked, patch: int) -> NDArray[np.bool_]:
    """One picture's row of `QuestionBatch.pointers`."""
    columns, rows = (side // patch for side in scene.image.size)
    marks = np.zeros((rows, columns, 4), np.bool_)
    y, x = (np.arange(number) * patch + patch / 2 for number in (rows, columns))
    for group, positions in enumerate(asked.about):
        for x0, y0, x1, y1 in (scene.objects[i].box for i in positions):
            marks[..., group] |= np.outer((y0 <= y) & (y <= y1), (x0 <= x) & (x <= x1))
            middle = int((y0 + y1) / 2 / patch), int((x0 + x1) / 2 / patch)
            marks[(*middle, 2 + group)] = True
    return marks


def _places(scene: Scene, asked: Asked) -> NDArray[np.float32]:
    """One picture's row of `QuestionBatch.places`."""
    places = np.full((2, 2), np.nan, np.float32)
    for group, positions in enumerate(asked.about):
        if len(positions) == 1:
            x0, y0, x1, y1 = scene.objects[positions[0]].box
            places[group] = np.divide([(x0 + x1) / 2, (y0 + y1) / 2], scene.image.size)
    return places.ravel()
