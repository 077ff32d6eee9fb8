"""Makes what the OpenVINO contenders run, and keeps it for the next time.

    python -m vlrt_benchmarks.openvino_conversion JOB

is the program that does the work, in a process of its own: it holds the checkpoint, its trace and
what is made of it at once, and that memory is given back when it ends. JOB is JSON: `samples` (an
.npz, see `calibration`), `out` (the file to write) and either `checkpoint`, `family` and `stage`,
to convert a component of PyTorch, or `model`, to quantise what was converted by NNCF.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from vlrt.files import file_sha256

from .kept import arrays_sha256, checkpoint_sha256, kept, run
from .peers import BOTH, Arrays, cached
from .subject import Subject

SAMPLES = 32
_SEED = 1  # of vlrt's own scales as well: nothing that is measured or verified is drawn from it
_PICTURE_WH = (640, 400)
_SOURCES = (Path(__file__), Path(__file__).parent / "peers" / "towers.py")
_PACKAGES = ("openvino", "nncf", "torch", "transformers")
_PROGRAM = "vlrt_benchmarks.openvino_conversion"


def made(subject: Subject, stage: str, precision: str, cache_root: Path) -> Path:
    """The model of a stage; made anew when anything that it depends on is another.

    Args:
        subject: with a checkpoint.
        stage: "encode image", "encode text" or "encode image and text".
        precision: "int8", or another, which all are the same file.
        cache_root: where to keep it.

    Raises:
        BenchmarkError: it cannot be made.
    """
    assert subject.checkpoint is not None
    weights = checkpoint_sha256(subject.checkpoint)
    folder = cached(cache_root.resolve(), "openvino", f"{subject.name}-{weights[:12]}")
    samples = calibration(subject, stage)
    stamp = {
        "packages": {name: version(name) for name in _PACKAGES},
        "sources_sha256": file_sha256(*_SOURCES),
        "checkpoint_sha256": weights,
        "samples_sha256": arrays_sha256(samples),
    }
    name = stage.replace(" ", "-")
    job = {
        "checkpoint": str(subject.checkpoint.resolve()),
        "family": subject.family,
        "stage": stage,
    }
    converted = folder / f"{name}.xml"
    kept(converted, stamp, lambda: _run(job, samples, converted))
    if precision != "int8":
        return converted
    out = folder / f"{name}-int8.xml"
    return kept(out, stamp, lambda: _run({"model": str(converted)}, samples, out))


def _run(job: Mapping[str, Any], samples: Arrays, out: Path) -> None:
    """The program, on samples and for a file that the job does not name yet."""
    with tempfile.TemporaryDirectory(prefix="vlrt-openvino-") as scratch:
        arrays = Path(scratch, "samples.npz")
        np.savez(arrays, **cast("dict[str, Any]", samples))
        told = json.dumps({**job, "samples": str(arrays), "out": str(out)})
        run([sys.executable, "-m", _PROGRAM, told], f"OpenVINO's {out.stem}")


def calibration(subject: Subject, stage: str) -> Arrays:
    """Drawn pictures and texts as the model takes them, each a batch of one.

    Returns:
        "<number>/<input>", the arrays of `SAMPLES` samples; all inputs, of whatever component.
    """
    from vlrt.bundle import open_bundle
    from vlrt.labels import open_tokenizer
    from vlrt.load import import_family
    from vlrt_export.samples import captions, drawn_pictures

    bundle = open_bundle(subject.bundle)
    processor = import_family(subject.family).image_processor(bundle.preprocessor)
    tokenizer = open_tokenizer(bundle)
    if stage == BOTH:
        pairs = [_asked(at) for at in range(SAMPLES)]
    else:
        pairs = list(zip(drawn_pictures(SAMPLES, _SEED), captions(SAMPLES, _SEED), strict=True))
    found: Arrays = {}
    for number, (picture, text) in enumerate(pairs):
        tokens = tokenizer.pad(tokenizer.ids([text], truncate=True))
        kinds = {"token_type_ids": np.zeros_like(tokens["input_ids"])}
        arrays = {**tokens, **kinds, **processor.inputs([picture])}
        found |= {f"{number}/{name}": array for name, array in arrays.items()}
    return found


def _asked(at: int) -> tuple[Any, str]:
    """A drawn scene and a question about it."""
    from vlrt_export.demo.questions import KINDS, ask
    from vlrt_export.demo.scenes import draw_plan

    rng = np.random.default_rng((_SEED, at))
    plan, asked = ask(rng, list(KINDS)[at % len(KINDS)], _PICTURE_WH)
    return draw_plan(plan, _PICTURE_WH).image, asked.question


def read_samples(path: Path, names: Sequence[str]) -> list[Arrays]:
    """What `calibration` gave, of the named inputs alone, in the order of the names."""
    with np.load(path) as file:
        numbers = sorted({int(key.partition("/")[0]) for key in file})
        return [{name: file[f"{number}/{name}"] for name in names} for number in numbers]


def convert(job: Mapping[str, Any]) -> Any:
    """A component of a checkpoint as a model of OpenVINO, inputs and outputs under their names.

    All axes are free that a user can vary, but the sides of pictures that are all of one size.
    """
    import openvino
    import torch

    from .peers import towers

    model = towers.load(
        Path(job["checkpoint"]), job["family"], job["stage"], torch.float32, unpadded=True
    )
    first = read_samples(Path(job["samples"]), model.inputs)[0]
    # Two samples: what a trace takes from a batch of one might be true of that alone.
    example = [np.repeat(array, 2, axis=0) for array in first.values()]
    with torch.inference_mode():
        converted = openvino.convert_model(
            model, example_input=tuple(towers.tensors(example, torch.float32))
        )
    shapes = {}
    for port, (name, array) in zip(converted.inputs, first.items(), strict=True):
        port.get_tensor().set_names({name})
        shapes[name] = openvino.PartialShape(free_axes(job["family"], name, array.shape))
    for port, name in zip(converted.outputs, model.outputs, strict=True):
        port.get_tensor().set_names({name})
    converted.reshape(shapes)
    return converted


def free_axes(family: str, name: str, shape: Sequence[int]) -> list[int]:
    """An input's shape with -1 for what may vary."""
    if name != "pixel_values":
        return [-1] * len(shape)
    sides = [-1, -1] if family == "vilt" else list(shape[2:])
    return [-1, shape[1], *sides]


def quantise(job: Mapping[str, Any]) -> Any:
    """What was converted, with products in int8 by NNCF."""
    import nncf
    import openvino

    model = openvino.Core().read_model(job["model"])
    names = [port.get_any_name() for port in model.inputs]
    samples = read_samples(Path(job["samples"]), names)
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
    )


def main() -> None:
    """Convert or quantise, and save."""
    import openvino

    job = json.loads(sys.argv[1])
    made_model = quantise(job) if "model" in job else convert(job)
    openvino.save_model(made_model, job["out"], compress_to_fp16=False)


if __name__ == "__main__":
    main()
