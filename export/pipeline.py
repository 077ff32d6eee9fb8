"""A checkpoint to a bundle: build every variant, prove it, write what passes.

What a family is to an export, its module says: what it refuses (`check`), which graphs there are
and what goes into them (COMPONENTS, `inputs`, `build`, `values`), what a precision leaves alone
(KEEP_FP32), and how to prove it (PICTURES, TEXTS, `samples`, PIXELS_ABS, `at_once`, `Reference`,
`quality`).
"""

import importlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from vlrt import __version__, bundle
from vlrt.describe import largest_error, lowest_cosine
from vlrt.doctor import processor_name
from vlrt.errors import ExportError, GateError, OptionError
from vlrt.files import read_settings
from vlrt.load import import_family
from vlrt.session import Session, available_cpus, engine, place
from vlrt.text import Tokenizer, token_limit

from . import reference, samples, verify
from .checkpoint import Checkpoint, open_checkpoint
from .graph import Graph
from .precision import FP16_LIMIT, GATES, PRECISIONS, Recipe

# From this size on, weights go into a file of their own, which ONNX Runtime maps instead of
# copying: the graph loads faster and peaks lower. (A protobuf also ends at 2 GiB.)
EXTERNAL_DATA_BYTES = 16_000_000

Arrays = dict[str, NDArray[Any]]
Say = Callable[[str], None]


@dataclass
class Report:
    """What an export did.

    Attributes:
        path: the bundle.
        written: the precisions in it.
        refused: precision -> why it was not written.
        verified: whether PyTorch was there to compare with.
    """

    path: Path
    written: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    verified: bool = True


def export(
    source: str,
    out: str | Path,
    *,
    precisions: Sequence[str] = PRECISIONS,
    revision: str | None = None,
    overwrite: bool = False,
    images: Sequence[Image.Image] | None = None,
    texts: Sequence[str] | None = None,
    say: Say = print,
) -> Report:
    """Turn a checkpoint into a bundle.

    Every variant is compared with PyTorch on pictures and texts and is written only if it passes
    its gate (`precision.GATES`). Nothing appears at `out` before all is done.

    Args:
        source: a local snapshot in the hub's layout, or `owner/name` on the hub.
        out: the bundle's directory.
        precisions: any of "fp32", "fp16", "int8".
        revision: branch, tag or commit on the hub.
        overwrite: replace a bundle that is already at `out`.
        images, texts: to verify on; drawn scenes and their captions by default.
        say: takes a line of progress.

    Raises:
        ExportError: the checkpoint cannot be read, or `out` exists.
        GateError: no variant passed, or transformers makes other pixels or token ids.
        UnknownFamilyError: no family serves its model type.
    """
    for precision in precisions:
        Recipe(precision)  # raises, naming the valid ones
    if not precisions:
        raise OptionError(f"no precision was asked for; valid: {', '.join(PRECISIONS)}")
    out = Path(out)
    _check_target(out, overwrite)
    checkpoint = open_checkpoint(source, revision)
    family = _import_export_family(checkpoint.model_type)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        root = Path(scratch) / "bundle"
        (root / "onnx").mkdir(parents=True)
        pictures = list(images or samples.drawn_pictures(family.PICTURES))
        given = list(texts or samples.texts(family.TEXTS))
        run = _Run(checkpoint, family, root, pictures, given, say)
        report = run.all(precisions)
        if not report.written:
            lines = [f"{p}: {why}" for p, whys in report.refused.items() for why in whys]
            raise GateError("no variant passed its gate:\n" + "\n".join(lines))
        if out.exists():
            shutil.rmtree(out)
        root.rename(out)
    report.path = out
    return report


