"""What ViLT's attention mask costs where there is no padding to hide.

    python -m benchmarks.studies.masked_attention --seeded ../shared/data/vilt-b32-finetuned-vqa

One graph with a mask serves every batch. A second one without would serve single pairs, and batches
of like pictures and questions of one length; this tells what it would gain. Both graphs are built
from the same seeded weights, in fp32 and in int8, and run on 1 and on 4 pairs of a picture of
384x608 pixels, the largest there are, with a question of 12 tokens, and on the usual 384x512.

Contenders take turns, a process each a round; a process loads, warms up and times its runs. Before
anything is reported, both graphs of a precision must give the same logits.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

from vlrt.cli_options import count
from vlrt_export import vilt
from vlrt_export.checkpoint import Checkpoint, open_checkpoint
from vlrt_export.precision import Recipe

from ..checkpoints import seeded_checkpoint
from ..machine import conditions
from ..report import markdown_table
from .common import print_conditions, run_once, seeded_parser, write_json

PROGRAM = Path(__file__).with_name("graph_once.py")
PRECISIONS = ("fp32", "int8")
SIZES_HW = ((384, 608), (384, 512))
BATCHES = (1, 4)
LENGTH = 12
# Largest difference of a logit. int8 scales each layer's input by its largest number, which a
# rounding error moves.
TOLERANCES = {"fp32": 1e-4, "int8": 0.1}


def write_graph(checkpoint: Checkpoint, precision: str, root: Path, *, masked: bool) -> Path:
    """One graph in a file, its weights beside it."""
    recipe = Recipe(precision, vilt.KEEP_FP32.get(precision, frozenset()))
    path = root / f"{precision}-{'masked' if masked else 'unmasked'}.onnx"
    made = vilt.build(checkpoint, "model", recipe, masked=masked).model("vlrt benchmark")
    onnx.save_model(made, path, save_as_external_data=True, location=f"{path.name}_data")
    return path


def measure(
    graphs: dict[str, Path], job: dict[str, Any], rounds: int, tolerance: float
) -> dict[str, list[float]]:
    """Seconds of every run of each graph on one job.

    Raises:
        SystemExit: they give other logits.
    """
    seconds: dict[str, list[float]] = {name: [] for name in graphs}
    for number in range(rounds):
        logits = {}
        for name, path in graphs.items():
            print(f"round {number + 1}, {path.stem}, {job}", file=sys.stderr)
            sample = run_once(name, {"graph": str(path), **job}, PROGRAM)
            logits[name] = sample["scores"]
            seconds[name] += sample["seconds"]
        difference = np.abs(np.subtract(logits["masked"], logits["unmasked"])).max()
        if not difference <= tolerance:  # not a number is no agreement
            raise SystemExit(f"the logits differ by {difference:.4f}, allowed are {tolerance}")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = seeded_parser(__doc__, "a ViLT", rounds=5)
    parser.add_argument(
        "--repeats", type=count, default=10, help="a process (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    found = conditions(options.threads)  # first: what follows adds to the load
    name = options.seeded.resolve().name
    checkpoint = open_checkpoint(str(seeded_checkpoint(options.seeded, options.cache / name)))
    if checkpoint.model_type != "vilt":
        parser.error(f"--seeded is of model type {checkpoint.model_type!r}; valid: vilt")
    rows, results = [], {}
    with tempfile.TemporaryDirectory(prefix="vlrt-mask-") as scratch:
        for precision in PRECISIONS:
            graphs = {
                kind: write_graph(checkpoint, precision, Path(scratch), masked=kind == "masked")
                for kind in ("masked", "unmasked")
            }
            for size_hw in SIZES_HW:
                for batch in BATCHES:
                    job = {"batch": batch, "size_hw": size_hw, "length": LENGTH}
                    run = {"threads": options.threads, "repeats": options.repeats}
                    taken = measure(graphs, job | run, options.rounds, TOLERANCES[precision])
                    row = f"{precision}, {size_hw[0]}x{size_hw[1]}, {batch} at once"
                    results[row] = taken
                    masked, unmasked = (median(taken[kind]) for kind in ("masked", "unmasked"))
                    least = min(taken["masked"]) / min(taken["unmasked"])
                    rows.append(
                        [row, f"{unmasked * 1000:.1f}", f"{masked / unmasked:.3f}", f"{least:.3f}"]
                    )
    print(f"## {name}: masked attention\n")
    print_conditions(found)
    header = ["", "unmasked, median ms", "masked / unmasked, medians", "of the fastest runs"]
    print(markdown_table(header, rows))
    settings = {"rounds": options.rounds, "repeats": options.repeats, "length": LENGTH}
    write_json(options.json, "masked_attention", {**found, **settings, "seconds": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
