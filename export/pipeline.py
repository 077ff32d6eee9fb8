"""A checkpoint to a bundle: build every variant, prove it, write what passes.

What a family is to an export, its module says: what it refuses (`check`), which graphs there are
and what goes into them (COMPONENTS, `inputs`, `build`, `values`), what a precision leaves alone
(KEEP_FP32), and how to prove it (PICTURES, TEXTS, `samples`, PIXELS_ABS, `at_once`, `Reference`,
`quality`).
"""

import importlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vlrt import bundle
from vlrt.errors import ExportError, GateError, OptionError
from vlrt.load import import_family

from . import gates, samples
from .checkpoint import open_checkpoint
from .precision import DEFAULT_PRECISIONS, PRECISIONS, Recipe
from .run import Options, Report, Run, Say
from .samples import Samples


def export(
    source: str,
    out: str | Path,
    *,
    precisions: Sequence[str] = DEFAULT_PRECISIONS,
    revision: str | None = None,
    overwrite: bool = False,
    calibrate: Samples | Sequence[str | os.PathLike[str]] = (),
    quality: str = "speed",
    reduce_range: bool = False,
    say: Say = print,
) -> Report:
    """Turn a checkpoint into a bundle.

    Every variant is compared with PyTorch on pictures and texts and is written only if it passes
    its gate (`gates.GATES`). One that does not is built again with the layers that hurt most
    smoothed or left in fp32, more of them each time, before it is refused. Those in floats also get
    the form for CUDA (see `for_cuda`), which may be refused while the variant is not. Nothing
    appears at `out` before all is done.

    Args:
        source: a local snapshot in the hub's layout, or `owner/name` on the hub.
        out: the bundle's directory.
        precisions: any of "fp32", "fp16", "int8", and of weights alone "int8w", "int4w".
        revision: branch, tag or commit on the hub.
        overwrite: replace a bundle that is already at `out`.
        calibrate: samples to take the scales of int8 from and to verify on: directories of
            pictures, files with a text a line, or "drawn" (see `samples.read`); or `Samples`, which
            may be for verifying alone. Without any, scales are those of each batch, and drawn
            scenes serve to verify.
        quality: "speed" for the fastest variants that pass their gates, "accuracy" for gates that
            allow half of the errors.
        reduce_range: int8 weights of 7 bits, which x86 CPUs without VNNI multiply fast and right.
        say: takes a line of progress.

    Raises:
        OptionError: an argument is outside its valid choices.
        ExportError: the checkpoint or the samples cannot be read, or `out` exists.
        ExtraMissingError: what counts right answers is not installed.
        GateError: no variant passed, or transformers makes other pixels or token ids.
        UnknownFamilyError: no family serves its model type.
    """
    for precision in precisions:
        Recipe(precision)  # raises, naming the valid ones
    if not precisions:
        raise OptionError(f"no precision was asked for; valid: {', '.join(PRECISIONS)}")
    gates.check_quality(quality)
    if isinstance(calibrate, str | os.PathLike):
        raise OptionError(f"calibrate is {calibrate!r}; valid: a list of paths")
    out = Path(out)
    _check_target(out, overwrite)
    checkpoint = open_checkpoint(source, revision)
    family = import_exporter(checkpoint.model_type)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        root = Path(scratch) / "bundle"
        (root / "onnx").mkdir(parents=True)
        given = calibrate
        if not isinstance(given, Samples):
            given = (
                samples.read(given, family, checkpoint)
                if given
                else samples.default(family, checkpoint)
            )
        options = Options(quality, weight_bits=7 if reduce_range else 8)
        run = Run(checkpoint, family, root, given, options, say)
        report = run.all(list(dict.fromkeys(precisions)))
        if not report.written:
            lines = [f"{p}: {why}" for p, whys in report.refused.items() for why in whys]
            raise GateError("no variant passed its gate:\n" + "\n".join(lines))
        if out.exists():
            shutil.rmtree(out)
        root.rename(out)
    report.path = out
    return report


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise ExportError(f"{out} already exists; choose another -o, or pass --overwrite")
    if not (out / bundle.MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists and is no vlrt bundle; it is not overwritten")


def import_exporter(model_type: str) -> Any:
    """The module in `export` of a family.

    Raises:
        UnknownFamilyError: no family serves the model type.
        ExportError: the family has no exporter.
    """
    import_family(model_type)  # raises, naming the families
    name = f"{__package__}.{model_type}"
    if find_spec(name) is None:
        raise ExportError(f"model_type {model_type!r} has a runtime but no exporter yet")
    return importlib.import_module(name)
