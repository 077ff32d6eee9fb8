"""How long it takes from JPEG files to pixel values, against transformers and hf-processors-rs.

    python -m benchmarks.preprocessing --snapshots SHARED/data --picture photo.jpg --json FILE

For CLIP, OWL-ViT and ViLT, with the settings of their full-size snapshots: one picture of each of
three sizes, and a batch of eight. The picture is resized to each size and saved as JPEG of quality
90. Contenders, each in a process of its own, taking turns:

- transformers: the PIL image processors, after its `load_image`;
- hf-processors-rs: Rust; CLIP's processor, and ViT's set to what the others come to;
- vlrt with Pillow alone, vlrt with simplejpeg (the extra `fast-decode`), and `decode="fast"`.

Before anything is timed, the results are compared with transformers': vlrt's must be the same bit
for bit, but for `decode="fast"`; how far another's are off is reported. What is not installed is
left out, and said.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlrt.files import Settings
from vlrt.hardware import available_cpus
from vlrt.ragged import RaggedProcessor

from .common import conditions, markdown, positive, print_conditions, write_json
from .contenders import OFFLINE, medians, ratio_table

PROGRAM = Path(__file__).with_name("preprocessing_contender.py")
BASE, FAST = "transformers", "vlrt, fast"
EXACT = ("vlrt, Pillow", "vlrt, simplejpeg")
# Each with the package that it needs, and how to get it.
CONTENDERS = {
    BASE: ("transformers", 'pip install "vlrt[export]"'),
    "hf-processors-rs": ("hf_processors_rs", "pip install hf-processors-rs"),
    "vlrt, Pillow": ("vlrt", ""),
    "vlrt, simplejpeg": ("simplejpeg", 'pip install "vlrt[fast-decode]"'),
    FAST: ("vlrt", ""),
}
SNAPSHOTS = ("clip-vit-base-patch32", "owlvit-base-patch32", "vilt-b32-finetuned-vqa")
SIZES_WH = ((4000, 3000), (1920, 1080), (640, 480))
BATCH, BATCH_WH = 8, (1920, 1080)


class Contender:
    """A process that does its works when told to, until it is closed."""

    def __init__(self, name: str, job: dict[str, Any]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), name, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **OFFLINE},
        )
        self.versions: dict[str, str] = self._answer()

    def close(self) -> None:
        """Close its input, at which it ends, and wait for that."""
        self._process.communicate()

    def turn(self, work: str) -> list[float]:
        """Seconds of some runs of a work."""
        assert self._process.stdin is not None
        print(work, file=self._process.stdin, flush=True)
        seconds: list[float] = self._answer()
        return seconds

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed; its error is above")
        return json.loads(line)


def make_works(
    snapshots: Path, picture: Path, folder: Path, batch: int = BATCH
) -> dict[str, dict[str, Any]]:
    """What is to be done, by name: for `preprocessing_contender.py`."""
    with Image.open(picture) as opened:
        original = opened.convert("RGB")
    paths = {}
    for wh in {*SIZES_WH, BATCH_WH}:
        paths[wh] = folder / f"{wh[0]}x{wh[1]}.jpg"
        original.resize(wh, Image.Resampling.BICUBIC).save(paths[wh], quality=90)
    works = {}
    for snapshot in SNAPSHOTS:
        directory = snapshots / snapshot
        model_type = json.loads((directory / "config.json").read_text())["model_type"]
        for wh, number in [*((wh, 1) for wh in SIZES_WH), (BATCH_WH, batch)]:
            times = f" x {number}" if number > 1 else ""
            works[f"{model_type} {wh[0]}x{wh[1]}{times}"] = {
                "snapshot": str(directory),
                "model_type": model_type,
                "paths": [str(paths[wh])] * number,
                "size_hw": size_hw(directory, model_type, wh),
            }
    return works


def size_hw(directory: Path, model_type: str, wh: tuple[int, int]) -> tuple[int, int] | None:
    """(height, width) that a picture is resized to, for those who cannot work it out."""
    path = directory / "preprocessor_config.json"
    settings = Settings(str(path), json.loads(path.read_text()))
    if model_type == "vilt":
        return RaggedProcessor.from_settings(settings).resized_hw(wh[1], wh[0])
    if model_type == "owlvit":
        height, width = settings.need("size")
        return height, width
    return None


def compare(outputs: dict[str, Path], works: Sequence[str]) -> dict[str, dict[str, float]]:
    """Largest and mean difference to transformers, by contender, over all works.

    Raises:
        SystemExit: one of ours that should be exact is not, or shapes or types are not the same.
    """
    found = {}
    for name, folder in outputs.items():
        if name == BASE:
            continue
        largest, mean = 0.0, 0.0
        for work in works:
            ours, theirs = (np.load(path / f"{work}.npy") for path in (folder, outputs[BASE]))
            if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
                kinds = [f"{array.dtype} {array.shape}" for array in (ours, theirs)]
                raise SystemExit(f"{name}, {work}: {kinds[0]} for {kinds[1]}")
            difference = np.abs(ours - theirs)
            # Not `max`, which drops what is not a number.
            largest = float(np.maximum(largest, difference.max()))
            mean = float(np.maximum(mean, difference.mean()))
        if name in EXACT and not largest == 0:
            raise SystemExit(f"{name} differs from transformers by {largest}: it is not exact")
        found[name] = {"largest_difference": largest, "largest_mean_difference": mean}
    return found


def measure(
    names: Sequence[str], works: dict[str, dict[str, Any]], threads: int, rounds: int, scratch: Path
) -> dict[str, Any]:
    """Compare, then time, all contenders with so many threads."""
    outputs = {name: scratch / f"{threads} {name}" for name in names}
    with ExitStack() as stack:
        contenders = []
        for name, folder in outputs.items():
            folder.mkdir()
            job = {"threads": threads, "outputs": str(folder), "works": works}
            contenders.append(stack.enter_context(closing(Contender(name, job))))
        differences = compare(outputs, list(works))
        samples: dict[str, dict[str, list[float]]] = {
            work: {name: [] for name in names} for work in works
        }
        for number in range(rounds):
            print(f"{threads} threads: round {number + 1} of {rounds}", file=sys.stderr)
            for work in works:
                for contender in contenders:
                    samples[work][contender.name] += contender.turn(work)
    return {
        "versions": {contender.name: contender.versions for contender in contenders},
        "differences": differences,
        "median_s": medians(samples),
        "samples_s": samples,
    }


def report(threads: int, found: dict[str, Any]) -> None:
    """Print what was measured with so many threads."""
    print(f"### threads: {threads}\n")
    print(ratio_table(found["samples_s"], BASE), "\n")
    rows = [
        [work, *(f"{seconds * 1000:.3g}" for seconds in by_name.values())]
        for work, by_name in found["median_s"].items()
    ]
    print(markdown(["median ms", *next(iter(found["median_s"].values()))], rows), "\n")
    for name, difference in found["differences"].items():
        largest, mean = difference["largest_difference"], difference["largest_mean_difference"]
        if largest == 0:
            print(f"{name}: bit for bit the same as {BASE}")
        else:
            print(f"{name}: values differ by {mean:.2g} in the mean, by {largest:.2g} at most")
    print()


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--snapshots", type=Path, required=True, help=f"holds {SNAPSHOTS}")
    parser.add_argument("--picture", type=Path, required=True, help="a photograph, upright")
    parser.add_argument(
        "--threads", type=positive, nargs="+", default=sorted({1, available_cpus()}),
        help="default: one, and all CPUs",
    )  # fmt: skip
    parser.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples here")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    options = build_parser().parse_args(arguments)
    found = conditions(max(options.threads))
    skipped = {name: how for name, (needs, how) in CONTENDERS.items() if find_spec(needs) is None}
    if BASE in skipped:
        raise SystemExit(f"{BASE} is what the others are compared with: {skipped[BASE]}")
    names = [name for name in CONTENDERS if name not in skipped]
    print("## From JPEG files to pixel values\n")
    print_conditions(found)
    for name, how in skipped.items():
        print(f"{name} is not installed, and left out: {how}\n")
    results = {}
    with tempfile.TemporaryDirectory(prefix="vlrt-preprocessing-") as scratch:
        works = make_works(options.snapshots, options.picture, Path(scratch))
        for threads in options.threads:
            results[threads] = measure(names, works, threads, options.rounds, Path(scratch))
            report(threads, results[threads])
    write_json(
        options.json,
        {
            **found,
            "benchmark": "preprocessing",
            "picture": options.picture.name,
            "rounds": options.rounds,
            "skipped": skipped,
            "by_threads": results,
        },
    )


if __name__ == "__main__":
    main()
