"""What ONNX Runtime's session options do to the speed and the memory of a CLIP image encoder.

    python -m benchmarks.studies.session_options --seeded ../shared/data/clip-vit-base-patch32

Each setting changes one option from how vlrt sets them (`vlrt.session.session_options`). The
settings take turns, a process each a round, on the bundle's fp32 and int8 graphs: a process loads,
warms up, and times runs of 1 and of 8 pictures of noise. Reported are ratios of medians to vlrt's
own setting, loading time, and resident memory: at its peak, and after some last single pictures.
All settings must give the same embeddings. They are of ONNX Runtime alone; one row more is
`vlrt.session.Session`, the product, which gives memory back when runs become smaller.

What spinning costs others: the int8 graph answers a request every so often, with as many neighbours
beside it as there are cores, each working as fast as it can in a process of its own. Reported are
the neighbours' speed, as a share of that without any requests, and the requests' time.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from vlrt.bundle import graph_file
from vlrt.cli_options import count
from vlrt.hardware import available_cpus
from vlrt.kernels import int8_kernels
from vlrt_export.pipeline import export

from ..checkpoints import seeded_checkpoint
from ..machine import conditions
from ..report import markdown_table
from .common import Sample, print_conditions, run_once, seeded_parser, write_json

PROGRAM = Path(__file__).with_name("session_once.py")
PRECISIONS = ("int8", "fp32")
OWN = "as vlrt sets them"
SETTINGS: dict[str, dict[str, Any]] = {
    OWN: {},
    "the same in vlrt.session.Session": {"session": True},
    "spinning off": {"spinning": False},
    "prepacking off": {"entries": {"session.disable_prepacking": "1"}},
    "arena off": {"arena": False},
    "memory pattern on": {"memory_pattern": True},
    "denormals as zero": {"entries": {"session.set_denormal_as_zero": "1"}},
    "optimisation: basic": {"level": "ORT_ENABLE_BASIC"},
    "optimisation: none": {"level": "ORT_DISABLE_ALL"},
    "exact products": {"exact_products": True},
    "1 thread": {"threads": 1},
}
# Of an embedding; fusions reorder sums, and dynamic scales follow.
TOLERANCES = {"int8": 0.05, "fp32": 1e-4}


def make_bundle(snapshot: Path, root: Path) -> Path:
    """The bundle of a seeded checkpoint, which is kept under `root`; made anew each time."""
    bundle = root / "session-options"
    export(
        str(seeded_checkpoint(snapshot, root)),
        bundle,
        precisions=PRECISIONS,
        overwrite=True,
        say=lambda line: print(line, file=sys.stderr),
    )
    return bundle


def measure(
    jobs: dict[str, dict[str, Any]], rounds: int, tolerance: float
) -> dict[str, list[Sample]]:
    """Samples of every setting on one graph.

    Raises:
        SystemExit: one gives another embedding.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name, job in jobs.items():
            print(f"round {number + 1}, {Path(job['graph']).stem}, {name}", file=sys.stderr)
            samples[name].append(run_once(name, job, PROGRAM))
        own = samples[OWN][number]["scores"]
        for name in jobs:
            difference = np.abs(np.subtract(samples[name][number]["scores"], own)).max()
            if not difference <= tolerance:  # not a number is no agreement
                raise SystemExit(f"{name}: the embedding differs by {difference}, {tolerance=}")
    return samples


def medians(samples: Sequence[Sample], batch: str) -> float:
    """The median of all rounds' runs of a batch size, in seconds."""
    seconds: list[float] = [one for sample in samples for one in sample["seconds"][batch]]
    return median(seconds)


def rows(samples: dict[str, list[Sample]], batches: Iterable[str]) -> list[list[str]]:
    """A row a setting: milliseconds, ratios to vlrt's own setting, load time, memory."""
    made = []
    for name, taken in samples.items():
        row = [name]
        for batch in batches:
            ours = medians(samples[OWN], batch)
            found = medians(taken, batch)
            row += [f"{found * 1000:.1f}", f"{found / ours:.2f}"]
        row.append(f"{median(sample['load_s'] for sample in taken):.2f}")
        row += [f"{median(sample[key] for sample in taken):.0f}"
                for key in ("peak_mib", "steady_mib")]  # fmt: skip
        made.append(row)
    return made


def serve(graph: Path, options: Any) -> dict[str, list[Sample]]:
    """Samples of neighbours' work beside requests: none, with spinning, and without."""
    job = {
        "threads": options.threads,
        "pause_ms": options.pause_ms,
        "neighbours": available_cpus(),
        "seconds": options.seconds,
    }
    jobs = {
        "no requests": job | {"graph": None},
        "spinning on": job | {"graph": str(graph), "setting": {"spinning": True}},
        "spinning off": job | {"graph": str(graph), "setting": {"spinning": False}},
    }
    samples: dict[str, list[Sample]] = {name: [] for name in jobs}
    for number in range(options.rounds):
        for name, one in jobs.items():
            print(f"round {number + 1}, neighbours, {name}", file=sys.stderr)
            samples[name].append(run_once(name, one, PROGRAM))
    return samples


def serving_rows(samples: dict[str, list[Sample]]) -> list[list[str]]:
    """A row a kind of serving: neighbours' speed beside that without requests, a request's time."""
    rates = {
        name: median(sum(sample["neighbours"]) for sample in taken)
        for name, taken in samples.items()
    }
    made = []
    for name, taken in samples.items():
        seconds = [second for sample in taken for second in sample["seconds"]]
        shown = f"{median(seconds) * 1000:.1f}" if seconds else ""
        made.append([name, f"{rates[name] / rates['no requests']:.2f}", shown])
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = seeded_parser(__doc__, "a CLIP", rounds=7)
    parser.add_argument("--repeats", type=count, default=20, help="single runs in a process")
    parser.add_argument("--seconds", type=count, default=5, help="of a neighbour's work")
    parser.add_argument("--pause-ms", type=count, default=50, help="between two requests")
    options = parser.parse_args(arguments)
    found = conditions(options.threads)  # first: what follows adds to the load
    found["int8_kernels"] = int8_kernels()
    name = options.seeded.resolve().name
    bundle = make_bundle(options.seeded, options.cache / name)
    repeats = {"1": options.repeats, "8": max(1, options.repeats // 4)}
    header = ["", *(f"{batch} at once, {unit}" for batch in repeats for unit in ("ms", "ratio"))]
    header += ["load, s", "peak, MiB", "after, MiB"]
    results: dict[str, Any] = {}
    tables = []
    for precision in PRECISIONS:
        graph = bundle / graph_file("vision_model", precision)
        job = {"graph": str(graph), "threads": options.threads, "repeats": repeats}
        jobs = {setting: job | {"setting": changed} for setting, changed in SETTINGS.items()}
        results[precision] = measure(jobs, options.rounds, TOLERANCES[precision])
        tables.append(
            f"\n### {precision}\n\n" + markdown_table(header, rows(results[precision], repeats))
        )
    results["serving"] = serve(bundle / graph_file("vision_model", "int8"), options)
    print(f"## {name}: session options\n")
    print_conditions(found)
    print("\n".join(tables))
    print(f"\n### int8, a request every {options.pause_ms} ms beside busy neighbours\n")
    header = ["", "neighbours' speed", "request, ms"]
    print(markdown_table(header, serving_rows(results["serving"])))
    settings = {"rounds": options.rounds, "repeats": repeats, "pause_ms": options.pause_ms,
                "seconds": options.seconds, "changed": SETTINGS}  # fmt: skip
    whole = {**found, "model": name, "settings": settings, "samples": results}
    write_json(options.json, "session_options", whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
