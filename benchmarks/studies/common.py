"""What every study does alike: options, a process of a contender, conditions, JSON."""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlrt.cli_options import count
from vlrt.hardware import available_cpus

Sample = dict[str, Any]


def study_parser(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """`--rounds`, `--threads` and `--json`.

    Args:
        doc: the study's docstring.
        rounds: so many by default.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=count, default=rounds, help="default: %(default)s")
    parser.add_argument(
        "--threads", type=count, default=available_cpus(), help="default: all CPUs, %(default)s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples here")
    return parser


def seeded_parser(doc: str | None, kind: str, *, rounds: int) -> argparse.ArgumentParser:
    """The same of a study on a model with seeded weights; `kind` of model, with its article."""
    parser = study_parser(doc, rounds=rounds)
    parser.add_argument(
        "--seeded", type=Path, required=True, metavar="SNAPSHOT", help=f"of {kind}, no weights"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "vlrt-benchmarks",
        help="where to keep what is made of it (default: %(default)s)",
    )
    return parser


def run_once(contender: str, job: dict[str, Any], program: Path) -> Sample:
    """One process of one contender; its scores and what it took.

    Args:
        contender: as the program calls it.
        job: for the program, which gets it as JSON.
        program: prints its scores as one line of JSON, and then a JSON object of what it took.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, str(program), contender, json.dumps(job)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{contender} failed:\n{done.stderr}")
    scores, taken = done.stdout.splitlines()
    return {"scores": json.loads(scores), **json.loads(taken)}


def print_conditions(found: Mapping[str, Any]) -> None:
    """Print what `machine.conditions` found, in three lines."""
    machine = found["machine"]
    print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{found['threads']} threads; load average {machine['load_average'][0]}"
    )
    print(", ".join(f"{name} {number}" for name, number in found["versions"].items()))
    print(f"commit {found['commit']}, {found['date']}\n")


def write_json(path: Path | None, study: str, content: Mapping[str, Any]) -> None:
    """Write a study's result and its command, if a file was asked for."""
    if path is not None:
        command = shlex.join(["python", "-m", f"benchmarks.studies.{study}", *sys.argv[1:]])
        whole = {"study": study, "command": command, **content}
        path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
