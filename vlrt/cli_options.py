"""What the verbs of the command line share: their options, loading a model, a progress bar."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import vlrt
from vlrt import templates
from vlrt.errors import ImageError, OptionError
from vlrt.files import text_lines, whole_file, writing
from vlrt.sources import Source, find_pictures

SOURCES = "pictures: files, directories to search, and quoted patterns such as 'in/**/*.jpg'"


def add_verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add a verb to the parser's `verbs`, and what runs it."""
    made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    made.set_defaults(run=run)
    return made


def add_model_options(
    verb: argparse.ArgumentParser, *, batch_size: int, unit: str = "pictures"
) -> None:
    """Options for loading a model and running it; `unit` is what its batches are made of."""
    verb.add_argument(
        "--model", required=True, help="bundle: a directory, or owner/name on the hub"
    )
    add_load_options(verb)
    verb.add_argument(
        "--batch-size", type=count, default=batch_size,
        help=f"{unit} in a run (default {batch_size})",
    )  # fmt: skip


def add_load_options(verb: argparse.ArgumentParser) -> None:
    """Options for loading a model."""
    verb.add_argument("--precision", default="auto", help="auto, fp32, fp16, int8, ...")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, tensorrt")
    verb.add_argument("--provider", action="append", help="an ONNX Runtime provider, by its name")
    verb.add_argument("--threads", type=count, help="threads (all CPUs of this process if absent)")
    verb.add_argument("--no-spinning", action="store_true", help="idle threads sleep at once")
    verb.add_argument("--decode", default="exact", help="exact, or fast: large JPEGs at less size")
    verb.add_argument(
        "--memory-limit", type=count, metavar="MIB",
        help="on CUDA, what each graph may take of the GPU's memory",
    )  # fmt: skip
    verb.add_argument(
        "--cuda-graph", action="store_true",
        help="on CUDA, record the first run of each shape and replay it",
    )  # fmt: skip
    verb.add_argument(
        "--similarity", default="numpy",
        help="numpy, or device: compare pictures with labels on the GPU (thousands of labels)",
    )  # fmt: skip
    verb.add_argument("--engine-cache", metavar="FOLDER", help="where TensorRT keeps its engines")
    verb.add_argument("--revision", help="branch, tag or commit on the hub")
    verb.add_argument("--offline", action="store_true", help="use only the hub's cache")
    verb.add_argument(
        "--value", action="append", type=named_number, default=[], metavar="NAME=NUMBER",
        help="a number that a foreign bundle does not state: logit_scale=100",
    )  # fmt: skip


def add_label_options(verb: argparse.ArgumentParser) -> None:
    """Options that say which labels to look for, and how."""
    verb.add_argument("--labels", help='labels, comma-separated: "a cat,a dog"')
    verb.add_argument("--labels-file", metavar="FILE", help="labels, one a line")
    verb.add_argument("--templates", metavar="imagenet|FILE", help="prompts with a {} each")
    verb.add_argument("--truncate", action="store_true", help="cut labels that are too long")


def count(text: str) -> int:
    """Read a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def size_wh(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT in pixels."""
    width, cross, height = text.partition("x")
    if not cross:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return count(width), count(height)


def named_number(text: str) -> tuple[str, float]:
    """Read NAME=NUMBER; the name may hold further equals signs."""
    name, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        name, value = "", 0.0
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER")
    return name, value


def load(args: argparse.Namespace, method: str) -> Any:
    """Load the model, which must have a method.

    Raises:
        OptionError: it is a model for something else.
        BundleError, ProviderError: see `vlrt.load`.
    """
    model = vlrt.load(
        args.model,
        precision=args.precision,
        device=args.device,
        providers=args.provider,
        revision=args.revision,
        offline=args.offline,
        threads=args.threads,
        spinning=not args.no_spinning,
        decode=args.decode,
        values=dict(args.value),
        memory_limit=args.memory_limit,
        cuda_graph=args.cuda_graph,
        engine_cache=args.engine_cache,
        similarity=args.similarity,
    )
    if not hasattr(model, method):
        raise OptionError(
            f"{args.model} is a model for {model.info['task']}, which this verb cannot use"
        )
    return model


def labels(args: argparse.Namespace) -> list[str]:
    """Read the labels given by `add_label_options`.

    Raises:
        OptionError: there are none, or both kinds, or the file cannot be read.
    """
    if (args.labels is None) == (args.labels_file is None):
        raise OptionError("give the labels once: --labels or --labels-file")
    if args.labels is not None:
        return [label.strip() for label in args.labels.split(",")]
    return file_lines(args.labels_file, "labels")


def file_lines(path: str, what: str) -> list[str]:
    """Read a file with a text a line; messages call them `what`.

    Raises:
        OptionError: it cannot be read, or holds none.
    """
    try:
        lines = text_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{what} file {path!r} cannot be read: {error}") from error
    if not lines:
        raise OptionError(f"{what} file {path!r} holds no {what}")
    return lines


def prompts(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Read the templates given by `add_label_options`; None if there are none."""
    return templates.read(args.templates) if args.templates else None


def pictures(given: Sequence[str]) -> list[Source]:
    """Find the pictures, and say on stderr how many other files were left out."""
    found, others = find_pictures(given)
    if others:
        print(f"left out, no pictures by their suffix: {len(others)} files", file=sys.stderr)
    return found


def json_line(path: str, result: Any) -> dict[str, Any]:
    """What `--json` prints of one picture: its result, or why it could not be read."""
    if isinstance(result, ImageError):
        return {"image": path, "error": str(result)}
    return {"image": path, **result.to_dict()}


def check_free(target: Path, *, overwrite: bool) -> None:
    """Refuse the name of a file that is to be written, if one has it and is to stay.

    Raises:
        OptionError: there is such a file, or the name cannot be a file's.
    """
    with writing(target):
        if target.exists() and not overwrite:
            raise OptionError(f"{target} already exists; choose another name, or pass --overwrite")


def write_results(chunks: Iterator[str], target: Path | None) -> None:
    """Write results as they come: to stdout, or to a file that appears when it is complete.

    Raises:
        OptionError: the file cannot be written.
    """
    if target is None:
        for chunk in chunks:
            sys.stdout.write(chunk)
        return
    with whole_file(target) as file:
        for chunk in chunks:
            with writing(target):
                file.write(chunk.encode())


class Progress:
    """A bar on stderr for several things, drawn only where someone watches it.

    Args:
        total: how many.
        printing: results go to stdout meanwhile. On one terminal they would tear the bar, and they
            show progress themselves, so there is none.
    """

    def __init__(self, total: int, *, printing: bool = False) -> None:
        self._total, self._done, self._start = total, 0, time.monotonic()
        self._shown = total > 1 and sys.stderr.isatty() and not (printing and sys.stdout.isatty())

    def advance(self, number: int) -> None:
        """Count `number` more as done."""
        self._done += number
        if self._shown:
            filled = 30 * self._done // self._total
            rate = self._done / max(time.monotonic() - self._start, 1e-9)
            bar = "#" * filled + "." * (30 - filled)
            print(f"\r{bar} {self._done}/{self._total}  {rate:.1f}/s ", end="", file=sys.stderr)

    def say(self, line: str) -> None:
        """Print a line on stderr, in place of the bar."""
        print(f"\r\033[K{line}" if self._shown else line, file=sys.stderr)

    def close(self) -> None:
        """End the line."""
        if self._shown:
            print(file=sys.stderr)
