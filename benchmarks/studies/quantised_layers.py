"""Which layers of an OWL-ViT bear int8: accuracy with its heads and text projection in fp32 or not.

    python -m benchmarks.studies.quantised_layers --checkpoint tests/data/owlvit-shapes

Each row is an int8 bundle that leaves other layers in fp32, and is held to no gate; scales are of
each batch's own, as `vlrt export` makes them without `--calibrate`. The scenes and mAP are those of
the demo's own evaluation (`vlrt_export.demo.owlvit`). On the same scenes, agreement is what
`vlrt export` counts: the share of the fp32 graph's objects that have the same label and nearly the
same box.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

import vlrt
from vlrt.bundle import graph_file
from vlrt.cli_options import count
from vlrt.hardware import available_cpus
from vlrt_export import owlvit
from vlrt_export.checkpoint import Checkpoint, open_checkpoint
from vlrt_export.demo.detection_accuracy import LABELS, fresh_scenes
from vlrt_export.demo.evaluate import SEED
from vlrt_export.demo.owlvit import evaluate_model
from vlrt_export.precision import Recipe

from ..machine import conditions
from ..report import markdown_table
from .common import print_conditions, write_json

DEFAULT = owlvit.KEEP_FP32["int8"]
HEADS = owlvit.KEEP_FP32["fp16"]
RECIPES = {
    "fp32": Recipe("fp32"),
    "int8, the default": Recipe("int8", DEFAULT),
    "heads in int8 too": Recipe("int8", DEFAULT - HEADS),
    "text projection in int8 too": Recipe("int8", HEADS),
    "every linear layer in int8": Recipe("int8"),
}


def load_with(checkpoint: Checkpoint, recipe: Recipe, root: Path) -> Any:
    """The model as a recipe builds it, from a bundle without a manifest written to `root`."""
    (root / "onnx").mkdir(parents=True)
    checkpoint.write_settings(root)
    for component in owlvit.COMPONENTS:
        made = owlvit.build(checkpoint, component, recipe).model("vlrt benchmark")
        onnx.save_model(made, root / graph_file(component, recipe.precision))
    return vlrt.load(root, precision=recipe.precision, device="cpu")


def outputs(model: Any, images: list[Image.Image]) -> dict[str, NDArray[Any]]:
    """What the graphs give, under their names, as `owlvit.quality` takes it."""
    seen = model.encode_image(images)
    arrays = {
        "image_class_embeds": [one.class_embeds for one in seen],
        "logit_shift": [one.logit_shift for one in seen],
        "logit_scale": [one.logit_scale for one in seen],
        "pred_boxes": [one.pred_boxes for one in seen],
    }
    stacked = {name: np.stack(parts) for name, parts in arrays.items()}
    return stacked | {"text_embeds": model.encode_labels(LABELS).embeds}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="the demo OWL-ViT")
    parser.add_argument("--scenes", type=count, default=200, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    args = parser.parse_args(arguments)
    checkpoint = open_checkpoint(str(args.checkpoint))
    if checkpoint.model_type != "owlvit":
        parser.error(f"--checkpoint is of model type {checkpoint.model_type!r}; valid: owlvit")
    found = conditions(available_cpus())  # first: what follows adds to the load
    images = [scene.image for scene in fresh_scenes(args.scenes, args.seed)]
    rows, results = [], {}
    expected: dict[str, NDArray[Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, recipe) in enumerate(RECIPES.items()):
            model = load_with(checkpoint, recipe, Path(scratch) / str(number))
            given = outputs(model, images)
            expected = expected or given
            quality = owlvit.quality(given, expected, {}, {}, None)
            table = evaluate_model(model, args.scenes, args.seed)
            results[name] = {"accuracy": table, "quality": quality}
            shares = [table[group][kind] for group in table for kind in ("mAP50", "mAP")]
            rows.append(
                [
                    name,
                    *(f"{share:.1%}" for share in (*shares, quality["agreement"])),
                    f"{quality['mean_iou']:.3f}",
                    f"{quality['largest_score_error']:.3f}",
                ]
            )
    print_conditions(found)
    header = ["", "seen, mAP50", "seen, mAP", "held out, mAP50", "held out, mAP", "agreement",
              "mean IoU", "largest score error"]  # fmt: skip
    print(markdown_table(header, rows))
    settings = {"scenes": args.scenes, "seed": args.seed}
    write_json(args.json, "quantised_layers", {**found, "settings": settings, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
