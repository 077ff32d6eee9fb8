"""Captions of scenes: what they say, how it is worded, and whether it is true."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING

import numpy as np

from .scenes import COLOURS, HELD_OUT_PAIRS, SEEN_PAIRS, SIZES, Object, Pair, Scene
from .shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TEMPLATES = (
    "{}",
    "a picture of {}",
    "a drawing of {}",
    "an image of {}",
    "a photo of {}",
    "there is {}",
)
NOUNS = ("shape", "object")  # for a phrase that leaves the shape open
SIZE_WORDS = {"small": ("small", "tiny"), "medium": ("medium",), "large": ("large", "big")}


@dataclass(frozen=True)
class Phrase:
    """One described object; an attribute that is None is left open."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None

    def fits(self, thing: Object) -> bool:
        """Whether the object has every attribute that the phrase names."""
        return (
            self.size in (None, thing.size)
            and self.colour in (None, thing.colour)
            and self.shape in (None, thing.shape)
        )


@dataclass(frozen=True)
class Caption:
    """Phrases about different objects, and the words they were put in."""

    phrases: tuple[Phrase, ...]
    text: str


def label(pair: Pair) -> str:
    """The label of a (colour, shape) pair: "a red circle", "an orange star"."""
    return phrase_text(Phrase(colour=pair[0], shape=pair[1]))


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrase_text(phrase: Phrase) -> str:
    """The plain wording of a phrase, with its article."""
    noun = phrase.shape or NOUNS[0]
    return _with_article(" ".join(w for w in (phrase.size, phrase.colour, noun) if w))


def _varied_phrase(rng: np.random.Generator, phrase: Phrase) -> str:
    """One of several wordings of a phrase."""
    if phrase.colour and not phrase.shape and not phrase.size and rng.random() < 0.4:
        return f"something {phrase.colour}"
    size = phrase.size and SIZE_WORDS[phrase.size][rng.integers(len(SIZE_WORDS[phrase.size]))]
    noun = phrase.shape or NOUNS[rng.integers(len(NOUNS))]
    words = " ".join(w for w in (size, phrase.colour, noun) if w)
    return words if rng.random() < 0.1 else _with_article(words)


def word_caption(rng: np.random.Generator, phrases: Sequence[Phrase]) -> Caption:
    """Put phrases into words; half of the captions are in the plain template."""
    template = TEMPLATES[0 if rng.random() < 0.5 else rng.integers(len(TEMPLATES))]
    parts = [_varied_phrase(rng, phrase) for phrase in phrases]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return Caption(tuple(phrases), template.format(listed))


def describe(
    rng: np.random.Generator, objects: Sequence[Object], keep: tuple[float, float, float]
) -> tuple[Phrase, ...]:
    """A true phrase for each object; `keep` are the chances to name size, colour and shape.

    Every phrase names a colour or a shape, so that no caption is true of all scenes.
    """
    phrases = []
    for thing in objects:
        size, colour, shape = rng.random(3) < np.array(keep)
        if not colour and not shape:
            colour = rng.random() * (keep[1] + keep[2]) < keep[1]
            shape = not colour
        phrases.append(
            Phrase(
                thing.size if size else None,
                thing.colour if colour else None,
                thing.shape if shape else None,
            )
        )
    return tuple(phrases)


def alter(
    rng: np.random.Generator, phrases: Sequence[Phrase], pairs: Sequence[Pair] = SEEN_PAIRS
) -> tuple[Phrase, ...]:
    """The phrases with one attribute of one of them changed; new pairs come from `pairs`."""
    at = int(rng.integers(len(phrases)))
    old = phrases[at]
    named = [name for name in ("size", "colour", "shape") if getattr(old, name)]
    name = named[rng.integers(len(named))]
    choices: list[Phrase] = []
    if name == "size":
        choices = [Phrase(size, old.colour, old.shape) for size in SIZES if size != old.size]
    elif name == "colour":
        choices = [Phrase(old.size, c, old.shape) for c in COLOURS if c != old.colour]
    else:
        choices = [Phrase(old.size, old.colour, s) for s in SHAPES if s != old.shape]
    allowed = [p for p in choices if not p.colour or not p.shape or (p.colour, p.shape) in pairs]
    changed = list(phrases)
    changed[at] = allowed[rng.integers(len(allowed))]
    return tuple(changed)


def is_true(phrases: Sequence[Phrase], objects: Sequence[Object]) -> bool:
    """Whether every phrase is satisfied by an object of its own."""
    return any(
        all(phrase.fits(thing) for phrase, thing in zip(phrases, chosen, strict=True))
        for chosen in permutations(objects, len(phrases))
    )


def truth_table(captions: Sequence[Caption], scenes: Sequence[Scene]) -> NDArray[np.bool_]:
    """`is_true` of every caption about every scene: bool [scenes, captions].

    By Hall's theorem a caption is true when any k of its phrases fit at least k objects together,
    which is quick to test on bit sets.
    """
    known: dict[Phrase, NDArray[np.uint8]] = {}

    def fitting(phrase: Phrase) -> NDArray[np.uint8]:
        """The set of fitting objects in every scene, as bits: uint8 [scenes]."""
        if phrase not in known:
            known[phrase] = np.array(
                [
                    sum(phrase.fits(thing) << i for i, thing in enumerate(scene.objects))
                    for scene in scenes
                ],
                dtype=np.uint8,
            )
        return known[phrase]

    counts = np.array([bits.bit_count() for bits in range(256)])
    table = np.ones((len(scenes), len(captions)), dtype=np.bool_)
    for column, caption in enumerate(captions):
        sets = [fitting(phrase) for phrase in caption.phrases]
        for k in range(1, len(sets) + 1):
            for group in combinations(sets, k):
                table[:, column] &= counts[np.bitwise_or.reduce(group)] >= k
    return table


def open_to_held_out(captions: Sequence[Caption], scenes: Sequence[Scene]) -> NDArray[np.bool_]:
    """Where a phrase and an object would complete each other to a held-out pair.

    Bool [scenes, captions]. If red hearts are held out, then "a heart" is false of every red
    picture in training. Counted as evidence, that would teach "what is red is no heart".
    """
    known: dict[Phrase, NDArray[np.bool_]] = {}

    def opens(phrase: Phrase) -> NDArray[np.bool_]:
        """Bool [scenes]."""
        if phrase not in known:
            known[phrase] = np.array(
                [
                    any(
                        (phrase.colour or thing.colour, phrase.shape or thing.shape)
                        in HELD_OUT_PAIRS
                        for thing in scene.objects
                    )
                    for scene in scenes
                ]
            )
        return known[phrase]

    table = np.zeros((len(scenes), len(captions)), dtype=np.bool_)
    for column, caption in enumerate(captions):
        for phrase in caption.phrases:
            table[:, column] |= opens(phrase)
    return table
