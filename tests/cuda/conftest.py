"""Running what a test wants on a machine with GPUs, pretended."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environment import Environment
from machine import Found, Machine, make, run

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def environment() -> Environment:
    """ONNX Runtime's CUDA provider and the libraries that stand in for NVIDIA's."""
    if sys.version_info < (3, 11):
        pytest.skip("onnxruntime-gpu of this release is not made for Python 3.10")
    return make()


@pytest.fixture(scope="module")
def on_cuda(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Found]:
    """Run a function on a machine: `found = on_cuda(function, 1, bundle=path, machine=Machine())`.

    The function stands at the top of its file. Errors of vlrt's that it raises are raised here.
    """

    def on_machine(
        function: Callable[..., Any],
        *arguments: Any,
        machine: Machine = Machine(),  # noqa: B008 (it is frozen)
        **named: Any,
    ) -> Found:
        root = Path(tmp_path_factory.mktemp("machine"))
        return run(function, arguments, named, machine=machine, environment=environment, root=root)

    return on_machine


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Bundles of each family's drawn shapes in fp32 and fp16, by its name, made when asked for."""
    pytest.importorskip("safetensors", reason="checkpoints are read by safetensors")
    pytest.importorskip("onnx", reason="bundles are written by onnx")
    from pictures import picture

    from vlrt_export import pipeline, reference
    from vlrt_export.samples import Samples

    few = Samples([picture("RGB", (60, 80))], ["a photo of a cat"])

    @functools.cache
    def made(family: str) -> Path:
        out = tmp_path_factory.mktemp("bundles") / family
        with pytest.MonkeyPatch.context() as patch:
            # What runs on the stand-ins gives no numbers that could be compared.
            patch.setattr(reference, "missing", lambda: ["torch"])
            pipeline.export(
                str(DATA / f"{family}-shapes"),
                out,
                precisions=("fp32", "fp16"),
                calibrate=few,
                say=lambda line: None,
            )
        return out

    return made
