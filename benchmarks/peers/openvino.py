"""OpenVINO: the towers in PyTorch converted to its own models, in fp32, in bf16, and in int8.

int8 is by NNCF after training, with scales from drawn samples. What is converted takes any batch,
any length of texts and, of ViLT, pictures of any shape; for each batch it is compiled for the one
shape that it then has, which is what OpenVINO does best.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import BOTH, IMAGE, STAGES, TEXT, Arrays, Entry, Stage, inputs, kind, several_shapes

if TYPE_CHECKING:
    from ..plan import Plan
    from ..subject import Subject

NEEDS = ("openvino", "nncf", "torch", "transformers")
INSTALL = 'pip install "vlrt[peers,export]"'
NEEDS_CHECKPOINT = True

# The type of what is no integer. In int8 that is OpenVINO's own choice: the fastest that the
# processor has, bf16 on many. It would take that for fp32 too, unless told.
_HINTS: dict[str, dict[str, str]] = {
    "fp32": {"INFERENCE_PRECISION_HINT": "f32"},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
    "int8": {},
}
_BF16 = "bf16"


def refused(subject: "Subject", plan: "Plan") -> dict[str, str]:
    """What it has no contender for here, and why."""
    if plan.device != "cpu":
        return {"openvino": f"it is compared on the CPU, and this is {plan.device}"}
    shapes = several_shapes(subject, plan)
    if shapes:
        return {"openvino": shapes}
    if not _has_bf16():
        return {"openvino-bf16": "OpenVINO has no bf16 for this processor"}
    return {}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """One of each precision; none on a GPU, and none in bf16 where the processor has no such."""
    without = refused(subject, plan)
    stages = tuple(s for s in STAGES[subject.family] if s in (IMAGE, TEXT, BOTH))
    made = [Entry(f"openvino-{name}", "openvino", name, stages) for name in _HINTS]
    return [one for one in made if one.engine not in without and one.name not in without]


def prepare(entry: Entry, subject: "Subject", plan: "Plan", cache: Path) -> dict[str, Any]:
    """Convert and quantise what is not in the cache; `models`, files by the kind of the stage."""
    from ..openvino_conversion import made

    asked = {kind(stage) for stage in plan.stages}
    stages = [stage for stage in entry.stages if stage in asked]
    return {"models": {s: str(made(subject, s, entry.precision, cache)) for s in stages}}


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """Its models, each compiled for the shape of the stage's arrays."""
    import openvino

    core = openvino.Core()
    return {stage: _stage(core, job, stage) for stage in job["stages"]}


def _stage(core: Any, job: Mapping[str, Any], stage: str) -> Stage:
    model, arrays = core.read_model(job["models"][kind(stage)]), inputs(job, stage)
    check_unpadded(arrays)
    given = {name: arrays[name] for name in (port.get_any_name() for port in model.inputs)}
    model.reshape({name: list(array.shape) for name, array in given.items()})
    hints = {
        "INFERENCE_NUM_THREADS": job["threads"],
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        **_HINTS[job["precision"]],
    }
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    return Stage(
        lambda: request.infer(given, share_inputs=True, share_outputs=True),
        # Where nothing is left between two tensors, an output bears the names of both.
        lambda found: {n: np.array(a) for port, a in found.items() for n in port.get_names()},
    )


def check_unpadded(arrays: Arrays) -> None:
    """Refuse pictures with padding, for ViLT is converted without regard to its mask.

    Raises:
        ValueError: there is some.
    """
    if "pixel_mask" in arrays and not arrays["pixel_mask"].all():
        raise ValueError(
            "OpenVINO runs ViLT without padding, and the pictures of this batch differ in their "
            "shapes; give pictures of one shape, or leave openvino out of --against"
        )


def _has_bf16() -> bool:
    """Whether OpenVINO multiplies in bf16 on this processor."""
    import openvino

    able: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return _BF16.upper() in able
