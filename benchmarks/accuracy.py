"""`vlrt bench accuracy`: how often is a model right, in PyTorch and in every variant."""

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from vlrt import templates as prompts
from vlrt.cli_options import count
from vlrt.errors import BenchmarkError, OptionError
from vlrt.hardware import available_cpus

from . import accuracy_boxes, accuracy_measures, datasets, document, scenes
from .accuracy_answers import Asker
from .accuracy_words import fairness, language_only, notes
from .dataset_captions import Captions
from .dataset_coco import Scenes
from .datasets import Dataset, Wanted
from .journal import Journal, beside
from .machine import identity
from .subject import Subject, resolve
from .subject import add_options as add_subject

_TORCH = {"torch": "fp32", "torch-bf16": "bf16", "torch-fp16": "fp16"}
_MOST_PAIRS = 50_000  # of a picture and a text, each of which is a run of the whole model


@dataclass(frozen=True)
class Contender:
    """Who answers.

    Attributes:
        name: such as "torch-fp32".
        engine: "torch" or "vlrt".
        precision: as the engine calls it.
    """

    name: str
    engine: str
    precision: str

    def load(self, subject: Subject, device: str, threads: int) -> Any:
        """The model, with vlrt's methods."""
        if self.engine == "torch":
            from .reference import load_reference

            assert subject.checkpoint is not None  # or it were no contender
            return load_reference(subject.checkpoint, self.precision, device, threads)
        import vlrt

        return vlrt.load(subject.bundle, precision=self.precision, device=device, threads=threads)


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `accuracy` to the verbs of `vlrt bench`."""
    parser = verbs.add_parser(
        "accuracy",
        help="how often is it right, in PyTorch and in every variant",
        description="Count how often a model is right on a dataset, in PyTorch and in every "
        "variant: zero-shot classification, detection, questions or retrieval. Without --dataset, "
        "on drawn scenes, which suit the demonstration models alone.",
    )
    add_subject(parser)
    document.add_options(parser, "accuracy")
    datasets.add_options(parser)
    parser.add_argument(
        "--against", nargs="*", choices=list(_TORCH), metavar="ENGINE",
        help=f"whom to compare with, of {', '.join(_TORCH)}; none: vlrt's variants alone (default: "
        "torch, where the checkpoint is known)",
    )  # fmt: skip
    parser.add_argument(
        "--templates", default="none", metavar="NAME",
        help="prompts for labels: none (default), imagenet (CLIP's 80), or a file of them",
    )  # fmt: skip
    parser.add_argument("--limit", type=count, metavar="N", help="count so many items, drawn")
    parser.add_argument(
        "--amount", type=count, metavar="N",
        help="of drawn scenes, as `vlrt bench scenes` takes it",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=scenes.SEED,
        help="of drawn scenes and of --limit (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=count, metavar="B", help="pictures in a run (default: each method's own)"
    )
    parser.add_argument(
        "--threads", type=count, default=available_cpus(), help="default: all, %(default)s"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Count and report.

    Raises:
        OptionError: options that contradict each other, the model or the dataset.
        DatasetError: files of the dataset are broken.
    """
    templates = None if options.templates == "none" else prompts.read(options.templates)
    if options.format is not None:  # before anything takes time
        datasets.check_format(options.format, datasets.FORMATS, "")
    if options.seed < 0:
        raise OptionError(f"--seed is {options.seed}; valid: a whole number of 0 or more")
    subject = resolve(options)
    contenders, skipped = find_contenders(subject, options.against)
    dataset, facts = open_dataset(options, subject.task)
    check_fit(dataset, subject, options.templates)
    settings = {
        "templates": options.templates,
        "batch": options.batch,
        "threads": options.threads,
        "device": options.device,
        "limit": options.limit,
        "seed": options.seed,
    }
    path = document.output_path(options, "accuracy", subject.name)
    plan = {
        "kind": "accuracy",
        "model": subject.facts()["files"],
        "dataset": facts,
        "pictures": datasets.state(dataset),
        "prompts": templates,
        **settings,
        **identity(),
    }
    begin = partial(
        document.begin,
        "accuracy",
        options,
        subject=subject,
        threads=options.threads,
        settings=settings,
    )
    with Journal(beside(path), plan, fresh=options.fresh) as journal:
        found = journal.keep("begin", begin)
        answers = {
            one.name: _ask(one, subject, dataset, journal, options, templates) for one in contenders
        }
        base = contenders[0].name
        counted = accuracy_measures.count(dataset, answers, base)
        found["skipped"] = skipped
        found["fairness"] = fairness(dataset)
        found["notes"] += notes(subject, dataset, facts, base)
        whole = facts["items"] == facts["of"]  # of a part, the guesser's share is another
        if facts["drawn"] and facts["format"] == "vqa" and whole:
            found["notes"].append(language_only(options.amount, options.seed))
        found["body"] = {
            "dataset": facts,
            "base": base,
            "rows": counted.rows,
            "items": counted.items,
            "positions": counted.positions,
            "pictures": counted.pictures,
        }
        written = document.write(found, path)
        journal.done()
    print(written[1].read_text(encoding="utf-8"))
    print(f"written: {', '.join(str(one) for one in written)}", file=sys.stderr)
    return 0


