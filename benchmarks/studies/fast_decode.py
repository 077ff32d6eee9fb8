"""What `vlrt.load(..., decode="fast")` gains and what it costs.

    python -m benchmarks.studies.fast_decode photos/*.jpg --bundle DIR --json fast_decode.json

For each picture: the cosine between its exact and its fast embedding, the largest difference of its
scores against a few labels, and the median milliseconds of decoding and preprocessing, exact and
fast in turn, in one thread, the file in the page cache. Beside the pictures given, drawn scenes are
measured, saved as JPEG of quality 90 at sizes of cameras and screens. Only JPEGs that are at least
twice `vlrt.image.FAST_DECODE_MARGIN` times the model's input side are decoded at a reduced size;
of all others the two embeddings are the same.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

import vlrt
from vlrt.cli_options import count
from vlrt.image import decode
from vlrt.processor import ImageProcessor
from vlrt_export.demo.scenes import draw_scene

from ..machine import conditions
from ..report import markdown_table
from ..request import LABELS
from .common import print_conditions, study_parser, write_json

MODES = ("exact", "fast")


def draw_jpegs(folder: Path, sizes: Sequence[tuple[int, int]], scenes: int) -> list[Path]:
    """Drawn scenes of several objects as JPEGs, `scenes` of each size."""
    paths = []
    for width, height in sizes:
        for seed in range(scenes):
            rng = np.random.default_rng((seed, width, height))
            scene = draw_scene(rng, size_wh=(width, height), n_objects=(1, 5))
            paths.append(folder / f"scene-{seed}-{width}x{height}.jpg")
            scene.image.save(paths[-1], quality=90)
    return paths


def time_decoding(path: Path, processor: ImageProcessor, rounds: int) -> dict[str, list[float]]:
    """Milliseconds from file to pixel values, by mode, the modes in turn."""
    pixels = np.empty((3, *processor.output_hw), np.float32)
    samples: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(rounds + 1):
        for mode in MODES:
            side = processor.shorter_side if mode == "fast" else None
            started = time.perf_counter()
            processor.into(decode(path, shorter_side=side).image, pixels)
            if number > 0:  # the first round warms the page cache
                samples[mode].append((time.perf_counter() - started) * 1000)
    return samples


def measure(
    path: Path, models: dict[str, Any], labels: dict[str, vlrt.LabelSet], rounds: int
) -> dict[str, Any]:
    """Quality and speed on one picture."""
    embeds = [models[mode].encode_images([str(path)])[0] for mode in MODES]
    scores = [models[mode].classify(str(path), labels[mode]).scores for mode in MODES]
    processor = models["fast"].processor
    image, (height, width) = decode(path, shorter_side=processor.shorter_side)
    samples = time_decoding(path, processor, rounds)
    exact_ms, fast_ms = (median(samples[mode]) for mode in MODES)
    return {
        "picture": path.name,
        "size_wh": [width, height],
        "fast_size_wh": list(image.size),
        "reduced": image.size != (width, height),
        "cosine": float(embeds[0] @ embeds[1]),
        "largest_score_difference": float(np.abs(scores[0] - scores[1]).max()),
        "exact_ms": exact_ms,
        "fast_ms": fast_ms,
        "ratio": fast_ms / exact_ms,
        "samples_ms": samples,
    }


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Over the pictures that the fast decode reduced; None if there are none."""
    reduced = [row for row in rows if row["reduced"]]
    if not reduced:
        return None
    return {
        "pictures_reduced": len(reduced),
        "cosine_min": min(row["cosine"] for row in reduced),
        "cosine_mean": fmean(row["cosine"] for row in reduced),
        "largest_score_difference": max(row["largest_score_difference"] for row in reduced),
        "ratio_median": median(row["ratio"] for row in reduced),
    }


def report(rows: Sequence[dict[str, Any]], summary: dict[str, Any] | None) -> None:
    """Print both."""
    cells = [
        [
            row["picture"],
            "x".join(map(str, row["size_wh"])),
            "x".join(map(str, row["fast_size_wh"])),
            f"{row['cosine']:.6f}",
            f"{row['largest_score_difference']:.4f}",
            f"{row['exact_ms']:.1f}",
            f"{row['fast_ms']:.1f}",
            f"{row['ratio']:.2f}",
        ]
        for row in rows
    ]
    header = ["picture", "size", "decoded at", "cosine", "largest score difference"]
    print(markdown_table([*header, "exact, median ms", "fast, median ms", "fast / exact"], cells))
    if summary is None:
        print("\nno picture was large enough to be decoded at a reduced size")
        return
    print(
        f"\nOver the {summary['pictures_reduced']} pictures decoded at a reduced size: "
        f"cosine at least {summary['cosine_min']:.6f}, mean {summary['cosine_mean']:.6f}; "
        f"scores differ by at most {summary['largest_score_difference']:.4f}; "
        f"fast / exact {summary['ratio_median']:.2f} (median)"
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return count(width), count(height)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = study_parser(__doc__, rounds=15)
    parser.add_argument("pictures", nargs="*", type=Path, help="photographs of your own")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--precision", default="fp32", help="default: %(default)s")
    parser.add_argument(
        "--drawn",
        nargs="*",
        type=_size,
        metavar="WxH",
        default=[(4000, 3000), (1920, 1080)],
        help="sizes of drawn scenes (default: 4000x3000 1920x1080)",
    )
    parser.add_argument(
        "--scenes", type=count, default=4, help="drawn scenes a size (default: %(default)s)"
    )
    parser.add_argument("--labels", nargs="+", default=list(LABELS), help="to score against")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    options = build_parser().parse_args(arguments)
    found = conditions(options.threads)
    models = {
        mode: vlrt.load(
            options.bundle,
            precision=options.precision,
            device="cpu",
            threads=options.threads,
            decode=mode,
        )
        for mode in MODES
    }
    labels = {mode: model.encode_labels(options.labels) for mode, model in models.items()}
    with tempfile.TemporaryDirectory(prefix="vlrt-fast-decode-") as scratch:
        paths = [*options.pictures, *draw_jpegs(Path(scratch), options.drawn, options.scenes)]
        rows = [measure(path, models, labels, options.rounds) for path in paths]
    summary = summarise(rows)
    print(f'## decode="fast": {Path(options.bundle).name} in {options.precision}\n')
    print_conditions(found)
    report(rows, summary)
    write_json(
        options.json,
        "fast_decode",
        {
            **found,
            "model": options.bundle,
            "precision": options.precision,
            "labels": options.labels,
            "rounds": options.rounds,
            "summary": summary,
            "pictures": rows,
        },
    )


if __name__ == "__main__":
    main()
