"""Installed size of fresh virtual environments.

Counted are the apparent sizes of all files in site-packages, compiled bytecode included, as pip
leaves them; pip and setuptools themselves are not counted.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from vlrt.errors import BenchmarkError

ROOT = Path(__file__).resolve().parents[1]
NOT_COUNTED = ("pip", "setuptools")
TORCH = ("torch==2.13.0", "transformers", "pillow")
_NOT_SOURCE = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")


def check_sources() -> None:
    """Refuse to measure where there is nothing to install from.

    Raises:
        BenchmarkError: vlrt was not imported from a checkout.
    """
    if not (ROOT / "pyproject.toml").is_file():
        raise BenchmarkError(
            f"{ROOT} is no checkout of vlrt: installed sizes are measured from its sources"
        )


def measure_environments() -> dict[str, Any]:
    """Build both environments in a temporary directory and weigh them.

    Returns:
        For "vlrt" and "transformers": requirements, bytes, bytes by package, largest first, and
        versions.

    Raises:
        BenchmarkError: there is no checkout; or pip cannot install one of them, or takes a CUDA
            build of torch.
    """
    check_sources()
    with tempfile.TemporaryDirectory(prefix="vlrt-environments-") as scratch:
        # A copy, because building in place would leave its traces in the checkout.
        source = shutil.copytree(ROOT, Path(scratch, "source"), ignore=_NOT_SOURCE)
        found = {
            "vlrt": _measure(Path(scratch, "vlrt"), [f"{source}[cpu]"]),
            "transformers": _measure(Path(scratch, "transformers"), TORCH),
        }
    found["vlrt"]["requirements"] = [".[cpu]"]
    return found


def _measure(root: Path, requirements: Sequence[str]) -> dict[str, Any]:
    print(f"installing {' '.join(requirements)} in {root}", file=sys.stderr)
    _run(sys.executable, "-m", "venv", str(root))
    _run(str(root / "bin" / "python"), "-m", "pip", "install", "-qq", *requirements)
    (site,) = root.glob("lib/python*/site-packages")
    by_package: dict[str, int] = {}
    versions: dict[str, str] = {}
    for package in distributions(path=[str(site)]):
        name = package.metadata["Name"]
        paths = [Path(os.path.abspath(site / file)) for file in package.files or []]  # noqa: PTH100
        by_package[name] = sum(
            path.stat().st_size for path in paths if path.is_relative_to(site) and path.is_file()
        )
        versions[name] = package.version
    if any(name.startswith("nvidia") for name in versions):
        raise BenchmarkError(
            "pip took a CUDA build of torch; point it at a CPU build for a fair comparison: "
            "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
        )
    everything = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    left_out = sum(by_package.pop(name, 0) for name in NOT_COUNTED)
    return {
        "requirements": list(requirements),
        "bytes": everything - left_out,
        "packages": dict(sorted(by_package.items(), key=lambda item: -item[1])),
        "versions": versions,
    }


def _run(*command: str) -> None:
    done = subprocess.run(
        command, check=False, stdout=sys.stderr, stderr=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
