"""The `vlrt` command: every verb loads, calls one method, and prints text or JSON."""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import vlrt
from vlrt import templates
from vlrt.errors import ExtraMissingError, ImageError, OptionError, VlrtError
from vlrt.files import text_lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 if all went well; 1 if anything was refused, failed or skipped, with the reason on stderr.
        Wrong usage exits with 2.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments and arguments[0] in _FORWARDED:
            return _forward(arguments[0], arguments[1:])
        args = _parser().parse_args(arguments)
        return int(args.run(args))
    except VlrtError as error:
        print(f"vlrt: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


# Verbs of packages that only some installations can run: verb -> module, extra that it needs.
_FORWARDED = {"export": ("vlrt_export.__main__", "export")}


def _forward(verb: str, arguments: list[str]) -> int:
    name, extra = _FORWARDED[verb]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ExtraMissingError(f"vlrt {verb}", extra, error.name or "?") from error
    return int(module.main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlrt", description="Vision-language models on ONNX Runtime, without PyTorch."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = _verb(verbs, "demo", _demo, "run the small models that come with vlrt, offline")
    verb.add_argument("-o", "--output", default=".", metavar="DIR", help="where pictures go")

    verb = _verb(verbs, "classify", _classify, "score pictures against labels")
    verb.add_argument("images", nargs="+", help="picture files")
    verb.add_argument("--labels", help='labels, comma-separated: "a cat,a dog"')
    verb.add_argument("--labels-file", metavar="FILE", help="labels, one a line")
    verb.add_argument("--templates", metavar="imagenet|FILE", help="prompts with a {} each")
    verb.add_argument("--top-k", type=_count, default=5, help="labels to print (default 5)")
    verb.add_argument("--truncate", action="store_true", help="cut labels that are too long")
    verb.add_argument("--json", action="store_true", help="one JSON object a line, all labels")
    _add_model_options(verb)

    verb = _verb(verbs, "embed", _embed, "embed pictures to a .npy file")
    verb.add_argument("sources", nargs="+", help="picture files, and directories to search")
    verb.add_argument("-o", "--output", required=True, metavar="FILE.npy")
    verb.add_argument("--overwrite", action="store_true", help="replace the files if they exist")
    _add_model_options(verb)

    verb = _verb(verbs, "info", _info, "describe a bundle")
    verb.add_argument("bundle", help="directory, or owner/name on the hub")
    verb.add_argument("--revision", help="branch, tag or commit on the hub")
    verb.add_argument("--offline", action="store_true", help="use only the hub's cache")
    verb.add_argument("--json", action="store_true", help="the manifest as it stands")

    _verb(verbs, "doctor", _doctor, "say what this machine can run, and what is missing")
    _verb(verbs, "export", lambda _: 0, "turn a Hugging Face checkpoint into a bundle")
    return parser


def _verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    made.set_defaults(run=run)
    return made


def _add_model_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--model", required=True, help="bundle: a directory, or owner/name on the hub"
    )
    verb.add_argument("--precision", default="auto", help="auto, fp32, fp16, int8, ...")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    verb.add_argument("--provider", action="append", help="an ONNX Runtime provider, by its name")
    verb.add_argument("--threads", type=_count, help="threads (all CPUs of this process if absent)")
    verb.add_argument("--no-spinning", action="store_true", help="idle threads sleep at once")
    verb.add_argument("--decode", default="exact", help="exact, or fast: large JPEGs at less size")
    verb.add_argument(
        "--batch-size", type=_count, default=16, help="pictures in a run (default 16)"
    )
    verb.add_argument("--revision", help="branch, tag or commit on the hub")
    verb.add_argument("--offline", action="store_true", help="use only the hub's cache")
    verb.add_argument(
        "--value", action="append", type=_value, default=[], metavar="NAME=NUMBER",
        help="a number that a foreign bundle does not state: logit_scale=100",
    )  # fmt: skip


class _Version(argparse.Action):
    """argparse's own action wants the version at every start; reading it takes time."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"vlrt {vlrt.__version__}")
        parser.exit()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _value(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER") from None


def _load(args: argparse.Namespace) -> Any:
    return vlrt.load(
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
    )


def _demo(args: argparse.Namespace) -> int:
    from vlrt import demo

    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    for family in demo.families():
        print("\n".join(family.run(out)))
    return 0


def _labels(args: argparse.Namespace) -> list[str]:
    if (args.labels is None) == (args.labels_file is None):
        raise OptionError("give the labels once: --labels or --labels-file")
    if args.labels is not None:
        return [label.strip() for label in args.labels.split(",")]
    try:
        return text_lines(args.labels_file)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"labels file {args.labels_file!r} cannot be read: {error}") from error


def _classify(args: argparse.Namespace) -> int:
    labels = _labels(args)
    prompts = templates.read(args.templates) if args.templates else None
    model = _load(args)
    encoded = model.encode_labels(labels, templates=prompts, truncate=args.truncate)
    failed = 0
    for path in args.images:
        try:
            result = model.classify(path, encoded, batch_size=args.batch_size)
        except ImageError as error:
            print(f"vlrt: {error}", file=sys.stderr)
            failed += 1
            continue
        if args.json:
            print(json.dumps({"image": path, **result.to_dict()}))
            continue
        if len(args.images) > 1:
            print(path)
        for label, score in result.top(args.top_k):
            print(f"{score:8.2%}  {label}")
    return 1 if failed else 0


def _embed(args: argparse.Namespace) -> int:
    from vlrt import vectors

    pictures, others = vectors.find_pictures(args.sources)
    if others:
        print(f"left out, no pictures by their suffix: {len(others)} files", file=sys.stderr)
    model = _load(args)
    bar = Progress(len(pictures))
    written = vectors.write_vectors(
        model,
        pictures,
        Path(args.output),
        batch_size=args.batch_size,
        overwrite=args.overwrite,
        progress=bar.advance,
    )
    bar.close()
    for path, reason in written.skipped.items():
        print(f"vlrt: skipped {path}: {reason}", file=sys.stderr)
    print(f"{len(written.rows)} vectors in {written.vectors}, their paths in {written.index}")
    if written.skipped:
        print(f"vlrt: {len(written.skipped)} of {len(pictures)} were skipped", file=sys.stderr)
    return 1 if written.skipped else 0


def _info(args: argparse.Namespace) -> int:
    from vlrt import describe
    from vlrt.bundle import open_bundle

    bundle = open_bundle(args.bundle, revision=args.revision, offline=args.offline)
    if args.json:
        if bundle.manifest is None:
            raise OptionError(f"{args.bundle} is a foreign bundle: it has no manifest to print")
        print(json.dumps(dict(bundle.manifest), indent=2))
        return 0
    print("\n".join(describe.describe(bundle)))
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from vlrt import doctor

    lines, healthy = doctor.report()
    print("\n".join(lines))
    return 0 if healthy else 1


class Progress:
    """A bar on stderr, drawn only where someone watches it."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._start = total, 0, time.monotonic()
        self._shown = sys.stderr.isatty()

    def advance(self, number: int) -> None:
        """Count `number` more as done."""
        self._done += number
        if self._shown:
            filled = 30 * self._done // self._total
            rate = self._done / max(time.monotonic() - self._start, 1e-9)
            bar = "#" * filled + "." * (30 - filled)
            print(f"\r{bar} {self._done}/{self._total}  {rate:.0f}/s ", end="", file=sys.stderr)

    def close(self) -> None:
        """End the line."""
        if self._shown:
            print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
