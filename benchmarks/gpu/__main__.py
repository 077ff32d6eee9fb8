"""`benchmarks/gpu.sh PIECE`: run pieces, each with a record; see the head of `gpu.sh`."""

import argparse
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlrt.cli_options import count
from vlrt.errors import VlrtError

from . import plan, record
from .child import end
from .settings import DEVICES, SIZES, Settings

# In the order in which `all` runs them; a "-" of a piece's name is a "_" of its module's.
PIECES = (
    "install", "checkpoints", "bundles", "compiled", "parity", "latency", "end-to-end", "memory",
    "cold-start", "similarity", "tensorrt", "soak", "report",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command's arguments; their defaults are in the environment."""
    made = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh",
        description="Everything about a GPU, in pieces of under ten minutes; each leaves a record "
        "of JSON in OUT, and is passed over where that is done. Variables of the environment: "
        "WHEELS, DATA, OUT, WORK, DEVICE, SIZE, ARCHIVE.",
    )
    env = os.environ.get
    made.add_argument("piece", choices=(*PIECES, *plan.PLANS), metavar="PIECE",
                      help=", ".join((*PIECES, *plan.PLANS)))  # fmt: skip
    made.add_argument("model", nargs="*", help="measure these alone (default: all of a piece's)")
    made.add_argument("--wheels", type=Path, default=env("WHEELS"), metavar="DIR",
                      help="to install: *.whl, *.tar.xz of pack_onnxruntime_gpu.py")  # fmt: skip
    made.add_argument("--data", type=Path, default=env("DATA"), metavar="DIR",
                      help="snapshots without weights")  # fmt: skip
    work, out = env("WORK"), env("OUT")
    made.add_argument("--out", type=Path, required=out is None, default=out, metavar="DIR",
                      help="takes the records")  # fmt: skip
    made.add_argument("--work", type=Path, required=work is None, default=work, metavar="DIR",
                      help="what is made on the way")  # fmt: skip
    made.add_argument("--device", choices=DEVICES, default=env("DEVICE", "cuda"))
    made.add_argument("--size", choices=SIZES, default=env("SIZE", "full"))
    made.add_argument("--archive", type=Path, default=env("ARCHIVE"), metavar="FILE.tar.gz",
                      help="all of OUT, written again after each piece")  # fmt: skip
    made.add_argument("--sizes", nargs="+", type=count, default=[], metavar="N",
                      help="pictures in a run (default: those of the piece)")  # fmt: skip
    made.add_argument("--seconds", type=float, help="of a soak (default: 600)")
    made.add_argument("--limit", type=float, metavar="SECONDS",
                      help="of a piece (default: 570), or of all pieces together: of quick "
                      "480")  # fmt: skip
    made.add_argument("--quick", action="store_true", help="fewer rows and rounds")
    made.add_argument("--fresh", action="store_true", help="measure what was measured before too")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks.

    Returns:
        0 if all was done, or skipped for a reason; 1 if a piece failed; 2 for wrong usage.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    try:
        settings = settings_of(options)
    except VlrtError as error:
        print(f"benchmarks/gpu.sh: {error}", file=sys.stderr)
        return 2
    if options.piece in plan.PLANS:
        return _plan(options, settings)
    statuses = [_one(options, settings, model) for model in _models(options, settings)]
    return int(record.FAILED in statuses)


def settings_of(options: argparse.Namespace) -> Settings:
    """The run's.

    Raises:
        OptionError: a setting that is none.
    """

    def whole(path: Path | None) -> Path | None:
        return None if path is None else Path(path).resolve()

    made = Settings(
        out=Path(options.out).resolve(),
        work=Path(options.work).resolve(),
        device=options.device,
        size=options.size,
        wheels=whole(options.wheels),
        data=whole(options.data),
        only=tuple(options.model),
        sizes=tuple(options.sizes),
        seconds=options.seconds,
        quick=options.quick,
    )
    return made if options.limit is None else replace(made, limit_s=options.limit)


def piece_of(name: str) -> Any:
    """The module of a piece."""
    return importlib.import_module(f"{__package__}.{name.replace('-', '_')}")


def _models(options: argparse.Namespace, settings: Settings) -> list[str | None]:
    """What a piece is asked to measure, by name; of one that is about no single model, None."""
    own = piece_of(options.piece).MODELS
    if not own:
        return [None]
    return list(options.model or [name for name in own if name in settings.models])


def _one(options: argparse.Namespace, settings: Settings, model: str | None) -> str:
    """One record; what is done is passed over."""
    name, module = record.name_of(options.piece, model, settings), piece_of(options.piece)
    needed = options.fresh or getattr(module, "needed", lambda _: False)(settings)
    if not needed and record.held(settings, name):
        print(f"{name} was done before")
        return record.DONE
    status = record.keep(settings, options.piece, model, lambda: module.measure(settings, model))
    if options.archive is not None:
        record.archive(settings.out, options.archive)
    return status


def _plan(options: argparse.Namespace, settings: Settings) -> int:
    """Many pieces, each a process of its own, so that none takes the others along."""
    limit = plan.LIMITS_S[options.piece] if options.limit is None else options.limit
    ends = time.monotonic() + limit
    failed = []
    for group in plan.PLANS[options.piece](settings):
        left = max(0.0, ends - time.monotonic())
        late = [step for step in group if left < step.least_s]
        failed += [step.title for step in late]
        begun = [step for step in group if step not in late]
        failed += _group(options, begun, max(left, plan.GRACE_S)) if begun else []
    if failed:
        print(f"NOT DONE: {', '.join(failed)}", flush=True)
    return int(bool(failed))


def _group(options: argparse.Namespace, group: Sequence[plan.Step], left: float) -> list[str]:
    """Steps that run at the same time; those that failed."""
    own = ["--out", str(options.out), "--work", str(options.work), "--device", options.device]
    own += ["--size", options.size]
    for name in ("wheels", "data", "archive"):
        if getattr(options, name) is not None:
            own += [f"--{name}", str(getattr(options, name))]
    if options.fresh:
        own.append("--fresh")
    if options.seconds is not None:
        own += ["--seconds", str(options.seconds)]
    ends = time.monotonic() + left + plan.GRACE_S
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for step in group:
            limit = min(left, step.limit_s)
            print(f"{step.title} ({limit:.0f} s at most)", flush=True)
            command = [sys.executable, "-m", str(__package__), *step.arguments, *own]
            command += ["--limit", f"{limit:.0f}"]
            running[step.title] = subprocess.Popen(command, start_new_session=True)
        for process in running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, ends - time.monotonic()))
    finally:
        for process in running.values():
            if process.poll() is None:
                end(process)
    return [title for title, process in running.items() if process.returncode != 0]


if __name__ == "__main__":
    sys.exit(main())
