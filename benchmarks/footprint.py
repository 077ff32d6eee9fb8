"""Cold start, memory and installed size of vlrt against transformers.

    python -m benchmarks.footprint --seeded ../shared/data/clip-vit-base-patch32 --environments
    python -m benchmarks.footprint --checkpoint DIR --bundle DIR --json footprint.json

Cold start: a new process imports its library, loads a CLIP from local disk, classifies one picture
against a few labels, and prints the scores. Both contenders read the same picture and labels, use
the same number of threads and run on the CPU; transformers runs the checkpoint in fp32 with its
default attention, vlrt the bundle in `--precision`. The contenders take turns, one process each a
round, after a round that is not counted: it warms the page cache, and its scores must agree.

Measured from outside: seconds from starting the process to reading its result. From inside: the
seconds of each phase (vlrt imports ONNX Runtime while loading, so compare their sum), CPU seconds,
and resident memory (VmRSS, and its peak VmHWM) after the first result. Ratios are of medians.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from vlrt_export.demo.scenes import draw_scene

from .checkpoints import make_seeded
from .common import add_options, conditions, markdown, print_conditions, write_json
from .contenders import CONTENDERS, Sample, cold_starts
from .environments import NOT_COUNTED, measure_environments

# vlrt / transformers, at most: (seconds, resident memory).
SEEDED_TARGETS, DEMO_TARGETS = (0.2, 0.45), (0.1, 0.25)
INSTALLED_TARGET = 0.2
# How far the scores of the two may lie apart. Quantisation moves them, most where they are even, as
# with seeded weights: at a logit scale of 100, a cosine off by 0.001 moves a score by up to 0.025.
TOLERANCES = {"fp32": 1e-3, "fp16": 1e-2, "int8": 1e-1}
MEASURES = {
    "total_s": "process start to result, s",
    "import_s": "import, s",
    "load_s": "load, s",
    "first_result_s": "first result, s",
    "cpu_s": "CPU time, s",
    "peak_mib": "peak memory, MiB",
    "steady_mib": "memory after the result, MiB",
}


def compare(name: str, ours: float, theirs: float, target: float | None) -> dict[str, Any]:
    """One line of the result."""
    ratio = ours / theirs
    met = None if target is None else ratio <= target
    return {
        "measure": name,
        "vlrt": ours,
        "transformers": theirs,
        "ratio": ratio,
        "target": target,
        "met": met,
    }


def compare_samples(
    samples: dict[str, list[Sample]], targets: tuple[float, float]
) -> list[dict[str, Any]]:
    """A line for each measure, of medians."""
    wanted = {"total_s": targets[0], "peak_mib": targets[1], "steady_mib": targets[1]}
    return [
        compare(words, *(median(s[key] for s in samples[c]) for c in CONTENDERS), wanted.get(key))
        for key, words in MEASURES.items()
    ]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as Markdown."""
    verdict = {None: "", True: "yes", False: "NO"}
    rows = [
        [
            line["measure"],
            *(f"{line[c]:.3g}" if line[c] < 100 else f"{line[c]:.0f}" for c in CONTENDERS),
            f"{line['ratio']:.3f}",
            "" if line["target"] is None else f"{line['target']:g}",
            verdict[line["met"]],
        ]
        for line in lines
    ]
    return markdown(["median", *CONTENDERS, "vlrt / transformers", "at most", "met"], rows)


def print_heaviest(environments: dict[str, Any]) -> None:
    """The packages that weigh most, side by side."""
    columns = [
        [f"{name} {size / 1e6:.0f}" for name, size in list(environments[c]["packages"].items())[:8]]
        for c in CONTENDERS
    ]
    rows = [[column[i] if i < len(column) else "" for column in columns] for i in range(8)]
    print("\n" + markdown([f"{c}: heaviest packages, MB" for c in CONTENDERS], rows))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=Path, help="of transformers; its bundle is --bundle")
    model.add_argument(
        "--seeded",
        type=Path,
        metavar="SNAPSHOT",
        help="make a checkpoint with seeded weights, and its bundle, from this one without",
    )
    parser.add_argument("--bundle", type=Path, help="made from --checkpoint")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "vlrt-benchmarks",
        help="where --seeded keeps what it makes (default: %(default)s)",
    )
    parser.add_argument("--precision", choices=TOLERANCES, default="int8", help="of the bundle")
    parser.add_argument("--picture", help="default: a drawn scene, 640x480")
    parser.add_argument(
        "--targets",
        type=float,
        nargs=2,
        metavar=("TIME", "MEMORY"),
        help=f"ratios to meet (default: {SEEDED_TARGETS} with --seeded, else {DEMO_TARGETS})",
    )
    parser.add_argument(
        "--environments",
        action="store_true",
        help="also build and weigh two environments (minutes)",
    )
    add_options(parser, rounds=7)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if (options.checkpoint is None) != (options.bundle is None):
        parser.error("--checkpoint and --bundle go together")
    found = conditions(options.threads)  # first: what follows adds to the load average
    checkpoint, bundle = options.checkpoint, options.bundle
    name = (options.seeded or checkpoint).resolve().name
    if options.seeded:
        root = options.cache / name
        checkpoint, bundle = make_seeded(options.seeded, root, options.precision)
    targets = tuple(options.targets or (SEEDED_TARGETS if options.seeded else DEMO_TARGETS))
    with tempfile.TemporaryDirectory(prefix="vlrt-footprint-") as scratch:
        picture = options.picture or str(Path(scratch, "scene.jpg"))
        if options.picture is None:
            rng = np.random.default_rng(0)
            scene = draw_scene(rng, size_wh=(640, 480), pairs=[("red", "circle")], sizes=["large"])
            scene.image.save(picture, quality=90)
        job = {
            "picture": picture,
            "labels": options.labels,
            "threads": options.threads,
            "precision": options.precision,
        }
        samples, difference = cold_starts(
            {
                "vlrt": {**job, "model": str(bundle)},
                "transformers": {**job, "model": str(checkpoint)},
            },
            rounds=options.rounds,
            tolerance=TOLERANCES[options.precision],
        )
    lines = compare_samples(samples, targets)
    environments = measure_environments() if options.environments else None
    if environments is not None:
        sizes = (environments[c]["bytes"] / 1e6 for c in CONTENDERS)
        lines.append(compare("installed size, MB", *sizes, INSTALLED_TARGET))
    print(f"## {name} in {options.precision}: cold start\n")
    print_conditions(found)
    print(table(lines))
    print(f"\n{options.rounds} processes each; scores differ by at most {difference:.2g}")
    if environments is not None:
        print(f"Installed: {', '.join(NOT_COUNTED)} not counted")
        print_heaviest(environments)
    write_json(
        options.json,
        {
            **found,
            "benchmark": "footprint",
            "model": name,
            "seeded_weights": options.seeded is not None,
            "precision": options.precision,
            "labels": options.labels,
            "rounds": options.rounds,
            "largest_score_difference": difference,
            "comparison": lines,
            "samples": samples,
            "environments": environments,
        },
    )


if __name__ == "__main__":
    main()
