"""Questions about drawn scenes, with their answers. No torch here: worker processes import this.

A question and its answer are chosen first, and a scene is drawn that they fit. So every answer that
a question may have is as likely as any other, and its words alone tell nothing: who guesses without
a look at the picture is right no more often than chance (`guesser` measures it).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .captions import Phrase
from .scenes import ALL_PAIRS, COLOURS, MAX_OBJECTS, Pair, Plan, Sprite, plan_objects
from .shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
Rng = np.random.Generator

MOST = 4  # that are asked to be counted; a fifth object may be of another kind
APART = 0.25  # between the centres of left and right, in units of the picture's shorter side
COUNTS = tuple(str(number) for number in range(MAX_OBJECTS + 1))
ANSWERS = (*COUNTS, *COLOURS, *SHAPES, "yes", "no", "left", "right")

_PLURALS = {shape: f"{shape}{'es' if shape == 'cross' else 's'}" for shape in SHAPES}


@dataclass(frozen=True)
class Asked:
    """A question about a scene.

    Attributes:
        kind: one of `KINDS`.
        question, answer: the words; the answer is one of `ANSWERS`.
        about: the positions in the scene of the objects that the question is about; a question
            about sides is about one object and another, any other question about one group.
    """

    kind: str
    question: str
    answer: str
    about: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


@dataclass(frozen=True)
class _Wanted:
    """A question and the objects of a scene.

    The question is about the first `fitting` objects. Without an answer, the places of the first
    two give it, and it is about one and the other.
    """

    question: str
    answer: str | None
    objects: list[Pair]
    fitting: int


def _one(rng: Rng, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def _some(rng: Rng, choices: Sequence[Pair], number: int) -> list[Pair]:
    return [_one(rng, choices) for _ in range(number)]


def _fits(phrase: Phrase, pair: Pair) -> bool:
    return phrase.colour in (None, pair[0]) and phrase.shape in (None, pair[1])


def _split(phrase: Phrase) -> tuple[list[Pair], list[Pair]]:
    """The pairs that a phrase fits, and the others."""
    return [p for p in ALL_PAIRS if _fits(phrase, p)], [
        p for p in ALL_PAIRS if not _fits(phrase, p)
    ]


def _phrase(rng: Rng, pair: Pair) -> Phrase:
    """What a pair may be called: by its colour, its shape, or both."""
    kind = int(rng.integers(3))
    return Phrase(colour=pair[0] if kind else None, shape=pair[1] if kind != 1 else None)


def _words(phrase: Phrase) -> str:
    return " ".join(word for word in (phrase.colour, phrase.shape or "object") if word)


def _plural(phrase: Phrase) -> str:
    noun = _PLURALS[phrase.shape] if phrase.shape else "objects"
    return f"{phrase.colour} {noun}" if phrase.colour else noun


_WHICH_SHAPE = ("which shape is {}?", "what shape is the {} object?")


def _how_many(phrase: Phrase) -> str:
    return f"how many {_plural(phrase)} are there?"


def _what_colour(shape: str) -> str:
    return f"what colour is the {shape}?"


def _is_there(phrase: Phrase) -> str:
    words = _words(phrase)
    return f"is there {'an' if words[0] in 'aeiou' else 'a'} {words}?"


def _which_side(one: Phrase, other: Phrase) -> str:
    return f"is the {_words(one)} left or right of the {_words(other)}?"


def _count(rng: Rng, most: int) -> _Wanted:
    if rng.random() < 0.2:
        number = int(rng.integers(1, most + 1))
        return _Wanted(_how_many(Phrase()), str(number), _some(rng, ALL_PAIRS, number), number)
    phrase = _phrase(rng, _one(rng, ALL_PAIRS))
    fitting, others = _split(phrase)
    number = int(rng.integers(min(MOST, most) + 1))
    beside = int(rng.integers(number == 0, most - number + 1))
    objects = _some(rng, fitting, number) + _near(rng, phrase, others, beside)
    return _Wanted(_how_many(phrase), str(number), objects, number)


def _near(rng: Rng, phrase: Phrase, others: Sequence[Pair], number: int) -> list[Pair]:
    """Objects that a phrase does not fit; half of them share its colour or its shape."""
    near = [p for p in others if p[0] == phrase.colour or p[1] == phrase.shape] or others
    return [_one(rng, near if rng.random() < 0.5 else others) for _ in range(number)]


def _colour(rng: Rng, most: int) -> _Wanted:
    shape = _one(rng, SHAPES)
    fitting, others = _split(Phrase(shape=shape))
    pair = _one(rng, fitting)
    objects = [pair, *_some(rng, others, int(rng.integers(most)))]
    return _Wanted(_what_colour(shape), pair[0], objects, 1)


def _shape(rng: Rng, most: int) -> _Wanted:
    colour = _one(rng, list(COLOURS))
    fitting, others = _split(Phrase(colour=colour))
    pair = _one(rng, fitting)
    question = _one(rng, _WHICH_SHAPE).format(colour)
    objects = [pair, *_some(rng, others, int(rng.integers(most)))]
    return _Wanted(question, pair[1], objects, 1)


def _existence(rng: Rng, most: int) -> _Wanted:
    phrase = _phrase(rng, _one(rng, ALL_PAIRS))
    fitting, others = _split(phrase)
    yes = bool(rng.integers(2))
    beside = int(rng.integers(not yes, most))
    objects = _some(rng, fitting, int(yes)) + _near(rng, phrase, others, beside)
    return _Wanted(_is_there(phrase), "yes" if yes else "no", objects, int(yes))


def _side(rng: Rng, most: int) -> _Wanted:
    """Two objects, each of which its phrase alone tells from all the rest."""
    while True:
        pairs = _some(rng, ALL_PAIRS, 2)
        phrases = [_phrase(rng, pair) for pair in pairs]
        if not _fits(phrases[0], pairs[1]) and not _fits(phrases[1], pairs[0]):
            break
    others = [p for p in ALL_PAIRS if not any(_fits(phrase, p) for phrase in phrases)]
    objects = [*pairs, *_some(rng, others, int(rng.integers(most - 1)))]
    return _Wanted(_which_side(*phrases), None, objects, 2)


KINDS: dict[str, Callable[[Rng, int], _Wanted]] = {
    "count": _count,
    "colour": _colour,
    "shape": _shape,
    "existence": _existence,
    "side": _side,
}


def ask(
    rng: Rng, kind: str, size_wh: tuple[int, int], *, most: int = MAX_OBJECTS
) -> tuple[Plan, Asked]:
    """Choose a question of a kind in `KINDS`, its answer, and a scene that fits both.

    Of `size_wh` only the aspect ratio matters here. `most`, 2 to 5, bounds the objects in a scene.
    """
    wanted = KINDS[kind](rng, most)
    # What is asked about lies at no place of its own between the back and the front.
    order = rng.permutation(len(wanted.objects)).tolist()
    while True:
        plan = plan_objects(rng, [wanted.objects[i] for i in order], size_wh=size_wh)
        about = tuple(order.index(i) for i in range(wanted.fitting))
        if wanted.answer:
            return plan, Asked(kind, wanted.question, wanted.answer, (about, ()))
        side = _side_of(*(plan.sprites[i] for i in about))
        if side:
            return plan, Asked(kind, wanted.question, side, (about[:1], about[1:]))


def _side_of(one: Sprite, other: Sprite) -> str | None:
    """On which side of the other it is, if they are far enough apart."""
    ahead = one.centre[0] - other.centre[0]
    return None if abs(ahead) < APART else "left" if ahead < 0 else "right"


def ask_about(rng: Rng, plan: Plan) -> list[Asked]:
    """A question of every kind about a scene that is there, as far as it allows one.

    Unlike `ask`, this favours the answers that scenes happen to give.
    """
    sprites = list(plan.sprites)
    pairs = [(sprite.colour, sprite.shape) for sprite in sprites]
    colours, shapes = zip(*pairs, strict=True)
    counted = Phrase(colour=_one(rng, colours)) if rng.random() < 0.5 else Phrase()
    made = [Asked("count", _how_many(counted), str(sum(_fits(counted, p) for p in pairs)))]
    if single := [pair for pair in pairs if shapes.count(pair[1]) == 1]:
        colour, shape = _one(rng, single)
        made.append(Asked("colour", _what_colour(shape), colour))
    if single := [pair for pair in pairs if colours.count(pair[0]) == 1]:
        colour, shape = _one(rng, single)
        made.append(Asked("shape", _WHICH_SHAPE[0].format(colour), shape))
    # What is there, or a colour and a shape that are, but not together.
    mixed = [(c, s) for c in colours for s in shapes if (c, s) not in pairs]
    yes = not mixed or rng.random() < 0.5
    colour, shape = _one(rng, pairs if yes else mixed)
    asked = _is_there(Phrase(colour=colour, shape=shape))
    made.append(Asked("existence", asked, "yes" if yes else "no"))
    apart = [
        (one, other)
        for one in sprites
        for other in sprites
        if _side_of(one, other)
        and all(pairs.count((sprite.colour, sprite.shape)) == 1 for sprite in (one, other))
    ]
    if apart:
        both = _one(rng, apart)
        one, other = (Phrase(colour=s.colour, shape=s.shape) for s in both)
        made.append(Asked("side", _which_side(one, other), str(_side_of(*both))))
    return made


def guesser(seen: Sequence[Asked]) -> Callable[[str, str], str]:
    """Who answers by the words alone: what was the answer most often when this was asked before?

    A question that was never asked before gets the most frequent answer of its kind.

    Returns:
        A function from a kind and a question to an answer.
    """
    by_question: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_kind: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for asked in seen:
        by_question[asked.question][asked.answer] += 1
        by_kind[asked.kind][asked.answer] += 1

    def answer(kind: str, question: str) -> str:
        counted = by_question.get(question) or by_kind[kind]
        return counted.most_common(1)[0][0]

    return answer
