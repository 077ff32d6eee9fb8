"""What arguments and graphs may give: one check for each kind, with one wording everywhere."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import BundleError, InferenceError, OptionError

T = TypeVar("T")


def is_number(value: Any) -> bool:
    """Whether a value is a real number; a bool is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def checked_unit(name: str, value: Any) -> float:
    """An option's value, if it is a number in 0..1.

    Raises:
        OptionError: it is not.
    """
    if not is_number(value) or not 0 <= value <= 1:
        raise OptionError(f"{name} is {value!r}; valid: a number from 0 to 1")
    return float(value)


def checked_count(name: str, value: Any) -> int:
    """An option's value, if it is a whole number of 1 or more.

    Raises:
        OptionError: it is not.
    """
    if not is_number(value) or not isinstance(value, Integral) or value < 1:
        raise OptionError(f"{name} is {value!r}; valid: a whole number of 1 or more")
    return int(value)


def checked_providers(
    given: Any, available: Sequence[str]
) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Execution providers as names with their options, as far as ONNX Runtime need not be asked.

    Args:
        given: names, or pairs of a name and its options.
        available: the names that there are, for the error.

    Raises:
        OptionError: they are something else, or none, or one of them comes twice.
    """
    valid = "valid: a list of names, or of pairs of a name and a dictionary of options"
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise OptionError(f"providers is {given!r:.60}; {valid}")
    if not given:
        raise OptionError("providers is empty; valid: " + ", ".join(available))
    pairs: list[tuple[str, Mapping[str, Any]]] = []
    for number, one in enumerate(given):
        pair = (one, {}) if isinstance(one, str) else one
        match pair:
            case (str(name), Mapping() as options) if all(isinstance(k, str) for k in options):
                pairs.append((name, dict(options)))
            case _:
                raise OptionError(f"providers[{number}] is {one!r:.60}; {valid}")
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise OptionError(f"providers names one twice: {', '.join(names)}")
    return tuple(pairs)


def per_label(name: str, values: Mapping[str, T], labels: Sequence[str]) -> list[T]:
    """The values of a mapping, in the order of the labels.

    Raises:
        OptionError: a label has none, or there is one for something else.
    """
    unknown = [label for label in values if label not in labels]
    missing = [label for label in labels if label not in values]
    if unknown or missing:
        problem = f"{unknown}, not among" if unknown else f"no entry for {missing} of"
        raise OptionError(f"{name} has {problem} the labels {list(labels)}")
    return [values[label] for label in labels]


def check_finite(arrays: Mapping[str, NDArray[Any]], what: str) -> None:
    """Refuse what a broken graph gives.

    Args:
        arrays: outputs by name.
        what: what they were made of, such as "picture 0".

    Raises:
        InferenceError: an array holds NaN or an infinity; the message names it and `what`.
    """
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InferenceError(f"{what}: the graph gives {name} with NaN or infinite numbers")


def check_outputs(
    graph: str,
    outputs: Mapping[str, NDArray[Any]],
    axes: Mapping[str, str],
    **sizes: int,
) -> None:
    """Refuse a graph that does not give what its family reads.

    Args:
        graph: its name, for the message.
        outputs: what it gave; outputs beyond those needed may have any shape.
        axes: for each output that is needed, a letter or a number an axis: "BP4". Axes of one
            letter have one size.
        sizes: of the letters whose sizes are known.

    Raises:
        BundleError: an output is missing, or has another shape.
    """
    known = {str(size): size for size in range(1, 10)} | sizes

    def fits(name: str, letters: str) -> bool:
        shape = outputs[name].shape
        return len(shape) == len(letters) and all(
            known.setdefault(letter, size) == size
            for letter, size in zip(letters, shape, strict=True)
        )

    missing = [name for name in axes if name not in outputs]
    if not missing and all(fits(name, letters) for name, letters in axes.items()):
        return
    problem = f"lacks {', '.join(missing)}" if missing else "gives other shapes than its family's"
    needed = ", ".join(f"{name} [{', '.join(letters)}]" for name, letters in axes.items())
    given = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
    fixed = "".join(f", {letter} = {size}" for letter, size in sizes.items())
    raise BundleError(f"{graph} {problem}; needed: {needed}{fixed}; it gives: {given or 'nothing'}")
