"""The small bundles and pictures that come with vlrt, and what `vlrt demo` does with them.

Each family that has a demonstration is a module here, with a function `run(out) -> list[str]`, and
a bundle in `bundles/<family>/`. All share `pictures/`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent


def families() -> list[ModuleType]:
    """The modules of the families that have a demonstration, in order of name."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(ROOT)]))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def bundle(family: str) -> Path:
    """The directory of a family's bundle."""
    return ROOT / "bundles" / family


def smallest_graph() -> Path:
    """The smallest ONNX file that comes with vlrt."""
    return min(ROOT.rglob("*.onnx"), key=lambda path: path.stat().st_size)


def summary(info: Mapping[str, Any], seconds: Mapping[str, float], target: Path) -> list[str]:
    """The last lines of a demonstration: where it ran, how long each part took, its picture."""
    times = ", ".join(f"{part} {taken * 1000:.0f} ms" for part, taken in seconds.items())
    chosen = f"{info['precision']} ({info['precision_reason']})"
    return [
        f"  {info['provider']}, {chosen}, {info['threads']} threads",
        f"  {times}",
        f"  the result as a picture: {target}",
    ]
