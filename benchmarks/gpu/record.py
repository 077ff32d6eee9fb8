"""A piece's record: what was found, or why nothing was, as JSON."""

import json
import os
import tarfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlrt.errors import VlrtError
from vlrt.files import whole_file

from .. import machine
from ..document import plain
from .settings import Settings

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
_SHORT = 300  # characters of a line
_KEPT = (".json", ".md", ".html")


class SkippedError(Exception):
    """The machine has not what a piece needs; the message says what."""


class IncompleteError(Exception):
    """A part of a piece failed; the message says which, and what was found is kept.

    Attributes:
        found: that.
    """

    def __init__(self, why: str, found: dict[str, Any]) -> None:
        super().__init__(why)
        self.found = found


def name_of(piece: str, model: str | None, settings: Settings) -> str:
    """A record's name, and its file's."""
    names = [model] if model else settings.only
    sizes = [f"of-{'-'.join(map(str, settings.sizes))}"] if settings.sizes else []
    return "-".join(filter(None, (piece, *names, *sizes, "quick" if settings.quick else "")))


def path_of(settings: Settings, name: str) -> Path:
    """Where it is kept."""
    return settings.out / f"{name}.json"


def held(settings: Settings, name: str) -> bool:
    """Whether a piece was done before with the same settings."""
    path = path_of(settings, name)
    if not path.is_file():
        return False
    told = json.loads(path.read_text())
    return bool(told["status"] == DONE and told["settings"] == plain(settings.facts()))


def keep(
    settings: Settings, piece: str, model: str | None, measure: Callable[[], dict[str, Any]]
) -> str:
    """Run a piece, and write its record whatever comes of it.

    Returns:
        `DONE`, `SKIPPED` or `FAILED`.
    """
    name = name_of(piece, model, settings)
    started = time.perf_counter()
    record: dict[str, Any] = {
        "piece": piece,
        "model": model,
        "settings": settings.facts(),
        "conditions": machine.conditions(settings.threads),
        "status": FAILED,
        "why": None,
        "found": None,
    }
    try:
        record |= {"found": measure(), "status": DONE}
    except SkippedError as error:
        record |= {"status": SKIPPED, "why": str(error)}
    except IncompleteError as error:
        record |= {"found": error.found, "why": str(error)}
    except VlrtError as error:
        record["why"] = str(error)
    except Exception:  # noqa: BLE001 - the others go on, and the record says what this one met
        record["why"] = traceback.format_exc()
    record["seconds"] = time.perf_counter() - started
    write(settings, name, record)
    why = f": {short(record['why'])}" if record["why"] else ""
    print(f"{name} {record['status']} after {record['seconds']:.0f} s{why}", flush=True)
    return str(record["status"])


def short(why: str) -> str:
    """The first line of a reason, and the last, which is the error's where a process ended."""
    lines = [line.strip() for line in why.splitlines() if line.strip()] or [""]
    return " ... ".join(dict.fromkeys(line[:_SHORT] for line in (lines[0], lines[-1])))


def left_out(failed: Mapping[str, str]) -> str:
    """Which contenders did not run, and why, shortly."""
    return "; ".join(f"{name} does not run: {short(why)}" for name, why in failed.items())


def write(settings: Settings, name: str, record: dict[str, Any]) -> None:
    """Write a record."""
    settings.out.mkdir(parents=True, exist_ok=True)
    with whole_file(path_of(settings, name)) as file:
        file.write((json.dumps(plain(record), indent=1, allow_nan=False) + "\n").encode())


def read_all(out: Path) -> dict[str, dict[str, Any]]:
    """The records in a folder, by name."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    return {name: told for name, told in found.items() if "piece" in told and "status" in told}


def archive(out: Path, target: Path) -> None:
    """Everything in the folder of records, in one file that is whole at any moment."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Others may write records and archives at the same time.
    part = target.with_name(f"{target.name}.{os.getpid()}")
    with tarfile.open(part, "w:gz") as tar:
        for path in sorted(out.rglob("*")):
            if path.suffix in _KEPT and path.is_file():
                tar.add(path, path.relative_to(out).as_posix())
    part.replace(target)
