"""How often a joint model of pictures and texts comes to the same result."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.text import Tokenizer

Arrays = Mapping[str, NDArray[Any]]

_TIE = 0.5  # of a logit: odds of 1.6 to 1
_EACH_PAIR = 2  # dimensions of logits for each pair; more are for each token of it


def quality(
    found: Arrays,
    expected: Arrays,
    values: Mapping[str, float],  # noqa: ARG001  what other families need
    inputs: Mapping[str, Arrays],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """How often the best answer is the same, or the order of pairs.

    Args:
        found, expected: `logits` of a variant and of the reference, [N, labels], [N, L, words], or
            [N, 1], which rank the pairs.
        values: not needed.
        inputs: of the graph "model"; of a model of masked words, the rows of `input_ids` [N, L]
            that are the mask token are what is compared.
        tokenizer: knows that token.

    Returns:
        `agreement`, the share of the `compared` that are the same. Of several labels, each row is
        compared: its best one is the reference's, or one that the reference puts within half a
        logit of it, for a tie that falls the other way is no fault of the variant. `top1_agreement`
        is the share where it is the very same. Of one number, each two pairs are compared that the
        reference puts more than half a logit apart. None without any to compare.
    """
    ours, theirs = (outputs["logits"] for outputs in (found, expected))
    if theirs.shape[-1] == 1:
        return _order(ours[:, 0], theirs[:, 0])
    pairs = {"pairs": len(theirs)}
    if theirs.ndim > _EACH_PAIR:
        masked = inputs["model"]["input_ids"] == tokenizer.special_id("mask_token")
        ours, theirs = ours[masked], theirs[masked]
    return _best(ours, theirs) | pairs


def _best(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, Any]:
    """Rows of logits [R, labels]."""
    chosen, rows = ours.argmax(axis=1), np.arange(len(theirs))
    behind = theirs.max(axis=1) - theirs[rows, chosen]
    finite = np.isfinite(ours).all(axis=1)
    as_good, same = ((behind <= most) & finite for most in (_TIE, 0))
    return {
        "agreement": float(as_good.mean()) if len(theirs) else None,
        "compared": len(theirs),
        "of": f"best answers are the reference's, or within {_TIE} of a logit of it",
        "labels": int(theirs.shape[1]),
        "top1_agreement": float(same.mean()) if len(theirs) else None,
    }


def _order(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, Any]:
    """One logit for each pair, [N]."""
    apart = theirs[:, None] - theirs[None]
    first, second = np.nonzero(apart > _TIE)
    same = ours[first] > ours[second]
    return {
        "agreement": float(same.mean()) if len(same) else None,
        "compared": len(same),
        "of": f"two pairs that are more than {_TIE} of a logit apart come in the same order",
        "pairs": len(theirs),
    }
