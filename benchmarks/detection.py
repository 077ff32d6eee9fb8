"""Detection by text: vlrt against transformers' OWL-ViT, for few and many labels and pictures.

    python -m benchmarks.detection --seeded ../shared/data/owlvit-base-patch32 --json detection.json

The contenders: vlrt in fp32 and in int8; transformers' model in fp32 and in bf16, called once a
picture with all labels, as its pages recommend; and transformers' zero-shot-object-detection
pipeline in fp32, which runs the whole model once for each label. The jobs: 1, 10 and 100 labels on
one picture, and 20 labels on 100 pictures. The pipeline does the last job on 3 of the 100 pictures,
and its time is scaled up: it treats each picture like the one before.

All read the same files, on the CPU, with the same number of threads; transformers with its default
attention and its PIL image processor. Over many pictures vlrt does what its interface does by
itself: it encodes the labels once, runs pictures four at a time, and decodes the next in threads of
their own, which is no advantage where all cores are busy anyway (leave `--threads` at its default).

Contenders take turns, a process each a round. A process loads, warms up on one picture (with all
labels; the pipeline with two), and times its work from the files to the boxes; loading is not
counted (see `footprint.py`). Before anything is reported, the results must agree: vlrt fp32 finds
as many objects in the first picture as transformers' model, with the same scores, and the best
score of the others is close. Weights are seeded: time does not depend on them, and quality cannot
be read from them.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlrt_export.demo.scenes import draw_scene

from .checkpoints import make_seeded
from .common import conditions, print_conditions, seeded_parser, write_json
from .contenders import medians, ratio_table, run_once

PROGRAM = Path(__file__).with_name("detect_many.py")
VLRT, MODEL, PIPELINE = "vlrt fp32", "model fp32", "pipeline fp32"
CONTENDERS = (VLRT, "vlrt int8", MODEL, "model bf16", PIPELINE)
# Largest difference of a score from that of transformers' model in fp32. Quantisation and bf16 move
# scores, most where they are even, as with seeded weights.
TOLERANCES = {"fp32": 1e-3, "int8": 0.1, "bf16": 0.1}
_COLOURS = ("red", "green", "blue", "white", "black", "grey", "brown", "pink", "old", "new")
_THINGS = ("car", "chair", "cup", "dog", "bicycle", "lamp", "bird", "book", "boat", "clock")
LABELS = [f"a {colour} {thing}" for thing in _THINGS for colour in _COLOURS]


@dataclass(frozen=True)
class Job:
    """So many labels on so many pictures, of which the pipeline does `pipeline_pictures`."""

    labels: int
    pictures: int
    pipeline_pictures: int
    repeats: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.labels} label{'s' * (self.labels > 1)}, {self.pictures} picture" + "s" * (
            self.pictures > 1
        )


JOBS = (Job(1, 1, 1, 5), Job(10, 1, 1, 5), Job(100, 1, 1, 5), Job(20, 100, 3, 1))


def measure(
    job: Job, pictures: Sequence[str], checkpoint: Path, bundle: Path, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds for the whole job, every sample of each contender."""
    seconds: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    for number in range(options.rounds):
        scores: dict[str, list[float]] = {}
        for contender in CONTENDERS:
            print(f"{job.name}: round {number + 1}, {contender}", file=sys.stderr)
            kind, _, precision = contender.partition(" ")
            slow = contender == PIPELINE
            done = job.pipeline_pictures if slow else job.pictures
            sample = run_once(
                kind,
                {
                    "model": str(bundle if kind == "vlrt" else checkpoint),
                    "precision": precision,
                    "pictures": pictures[:done],
                    "labels": LABELS[: job.labels],
                    "warm_up_labels": 2 if slow else job.labels,
                    "threads": options.threads,
                    "repeats": 1 if slow and job.labels > 1 else job.repeats,
                },
                PROGRAM,
            )
            scores[contender] = sample["scores"]
            seconds[contender] += [taken * job.pictures / done for taken in sample["seconds"]]
        check(scores)
    return seconds


def check(scores: dict[str, list[float]]) -> None:
    """Whether all contenders found the same in the first picture.

    Raises:
        SystemExit: they did not.
    """
    theirs = scores[MODEL]
    if not theirs:
        raise SystemExit("transformers' model finds nothing: nothing can be compared")
    for contender, ours in scores.items():
        # The pipeline reports a box once a label; int8 and bf16 move scores across the threshold.
        compared = len(theirs) if contender == VLRT else 1
        if len(ours) < compared or (contender == VLRT and len(ours) != len(theirs)):
            raise SystemExit(f"{contender} finds {len(ours)} objects, {MODEL} {len(theirs)}")
        difference = np.abs(np.subtract(ours[:compared], theirs[:compared])).max()
        if not difference <= TOLERANCES[contender.partition(" ")[2]]:  # nor not a number
            raise SystemExit(f"{contender}: a score differs by {difference:.4f} from {MODEL}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = seeded_parser(__doc__, "an OWL-ViT", rounds=3)
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
    print(ratio_table(results, MODEL))
    write_json(
        options.json,
        {
            **found,
            "benchmark": "detection",
            "model": name,
            "rounds": options.rounds,
            "seconds": results,
            "medians": medians(results),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
