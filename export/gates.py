"""What a variant must reach to be written, and whether it does."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlrt.errors import OptionError

QUALITIES = ("speed", "accuracy")


@dataclass(frozen=True)
class Gate:
    """What a variant must reach, against the reference, to be written.

    Attributes:
        max_abs_error: of embeddings scaled to length 1, and of other outputs, scaled where their
            largest is over 1; or None for no limit.
        min_cosine: the lowest over all embeddings. Of the embeddings of a picture's places, which
            are hundreds and mostly background, 99 of 100 must reach it, and those of all objects
            that are compared. None for a task that has no embeddings.
        min_agreement: the share of results that are the same, as the family counts them.
        max_accuracy_loss: by which share of its results the variant may be right less often than
            the reference, where it is known what is right.
    """

    max_abs_error: float | None
    min_cosine: float | None
    min_agreement: float
    max_accuracy_loss: float = 0.01


_EXACT = Gate(1e-4, min_cosine=0.999999, min_agreement=1.0, max_accuracy_loss=0.002)
_CLASSIFICATION = {
    "fp32": _EXACT,
    "fp16": Gate(None, min_cosine=0.9999, min_agreement=0.99),
    "int8": Gate(None, min_cosine=0.995, min_agreement=0.99),
    "int8w": Gate(None, min_cosine=0.995, min_agreement=0.99),
    # 4 bits are 15 steps: a weight is off by a tenth of its deviation. What that costs a user, the
    # agreement and the accuracy tell, which are held to the limits of 8 bits.
    "int4w": Gate(None, min_cosine=0.98, min_agreement=0.99),
}
# The demonstration's 8 pictures show 43 objects: 0.95 lets two differ.
_DETECTION = {
    "fp32": _EXACT,
    "fp16": Gate(None, min_cosine=0.9999, min_agreement=0.99),
    "int8": Gate(None, min_cosine=0.995, min_agreement=0.95),
    "int8w": Gate(None, min_cosine=0.995, min_agreement=0.95),
    "int4w": Gate(None, min_cosine=0.98, min_agreement=0.95),
}
# Logits are all that a joint model gives. Where answers are nearly even, as with seeded weights,
# agreement says little, so that errors have limits in every precision, as shares of the largest
# logit. Seeded B/32 of 3,129 answers: 6e-4 in fp16 and 0.022 in int8; checkpoints of two layers:
# up to 2e-3 and 0.04. Trained weights are less even, and int8 hits them harder.
_JOINT = {
    "fp32": replace(_EXACT, min_cosine=None),
    "fp16": Gate(1e-2, min_cosine=None, min_agreement=0.99),
    "int8": Gate(0.2, min_cosine=None, min_agreement=0.95),
    "int8w": Gate(0.2, min_cosine=None, min_agreement=0.95),
    "int4w": Gate(0.4, min_cosine=None, min_agreement=0.95),
}
# By task, for a result of one kind does not forgive what a result of another does.
GATES: dict[str, dict[str, Gate]] = {
    "zero-shot-image-classification": _CLASSIFICATION,
    "zero-shot-object-detection": _DETECTION,
    **dict.fromkeys(
        (
            "visual-question-answering",
            "image-text-retrieval",
            "images-and-text-classification",
            "fill-mask",
        ),
        _JOINT,
    ),
}


def gate(task: str, precision: str, quality: str) -> Gate:
    """The gate of a variant.

    Args:
        task: one of `GATES`.
        precision: one of its.
        quality: "speed", or "accuracy" for half of every error that "speed" allows; fp32, which
            nothing more exact could take the place of, has one gate.

    Raises:
        OptionError: `quality` is neither.
    """
    check_quality(quality)
    found = GATES[task][precision]
    if quality == "speed" or precision == "fp32":
        return found
    error, cosine = found.max_abs_error, found.min_cosine
    return Gate(
        max_abs_error=None if error is None else error / 2,
        min_cosine=None if cosine is None else (1 + cosine) / 2,
        min_agreement=(1 + found.min_agreement) / 2,
        max_accuracy_loss=found.max_accuracy_loss / 2,
    )


def check_quality(quality: str) -> None:
    """See that it is one of `QUALITIES`.

    Raises:
        OptionError: it is not.
    """
    if quality not in QUALITIES:
        raise OptionError(f"quality is {quality!r}; valid: {', '.join(QUALITIES)}")


def complaints(
    gate: Gate, variants: Mapping[str, Mapping[str, Any]], quality: Mapping[str, Any]
) -> list[str]:
    """Why a variant does not pass its gate, each with the number and the limit; empty if it does.

    Args:
        gate: of its task and precision.
        variants: component -> `parity`, as `verify.parity` returns it, and `repeatable`.
        quality: what the family counted: the share `agreement`, or None for nothing to count, over
            the `compared`, and what these are `of`, in words. A family of objects also has their
            lowest cosine, `min_object_cosine`; one with a second way to use its outputs also
            `example_agreement`, a share of the `pictures`. Where it is known what is right,
            `accuracy`, as `accuracy.compared` returns it.
    """
    found = []
    for component, variant in variants.items():
        if not variant["repeatable"]:
            found.append(f"{component}: a second run on the same input gave another result")
        for output, numbers in variant["parity"].items():
            found += [f"{component}, {output}: {why}" for why in _inexact(gate, numbers)]
    return found + list(_different(gate, quality))


# Comparisons are written so that NaN fails.


def _inexact(gate: Gate, numbers: Mapping[str, float]) -> Iterator[str]:
    """What is wrong with one output."""
    error, limit = numbers["max_abs_error_unit"], gate.max_abs_error
    if not math.isfinite(error):
        yield "NaN or infinity among its numbers"
        return
    if "min_cosine" in numbers and gate.min_cosine is not None:
        of_places = "cosine_of_99_in_100" in numbers
        lowest = numbers["cosine_of_99_in_100" if of_places else "min_cosine"]
        if not lowest >= gate.min_cosine:
            where = " among the best 99 of 100 places" if of_places else ""
            yield f"lowest cosine {lowest:.6f}{where}, needs {gate.min_cosine:.7g}"
    if limit is not None and not error <= limit:
        yield f"largest error {error:.2e}, limit {limit:.0e}"


def _different(gate: Gate, quality: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the results."""
    agreement = quality["agreement"]
    if agreement is not None and not agreement >= gate.min_agreement:
        yield (
            f"only {agreement:.4f} of {quality['compared']} {quality['of']}, "
            f"needs {gate.min_agreement:.7g}"
        )
    lowest = quality.get("min_object_cosine")
    if lowest is not None and gate.min_cosine is not None and not lowest >= gate.min_cosine:
        yield f"lowest cosine {lowest:.6f} among the objects compared, needs {gate.min_cosine:.7g}"
    picked = quality.get("example_agreement")
    if picked is not None and not picked >= gate.min_agreement:
        yield (
            f"only {picked:.4f} of {quality['pictures']} pictures, taken as examples, have the "
            f"same object picked, needs {gate.min_agreement:.7g}"
        )
    accuracy = quality.get("accuracy")
    if accuracy is not None:
        lost = round(accuracy["reference"] - accuracy["variant"], 9)  # 0.95 - 0.94 is over 0.01
        if not lost <= gate.max_accuracy_loss:
            yield (
                f"{accuracy['of']}: {accuracy['variant']:.4f}, PyTorch "
                f"{accuracy['reference']:.4f}; it may lose {gate.max_accuracy_loss:g}"
            )
