"""JSON of clients: strict, and bounded, so that a small text does not become a large load."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vlrt.errors import LimitError, RequestError, TextError
from vlrt.server.settings import Settings

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_KEYS = 1000
_DIGITS = 500  # of a whole number; the largest float has 309


@dataclass
class Bounds:
    """What the JSON of one request may hold, so that a small one does not become a large load.

    While Python reads a part of it, nothing else in this process goes on.

    Attributes:
        keys: of an object.
        objects: all together.
        commas: everywhere, texts included.
        brackets: that begin lists; those in texts are counted too.
    """

    keys: int
    objects: float
    commas: float
    brackets: float = math.inf
    _taken: Counter[str] = field(default_factory=Counter, repr=False)

    def take(self, what: str, number: int) -> None:
        """Count what was found.

        Raises:
            LimitError: it is too much by now.
        """
        self._taken[what] += number
        most = getattr(self, what)
        if self._taken[what] > most:
            raise LimitError(f"the JSON has more than {most} {what}, the most that are taken")


def bounds_of(settings: Settings) -> Bounds:
    """What no request within the limits exceeds; commas in texts are allowed for."""
    commas = 100_000 + 20 * (settings.max_labels + settings.max_prompts)
    objects = 100 + 4 * settings.max_images + settings.max_prompts
    return Bounds(max(_KEYS, settings.max_labels), objects, commas)


def bounds_of_tensors() -> Bounds:
    """What is taken of tensors in JSON. A picture of the largest detectors is within it."""
    return Bounds(_KEYS, objects=_KEYS, commas=2_500_000, brackets=100_000)


def parsed_json(body: bytes, bounds: Bounds) -> Any:
    """What a JSON text says, strictly: UTF-8, no key twice, numbers that are finite.

    Args:
        body: the text.
        bounds: of the request; what is found counts.

    Raises:
        RequestError: it is not JSON.
        TextError: a text holds a lone surrogate, which is no character.
        LimitError: it is beyond the bounds.
    """
    bounds.take("commas", body.count(b","))
    bounds.take("brackets", body.count(b"["))
    try:
        text = body.decode()
        value = json.loads(
            text,
            object_pairs_hook=partial(_object, bounds=bounds),
            parse_int=_whole,
            parse_float=_decimal,
            parse_constant=_no_number,
        )
    except LimitError:
        raise
    except (ValueError, RecursionError) as error:  # RequestErrors too: of both hooks
        raise RequestError(f"the body is not JSON: {error}") from error
    if _ESCAPED_SURROGATE.search(text):
        try:
            for one in _texts_in(value):
                one.encode()
        except UnicodeEncodeError as error:
            raise TextError("a text of the request holds a lone surrogate") from error
    return value


def _texts_in(value: Any) -> Iterator[str]:
    """All texts, the keys of objects too."""
    left = [value]
    while left:
        match left.pop():
            case str(text):
                yield text
            case list(several):
                left += several
            case dict(named):
                left += named
                left += named.values()


def _object(pairs: list[tuple[str, Any]], *, bounds: Bounds) -> dict[str, Any]:
    bounds.take("objects", 1)
    if len(pairs) > bounds.keys:
        raise LimitError(
            f"an object has {len(pairs)} keys, of which {bounds.keys} are taken at most"
        )
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"an object has the key {twice!a:.60} twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:  # reading them takes time by the square of their number
        raise RequestError(f"a number has {len(digits)} digits, of which {_DIGITS} are valid")
    return int(digits)


def _decimal(digits: str) -> float:
    return float(digits)  # from Python, other threads get their turn; of numbers there are millions


def _no_number(name: str) -> None:
    raise RequestError(f"{name} is no number")
