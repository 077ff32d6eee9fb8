"""The `vlrt` command: every verb loads, calls one method, and prints text or JSON."""

import argparse
import importlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import vlrt
from vlrt import cli_ask, cli_detect
from vlrt import cli_options as options
from vlrt.cli_options import add_verb
from vlrt.errors import ExtraMissingError, ImageError, OptionError, VlrtError
from vlrt.files import writing


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 if all went well; 1 if anything was refused, failed or skipped, with the reason on stderr.
        Wrong usage exits with 2.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A terminal may be unable to show a label, or a name that is no UTF-8: no reason to stop.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if arguments and arguments[0] in _FORWARDED:
            status = _forward(arguments[0], arguments[1:])
        else:
            args = _parsed(arguments)
            status = int(args.run(args))
        sys.stdout.flush()
    except VlrtError as error:
        print(f"vlrt: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has what it wanted
        _abandon_stdout()
        return 0
    except OSError as error:  # most likely of stdout: files are named where they are used
        print(f"vlrt: {error}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _abandon_stdout()
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _abandon_stdout() -> None:
    """Let what is still to be written go nowhere, so that the interpreter's end is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Verbs of packages that only some installations can run: verb -> module, extra that it needs.
_FORWARDED = {
    "export": ("vlrt_export.__main__", "export"),
    "bench": ("vlrt_benchmarks.__main__", "bench"),
    "serve": ("vlrt.server.command", "server"),
}


def _forward(verb: str, arguments: list[str]) -> int:
    name, extra = _FORWARDED[verb]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ExtraMissingError(f"vlrt {verb}", extra, error.name or "?") from error
    return int(module.main(arguments))


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    argparse takes the list that a verb begins with up to the first option, and leaves over what
    stands after it: a picture or, in `vlrt ask`, often the question. It belongs to the list too.
    """
    parser = _parser()
    args, left_over = parser.parse_known_args(arguments)
    if left_over:
        if not hasattr(args, "images") or any(text.startswith("-") for text in left_over):
            parser.error(f"unrecognized arguments: {' '.join(left_over)}")
        args.images += left_over
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlrt", description="Vision-language models on ONNX Runtime, without PyTorch."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = add_verb(verbs, "demo", _demo, "run the small models that come with vlrt, offline")
    verb.add_argument("-o", "--output", default=".", metavar="DIR", help="where pictures go")

    verb = add_verb(verbs, "classify", _classify, "score pictures against labels")
    verb.add_argument("images", nargs="+", help=options.SOURCES)
    options.add_label_options(verb)
    verb.add_argument("--top-k", type=options.count, default=5, help="labels to print (default 5)")
    verb.add_argument("--json", action="store_true", help="one JSON object a line, all labels")
    options.add_model_options(verb, batch_size=16)

    cli_detect.add(verbs)
    cli_ask.add(verbs)

    verb = add_verb(verbs, "embed", _embed, "embed pictures to a .npy file")
    verb.add_argument("images", nargs="+", help=options.SOURCES)
    verb.add_argument("-o", "--output", required=True, metavar="FILE.npy")
    verb.add_argument("--overwrite", action="store_true", help="replace the files if they exist")
    options.add_model_options(verb, batch_size=16)

    verb = add_verb(verbs, "info", _info, "describe a bundle")
    verb.add_argument("bundle", help="directory, or owner/name on the hub")
    verb.add_argument("--revision", help="branch, tag or commit on the hub")
    verb.add_argument("--offline", action="store_true", help="use only the hub's cache")
    verb.add_argument("--json", action="store_true", help="the manifest as it stands")

    verb = add_verb(
        verbs, "warmup", _warmup, "run a bundle once in each shape, and say what that took"
    )
    verb.add_argument("model", metavar="bundle", help="directory, or owner/name on the hub")
    options.add_load_options(verb)
    verb.add_argument(
        "--batch-size", type=options.count, nargs="+", default=[1], metavar="B",
        help="sizes of batches (default 1)",
    )  # fmt: skip
    verb.add_argument(
        "--size", type=options.size_wh, nargs="+", default=[(640, 480)], metavar="WxH",
        help="of pictures; ViLT keeps their shape (default 640x480)",
    )  # fmt: skip
    verb.add_argument(
        "--tokens", type=options.count, nargs="+", metavar="N",
        help="of texts (default: on a GPU all lengths that texts are padded to)",
    )  # fmt: skip

    add_verb(verbs, "doctor", _doctor, "say what this machine can run, and what is missing")
    add_verb(verbs, "export", lambda _: 0, "turn a Hugging Face checkpoint into a bundle")
    add_verb(verbs, "bench", lambda _: 0, "measure speed, accuracy and footprint, and compare them")
    add_verb(
        verbs, "serve", lambda _: 0,
        "answer over HTTP: REST, OpenAI embeddings, Open Inference Protocol, a page",
    )  # fmt: skip
    return parser


class _Version(argparse.Action):
    """argparse's own action wants the version at every start; reading it takes time."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"vlrt {vlrt.__version__}")
        parser.exit()


def _demo(args: argparse.Namespace) -> int:
    from vlrt import demo

    out = Path(args.output)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for family in demo.families():
        print("\n".join(family.run(out)))
    return 0


def _classify(args: argparse.Namespace) -> int:
    pictures = [path for path, _ in options.pictures(args.images)]
    labels, prompts = options.labels(args), options.prompts(args)
    model = options.load(args, "iter_classify")
    stream = model.iter_classify(
        pictures, labels, templates=prompts, truncate=args.truncate, batch_size=args.batch_size
    )
    failed = 0
    for path, result in stream:
        if isinstance(result, ImageError):
            print(f"vlrt: {result}", file=sys.stderr)
            failed += 1
        if args.json:
            print(json.dumps(options.json_line(path, result)))
        elif not isinstance(result, ImageError):
            if len(pictures) > 1:
                print(path)
            for label, score in result.top(args.top_k):
                print(f"{score:8.2%}  {label}")
    return 1 if failed else 0


def _embed(args: argparse.Namespace) -> int:
    from vlrt import vectors

    pictures = [path for path, _ in options.pictures(args.images)]
    model = options.load(args, "iter_image_embeds")
    bar = options.Progress(len(pictures))
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


def _warmup(args: argparse.Namespace) -> int:
    model = options.load(args, "warmup")
    sizes_hw = [(height, width) for width, height in args.size]
    rows = model.warmup(args.batch_size, sizes_hw=sizes_hw, lengths=args.tokens)
    print(f"{model.info['precision']} on {model.info['provider']}: {model.info['provider_reason']}")
    for row in rows:
        size = f"{row.size_hw[1]}x{row.size_hw[0]}" if row.size_hw else ""
        tokens = f"{row.tokens} tokens" if row.tokens else ""
        print(
            f"{row.batch_size:4} {row.what:<18} {size:<10} {tokens:<10} "
            f"first {row.first_s * 1000:9.1f} ms, then {row.next_s * 1000:8.1f} ms"
        )
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from vlrt import doctor

    lines, healthy = doctor.report()
    print("\n".join(lines))
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
