"""Detection by text: vlrt against transformers' OWL-ViT, for few and many labels and pictures.

    python -m benchmarks.detection --seeded ../shared/data/owlvit-base-patch32 --json detection.json

The contenders: vlrt in fp32 and in int8; transformers' model, called once a picture with all
labels; and transformers' zero-shot-object-detection pipeline, which runs the whole model once for
each label. All read the same files, on the CPU, with the same number of threads, PyTorch in fp32
with its default attention. The jobs: 1, 10 and 100 labels on one picture, and 20 labels on 100
pictures. The pipeline does the last job on 3 of the 100 pictures, and its time is scaled up: it
treats each picture like the one before.

Contenders take turns, a process each a round. A process loads, warms up on one picture, and times
its work from the files to the boxes; loading is not counted (see `footprint.py`). Before anything
is reported, the best scores of all contenders must agree. Weights are seeded: time does not depend
on them, and quality cannot be read from them.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from vlrt.session import available_cpus
from vlrt_export.demo.scenes import draw_scene

from .checkpoints import make_seeded
from .common import conditions, markdown, positive, print_conditions, write_json
from .contenders import Sample, compare_scores, run_once

PROGRAM = Path(__file__).with_name("detect_many.py")
VLRT_FP32, VLRT_INT8, MODEL, PIPELINE = "vlrt fp32", "vlrt int8", "model", "pipeline"
CONTENDERS = (VLRT_FP32, VLRT_INT8, MODEL, PIPELINE)
# Largest difference of the best score from that of transformers' model.
TOLERANCES = {VLRT_FP32: 1e-3, VLRT_INT8: 0.1, PIPELINE: 1e-3}
_COLOURS = ("red", "green", "blue", "white", "black", "grey", "brown", "pink", "old", "new")
_THINGS = ("car", "chair", "cup", "dog", "bicycle", "lamp", "bird", "book", "boat", "clock")
LABELS = [f"a {colour} {thing}" for thing in _THINGS for colour in _COLOURS]


@dataclass(frozen=True)
class Job:
    """So many labels on so many pictures; the pipeline does `pipeline_pictures` of them."""

    labels: int
    pictures: int
    pipeline_pictures: int
    repeats: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.labels} labels, {self.pictures} pictures"


JOBS = (Job(1, 1, 1, 5), Job(10, 1, 1, 3), Job(100, 1, 1, 1), Job(20, 100, 3, 1))


def measure(
    job: Job, pictures: Sequence[str], checkpoint: Path, bundle: Path, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds for the whole job, every sample of each contender."""
    seconds: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    for number in range(options.rounds):
        samples: dict[str, Sample] = {}
        for contender in CONTENDERS:
            print(f"{job.name}: round {number + 1}, {contender}", file=sys.stderr)
            kind, _, precision = contender.partition(" ")
            done = job.pipeline_pictures if contender == PIPELINE else job.pictures
            samples[contender] = run_once(
                kind,
                {
                    "model": str(bundle if precision else checkpoint),
                    "precision": precision,
                    "pictures": pictures[:done],
                    "labels": LABELS[: job.labels],
                    "threads": options.threads,
                    "repeats": job.repeats,
                },
                PROGRAM,
            )
            scale = job.pictures / done
            seconds[contender] += [taken * scale for taken in samples[contender]["seconds"]]
        for contender, tolerance in TOLERANCES.items():
            compare_scores(samples[contender]["scores"], samples[MODEL]["scores"], tolerance)
    return seconds


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Medians of transformers' model in seconds, and every contender's ratio to it."""
    rows = []
    for name, seconds in results.items():
        middle = {contender: median(taken) for contender, taken in seconds.items()}
        ratios = [f"{middle[contender] / middle[MODEL]:.3g}" for contender in CONTENDERS]
        rows.append([name, f"{middle[MODEL]:.3g}", *ratios])
    return markdown(["time / transformers' model", "model, s", *CONTENDERS], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeded", type=Path, required=True, metavar="SNAPSHOT", help="of an OWL-ViT, no weights"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "vlrt-benchmarks",
        help="where to keep what is made of it (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=positive, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=positive, default=available_cpus())
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples here")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = conditions(options.threads)  # first: what follows adds to the load
    name = options.seeded.resolve().name
    checkpoint, bundle = make_seeded(options.seeded, options.cache / name, "fp32", "int8")
    with tempfile.TemporaryDirectory(prefix="vlrt-detection-") as scratch:
        rng = np.random.default_rng(0)
        pictures = [str(Path(scratch, f"{number}.jpg")) for number in range(JOBS[-1].pictures)]
        for picture in pictures:
            scene = draw_scene(rng, size_wh=(640, 480), n_objects=(1, 5))
            scene.image.save(picture, quality=90)
        results = {job.name: measure(job, pictures, checkpoint, bundle, options) for job in JOBS}
    print(f"## {name}: detection by text\n")
    print_conditions(found)
    print(table(results))
    write_json(
        options.json,
        {
            **found,
            "benchmark": "detection",
            "model": name,
            "rounds": options.rounds,
            "seconds": results,
            "medians": {
                job: {contender: median(taken) for contender, taken in seconds.items()}
                for job, seconds in results.items()
            },
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
