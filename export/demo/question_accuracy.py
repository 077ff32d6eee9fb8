"""How many questions about drawn scenes a model answers right.

Independent of any framework: the model is a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .detection_accuracy import SIZES_WH
from .questions import KINDS, Asked, ask, guesser
from .scenes import draw_plan

if TYPE_CHECKING:
    from .evaluate import Table

# The best answer to each question about the picture beside it.
Answer = Callable[[Sequence[Image.Image], Sequence[str]], Sequence[str]]

_PRACTICE = 2000  # questions of each kind that the guesser has seen
_CHUNK = 50  # pictures drawn and answered at a time


def fresh_questions(per_kind: int, seed: int) -> list[tuple[Asked, Image.Image]]:
    """Fresh questions of every kind, about square, wide and tall scenes never trained on."""
    rng = np.random.default_rng((seed, 7 << 32))
    made = []
    for kind in KINDS:
        for number in range(per_kind):
            size_wh = SIZES_WH[number % len(SIZES_WH)]
            plan, asked = ask(rng, kind, size_wh)
            made.append((asked, draw_plan(plan, size_wh).image))
    return made


def _table(asked: Sequence[Asked], answers: Sequence[str]) -> Table:
    """The share of right answers, over all questions and for each kind."""
    right = np.array([one.answer == answer for one, answer in zip(asked, answers, strict=True)])
    kinds = np.array([one.kind for one in asked])
    shares = {kind: float(right[kinds == kind].mean()) for kind in KINDS}
    return {"answers": {"all": float(right.mean()), **shares}}


def accuracy(answer: Answer, *, per_kind: int, seed: int) -> Table:
    """Ask `per_kind` questions of every kind, each about a scene of its own."""
    made = fresh_questions(per_kind, seed)
    answers: list[str] = []
    for start in range(0, len(made), _CHUNK):
        chunk = made[start : start + _CHUNK]
        answers += answer([image for _, image in chunk], [asked.question for asked, _ in chunk])
    return _table([asked for asked, _ in made], answers)


def guesser_accuracy(*, per_kind: int, seed: int) -> Table:
    """The same for who has heard many questions and their answers, and looks at no picture."""
    rng = np.random.default_rng((seed, 8 << 32))
    guess = guesser([ask(rng, kind, (1, 1))[1] for kind in KINDS for _ in range(_PRACTICE)])
    asked = [asked for asked, _ in fresh_questions(per_kind, seed)]
    return _table(asked, [guess(one.kind, one.question) for one in asked])
