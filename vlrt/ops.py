"""The small maths that families share: pure functions on NumPy arrays."""

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import OptionError

Float = NDArray[np.float32]


def softmax(logits: Float) -> Float:
    """Softmax over the last axis.

    Args:
        logits: float32 [..., N]. The row's maximum is taken off first, so logits of any size that
            float32 holds are safe (CLIP's reach 100, where a bare `exp` overflows).

    Returns:
        float32 [..., N], each row summing to 1; an empty last axis stays empty.
    """
    if logits.shape[-1] == 0:
        return logits.astype(np.float32)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Float = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return scores


def sigmoid(logits: Float) -> Float:
    """1 / (1 + e^-x), safe at any size.

    Args:
        logits: float32 [...].

    Returns:
        float32 [...] in 0..1.
    """
    powers = np.exp(-np.abs(logits))  # never above 1, so it cannot overflow
    scores: Float = (np.where(logits >= 0, 1, powers) / (1 + powers)).astype(np.float32)
    return scores


def l2_normalize(vectors: Float) -> Float:
    """Scale each vector along the last axis to length 1; zeros stay zero, and NaN stays NaN.

    Args:
        vectors: float32 [..., D].

    Returns:
        float32 [..., D].
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Float = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths != 0)
    return unit


def top_k(scores: Float, k: int | None = None) -> NDArray[np.intp]:
    """Indices of the `k` highest scores, best first; equal scores keep their order.

    Args:
        scores: float32 [N].
        k: how many; None or more than N means all.

    Returns:
        intp [min(k, N)].
    """
    return np.argsort(-scores, kind="stable")[:k]


def cosine_similarity(a: Float, b: Float) -> Float:
    """Cosine of every row of `a` with every row of `b`.

    Args:
        a: float32 [N, D], of any length.
        b: float32 [M, D].

    Returns:
        float32 [N, M] in -1..1; rows of zeros give 0.

    Raises:
        OptionError: the two do not have the same D.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise OptionError(f"embeddings must be [N, D] and [M, D]; given {a.shape} and {b.shape}")
    cosines: Float = np.clip(l2_normalize(a) @ l2_normalize(b).T, -1.0, 1.0)
    return cosines
