"""A result: what was measured, where, with what, and every sample, as JSON, Markdown and HTML."""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlrt.errors import OptionError
from vlrt.files import whole_file

from . import machine
from .subject import Subject

FORMAT = 1
KINDS = ("latency", "accuracy", "footprint", "load", "serve", "tune", "compare")
Document = dict[str, Any]


def add_options(parser: argparse.ArgumentParser, verb: str) -> None:
    """Where a result goes."""
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.json",
        help="where to write it, with .md and .html beside it (default: "
        f"bench-{verb}-<model>.json here)",
    )  # fmt: skip
    parser.add_argument(
        "--fresh", action="store_true",
        help="begin again, where a run that was cut off would go on",
    )  # fmt: skip
    parser.add_argument("--title", help="of the report (default: the model's name)")


def output_path(options: argparse.Namespace, verb: str, name: str) -> Path:
    """Where the JSON goes.

    Raises:
        OptionError: the name given is not one of a JSON file.
    """
    path: Path = options.output or Path(f"bench-{verb}-{name}.json")
    if path.suffix != ".json":
        raise OptionError(f"-o is {str(path)!r}; valid: a name that ends in .json")
    return path


def begin(
    kind: str,
    options: argparse.Namespace,
    *,
    subject: Subject | None,
    threads: int,
    settings: Mapping[str, Any],
    conditions: dict[str, Any] | None = None,
) -> Document:
    """A result without its `body`; made before anything is measured, for the machine's load.

    Args:
        kind: one of `KINDS`.
        options: the command line.
        subject: what is measured, or None for what is about no single model.
        threads: of every contender.
        settings: what was chosen, ready for JSON.
        conditions: as `machine.conditions` gave them, where they were asked earlier.
    """
    name = subject.name if subject else kind
    return {
        "format": FORMAT,
        "kind": kind,
        "title": options.title or name,
        "command": shlex.join(["vlrt", "bench", *sys.argv[_verb_at(kind) :]]),
        "conditions": conditions or machine.conditions(threads),
        "model": subject.facts() if subject else None,
        "settings": dict(settings),
        "fairness": [],
        "skipped": {},
        "notes": list(subject.notes) if subject else [],
        "body": {},
    }


def _verb_at(kind: str) -> int:
    """Where the command line names the verb: behind `vlrt bench` or `python -m benchmarks`."""
    return sys.argv.index(kind) if kind in sys.argv else 1


def write(found: Document, path: Path) -> list[Path]:
    """Write a result: the JSON at `path`, and Markdown and HTML beside it.

    Returns:
        The three files.

    Raises:
        OptionError: they cannot be written.
    """
    from .report import html, markdown

    told = plain(found)
    texts = {
        path: json.dumps(told, indent=1, allow_nan=False) + "\n",
        path.with_suffix(".md"): markdown(told),
        path.with_suffix(".html"): html(told),
    }
    for target, text in texts.items():
        with whole_file(target) as file:
            file.write(text.encode())
    return list(texts)


def read(path: Path) -> Document:
    """A result that `write` wrote.

    Raises:
        OptionError: there is no such file, or it is no result of this version's format.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict) or found.get("kind") not in KINDS:
        raise OptionError(f"{path} is not a result of vlrt bench: no kind of {', '.join(KINDS)}")
    if found.get("format") != FORMAT:
        raise OptionError(
            f"{path} is a result of format {found.get('format')!r}; this vlrt reads {FORMAT}"
        )
    missing = sorted({"title", "conditions", "settings", "body"} - set(found))
    if missing:
        raise OptionError(f"{path} lacks {missing}, which every result has")
    return found


def plain(value: Any) -> Any:
    """The same for JSON, which knows neither NaN nor infinity: null stands for both."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