class _Run:
    """One export under way."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        family: Any,
        root: Path,
        images: list[Image.Image],
        texts: list[str],
        say: Say,
    ) -> None:
        self.checkpoint, self.family, self.root, self.say = checkpoint, family, root, say
        checkpoint.write_settings(root)
        self.runtime = import_family(checkpoint.model_type)
        self.task: str = self.runtime.task(read_settings(root, "config.json"))
        family.check(checkpoint)
        self.values: dict[str, float] = family.values(checkpoint)
        self.at_once: int = family.at_once(checkpoint.config)
        self.threads = available_cpus()
        self.placement = place("cpu")
        images, texts = family.samples(checkpoint, images, texts)
        self.inputs = self._inputs(images, texts)
        # Alone, a sample is not padded to the size of others: this is what is timed.
        self.single = self._inputs(*family.samples(checkpoint, images[:1], texts[:1]))
        self.expected: dict[str, Arrays] = {}
        self.components: dict[str, dict[str, Any]] = {name: {} for name in family.COMPONENTS}
        self.quality: dict[str, dict[str, Any]] = {}
        self.missing = reference.missing()
        if self.missing:
            self._compare_with_own_fp32()
        else:
            self._ask_reference(images, texts)

    def _inputs(self, images: list[Image.Image], texts: list[str]) -> dict[str, Arrays]:
        """What the runtime's own preprocessing makes of samples, for each component."""
        settings = read_settings(self.root, "preprocessor_config.json")
        processor = self.runtime.image_processor(settings)
        settings = read_settings(self.root, "tokenizer_config.json")
        limit = token_limit(settings, read_settings(self.root, "config.json"))
        tokenizer = Tokenizer(self.root / "tokenizer.json", settings, limit)
        made = tokenizer.pad(tokenizer.ids(texts, truncate=True))
        given: dict[str, Arrays] = self.family.inputs(made | processor.inputs(images))
        return given

    def _ask_reference(self, images: list[Image.Image], texts: list[str]) -> None:
        self.say(f"verifying against PyTorch: {len(images)} pictures, {len(texts)} texts")
        torch_model = self.family.Reference(self.checkpoint, self.at_once)
        made = self.family.inputs(torch_model.process(images) | torch_model.tokenize(texts))
        for component, named in self.inputs.items():
            for name, array in named.items():
                theirs = made[component][name]
                allowed = self.family.PIXELS_ABS if name == "pixel_values" else 0
                same_shape = theirs.shape == array.shape
                if not same_shape or not np.abs(theirs - array).max() <= allowed:
                    raise GateError(
                        f"{component}: transformers makes other {name} of the samples than vlrt "
                        "does from the checkpoint's own settings"
                    )
            self.expected[component] = torch_model.run(component, named)

    def _compare_with_own_fp32(self) -> None:
        self.say(
            f"WARNING: {', '.join(self.missing)} not installed: NOTHING is compared with PyTorch. "
            "fp16 and int8 are compared with this export's own fp32 graph; the manifest says so. "
            'Install what verifies: pip install "vlrt[export]"'
        )
        with tempfile.TemporaryDirectory(dir=self.root.parent) as scratch:
            for component in self.components:
                path = Path(scratch) / f"{component}.onnx"
                _save(self._build(component, Recipe("fp32")).model(_producer()), path)
                inputs = self.inputs[component]
                size = verify.slice_size(inputs, self.at_once)
                self.expected[component] = verify.run_in_slices(self._open(path).run, inputs, size)

    def all(self, precisions: Sequence[str]) -> Report:
        """Make and judge every variant, and write the manifest."""
        report = Report(self.root, verified=not self.missing)
        for precision in precisions:
            self.say(f"{precision}: building and comparing")
            whys = self._variant(precision)
            if whys:
                report.refused[precision] = whys
                for why in whys:
                    self.say(f"{precision} REFUSED: {why}")
                continue
            report.written.append(precision)
        if report.written:
            bundle.write_manifest(self.root, self._manifest(report))
        return report

    def _variant(self, precision: str) -> list[str]:
        outputs: Arrays = {}
        made: dict[str, dict[str, Any]] = {}
        for component in self.components:
            recipe, inputs = self._recipe(component, precision), self.inputs[component]
            name = bundle.graph_file(component, precision)
            files = _save(self._build(component, recipe).model(_producer()), self.root / name)
            session = self._open(self.root / name)
            size = verify.slice_size(inputs, self.at_once)
            found, repeatable = verify.run_twice(session, inputs, size)
            outputs |= found
            parity = verify.parity(found, self.expected[component])
            timing = verify.speed(session, self.single[component], self.threads, "cpu")
            made[component] = {
                "files": [f"onnx/{file}" for file in files],
                "recipe": recipe.describe(),
                "parity": parity,
                "repeatable": repeatable,
                "speed": timing,
            }
            written = sum((self.root / "onnx" / file).stat().st_size for file in files)
            self.say(
                f"  {name}: {written / 1e6:.1f} MB, lowest cosine {lowest_cosine(parity)}, "
                f"largest error {largest_error(parity):.1e}, {timing['median_ms']:.1f} ms"
            )
        expected = {k: v for arrays in self.expected.values() for k, v in arrays.items()}
        quality = self.family.quality(outputs, expected, self.values)
        whys = verify.complaints(GATES[self.task][precision], made, quality)
        for component, entry in made.items():
            if whys:
                for file in entry["files"]:
                    (self.root / file).unlink()
            else:
                self.components[component][precision] = entry
        if not whys:
            self.quality[precision] = quality
        return whys

    def _recipe(self, component: str, precision: str) -> Recipe:
        """The family's recipe, or for fp16 one that leaves alone what would overflow.

        What a layer takes counts as well as what it gives: the CPU computes fp16 in fp32 and would
        not show it, but on a GPU a layer overflows on an input that the layer before it, left in
        fp32, may well give.
        """
        kept = self.family.KEEP_FP32.get(precision, frozenset())
        recipe = Recipe(precision, kept)
        if precision != "fp16":
            return recipe
        with tempfile.TemporaryDirectory(dir=self.root.parent) as scratch:
            path = Path(scratch) / "taps.onnx"
            _save(self._build(component, Recipe("fp32")).model(_producer(), taps=True), path)
            # One sample at a time: every layer's values are kept until the taps have seen them.
            outputs = verify.run_in_slices(self._open(path).run, self.inputs[component], size=1)
        loud = frozenset(
            layer
            for end, colon, layer in (name.partition(":") for name in outputs)
            if colon and recipe.of(layer) == "fp16" and outputs[f"{end}:{layer}"].max() > FP16_LIMIT
        )
        if loud:
            self.say(f"  {component}: left in fp32, near fp16's limit: {', '.join(sorted(loud))}")
        return recipe.keeping(loud)

    def _build(self, component: str, recipe: Recipe) -> Graph:
        graph: Graph = self.family.build(self.checkpoint, component, recipe)
        return graph

    def _open(self, path: Path) -> Session:
        return Session(path, self.placement, threads=self.threads)

    def _manifest(self, report: Report) -> dict[str, Any]:
        allowed = self.family.PIXELS_ABS
        pixels = f"within {allowed:g}" if allowed else "bit-exact"
        against = "nothing: PyTorch was not installed; parity is with this export's own fp32 graph"
        return {
            "vlrt_version": __version__,
            "family": self.checkpoint.model_type,
            "task": self.task,
            "source": {
                "repository": self.checkpoint.name if self.checkpoint.revision else None,
                "directory": None if self.checkpoint.revision else self.checkpoint.root.name,
                "revision": self.checkpoint.revision,
                "weights_sha256": self.checkpoint.weights_sha256,
            },
            "values": self.values,
            "verified": {
                "against": against if self.missing else "PyTorch fp32, eager",
                "pixel_values": None if self.missing else pixels,
                "input_ids": None if self.missing else "bit-exact",
                "versions": {
                    "onnxruntime": engine().__version__,
                    "onnx": onnx.__version__,
                    "numpy": version("numpy"),
                    **({} if self.missing else reference.versions()),
                },
                "machine": {"processor": processor_name(), "threads": self.threads},
            },
            "components": {
                component: {
                    "inputs": list(self.inputs[component]),
                    "outputs": list(self.expected[component]),
                    "variants": variants,
                }
                for component, variants in self.components.items()
            },
            "quality": self.quality,
            "refused": report.refused,
        }


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise ExportError(f"{out} already exists; choose another -o, or pass --overwrite")
    if not (out / bundle.MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists and is no vlrt bundle; it is not overwritten")


def _import_export_family(model_type: str) -> Any:
    import_family(model_type)  # raises, naming the families
    name = f"{__package__}.{model_type}"
    if find_spec(name) is None:
        raise ExportError(f"model_type {model_type!r} has a runtime but no exporter yet")
    return importlib.import_module(name)


def _producer() -> str:
    return f"vlrt {__version__}"


def _save(model: onnx.ModelProto, path: Path) -> list[str]:
    """Write a graph; returns its file names, the graph's first."""
    if model.ByteSize() < EXTERNAL_DATA_BYTES:
        onnx.save_model(model, path)
        return [path.name]
    data = f"{path.name}_data"
    onnx.save_model(model, path, save_as_external_data=True, location=data)
    path.with_name(data).chmod(path.stat().st_mode)  # onnx makes it readable by its owner alone
    return [path.name, data]
