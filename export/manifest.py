"""What an export writes down about itself: the manifest."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import onnx

from vlrt import __version__, hardware
from vlrt.kernels import int8_kernels
from vlrt.session import engine

from . import reference

if TYPE_CHECKING:
    from .run import Run


def content(run: "Run", refused: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The manifest of an export, but for what `vlrt.bundle.write_manifest` adds.

    Args:
        run: the export, done.
        refused: precision, or a form of one, -> why it was not written.
    """
    allowed = run.family.PIXELS_ABS
    pixels = f"within {allowed:g}" if allowed else "bit-exact"
    against = "nothing: PyTorch was not installed; parity is with this export's own fp32 graph"
    return {
        "vlrt_version": __version__,
        "family": run.checkpoint.model_type,
        "task": run.task,
        "source": {
            "repository": run.checkpoint.name if run.checkpoint.revision else None,
            "directory": None if run.checkpoint.revision else run.checkpoint.root.name,
            "revision": run.checkpoint.revision,
            "weights_sha256": run.checkpoint.weights_sha256,
        },
        "values": run.values,
        "verified": {
            "against": against if run.missing else "PyTorch fp32, eager",
            "pixel_values": None if run.missing else pixels,
            "input_ids": None if run.missing else "bit-exact",
            "versions": {
                "onnxruntime": engine().__version__,
                "onnx": onnx.__version__,
                "numpy": version("numpy"),
                **({} if run.missing else reference.versions()),
            },
            "machine": {**hardware.describe(), "int8_kernels": int8_kernels()},
            "on": run.given.source,
            "pictures": len(run.given.images),
            "texts": len(run.given.texts),
            "calibrated_on": {c: len(alone) for c, alone in run.calibration.items()},
            "held_out": run.given.held_out,
            "quality": run.options.quality,
        },
        "components": {
            component: {
                "inputs": list(run.inputs[component]),
                "outputs": list(run.expected[component]),
                "variants": variants,
            }
            for component, variants in run.components.items()
        },
        **({"similarity": run.similarity} if run.similarity else {}),
        "quality": run.quality,
        "refused": refused,
    }
