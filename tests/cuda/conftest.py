"""Running what a test wants on a machine with GPUs, pretended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environment import Environment
from machine import Found, Machine, make, run


@pytest.fixture(scope="session")
def environment() -> Environment:
    """ONNX Runtime's CUDA provider and the libraries that stand in for NVIDIA's."""
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