def find_contenders(
    subject: Subject, against: Sequence[str] | None
) -> tuple[list[Contender], dict[str, str]]:
    """Who answers, the base first: PyTorch in fp32, or the most exact variant without it.

    Args:
        subject: the model.
        against: as on the command line; None for PyTorch where that can be.

    Returns:
        The contenders; and those left out, with what is missing for them.

    Raises:
        OptionError: one was asked for and cannot be.
    """
    variants = [Contender(f"vlrt-{p}", "vlrt", p) for p in subject.precisions]
    variants.sort(key=lambda one: one.precision != "fp32")
    wanted = ["torch"] if against is None else list(dict.fromkeys(against))
    if not wanted:
        return variants, {}
    missing = _missing_for_torch(subject)
    if missing is not None:
        if against is not None:
            raise OptionError(f"--against {' '.join(wanted)}: {missing}")
        return variants, {"torch-fp32": missing}
    precisions = dict.fromkeys(["fp32", *(_TORCH[name] for name in wanted)])
    return [Contender(f"torch-{p}", "torch", p) for p in precisions] + variants, {}


def _missing_for_torch(subject: Subject) -> str | None:
    if subject.checkpoint is None:
        return "the bundle's checkpoint is not at hand; pass --checkpoint DIR"
    absent = [name for name in ("torch", "transformers") if find_spec(name) is None]
    return f'{", ".join(absent)} not installed: pip install "vlrt[bench]"' if absent else None


def open_dataset(options: argparse.Namespace, task: str) -> tuple[Dataset, dict[str, Any]]:
    """The dataset on the command line, or drawn scenes; and what the document says of it.

    Raises:
        OptionError: options that contradict each other, or the model.
        DatasetError: the dataset is broken.
    """
    drawn = options.dataset is None
    if drawn:
        given = _drawn(options, task)
    else:
        if options.amount is not None:
            raise OptionError("--amount is of drawn scenes; of a dataset, take --limit")
        given = datasets.wanted(options, task)
    whole = datasets.read(given)
    dataset = datasets.limited(whole, options.limit, options.seed)
    facts = datasets.facts(dataset, len(whole)) | {"drawn": drawn}
    if drawn:  # a folder of the cache says nothing to a reader
        facts["source"] = f"drawn scenes of {given.format}, seed {options.seed}"
    return dataset, facts


def _drawn(options: argparse.Namespace, task: str) -> Wanted:
    """Scenes as a dataset, written and read back as any other is."""
    valid = datasets.valid_formats(task)
    for name in ("images", "annotations", "classes"):
        if getattr(options, name) is not None:
            raise OptionError(f"--{name} is of a dataset; pass --dataset, too")
    datasets.check_format(options.format, valid, task)
    format_ = options.format or valid[0]
    amount = options.amount or scenes.AMOUNTS[format_]
    return Wanted(format_, scenes.cached(options.cache, format_, amount, options.seed))


def check_fit(dataset: Dataset, subject: Subject, templates: str) -> None:
    """See that counting can be done, before it is begun.

    Raises:
        OptionError: templates where there are no labels, or more pairs than can be matched.
        ExtraMissingError: pycocotools is wanted, and is not installed.
    """
    if isinstance(dataset, Scenes):
        accuracy_boxes.check_installed()
    if templates != "none" and dataset.format not in ("imagenet", "coco"):
        raise OptionError(f"--templates has no effect on the format {dataset.format}")
    if isinstance(dataset, Captions) and _is_joint(subject):
        pairs = len(dataset) * len(dataset.captions)
        if pairs > _MOST_PAIRS:
            raise OptionError(
                f"{subject.name} looks at each of {pairs} pairs of a picture and a caption; valid: "
                f"{_MOST_PAIRS} or fewer; take less of {dataset.source} with --limit"
            )


def _is_joint(subject: Subject) -> bool:
    return subject.task == "image-text-retrieval"


def _ask(
    one: Contender,
    subject: Subject,
    dataset: Dataset,
    journal: Journal,
    options: argparse.Namespace,
    templates: Sequence[str] | None,
) -> list[Any]:
    """All answers of a contender; its model is given back."""

    def keep(key: str, make: Callable[[], Any]) -> Any:
        return journal.keep(f"{one.name}: {key}", make)

    asker = Asker(
        lambda: one.load(subject, options.device, options.threads),
        keep,
        batch=options.batch,
        joint=_is_joint(subject),
        templates=templates,
        say=lambda line: print(f"{one.name}: {line}", file=sys.stderr),
    )
    answers = asker.answers(dataset)
    del asker
    gc.collect()
    if len(answers) != len(dataset):
        raise BenchmarkError(f"{one.name} gave {len(answers)} answers to {len(dataset)} items")
    return answers
