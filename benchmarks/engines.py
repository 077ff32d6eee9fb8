"""int8 and fp32 of vlrt against PyTorch and OpenVINO: the same work on the engines there are.

    python -m benchmarks.engines --seeded-root ../shared/data --json engines.json

Work: CLIP B/32's towers, OWL-ViT B/32's image tower with its heads at 768 pixels, and ViLT with
pictures of 384x608 pixels and questions of 12 tokens, in fixed shapes; and CLIP from a JPEG of 12
megapixels to the scores of four labels.

Contenders: torch eager in fp32 and bf16, with the attention that transformers takes by itself;
torch.compile in bf16, for the one shape, its weights frozen; OpenVINO in fp32 and bf16, and in int8
as NNCF quantises after training (for transformers, calibrated on 32 drawn pictures and captions),
converted from the model in PyTorch and compiled for the one shape; vlrt in fp32 and in int8, as
`vlrt export --calibrate drawn` makes them; and, where `--openvino-provider-python` names an
environment with `vlrt[openvino]`, vlrt's fp32 graphs on ONNX Runtime's OpenVINO provider.
torch.compile and OpenVINO get ViLT without the random choice of patches, which neither takes in
(`engine_models.ViltUnpadded`). A contender that is not installed is left out, and said.

From the JPEG, the contenders are `vlrt.load(..., precision="int8").classify`, with `decode="fast"`,
the same with labels encoded before, and with `decode="exact"`, through simplejpeg where that is
installed (`versions` says so); and transformers' own zero-shot-image-classification pipeline in
fp32, with its PIL processor, to which vlrt's exact pixels are equal, and
`hypothesis_template="{}"`, so that labels are taken as they stand. All are given the path.

Each contender of a row is a process, which loads, compiles and warms up first. Then they take
turns, of a moment each, one uncounted run first, with garbage collection off; the others sleep.
Before anything is timed the results are compared with the first contender's, in fp32: vlrt's own
must be the same within a cosine, and another's that are not are marked. Weights are seeded: time
does not depend on them, and of quality only what the cosine says can be read from them.

Ratios are of medians over all turns, their ranges those of the ratios of one round. The JSON is
written after each row, with what there is by then.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vlrt.hardware import describe

from . import engine_work as work
from .common import LABELS, conditions, markdown, positive, print_conditions, write_json
from .engine_made import Place, make_peers, make_places
from .engine_report import README_TABLES, row_table, times_table, verdict_table, verdicts
from .engine_turns import Process, lowest_cosine, waiting
from .engine_work import Work

TURN_S = 0.5
# The lowest cosine between a result, flattened for each sample, and that of torch in fp32. Below
# it, ours is an error; another's is reported as it is, and marked.
COSINES = {"fp32": 0.9999, "bf16": 0.99, "int8": 0.95}
PICTURE_WH = (4000, 3000)


@dataclass(frozen=True)
class Contender:
    """One engine in one precision.

    Attributes:
        name: for the tables.
        kind: of `engine_contender.py`.
        precision: "fp32", "bf16" or "int8": how far its results may be off.
        job: what the kind needs beside what all are given.
        python: the interpreter that has it.
    """

    name: str
    kind: str
    precision: str
    job: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable


def find_contenders(provider_python: Path | None) -> tuple[list[Contender], dict[str, str]]:
    """The contenders that can run here; and of the others, how to get them."""
    found, skipped = [], {}
    for precision in ("fp32", "bf16"):
        job = {"precision": precision, "compiled": False}
        found.append(Contender(f"torch {precision}", "torch", precision, job))
    if shutil.which("g++"):
        job = {"precision": "bf16", "compiled": True}
        found.append(Contender(work.COMPILED, "torch", "bf16", job))
    else:
        skipped[work.COMPILED] = "it needs a C++ compiler: apt install g++"
    openvino = {
        work.OPENVINO_FP32: ("fp32", "", "f32"),
        work.OPENVINO_BF16: ("bf16", "", "bf16"),
        work.OPENVINO_INT8: ("int8", "-int8", None),
    }
    for name, (precision, suffix, hint) in openvino.items():
        if find_spec("openvino") and find_spec("nncf"):
            job = {"suffix": suffix, "hint": hint}
            found.append(Contender(name, "openvino", precision, job))
        else:
            skipped[name] = 'pip install "vlrt[peers]"'
    for precision in ("fp32", "int8"):
        job = {"precision": precision, "provider": None}
        found.append(Contender(f"vlrt {precision}", "vlrt", precision, job))
    name = "vlrt fp32, OpenVINO provider"
    if provider_python is None:
        skipped[name] = (
            'pip install "vlrt[openvino]" in an environment of its own, and name its interpreter '
            "with --openvino-provider-python"
        )
    else:
        job = {"precision": "fp32", "provider": "OpenVINOExecutionProvider"}
        found.append(Contender(name, "vlrt", "fp32", job, str(provider_python)))
    return found, skipped


def end_to_end_contenders() -> list[Contender]:
    """Those that take files and labels."""
    ours = {
        work.FAST: {"decode": "fast", "encoded": False},
        work.ENCODED: {"decode": "fast", "encoded": True},
        work.EXACT: {"decode": "exact", "encoded": False},
    }
    return [
        Contender(work.PIPELINE, "pipeline", "fp32"),
        *(
            Contender(name, "classify", "int8", {"precision": "int8", **job})
            for name, job in ours.items()
        ),
    ]


def measure(
    name: str, contenders: Sequence[Contender], jobs: Sequence[dict[str, Any]], rounds: int
) -> dict[str, Any]:
    """One row: contender -> its seconds by round, and how its result compares.

    Raises:
        SystemExit: a contender fails, or one of ours gives another result than the first.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlrt-engines-")))
        processes: dict[str, Process] = {}
        for number, (contender, job) in enumerate(zip(contenders, jobs, strict=True)):
            print(f"{name}: {contender.name} loads", file=sys.stderr)
            outputs = scratch / f"{number}.npz"
            started = waiting(contender.python, contender.kind, job, outputs)
            processes[contender.name] = stack.enter_context(started)
        reference = processes[contenders[0].name].result()
        found = {}
        for contender in contenders:
            process = processes[contender.name]
            cosine = lowest_cosine(process.result(), reference)
            same = cosine >= COSINES[contender.precision]  # not a number is not
            if contender.kind in ("vlrt", "classify") and not same:
                raise SystemExit(f"{name}: {contender.name} gives another result: {cosine=:.5f}")
            found[contender.name] = {
                "cosine": cosine,
                "same": same,
                "versions": process.versions,
                "seconds": [],
            }
        for number in range(rounds):
            print(f"{name}: round {number + 1} of {rounds}", file=sys.stderr)
            for contender in contenders:
                taken = processes[contender.name].turn(TURN_S)
                found[contender.name]["seconds"].append(taken)
    return found


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeded-root", type=Path, required=True, metavar="DIR", help="of the three snapshots"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "vlrt-benchmarks",
        help="where to keep what is made of them (default: %(default)s)",
    )
    parser.add_argument(
        "--reuse", action="store_true", help="take bundles from there, whatever made them"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", help="rows whose names begin so (default: all)"
    )
    parser.add_argument("--openvino-provider-python", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=positive, default=7, help="default: %(default)s")
    parser.add_argument("--threads", type=positive, default=2, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples here")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    names = [row.name for row in work.ROWS] + [work.END_TO_END]
    wanted = [n for n in names if not options.only or n.startswith(tuple(options.only))]
    if not wanted:
        parser.error(f"--only {' '.join(options.only)}: no such row; valid: {', '.join(names)}")
    found: dict[str, Any] = conditions(options.threads)  # first: what follows adds to the load
    rows = [row for row in work.ROWS if row.name in wanted]
    clip = work.ROWS[0].snapshot
    needed = {row.snapshot for row in rows} | ({clip} if work.END_TO_END in wanted else set())
    places = make_places(options.seeded_root, options.cache, sorted(needed), reuse=options.reuse)
    contenders, skipped = find_contenders(options.openvino_provider_python)
    if any(contender.kind == "openvino" for contender in contenders):
        for row in rows:
            make_peers(row, places[row.snapshot])
    found |= {
        "benchmark": "engines",
        "hardware": describe(),
        "rounds": options.rounds,
        "reuse": options.reuse,
        "wanted": wanted,
        "left_out": skipped,
    }
    results: dict[str, dict[str, Any]] = {}

    def keep(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        asked = list(verdicts(results))
        write_json(options.json, {**found, "asked_for": asked, "rows": results})

    with tempfile.TemporaryDirectory(prefix="vlrt-engines-") as scratch:
        for row in rows:
            jobs = row_jobs(row, places[row.snapshot], contenders, Path(scratch), options.threads)
            keep(row.name, measure(row.name, contenders, jobs, options.rounds))
        if work.END_TO_END in wanted:
            others = end_to_end_contenders()
            jobs = file_jobs(places[clip], others, Path(scratch), options.threads)
            keep(work.END_TO_END, measure(work.END_TO_END, others, jobs, options.rounds))
    report(found, results, {row.name: row.batch for row in rows})
    return 0


def report(
    found: dict[str, Any], results: dict[str, dict[str, Any]], batches: dict[str, int]
) -> None:
    """Print everything; `batches` are the samples in a run, where that is not one."""
    print_conditions(found)
    for name, why in found["left_out"].items():
        print(f"left out: {name}; {why}")
    for name, result in results.items():
        print(f"\n## {name}\n\n{row_table(result, batches.get(name, 1))}")
    print(f"\n## Asked for\n\n{verdict_table(list(verdicts(results)))}")
    for ours, theirs in README_TABLES.items():
        header, *lines = times_table(results, ours, theirs)
        print(f"\n{markdown(header, lines)}")


def row_jobs(
    row: Work, place: Place, contenders: Sequence[Contender], scratch: Path, threads: int
) -> list[dict[str, Any]]:
    """What each contender is told, of one row."""
    inputs = scratch / "inputs.npz"
    np.savez(inputs, **work.make_inputs(row, place.bundle))
    common = {
        "threads": threads,
        "inputs": str(inputs),
        "checkpoint": str(place.checkpoint),
        "component": row.component,
        "bundle": str(place.bundle),
        "graph": row.graph,
    }
    return [
        {
            **common,
            **contender.job,
            "model": f"{place.peers / row.shape_name}{contender.job.get('suffix', '')}.xml",
        }
        for contender in contenders
    ]


def file_jobs(
    place: Place, contenders: Sequence[Contender], scratch: Path, threads: int
) -> list[dict[str, Any]]:
    """What each contender is told, of the row that starts from a file."""
    picture = scratch / "picture.jpg"
    work.draw_picture(seed=2, number=0, size_wh=PICTURE_WH).save(picture, quality=90)
    common = {
        "threads": threads,
        "picture": str(picture),
        "labels": list(LABELS),
        "checkpoint": str(place.checkpoint),
        "bundle": str(place.bundle),
    }
    return [{**common, **contender.job} for contender in contenders]


if __name__ == "__main__":
    sys.exit(main())
