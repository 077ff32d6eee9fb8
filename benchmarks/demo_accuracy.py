"""Accuracy of a demonstration model: PyTorch and every variant of its bundle, on the same scenes.

    python -m benchmarks.demo_accuracy --checkpoint tests/data/owlvit-shapes

Scenes are drawn afresh, and pairs that training never showed are counted apart. What is counted:

- CLIP: top-1 among all 64 labels "a <colour> <shape>", on scenes of one object, of every size and
  on every background, 25 of each pair.
- OWL-ViT: COCO's mAP (by pycocotools) over the same 64 labels, on 500 scenes of one to five
  objects, square, wide and tall. Every box may carry any label; the best 100 of a picture count.
- ViLT: right answers to 200 questions of each of five kinds, each about a scene of its own; beside
  who has heard 10,000 such questions with their answers, and looks at no picture.

PyTorch runs with transformers' own image processors and tokenizers. int8 has the scales of other
drawn scenes (`vlrt export --calibrate drawn`).
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import vlrt
from vlrt.bundle import open_bundle
from vlrt.hardware import available_cpus
from vlrt_export.demo.evaluate import SEED
from vlrt_export.demo.train import family_of
from vlrt_export.pipeline import export
from vlrt_export.precision import PRECISIONS
from vlrt_export.samples import DRAWN

from . import common


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="the demo checkpoint, for PyTorch"
    )
    parser.add_argument("--bundle", type=Path, help="its bundle (default: one made of it)")
    parser.add_argument(
        "--amount",
        type=common.positive,
        help="pictures of each pair (CLIP), scenes (OWL-ViT), questions of each kind (ViLT)",
    )
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    args = parser.parse_args(arguments)
    family = family_of(args.checkpoint)
    amount = args.amount or family.AMOUNT
    found = {
        **family.baselines(amount, args.seed),
        "torch fp32": family.evaluate_folder(args.checkpoint, amount, args.seed),
    }
    with tempfile.TemporaryDirectory(prefix="vlrt-accuracy-") as scratch:
        bundle = args.bundle or Path(scratch, "bundle")
        if args.bundle is None:
            export(
                str(args.checkpoint),
                bundle,
                precisions=PRECISIONS,
                calibrate=[DRAWN],
                say=lambda line: print(line, file=sys.stderr),
            )
        for precision in open_bundle(bundle).precisions:
            model = vlrt.load(bundle, precision=precision, device="cpu")
            found[f"vlrt {precision}"] = family.evaluate_model(model, amount, args.seed)
    conditions = common.conditions(available_cpus())
    common.print_conditions(conditions)
    columns = [(g, k) for g, row in found["torch fp32"].items() for k in row]
    groups = {group for group, _ in columns}
    header = ["", *(f"{g.replace('_', ' ')}, {k}" if len(groups) > 1 else k for g, k in columns)]
    rows = [
        [name, *(f"{table[group][kind]:.1%}" for group, kind in columns)]
        for name, table in found.items()
    ]
    print(common.markdown(header, rows))
    settings = {"amount": amount, "seed": args.seed}
    common.write_json(args.json, {**conditions, "settings": settings, "accuracy": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
