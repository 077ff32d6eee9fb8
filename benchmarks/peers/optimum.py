"""optimum-onnx: what its own commands export and quantise, run by its own classes.

It excludes transformers 5, so it lives in an environment of its own, whose interpreter
`--optimum-python` names. Its graphs hold both towers at once: labels are encoded again with every
call, and neither tower can be run alone, so it enters the whole way alone. For CLIP it has a class;
an OWL-ViT graph, which it exports too, runs in its class for custom tasks, once a picture with all
labels, with the processor of transformers 4 around it. int8 is its dynamic quantisation for this
processor.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import END, Arrays, Entry, Stage, cached, found

if TYPE_CHECKING:
    import argparse

    from ..plan import Plan
    from ..subject import Subject

NEEDS: tuple[str, ...] = ()  # here; all is in its own environment
INSTALL = (
    "python -m venv optimum && "
    "optimum/bin/pip install torch==2.13.0 optimum-onnx onnxruntime pillow, "
    "then --optimum-python optimum/bin/python"
)
NEEDS_CHECKPOINT = True

VARIABLE = "VLRT_OPTIMUM_PYTHON"
_TASKS = {"clip": "zero-shot-image-classification", "owlvit": "zero-shot-object-detection"}
_WITHOUT = {
    "vilt": "optimum-onnx 0.1 exports no ViLT",
    "owlv2": "OWLv2's processor in transformers 4 is another than the one that is compared here",
}
_CLI = ("-m", "optimum.commands.optimum_cli")
# By vlrt's name of what the processor multiplies int8 with; of all others, what x86 has for long.
_INSTRUCTIONS = {
    **dict.fromkeys(("amx", "vnni"), "--avx512_vnni"),
    **dict.fromkeys(("i8mm", "dotprod"), "--arm64"),
}
_PACKAGES = ("optimum", "optimum-onnx", "onnxruntime", "transformers", "torch")
_GRAPHS = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}
_TOKENS = 16  # of a label of OWL-ViT, always


def interpreter(named: str | None) -> str | None:
    """Its interpreter: the one named on the command line, or in the environment; None for none."""
    python = named or os.environ.get(VARIABLE)
    return str(python) if python else None


def missing(options: "argparse.Namespace") -> str | None:
    """How to get it, unless an interpreter that has it is named.

    Raises:
        OptionError: what is named is no interpreter.
    """
    from vlrt.errors import OptionError

    python = interpreter(options.optimum_python)
    if python is None:
        return INSTALL
    try:
        _versions(python)
    except OSError as error:
        raise OptionError(
            f"--optimum-python (or {VARIABLE}) is {python!r}, which cannot be run: {error}"
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().rpartition("\n")[2]
        return f"{python} lacks a package of it ({said}); {INSTALL}"
    return None


def refused(subject: "Subject", plan: "Plan") -> dict[str, str]:
    """What it has no contender for here, and why."""
    if subject.family not in _TASKS:
        return {"optimum": _WITHOUT[subject.family]}
    if plan.device != "cpu":
        return {"optimum": f"it is compared on the CPU, and this is {plan.device}"}
    return {}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """One in fp32 and one in int8, of models that it can export."""
    python = interpreter(plan.optimum_python)
    if python is None or refused(subject, plan):
        return []
    return [Entry(f"optimum-{p}", "optimum", p, (END,), python=python) for p in _GRAPHS]


def prepare(entry: Entry, subject: "Subject", plan: "Plan", cache: Path) -> dict[str, Any]:  # noqa: ARG001
    """Export, and quantise, what is not in the cache; `model` is the folder."""
    from vlrt.kernels import int8_kernels

    from ..kept import checkpoint_sha256, kept, run

    assert subject.checkpoint is not None
    weights = checkpoint_sha256(subject.checkpoint)
    folder = cached(cache.resolve(), "optimum", f"{subject.name}-{weights[:12]}")
    exact, out = folder / "fp32", folder / entry.precision
    commands = {
        "fp32": ["export", "onnx", "--task", _TASKS[subject.family]],
        "int8": ["onnxruntime", "quantize", _INSTRUCTIONS.get(int8_kernels(), "--avx2")],
    }
    places = {
        "fp32": ["--model", str(subject.checkpoint.resolve()), str(exact)],
        "int8": ["--onnx_model", str(exact), "-o", str(out)],
    }
    stamp: dict[str, Any] = {"packages": _versions(entry.python), "checkpoint_sha256": weights}
    for precision in dict.fromkeys(("fp32", entry.precision)):
        made = commands[precision]
        stamp |= {precision: made}
        command = [entry.python, *_CLI, *made, *places[precision]]
        kept(folder / precision, stamp, partial(run, command, f"optimum's graph in {precision}"))
    return {"model": str(out)}


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """The whole way, from paths to results, with nothing of vlrt's."""
    import torch
    from onnxruntime import SessionOptions
    from optimum.onnxruntime import ORTModelForCustomTasks, ORTModelForZeroShotImageClassification
    from transformers import AutoImageProcessor, AutoTokenizer

    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    options = SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
    classes = {"clip": ORTModelForZeroShotImageClassification, "owlvit": ORTModelForCustomTasks}
    model = classes[job["family"]].from_pretrained(
        job["model"],
        file_name=_GRAPHS[job["precision"]],
        session_options=options,
        provider="CPUExecutionProvider",
    )
    # The slow one is the one on Pillow, as all contenders' are.
    images: Any = AutoImageProcessor
    processor = images.from_pretrained(job["model"], use_fast=False)
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    stage = {"clip": _classify, "owlvit": _detect}[job["family"]]
    return {END: stage(job, model, processor, tokenizer)}


def _classify(job: Mapping[str, Any], model: Any, processor: Any, tokenizer: Any) -> Stage:
    from transformers.image_utils import load_image

    def run() -> Any:
        images = [load_image(path) for path in job["pictures"]]
        given = {
            **tokenizer(job["labels"], padding=True, return_tensors="pt"),
            **processor(images=images, return_tensors="pt"),
        }
        return model(**given).logits_per_image.softmax(dim=-1)

    return Stage(run, lambda scores: {"scores": scores.numpy()})


def _detect(job: Mapping[str, Any], model: Any, processor: Any, tokenizer: Any) -> Stage:
    from transformers.image_utils import load_image

    threshold = job["threshold"]

    def run() -> Any:
        images = [load_image(path) for path in job["pictures"]]
        texts = tokenizer(
            job["labels"] * len(images), padding="max_length", max_length=_TOKENS,
            return_tensors="pt",
        )  # fmt: skip
        outputs = model(**texts, **processor(images=images, return_tensors="pt"))
        return processor.post_process_object_detection(
            outputs, threshold=threshold, target_sizes=[(one.height, one.width) for one in images]
        )

    def outputs(pictures: Any) -> Arrays:
        boxes, scores = ([one[name].numpy() for one in pictures] for name in ("boxes", "scores"))
        return found(boxes, scores, threshold)

    return Stage(run, outputs)


def _versions(python: str) -> dict[str, str]:
    """Of its packages, as its own interpreter sees them."""
    program = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [python, "-c", program, *_PACKAGES], check=True, capture_output=True, text=True
    )
    found_there: dict[str, str] = json.loads(done.stdout)
    return found_there
