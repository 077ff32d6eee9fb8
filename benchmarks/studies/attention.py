"""Attention on a CPU: ONNX Runtime's operators against products of int8, in time and in error.

    python -m benchmarks.studies.attention --json attention.json

One layer's attention of 12 heads of 64 channels, over 50 tokens (CLIP B/32), 240 (ViLT) and 577
(OWL-ViT B/32), between values that are there in fp32. The contenders:

- `Attention` and `MultiHeadAttention`: fused operators, in fp32; the latter is the flash kernel.
- plain: products, softmax and transpositions apart, in fp32.
- int8, shares of 1/255: queries, keys, values and the softmax's shares become int8. Heads are of
  one magnitude, as scales folded into the projections make them. A share below 1/510 is lost.
- int8, rows by their largest: shares are divided by the largest of their row before they become
  int8, so that an even row keeps all of its tokens, and the result by what they then sum up to.

Heads are of two kinds, as in trained models: peaked ones, where a few tokens take it all, and even
ones, where all do. Contenders take turns, a process each a round. Errors are those of the whole
result against float64. On x86 without VNNI the int8 products saturate, and so they show it: no
setting of ONNX Runtime widens products of two values that are both computed.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vlrt_export.builder import CONTRIB, IR_VERSION, OPSET

from ..machine import conditions
from ..report import markdown_table
from .common import print_conditions, run_once, study_parser, write_json

PROGRAM = Path(__file__).with_name("attention_once.py")
HEADS, EACH = 12, 64
TOKENS = (50, 240, 577)
# How far the scores of a head's tokens lie apart.
SPREADS = {"even": 0.3, "peaked": 4.0}
EXACT = "MultiHeadAttention"
INT8_SHARES, INT8_ROWS = "int8, shares of 1/255", "int8, rows by their largest"
CONTENDERS = ("Attention", EXACT, "plain", INT8_SHARES, INT8_ROWS)
REPEATS = 30  # a process
_SPLIT, _JOINED = [0, 0, HEADS, EACH], [0, 0, HEADS * EACH]


class Sketch:
    """A graph of a few operators."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; returns its output's name."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, value: Any, kind: Any) -> str:
        """A constant of a NumPy type."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def heads(self, value: str, perm: Sequence[int]) -> str:
        """[1, L, D] split into heads, and transposed."""
        split = self.op("Reshape", value, self.constant(_SPLIT, np.int64))
        return self.op("Transpose", split, perm=perm)

    def together(self, value: str) -> str:
        """Heads [1, H, L, d] back to [1, L, D]."""
        moved = self.op("Transpose", value, perm=[0, 2, 1, 3])
        return self.op("Reshape", moved, self.constant(_JOINED, np.int64))


def fused(sketch: Sketch, kind: str) -> str:
    """One operator."""
    if kind == "Attention":
        return sketch.op(kind, *"qkv", q_num_heads=HEADS, kv_num_heads=HEADS)
    return sketch.op(kind, *"qkv", domain=CONTRIB, num_heads=HEADS)


def plain(sketch: Sketch) -> str:
    """Operators that every engine has."""
    query, value = (sketch.heads(name, [0, 2, 1, 3]) for name in "qv")
    key = sketch.heads("k", [0, 2, 3, 1])
    scaled = sketch.op("Mul", query, sketch.constant(EACH**-0.5, np.float32))
    shares = sketch.op("Softmax", sketch.op("MatMul", scaled, key), axis=-1)
    return sketch.together(sketch.op("MatMul", shares, value))


def int8(sketch: Sketch, largest: dict[str, float], *, by_rows: bool) -> str:
    """Both products in integers, the softmax between them in fp32.

    Queries are uint8 around 128: x86 has its fast kernels for uint8 by int8.

    Args:
        sketch: to add to.
        largest: magnitudes of q, k and v, of all heads: folded scales have made them alike.
        by_rows: see the module's text.
    """
    small = {}
    for name, zero, kind, perm in (
        ("q", 128, np.uint8, [0, 2, 1, 3]),
        ("k", 0, np.int8, [0, 2, 3, 1]),
        ("v", 0, np.int8, [0, 2, 1, 3]),
    ):
        step = sketch.constant(largest[name] / 127, np.float32)
        origin = sketch.constant(zero, kind)
        # Transposed as bytes: a quarter of the copying.
        small[name] = sketch.heads(sketch.op("QuantizeLinear", name, step, origin), perm), origin
    query_step = largest["q"] / 127 * EACH**-0.5
    scores = _product(sketch, small["q"], query_step, small["k"], largest["k"] / 127)
    if by_rows:
        highest = sketch.op("ReduceMax", scores, sketch.constant([3], np.int64), keepdims=1)
        shares = sketch.op("Exp", sketch.op("Sub", scores, highest))
    else:
        shares = sketch.op("Softmax", scores, axis=-1)
    origin = sketch.constant(0, np.uint8)
    step = sketch.constant(1 / 255, np.float32)
    rows = sketch.op("QuantizeLinear", shares, step, origin), origin
    mixed = _product(sketch, rows, 1 / 255, small["v"], largest["v"] / 127)
    if by_rows:
        # What the bytes of a row sum up to: their product with a column of ones, [1, H, L, 1].
        ones = sketch.constant(np.ones((1, HEADS, 1, 1)), np.int8)
        length = sketch.op("Shape", "k", start=1, end=2)
        shape = sketch.op("Concat", sketch.constant([1, HEADS], np.int64), length,
                          sketch.constant([1], np.int64), axis=0)  # fmt: skip
        column = sketch.op("Expand", ones, shape), small["v"][1]
        mixed = sketch.op("Div", mixed, _product(sketch, rows, 1 / 255, column, 1))
    return sketch.together(mixed)


def _product(
    sketch: Sketch, left: tuple[str, str], left_step: float, right: tuple[str, str], step: float
) -> str:
    """uint8 by int8, each with its zero point, to fp32."""
    steps = (sketch.constant(number, np.float32) for number in (left_step, step))
    inputs = (left[0], right[0], *steps, left[1], right[1])
    return sketch.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB)


def write_graph(contender: str, largest: dict[str, float], path: Path) -> None:
    """The graph of a contender in a file."""
    sketch = Sketch()
    if contender in (INT8_SHARES, INT8_ROWS):
        made = int8(sketch, largest, by_rows=contender == INT8_ROWS)
    else:
        made = plain(sketch) if contender == "plain" else fused(sketch, contender)
    sketch.nodes.append(helper.make_node("Identity", [made], ["y"]))
    shape: list[int | str] = [1, "tokens", HEADS * EACH]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkv"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(sketch.nodes, "attention", inputs, [output], sketch.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), path)


def values(tokens: int, spread: float) -> dict[str, NDArray[np.float32]]:
    """Queries, keys and values of noise, [1, L, D], whose scores have a deviation of `spread`."""
    rng = np.random.default_rng(0)
    made = {name: rng.standard_normal((1, tokens, HEADS * EACH), np.float32) for name in "qkv"}
    made["q"] *= np.float32(spread)
    return made


def measure(
    inputs: dict[str, NDArray[np.float32]], scratch: Path, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every run of each contender, and its error as a share of the result."""
    np.savez(scratch / "inputs.npz", **cast("dict[str, Any]", inputs))
    largest = {name: float(np.abs(array).max()) for name, array in inputs.items()}
    common = {
        "inputs": str(scratch / "inputs.npz"),
        "heads": HEADS,
        "threads": options.threads,
        "repeats": REPEATS,
    }
    jobs = {}
    for number, contender in enumerate(CONTENDERS):
        graph = scratch / f"{number}.onnx"
        write_graph(contender, largest, graph)
        jobs[contender] = {**common, "graph": str(graph)}
    seconds: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    errors = {}
    for _ in range(options.rounds):
        for contender, job in jobs.items():
            sample = run_once(contender, job, PROGRAM)
            errors[contender] = sample["scores"]
            seconds[contender] += sample["seconds"]
    return seconds, errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = study_parser(__doc__, rounds=5).parse_args(arguments)
    found = conditions(options.threads)
    rows, seconds, errors = [], {}, {}
    with tempfile.TemporaryDirectory(prefix="vlrt-attention-") as scratch:
        for tokens in TOKENS:
            for kind, spread in SPREADS.items():
                row = f"{tokens} tokens, {kind} heads"
                print(row, file=sys.stderr)
                inputs = values(tokens, spread)
                seconds[row], errors[row] = measure(inputs, Path(scratch), options)
                exact = median(seconds[row][EXACT])
                rows.append(
                    [row, f"{exact * 1000:.2f}"]
                    + [
                        f"{median(seconds[row][name]) / exact:.2f} ({errors[row][name]:.2%})"
                        for name in CONTENDERS
                    ]
                )
    print_conditions(found)
    print(f"time / {EXACT}, and the error in brackets, as a share of the result\n")
    print(markdown_table(["", f"{EXACT}, ms", *CONTENDERS], rows))
    write_json(
        options.json, "attention",
        {**found, "rounds": options.rounds, "repeats": REPEATS, "seconds": seconds,
         "errors": errors},
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
