"""The small bundles and pictures that come with vlrt, and what `vlrt demo` does with them.

Each family that has a demonstration is a module here, with a function `run(out) -> list[str]`, and
a bundle in `bundles/<family>/`. All share `pictures/`.
"""

import importlib
import json
import pkgutil
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from PIL import Image

from vlrt.load import load

T = TypeVar("T")
ROOT = Path(__file__).parent


def families() -> list[ModuleType]:
    """The modules of the families that have a demonstration, in order of name."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(ROOT)]))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def bundle(family: str) -> Path:
    """The directory of a family's bundle."""
    return ROOT / "bundles" / family


class Demonstration:
    """A family's bundle, loaded, and its pictures.

    Args:
        family: as its bundle and the description of its pictures are called.

    Attributes:
        described: what `pictures/<family>.json` says.
        paths: of its `pictures`, in order.
        model: of the bundle.
    """

    def __init__(self, family: str) -> None:
        pictures = ROOT / "pictures"
        described = (pictures / f"{family}.json").read_text(encoding="utf-8")
        self._family = family
        self._seconds: dict[str, float] = {}
        self.described: dict[str, Any] = json.loads(described)
        self.paths = [pictures / entry["file"] for entry in self.described["pictures"]]
        self.model = self.timed("load", lambda: load(bundle(family)))

    def timed(self, part: str, work: Callable[[], T]) -> T:
        """Do a part of it; how long that takes is told at the end, under this name."""
        started = time.perf_counter()
        result = work()
        self._seconds[part] = time.perf_counter() - started
        return result

    def finish(self, out: Path, drawn: Image.Image) -> list[str]:
        """Save the picture of the result, `vlrt-demo-<family>.png`, in a directory.

        Returns:
            The last lines: where it ran, how long each part took, the picture.
        """
        target = out / f"vlrt-demo-{self._family}.png"
        drawn.save(target)
        info = self.model.info
        times = ", ".join(f"{part} {taken * 1000:.0f} ms" for part, taken in self._seconds.items())
        chosen = f"{info['precision']} ({info['precision_reason']})"
        return [
            f"  {info['provider']}, {chosen}, {info['threads']} threads",
            f"  {times}",
            f"  the result as a picture: {target}",
        ]
