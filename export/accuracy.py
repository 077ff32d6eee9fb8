"""How often a variant is right about drawn scenes that it has not seen, and how often PyTorch is.

Agreement with the reference counts answers that changed; this counts those that became wrong. What
is right is known of drawn scenes alone, and who was not trained on them is right by chance: so this
is for the demonstration models, whose `training.json` says what they are.
"""

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import vlrt
from vlrt.errors import ExtraMissingError
from vlrt.files import read_settings

from .checkpoint import Checkpoint
from .demo.evaluate import SEED, Table
from .demo.questions import KINDS
from .demo.scenes import ALL_PAIRS, HELD_OUT_PAIRS, SEEN_PAIRS

# Pictures of each pair, scenes, and questions of each kind: 8 to 25 seconds of two cores.
AMOUNTS = {"clip": 15, "owlvit": 200, "vilt": 100}
_OF = {
    "clip": f"top-1 accuracy among {len(ALL_PAIRS)} labels on "
    f"{AMOUNTS['clip'] * len(ALL_PAIRS)} drawn pictures",
    "owlvit": f"mAP50:95 over {len(ALL_PAIRS)} labels on {AMOUNTS['owlvit']} drawn scenes",
    "vilt": f"right answers to {AMOUNTS['vilt'] * len(KINDS)} questions about drawn scenes",
}
# What a table of accuracies has, by family: groups, and the column that counts.
_GROUPS = {
    "clip": ("seen", "held_out"),
    "owlvit": ("seen", "held_out"),
    "vilt": ("answers",),
}
_COLUMN = {"clip": "pair", "owlvit": "mAP", "vilt": "all"}
_PAIRS = {"seen": SEEN_PAIRS, "held_out": HELD_OUT_PAIRS}


def counted(checkpoint: Checkpoint) -> str | None:
    """What `reference` and `variant` return, in words; None if the checkpoint is no demonstration.

    Those are what `export.demo.train` made: its `training.json` has their accuracy.
    """
    groups = _GROUPS.get(checkpoint.model_type)
    if groups is None or not (checkpoint.root / "training.json").is_file():
        return None
    recorded = checkpoint.json("training.json").get("accuracy")
    ours = isinstance(recorded, dict) and tuple(recorded) == groups
    return _OF[checkpoint.model_type] if ours else None


def reference(checkpoint: Checkpoint) -> float:
    """The share, 0 to 1, of a demonstration checkpoint in PyTorch.

    Raises:
        ExtraMissingError: PyTorch, or what scores a detector, is not installed.
    """
    kind = checkpoint.model_type
    table = _evaluation(kind).evaluate_folder(checkpoint.root, AMOUNTS[kind], SEED)
    return _share(kind, table)


def variant(root: Path, precision: str, values: Mapping[str, float]) -> float:
    """The same share of one variant of a bundle, on the CPU.

    Args:
        root: a directory with the settings and the graphs; the manifest may be missing yet.
        precision: a variant that is there.
        values: what no graph holds, as the family's `values` returns it.

    Raises:
        ExtraMissingError: PyTorch, beside which the evaluation stands, or what scores a detector,
            is not installed.
    """
    kind = str(read_settings(root, "config.json").need("model_type"))
    evaluation = _evaluation(kind)
    model = vlrt.load(root, precision=precision, device="cpu", values=dict(values))
    return _share(kind, evaluation.evaluate_model(model, AMOUNTS[kind], SEED))


def compared(checkpoint: Checkpoint, expected: float, reached: float) -> dict[str, Any]:
    """For the manifest and the gate: the two shares, and what they are `of`, in words."""
    return {"reference": expected, "variant": reached, "of": counted(checkpoint)}


def _evaluation(kind: str) -> Any:
    """The module of the demonstration, which knows how to evaluate."""
    for package in ("torch", "transformers", "tqdm"):
        if find_spec(package) is None:
            raise ExtraMissingError("the accuracy on drawn scenes", "train", package)
    return importlib.import_module(f"{__package__}.demo.{kind}")


def _share(kind: str, table: Table) -> float:
    """One number of a table: of all pairs together, or of all questions."""
    column = _COLUMN[kind]
    if kind == "vilt":
        return table["answers"][column]
    weighted = [table[group][column] * len(_PAIRS[group]) for group in _GROUPS[kind]]
    return sum(weighted) / len(ALL_PAIRS)
