"""Accuracy of the demonstration CLIP: PyTorch and every variant of its bundle, on the same scenes.

    python -m benchmarks.demo_accuracy --checkpoint tests/data/clip-shapes --bundle DIRECTORY

Scenes of one object, of every size and on every background, drawn afresh at 256 pixels; top-1 among
all 64 labels "a <colour> <shape>". Pairs that training never showed are counted apart.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import vlrt
from vlrt.bundle import open_bundle
from vlrt.session import available_cpus
from vlrt_export.demo.clip import evaluate_folder
from vlrt_export.demo.evaluate import Table, pair_accuracy

from . import common

_GROUPS, _KINDS = ("seen", "held_out"), ("pair", "colour", "shape")


def bundle_accuracy(bundle: str, precision: str, per_pair: int, seed: int) -> Table:
    """The table for one variant of a bundle, on the CPU."""
    model = vlrt.load(bundle, precision=precision, device="cpu")
    return pair_accuracy(model.encode_images, model.encode_texts, per_pair=per_pair, seed=seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="benchmarks.demo_accuracy", description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="the demo checkpoint, for PyTorch"
    )
    parser.add_argument("--bundle", required=True, help="its bundle")
    parser.add_argument("--per-pair", type=common.positive, default=25, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=4321, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    args = parser.parse_args(arguments)
    precisions = open_bundle(args.bundle).precisions
    found = {"torch fp32": evaluate_folder(args.checkpoint, per_pair=args.per_pair, seed=args.seed)}
    for precision in precisions:
        found[f"vlrt {precision}"] = bundle_accuracy(
            args.bundle, precision, args.per_pair, args.seed
        )
    conditions = common.conditions(available_cpus())
    common.print_conditions(conditions)
    header = ["", *(f"{group}, {kind}" for group in _GROUPS for kind in _KINDS)]
    rows = [
        [name, *(f"{table[group][kind]:.1%}" for group in _GROUPS for kind in _KINDS)]
        for name, table in found.items()
    ]
    print(common.markdown(header, rows))
    settings = {"pictures_per_pair": args.per_pair, "seed": args.seed}
    common.write_json(args.json, {**conditions, "settings": settings, "accuracy": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
