"""How a variant is built: the family's recipe, calibrated, and graphs to try it with."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from vlrt import __version__
from vlrt.session import Session

from . import verify
from .checkpoint import Checkpoint
from .graph import Graph
from .precision import FP16_LIMIT, WEIGHT_ONLY, Channels, Recipe

# From this size on, weights go into a file of their own, which ONNX Runtime maps instead of
# copying: the graph loads faster and peaks lower. (A protobuf also ends at 2 GiB.)
EXTERNAL_DATA_BYTES = 16_000_000

Arrays = Mapping[str, NDArray[Any]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Workshop:
    """What it takes to build the graphs of one checkpoint and to try them.

    Attributes:
        family: the export module of its family.
        checkpoint: where the weights come from.
        scratch: a directory for graphs that are not kept.
        open: loads a graph.
        say: takes a line of progress.
        peaks: component -> layer -> the largest magnitude that it takes or gives of the samples to
            verify on, in fp32, where that was asked.
    """

    family: Any
    checkpoint: Checkpoint
    scratch: Path
    open: Callable[[Path], Session]
    say: Say
    peaks: dict[str, dict[str, float]] = field(default_factory=dict)

    def build(self, component: str, recipe: Recipe) -> Graph:
        """The graph of a component."""
        graph: Graph = self.family.build(self.checkpoint, component, recipe)
        return graph

    def run(
        self, model: onnx.ModelProto, parts: Iterable[Arrays]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Run a graph that is not kept; gives the outputs of each run."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as scratch:
            path = Path(scratch) / "graph.onnx"
            save(model, path)
            session = self.open(path)
            for part in parts:
                yield session.run(part)

    def outputs(
        self, component: str, recipe: Recipe, inputs: Arrays, size: int
    ) -> dict[str, NDArray[Any]]:
        """What the graph of a recipe gives for all samples."""
        model = self.build(component, recipe).model(producer())
        return verify.joined(list(self.run(model, verify.slices(inputs, size))))

    def recipe(
        self,
        component: str,
        precision: str,
        *,
        weight_bits: int,
        inputs: Arrays,
        samples: Sequence[Arrays],
    ) -> Recipe:
        """What to try first for a variant.

        Args:
            component: one of the family's.
            precision: of the variant.
            weight_bits: of int8 weights.
            inputs: the component's, to verify on.
            samples: single ones, not padded, to take int8 scales from; none for dynamic ones.

        Returns:
            The family's recipe; for fp16 one that leaves alone what would overflow, for int8 with
            the scales of the samples, if there are any.
        """
        kept: Mapping[str, frozenset[str]] = self.family.KEEP_FP32
        # Where int8 activations would hurt, small weights might: what is left alone is little.
        like = "int8" if precision in WEIGHT_ONLY else precision
        recipe = Recipe(precision, kept.get(like, frozenset()), weight_bits=weight_bits)
        if precision == "fp16":
            return recipe.keeping(self._near_overflow(component, recipe, inputs))
        if precision == "int8" and samples:
            taken, _ = self.channels(component, samples)
            return replace(recipe, calibration=taken)
        return recipe

    def leaner(self, component: str, recipe: Recipe, inputs: Arrays) -> Recipe:
        """The recipe without what its family leaves in fp32, as far as fp16 can hold it.

        Args:
            component: one of the family's.
            recipe: of the variant.
            inputs: the component's, to verify on.
        """
        kept = self.family.KEEP_FP32.get(recipe.precision, frozenset())
        if recipe.precision != "fp16" or not kept:
            return recipe
        lean = replace(recipe, keep_fp32=recipe.keep_fp32 - kept)
        return lean.keeping(self._near_overflow(component, lean, inputs))

    def channels(
        self, component: str, samples: Iterable[Arrays]
    ) -> tuple[dict[str, Channels], dict[str, Channels]]:
        """What the linear layers of a component take of samples, and what they give, in fp32."""
        model = self.build(component, Recipe("fp32")).model(producer(), taps=True)
        taken: dict[str, Channels] = {}
        given: dict[str, Channels] = {}
        for outputs in self.run(model, samples):
            for end, found in (("in", taken), ("out", given)):
                low, high = (_tapped(outputs, f"{end}:{kind}:") for kind in ("low", "high"))
                for layer in low:
                    seen = Channels(low[layer], high[layer])
                    found[layer] = seen.joined(found.get(layer, seen))
        return taken, given

    def _near_overflow(self, component: str, recipe: Recipe, inputs: Arrays) -> frozenset[str]:
        """The layers that come near fp16's limit.

        What a layer takes counts as well as what it gives: the CPU computes fp16 in fp32 and would
        not show it, but on a GPU a layer overflows on an input that the layer before it, left in
        fp32, may well give.
        """
        if component not in self.peaks:
            # One sample at a time: every layer's values are kept until the taps have seen them.
            alone = verify.slices(inputs, size=1)
            taken, given = self.channels(component, alone)
            self.peaks[component] = {
                layer: float(max(taken[layer].peaks.max(), given[layer].peaks.max()))
                for layer in taken
            }
        loud = frozenset(
            layer
            for layer, peak in self.peaks[component].items()
            if recipe.of(layer) == "fp16" and peak > FP16_LIMIT
        )
        if loud:
            self.say(f"  {component}: left in fp32, near fp16's limit: {', '.join(sorted(loud))}")
        return loud

    def each_output(
        self, component: str, recipe: Recipe, samples: Sequence[Arrays]
    ) -> dict[str, NDArray[Any]]:
        """What the graph of a recipe gives for samples of any sizes, all numbers in a row."""
        model = self.build(component, recipe).model(producer())
        parts = list(self.run(model, samples))
        return {name: np.concatenate([part[name].ravel() for part in parts]) for name in parts[0]}


def producer() -> str:
    """Who made a graph, for its file."""
    return f"vlrt {__version__}"


def save(model: onnx.ModelProto, path: Path) -> list[str]:
    """Write a graph; returns its file names, the graph's first."""
    if model.ByteSize() < EXTERNAL_DATA_BYTES:
        onnx.save_model(model, path)
        return [path.name]
    data = f"{path.name}_data"
    onnx.save_model(model, path, save_as_external_data=True, location=data)
    path.with_name(data).chmod(path.stat().st_mode)  # onnx makes it readable by its owner alone
    return [path.name, data]


def save_beside(model: onnx.ModelProto, path: Path, other: Path) -> list[str]:
    """Write a graph that has the weights of another, which is there; returns its file names.

    What the other keeps in a file of its own, it shares: tensors of one name, type and shape.
    """
    saved = onnx.load(other, load_external_data=False).graph.initializer
    kept = {tensor.name: tensor for tensor in saved if tensor.external_data}
    for tensor in model.graph.initializer:
        there = kept.get(tensor.name)
        if there is not None and _kind(tensor) == _kind(there):
            tensor.CopyFrom(there)
    onnx.save_model(model, path)
    return [path.name, f"{other.name}_data"] if kept else [path.name]


def _kind(tensor: onnx.TensorProto) -> tuple[int, list[int]]:
    """The type and the shape of a tensor."""
    return tensor.data_type, list(tensor.dims)


def _tapped(outputs: Arrays, prefix: str) -> dict[str, NDArray[Any]]:
    """The outputs whose names begin with a prefix, by what follows it."""
    return {
        name.removeprefix(prefix): values
        for name, values in outputs.items()
        if name.startswith(prefix)
    }
