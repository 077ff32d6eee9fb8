"""Questions about a picture: vlrt against transformers' ViLT, for one question and for twenty.

    python -m benchmarks.questions --seeded ../shared/data/vilt-b32-finetuned-vqa --json vilt.json

The contenders: vlrt in fp32 and in int8; transformers' model in fp32 and in bf16, given the picture
once and the questions in batches; and the same model in fp32 as its page shows it, where picture
and question go through processor and model one pair after the other. That is also what its
visual-question-answering pipeline did, which 5.23 has no more.

All read the same file, on the CPU, with the same number of threads and the same size of batches;
transformers with the one kind of attention that it has for ViLT and its PIL image processor.

Contenders take turns, a process each a round. A process loads, warms up on one question, and times
its work from the file to the answers; loading is not counted. Before anything is reported, the
results must agree: in fp32 all give the same answers with the same scores, and in int8 and bf16 the
best scores are close. Weights are seeded: time does not depend on them, and quality cannot be read
from them.
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
from .contenders import Sample, medians, ratio_table, run_once

PROGRAM = Path(__file__).with_name("ask_many.py")
MODEL = "model fp32"
CONTENDERS = ("vlrt fp32", "vlrt int8", MODEL, "model bf16", "loop fp32")
BATCH_SIZE = 8  # vlrt's own default
# Largest difference of a best score from that of transformers' model in fp32. Quantisation and bf16
# move scores, most where they are even, as with seeded weights.
TOLERANCES = {"fp32": 1e-3, "int8": 0.1, "bf16": 0.1}
QUESTIONS = [
    "How many shapes are there?", "What color is the background?", "Is there a red circle?",
    "What is to the left of the square?", "What shape is the biggest object in the picture?",
    "Are there more circles than triangles?", "What color is the star?", "Is it day or night?",
    "What is behind the triangle?", "How many colors can be seen?", "Is the circle filled?",
    "What is in the upper right corner?", "Do any two of the shapes overlap?",
    "Is the blue thing above the yellow thing?", "Which shape is the smallest?",
    "Is this a photograph?", "What is the pattern on the wall?", "Where is the cross?",
    "Does the picture show a person?", "What would this be used for?",
]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """So many questions about one picture, asked anew `repeats` times in a process."""

    questions: int
    repeats: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.questions} question{'s' * (self.questions > 1)}"


JOBS = (Job(1, 5), Job(20, 1))


def measure(
    job: Job, picture: str, checkpoint: Path, bundle: Path, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds for all questions, every sample of each contender."""
    seconds: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    for number in range(options.rounds):
        samples: dict[str, Sample] = {}
        for contender in CONTENDERS:
            print(f"{job.name}: round {number + 1}, {contender}", file=sys.stderr)
            kind, _, precision = contender.partition(" ")
            samples[contender] = run_once(
                kind,
                {
                    "model": str(bundle if kind == "vlrt" else checkpoint),
                    "precision": precision,
                    "picture": picture,
                    "questions": QUESTIONS[: job.questions],
                    "batch_size": BATCH_SIZE,
                    "threads": options.threads,
                    "repeats": job.repeats,
                },
                PROGRAM,
            )
            seconds[contender] += samples[contender]["seconds"]
        check(samples)
    return seconds


def check(samples: dict[str, Sample]) -> None:
    """Whether all contenders give the same answers.

    Raises:
        SystemExit: they do not.
    """
    theirs = samples[MODEL]
    for contender, ours in samples.items():
        precision = contender.partition(" ")[2]
        difference = np.abs(np.subtract(ours["scores"], theirs["scores"])).max()
        if not difference <= TOLERANCES[precision]:  # not a number is no agreement
            raise SystemExit(f"{contender}: a score differs by {difference:.4f} from {MODEL}")
        if precision == "fp32" and ours["answers"] != theirs["answers"]:
            raise SystemExit(f"{contender} answers {ours['answers']}, {MODEL} {theirs['answers']}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = seeded_parser(__doc__, "a ViLT", rounds=3)
    options = parser.parse_args(arguments)
    found: dict[str, Any] = conditions(options.threads)  # first: what follows adds to the load
    name = options.seeded.resolve().name
    checkpoint, bundle = make_seeded(options.seeded, options.cache / name, "fp32", "int8")
    with tempfile.TemporaryDirectory(prefix="vlrt-questions-") as scratch:
        picture = str(Path(scratch, "scene.jpg"))
        scene = draw_scene(np.random.default_rng(0), size_wh=(640, 480), n_objects=(1, 5))
        scene.image.save(picture, quality=90)
        results = {job.name: measure(job, picture, checkpoint, bundle, options) for job in JOBS}
    print(f"## {name}: questions about a picture\n")
    print_conditions(found)
    print(ratio_table(results, MODEL))
    write_json(
        options.json,
        {
            **found,
            "benchmark": "questions",
            "model": name,
            "rounds": options.rounds,
            "seconds": results,
            "medians": medians(results),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
