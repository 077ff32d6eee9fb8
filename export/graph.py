"""The blocks that all families share, as ONNX operators straight from a checkpoint's weights.

No tracing and no torch: a graph of operators that ONNX Runtime has kernels for, in the precision of
a `Recipe`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlrt.bundle import PORTABLE
from vlrt.errors import ExportError

from .builder import BOOL, CONTRIB, FLOAT, HALF, INT32, INT64, UINT8
from .products import Products

__all__ = ["BOOL", "FLOAT", "HALF", "INT32", "INT64", "UINT8", "Graph"]

# From this many tokens on, the flash kernel of MultiHeadAttention is level with Attention on a CPU
# or ahead of it. Products in int8 are not: those that are exact enough take longer, for what is
# between them moves more memory than they save (`python -m benchmarks.studies.attention`).
LONG_SEQUENCE = 400
_QUICK_GELU = 1.702
# What is added to the score of a token that must not be seen. Its share of the softmax is then 0 in
# fp32 as well as in fp16, which the lowest number of fp32 does not fit into.
HIDDEN = np.float32(-1e4)


class Graph(Products):
    """A graph of transformer blocks."""

    def activation(self, value: str, kind: str) -> str:
        """`quick_gelu` or `gelu`, each one operator where they may be.

        Raises:
            ExportError: another activation.
        """
        if kind not in ("quick_gelu", "gelu"):
            raise ExportError(f"hidden_act is {kind!r}; valid: quick_gelu, gelu")
        if self.recipe.form == PORTABLE:
            return self._plain_activation(value, kind)
        if kind == "quick_gelu":
            return str(self.op("QuickGelu", value, domain=CONTRIB, alpha=_QUICK_GELU))
        return str(self.op("Gelu", value))

    def _plain_activation(self, value: str, kind: str) -> str:
        """The same in operators that every engine has."""

        def number(what: float, name: str) -> str:
            return self.floats(np.array(what, np.float32), name, self.type_of(value))

        if kind == "quick_gelu":
            slope = number(_QUICK_GELU, "quick_gelu")
            return str(self.op("Mul", value, self.op("Sigmoid", self.op("Mul", value, slope))))
        error = self.op("Erf", self.op("Mul", value, number(0.5**0.5, "root_half")))
        share = self.op("Mul", self.op("Add", error, number(1, "one_more")), number(0.5, "half"))
        return str(self.op("Mul", value, share))

    def attention(
        self,
        query: str,
        key: str,
        value: str,
        heads: int,
        *,
        width: int,
        length: int,
        causal: bool = False,
        mask: str | None = None,
        divisor: NDArray[np.float32] | None = None,
    ) -> str:
        """Multi-head attention over [B, L, D] queries, keys and values.

        Args:
            query, key, value: projected, not yet split into heads.
            heads: how many.
            width: D.
            length: about how many tokens there will be, which decides the kernel; no more than
                that if `causal`.
            causal: a token sees only those before it.
            mask: what is added to the scores, [B, 1, queries, keys]; ONNX Runtime takes none that
                is the same for all queries and is stated once. The flash kernel takes none at all.
            divisor: float32 [D], what the values were divided by, if so; the result is, too.
        """
        parts = self.widened(query, key, value)
        if mask is not None:
            mask = self.cast(mask, self.type_of(parts[0]))
        if self.recipe.form == PORTABLE:
            hidden = self._causal(parts[0], length) if causal else mask
            result = self._plain_attention(parts, heads, width, hidden)
        elif length >= LONG_SEQUENCE and mask is None:
            result = self.op(
                "MultiHeadAttention",
                *parts,
                domain=CONTRIB,
                num_heads=heads,
                unidirectional=int(causal),
            )
        else:
            result = self.op(
                "Attention",
                *parts,
                *([] if mask is None else [mask]),
                q_num_heads=heads,
                kv_num_heads=heads,
                is_causal=int(causal),
            )
        if divisor is not None:
            self._divisors[result] = divisor
        return str(result)

    def _plain_attention(
        self, parts: Sequence[str], heads: int, width: int, hidden: str | None
    ) -> str:
        """Attention in operators that every engine has; `hidden` is added to the scores."""
        kind, each = self.type_of(parts[0]), width // heads
        split = self.ints(0, 0, heads, each)
        query, key, value = (
            self.op("Transpose", self.op("Reshape", part, split), perm=perm)
            for part, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        scale = self.floats(np.array(each**-0.5, np.float32), f"scale_{each}", kind)
        scores = self.op("MatMul", self.op("Mul", query, scale), key)
        if hidden is not None:
            scores = self.op("Add", scores, hidden)
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), value)
        return str(
            self.op(
                "Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, width)
            )
        )

    def _causal(self, tokens: str, most: int) -> str:
        """What hides later tokens from each of [B, L, D], of which there are `most`: [L, L]."""
        table = self.floats(
            np.triu(np.full((most, most), HIDDEN), 1), "causal", self.type_of(tokens)
        )
        length = self.op("Shape", tokens, start=1, end=2)
        both = self.op("Concat", length, length, axis=0)
        return str(self.op("Slice", table, self.ints(0, 0), both, self.ints(0, 1)))

    def cut(
        self, pixels: str, channels: int, patch: int, grid_hw: tuple[int, int] | None = None
    ) -> str:
        """Pictures [B, C, H, W] cut into patches, [B, P, C * patch * patch] in the graph's type.

        Args:
            pixels: the pictures, which patches fill.
            channels: C.
            patch: pixels along a side of a patch.
            grid_hw: how many patches there are along the sides, where all pictures are of one size.
        """
        if grid_hw is None:
            rows, columns = (self._grid(pixels, axis, patch) for axis in (2, 3))
            ends = self.ints(0, channels), self.ints(patch)  # 0: as many as there are
            cut = self.op("Concat", ends[0], rows, ends[1], columns, ends[1], axis=0)
        else:
            cut = self.ints(0, channels, grid_hw[0], patch, grid_hw[1], patch)
        value = self.op("Reshape", self.cast(pixels, self.float_type), cut)
        value = self.op("Transpose", value, perm=[0, 2, 4, 1, 3, 5])
        return str(self.op("Reshape", value, self.ints(0, -1, channels * patch * patch)))

    def embed_patches(self, patches: str, name: str) -> str:
        """The embeddings [B, P, D] of patches, as `cut` cuts them.

        A convolution whose stride is its kernel is a product over cut-out patches; as a product it
        is faster, and quantises.
        """
        weight = self.weight(f"{name}.weight")
        bias = self.weight(f"{name}.bias") if self.has(f"{name}.bias") else None
        return self.product(patches, weight.reshape(len(weight), -1).T, bias, name)

    def _grid(self, pixels: str, axis: int, patch: int) -> str:
        """How many patches fit along an axis, as a graph value."""
        size = self.op("Shape", pixels, start=axis, end=axis + 1)
        return str(self.op("Div", size, self.ints(patch)))

    def expand_to_batch(self, row: str, like: str, width: int) -> str:
        """A [1, 1, D] constant repeated to [B, 1, D], B being the first axis of `like`."""
        batch = self.op("Shape", like, start=0, end=1)
        return str(self.op("Expand", row, self.op("Concat", batch, self.ints(1, width), axis=0)))
