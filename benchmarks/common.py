"""What every benchmark reports alike: the machine, the versions, medians, tables, JSON."""

import argparse
import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from vlrt.hardware import available_cpus, processor_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vlrt", "onnxruntime", "numpy", "pillow", "tokenizers", "torch", "transformers")
# Words that the tokenizer of the demo bundle knows as well as those of full-size models.
LABELS = ("a red circle", "a blue square", "a green triangle", "a yellow star")


def add_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Options that every benchmark has: `--rounds`, `--threads`, `--labels` and `--json`."""
    parser.add_argument("--rounds", type=positive, default=rounds, help="default: %(default)s")
    parser.add_argument(
        "--threads", type=positive, default=available_cpus(), help="default: all CPUs, %(default)s"
    )
    parser.add_argument("--labels", nargs="+", default=list(LABELS), help="texts to score against")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples here")


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def conditions(threads: int) -> dict[str, Any]:
    """When, where and with what a benchmark ran."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "processor": processor_name(),
            "cores": available_cpus(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "system": platform.platform(),
            # Other work on the machine; near 0 for numbers worth quoting.
            "load_average": [round(load, 2) for load in psutil.getloadavg()],
        },
        "threads": threads,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }


def print_conditions(found: Mapping[str, Any]) -> None:
    """Print what `conditions` found, in three lines."""
    machine = found["machine"]
    print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{found['threads']} threads; load average {machine['load_average'][0]}"
    )
    print(", ".join(f"{name} {number}" for name, number in found["versions"].items()))
    print(f"commit {found['commit']}, {found['date']}\n")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is aligned right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write a benchmark's result, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _commit() -> str | None:
    """The checkout's commit, marked where files differ from it; None outside a checkout."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    changed = ask("status", "--porcelain", "--untracked-files=no")
    return ask("rev-parse", "HEAD") + (" with changes" if changed else "")


def seeded_parser(doc: str | None, kind: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options of a benchmark on a model with seeded weights.

    Args:
        doc: the benchmark's docstring.
        kind: of model, with its article.
        rounds: so many by default.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeded", type=Path, required=True, metavar="SNAPSHOT", help=f"of {kind}, no weights"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "vlrt-benchmarks",
        help="where to keep what is made of it (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=positive, default=rounds, help="default: %(default)s")
    parser.add_argument("--threads", type=positive, default=available_cpus())
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples here")
    return parser
