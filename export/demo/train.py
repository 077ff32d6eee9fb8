"""Trains the demonstration models: `python -m export.demo.train clip -o OUT`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vlrt.errors import ExportError, ExtraMissingError, UnknownFamilyError

from ..checkpoint import open_checkpoint
from . import clip, owlvit, vilt
from .evaluate import SEED, format_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


FAMILIES: dict[str, ModuleType] = {"clip": clip, "owlvit": owlvit, "vilt": vilt}


def family_of(folder: Path) -> ModuleType:
    """The module of the family that a trained model is of.

    Raises:
        ExportError, UnknownFamilyError: the folder holds no model, or one of another family.
    """
    model_type = open_checkpoint(str(folder)).model_type
    if model_type not in FAMILIES:
        raise UnknownFamilyError(
            f"{folder} holds a model of type {model_type!r}; valid: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The command line: a command per model family, and `evaluate`."""
    parser = argparse.ArgumentParser(prog="export.demo.train", description=__doc__)
    families = parser.add_subparsers(dest="family", required=True)

    run = families.add_parser("clip", help="train the picture and text encoders of a small CLIP")
    _add_run(run, steps=4500)
    run = families.add_parser("owlvit", help="fine-tune a small CLIP to an OWL-ViT")
    run.add_argument("--clip", type=Path, required=True, help="folder of the trained CLIP")
    _add_run(run, steps=7200)
    run = families.add_parser("vilt", help="train a small ViLT that starts as an OWL-ViT")
    run.add_argument("--owlvit", type=Path, required=True, help="folder of the trained OWL-ViT")
    _add_run(run, steps=7200)

    score = families.add_parser("evaluate", help="print the accuracy of a trained model")
    score.add_argument("model", type=Path, help="folder of the trained model")
    score.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    return parser


def _add_run(command: argparse.ArgumentParser, *, steps: int) -> None:
    """The options that every training run has."""
    command.add_argument(
        "-o", "--out", type=Path, required=True, help="folder for the trained model"
    )
    command.add_argument("--steps", type=_positive, default=steps, help="default: %(default)s")
    command.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    command.add_argument("--threads", type=_positive, default=2, help="default: %(default)s")
    command.add_argument(
        "--work", type=Path, help="folder for the checkpoint of the run (default: OUT.work)"
    )
    command.add_argument(
        "--no-resume",
        dest="resume",
        action="store_false",
        help="start anew even if the work folder holds a checkpoint",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        if options.family == "evaluate":
            if not (options.model / "config.json").is_file():
                raise ExportError(f"{options.model} holds no trained model")
            family = family_of(options.model)
            print(format_table(family.evaluate_folder(options.model, seed=options.seed)))
        else:
            _train(options)
    except (ValueError, ExtraMissingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    work = options.work or options.out.with_name(options.out.name + ".work")
    record = FAMILIES[options.family].train_family(
        options.out,
        steps=options.steps,
        seed=options.seed,
        work=work,
        resume=options.resume,
        **{name: value for name, value in vars(options).items() if name in FAMILIES},
    )
    print(f"{record['steps']} steps in {record['seconds']:.0f} s; saved to {options.out}")
    print(format_table(record["accuracy"]))


if __name__ == "__main__":
    sys.exit(main())
