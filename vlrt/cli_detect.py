"""`vlrt detect`: find objects by text or by example, and print them or draw them."""

import argparse
import io
import json
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from PIL import Image

from vlrt import cli_options as options
from vlrt import coco, fonts
from vlrt.checks import checked_unit
from vlrt.errors import ImageError, OptionError
from vlrt.files import writing
from vlrt.image import load_image
from vlrt.results import Detections
from vlrt.sources import Source

# What `iter_detect` has too; here since thresholds for some labels need one for the others.
THRESHOLD = 0.1
DRAWN = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_SAVE_OPTIONS: Mapping[str, dict[str, Any]] = {"JPEG": {"quality": 92, "subsampling": 0}}

Rows: TypeAlias = Iterator[tuple[int, Source, Detections | ImageError]]


def add(verbs: Any) -> None:
    """Add the verb to the parser."""
    verb = options.add_verb(verbs, "detect", _detect, "find objects by text, or by example")
    verb.add_argument("images", nargs="+", help=options.SOURCES)
    options.add_label_options(verb)
    verb.add_argument(
        "--like", action=_Like, metavar="EXAMPLE",
        help="a picture of what to find, instead of labels; may be repeated",
    )  # fmt: skip
    verb.add_argument(
        "--like-box", action=_LikeBox, type=_box, metavar="X0,Y0,X1,Y1",
        help="where the object is in the --like before it, in pixels (all over it if absent)",
    )  # fmt: skip
    verb.add_argument(
        "--threshold", type=float,
        help=f"score that objects exceed (default {THRESHOLD}; with --like, 0)",
    )  # fmt: skip
    verb.add_argument(
        "--label-threshold", type=options.named_number, action="append", default=[],
        metavar="LABEL=NUMBER", help="another threshold for one label; may be repeated",
    )  # fmt: skip
    verb.add_argument(
        "--iou", type=float,
        help="drop a box that overlaps a better one of its label by more "
        "(default: keep all; with --like, 0.3)",
    )  # fmt: skip
    verb.add_argument("--class-agnostic", action="store_true", help="--iou across labels too")
    verb.add_argument("--multi-label", action="store_true", help="a box may have several labels")
    verb.add_argument("--top-k", type=options.count, help="at most so many objects a picture")
    printed = verb.add_mutually_exclusive_group()
    printed.add_argument("--format", choices=tuple(_FORMATS), default="text", help="default: text")
    printed.add_argument(
        "--json", action="store_const", const="jsonl", dest="format", help="--format jsonl"
    )
    verb.add_argument(
        "-o", "--output", metavar="OUT",
        help="draw the boxes: a picture's name, or for several a directory; "
        "or, for --format coco or jsonl, a .json or .jsonl file for the results",
    )  # fmt: skip
    verb.add_argument("--overwrite", action="store_true", help="replace files that exist")
    verb.add_argument("--font", metavar="FILE", help="TrueType font for the labels drawn")
    options.add_model_options(verb, batch_size=4)


class _Like(argparse.Action):
    """Collects [path, box or None] in `like`."""

    def __call__(self, _: Any, args: argparse.Namespace, value: Any, *__: Any) -> None:
        args.like = [*(args.like or []), [value, None]]


class _LikeBox(argparse.Action):
    """Completes the last one of `like`."""

    def __call__(
        self, parser: argparse.ArgumentParser, args: argparse.Namespace, value: Any, *_: Any
    ) -> None:
        if not args.like or args.like[-1][1] is not None:
            parser.error("--like-box stands after the --like that it belongs to, once for each")
        args.like[-1][1] = value


def _box(text: str) -> tuple[float, ...]:
    try:
        box = tuple(float(number) for number in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers: X0,Y0,X1,Y1")
    return box


def _detect(args: argparse.Namespace) -> int:
    query = _query(args)
    pictures = options.pictures(args.images)
    output = _plan(args, pictures)
    ids = coco.image_ids([name for _, name in pictures]) if args.format == "coco" else []
    model = options.load(args, "iter_detect")
    stream = _search(model, [path for path, _ in pictures], args.like, query)
    bar = options.Progress(len(pictures), printing=output.results is None)
    failed: list[str] = []

    def rows() -> Rows:
        for at, (source, (_, found)) in enumerate(zip(pictures, stream, strict=True)):
            if isinstance(found, ImageError):
                bar.say(f"vlrt: {found}")
                failed.append(source.path)
            elif output.drawn:
                _draw(source.path, found, output.drawn[at], args.font)
            yield (ids[at] if ids else at), source, found
            bar.advance(1)

    options.write_results(_FORMATS[args.format](rows(), several=len(pictures) > 1), output.results)
    bar.close()
    if failed and len(pictures) > 1:
        print(f"vlrt: {len(failed)} of {len(pictures)} could not be read", file=sys.stderr)
    if output.drawn and len(failed) < len(pictures):
        print(f"drawn: {args.output}", file=sys.stderr)
    return 1 if failed else 0


def _query(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `iter_detect`, or of `iter_detect_like`; what is not given is left to them."""
    if sum(given is not None for given in (args.labels, args.labels_file, args.like)) != 1:
        raise OptionError("say once what to find: --labels, --labels-file or --like")
    query: dict[str, Any] = {"top_k": args.top_k, "batch_size": args.batch_size}
    if args.iou is not None:
        query["iou_threshold"] = checked_unit("--iou", args.iou)
    if args.threshold is not None:
        checked_unit("--threshold", args.threshold)
    for label, number in args.label_threshold:
        checked_unit(f"--label-threshold of {label!r}", number)
    text_only = {
        "--templates": args.templates,
        "--truncate": args.truncate,
        "--label-threshold": args.label_threshold,
        "--class-agnostic": args.class_agnostic,
        "--multi-label": args.multi_label,
    }
    if args.like:
        misplaced = [name for name, given in text_only.items() if given]
        if misplaced:
            raise OptionError(f"{', '.join(misplaced)}: only with labels, not with --like")
        if args.threshold is not None:
            query["threshold"] = args.threshold
        return query
    if args.class_agnostic and args.iou is None:
        raise OptionError("--class-agnostic has no effect without --iou")
    labels = options.labels(args)
    return query | {
        "labels": labels,
        "threshold": _thresholds(args, labels),
        "class_agnostic": args.class_agnostic,
        "multi_label": args.multi_label,
        "templates": options.prompts(args),
        "truncate": args.truncate,
    }


def _search(
    model: Any, paths: Sequence[str], like: Sequence[Any] | None, query: Mapping[str, Any]
) -> Iterator[tuple[Any, Detections | ImageError]]:
    found: Iterator[tuple[Any, Detections | ImageError]]
    if like:
        examples, boxes = zip(*like, strict=True)
        encoded = model.encode_examples(list(examples), boxes=list(boxes))
        found = model.iter_detect_like(paths, encoded, **query)
    else:
        found = model.iter_detect(paths, **query)
    return found


def _thresholds(args: argparse.Namespace, labels: Sequence[str]) -> float | dict[str, float]:
    base = THRESHOLD if args.threshold is None else args.threshold
    own = dict(args.label_threshold)
    unknown = [label for label in own if label not in labels]
    if unknown:
        raise OptionError(
            f"--label-threshold for {unknown[0]!r}, which is no label; valid: {', '.join(labels)}"
        )
    return {label: own.get(label, base) for label in labels} if own else float(base)


# --- where it goes --------------------------------------------------------------------------------


class _Output(NamedTuple):
    """Files to write: for the results (stdout if None), and a drawn picture for each (or none)."""

    results: Path | None
    drawn: list[Path]


def _plan(args: argparse.Namespace, pictures: Sequence[Source]) -> _Output:
    """Decide before anything is loaded, so that nothing is lost when something is in the way."""
    output = _targets(args, pictures)
    if args.font and not output.drawn:
        raise OptionError("--font is for drawn pictures; name them with -o")
    if args.font:
        fonts.checked_file(args.font)
    seen: dict[Path, str] = {}
    for target, source in zip(output.drawn, pictures, strict=bool(output.drawn)):
        if target in seen:
            raise OptionError(
                f"{seen[target]!r} and {source.path!r} would both be drawn in {str(target)!r}; "
                "give each once, or a directory above both"
            )
        seen[target] = source.path
    originals = {_resolved(path) for path, _ in pictures}
    for target in [*output.drawn, *([output.results] if output.results else [])]:
        if _resolved(target) in originals:
            raise OptionError(f"-o would replace the picture {str(target)!r} itself")
        options.check_free(target, overwrite=args.overwrite)
    return output


def _resolved(path: str | Path) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError):  # a name too long, links that go round: unreadable either way
        return Path(path).absolute()


def _targets(args: argparse.Namespace, pictures: Sequence[Source]) -> _Output:
    if args.output is None:
        return _Output(None, [])
    out = Path(args.output)
    with writing(out):
        is_directory = args.output.endswith("/") or not out.suffix or out.is_dir()
    if is_directory:
        return _Output(None, [_drawn_name(out / name) for _, name in pictures])
    if out.suffix.lower() == {"jsonl": ".jsonl", "coco": ".json"}.get(args.format):
        return _Output(out, [])
    if out.suffix.lower() not in DRAWN:
        raise OptionError(
            f"-o {args.output!r}: valid are a directory, for one picture a name that ends in "
            f"{', '.join(DRAWN)}, with --format jsonl in .jsonl, with --format coco in .json"
        )
    if len(pictures) > 1:
        raise OptionError(
            f"-o {args.output!r} is one picture, and there are {len(pictures)} to draw; name a "
            "directory"
        )
    return _Output(None, [out])


def _drawn_name(target: Path) -> Path:
    """The picture's own name, with `.png` after it where its kind cannot be written."""
    return target if target.suffix.lower() in DRAWN else target.with_name(f"{target.name}.png")


def _draw(path: str, found: Detections, target: Path, font: str | None) -> None:
    from vlrt import draw

    picture = draw.detections(load_image(path), found, font=font)
    kind = Image.registered_extensions()[target.suffix.lower()]
    encoded = io.BytesIO()  # so that a failure leaves no half of a file
    with writing(target):
        picture.save(encoded, kind, **_SAVE_OPTIONS.get(kind, {}))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encoded.getvalue())


# --- what is printed ------------------------------------------------------------------------------


def _text(rows: Rows, *, several: bool) -> Iterator[str]:
    """Score, label, and box as X0,Y0,X1,Y1 in whole pixels inside the picture."""
    for _, source, found in rows:
        if isinstance(found, ImageError):
            continue
        lines = [source.path] if several else []
        column = max(map(_columns, found.names), default=0)
        for name, score, box in zip(
            found.names, found.scores, found.clipped().boxes.round().astype(int), strict=True
        ):
            pad = " " * (column - _columns(name))
            lines.append(f"{score:7.3f}  {name}{pad}  {','.join(map(str, box.tolist()))}")
        lines += [] if len(found) else ["  nothing found"]
        yield "\n".join(lines) + "\n"


def _columns(text: str) -> int:
    """How wide a terminal shows a text."""
    return sum(1 + (unicodedata.east_asian_width(mark) in "WF") for mark in text)


def _json_lines(rows: Rows, *, several: bool) -> Iterator[str]:
    """One object a picture, also of one that cannot be read; the same whether there are several."""
    del several
    for _, source, found in rows:
        yield json.dumps(options.json_line(source.path, found)) + "\n"


def _coco_array(rows: Rows, *, several: bool) -> Iterator[str]:
    """One array over all pictures, an entry a line, written as it grows."""
    del several
    before = "["
    for image_id, source, found in rows:
        if isinstance(found, ImageError):
            continue
        for entry in coco.entries(found, image_id=image_id, file_name=source.name.as_posix()):
            yield f"{before}\n{json.dumps(entry)}"
            before = ","
    yield "[]\n" if before == "[" else "\n]\n"


_FORMATS = {"text": _text, "jsonl": _json_lines, "coco": _coco_array}
