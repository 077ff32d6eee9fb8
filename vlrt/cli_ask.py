"""`vlrt ask` and `vlrt match`: questions about pictures, and which texts and pictures fit."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlrt import cli_options as options
from vlrt.errors import ImageError, OptionError
from vlrt.results import Answers, Matches
from vlrt.sources import names_pictures
from vlrt.stream import Stream

T = TypeVar("T")
Row: TypeAlias = NDArray[np.float32]  # [texts], the logits of one picture

_ASK_USAGE = """%(prog)s PICTURE [PICTURE ...] "QUESTION" --model MODEL [options]
       %(prog)s PICTURE [PICTURE ...] --questions FILE --model MODEL [options]"""


def add(verbs: Any) -> None:
    """Add the verbs to the parser."""
    verb = options.add_verb(verbs, "ask", _ask, "answer questions about pictures")
    verb.usage = _ASK_USAGE
    verb.add_argument(
        "images", nargs="+", metavar="PICTURE",
        help=f"{options.SOURCES}; the last one is the question, unless --questions is given",
    )  # fmt: skip
    verb.add_argument(
        "--questions", metavar="FILE", help="questions, one a line, all asked of every picture"
    )
    verb.add_argument("--top-k", type=options.count, default=5, help="answers to each (default 5)")
    verb.add_argument("--truncate", action="store_true", help="cut questions that are too long")
    _add_output_options(verb)
    options.add_model_options(verb, batch_size=8, unit="pairs of a picture and a question")

    verb = options.add_verb(verbs, "match", _match, "rank texts by how well they fit pictures")
    verb.add_argument("images", nargs="+", help=options.SOURCES)
    verb.add_argument("--texts", required=True, metavar="FILE", help="texts, one a line")
    verb.add_argument(
        "--by", choices=("image", "text"), default="image",
        help="image: for each picture its texts, best first (the default); "
        "text: for each text its pictures, best first, once all pictures were seen",
    )  # fmt: skip
    verb.add_argument(
        "--top-k", type=options.count, help="at most so many texts, or pictures, for each"
    )
    verb.add_argument("--truncate", action="store_true", help="cut texts that are too long")
    _add_output_options(verb)
    options.add_model_options(verb, batch_size=8, unit="pairs of a picture and a text")


def _add_output_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="one JSON object a line")
    verb.add_argument(
        "-o", "--output", metavar="FILE.jsonl", help="with --json: write to a file instead"
    )
    verb.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


# --- ask ------------------------------------------------------------------------------------------


def _ask(args: argparse.Namespace) -> int:
    sources, questions = _sources_and_questions(args)
    target = _target(args)
    paths = [path for path, _ in options.pictures(sources)]
    model = options.load(args, "iter_ask")
    stream = model.iter_ask(
        paths, questions, top_k=args.top_k, truncate=args.truncate, batch_size=args.batch_size
    )

    def chunks(rows: Stream[list[Answers]]) -> Iterator[str]:
        for path, answers in rows:
            if isinstance(answers, ImageError):
                yield from _unreadable(args, path, answers)
            elif args.json:
                yield _line({"image": path, "questions": [one.to_dict() for one in answers]})
            else:
                yield _answers_text(path if len(paths) > 1 else None, answers)

    return _print(chunks, stream, len(paths), target, at_once=True)


def _sources_and_questions(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """What was given as pictures, and all questions: the last argument, or those of a file.

    Raises:
        OptionError: there is no question, or one too many, or no picture; or the file cannot be
            read.
    """
    given: list[str] = args.images
    last = given[-1]
    if args.questions is not None:
        if not names_pictures(last):
            raise OptionError(
                f"{last!r:.200} is no picture that is there; with --questions, no question stands "
                "after the pictures"
            )
        return given, options.file_lines(args.questions, "questions")
    if names_pictures(last):
        raise OptionError(
            f"there is no question: {last!r:.200} names pictures; write the question after the "
            'pictures, such as "How many cats are there?", or give --questions FILE'
        )
    if len(given) == 1:
        raise OptionError(
            f"there is no picture: the last argument, {last!r:.200}, is the question; give "
            "pictures before it"
        )
    return given[:-1], [last]


def _answers_text(path: str | None, asked: Sequence[Answers]) -> str:
    """Score and answer, indented below the question where there are several."""
    several = len(asked) > 1
    lines = [] if path is None else [path]
    for answers in asked:
        lines += [f"  {answers.question}"] if several else []
        for answer, score in zip(answers.answers, answers.scores, strict=True):
            lines.append(f"{'  ' * several}{score:7.3f}  {answer}")
    return "\n".join(lines) + "\n"


# --- match ----------------------------------------------------------------------------------------


def _match(args: argparse.Namespace) -> int:
    texts = tuple(options.file_lines(args.texts, "texts"))
    target = _target(args)
    paths = [path for path, _ in options.pictures(args.images)]
    model = options.load(args, "iter_match")
    stream = model.iter_match(paths, texts, truncate=args.truncate, batch_size=args.batch_size)
    at_once = args.by == "image"

    def chunks(rows: Stream[Row]) -> Iterator[str]:
        if at_once:
            return _by_image(rows, texts, args, several=len(paths) > 1)
        return _by_text(rows, texts, args)

    return _print(chunks, stream, len(paths), target, at_once=at_once)


def _by_image(
    rows: Stream[Row], texts: tuple[str, ...], args: argparse.Namespace, *, several: bool
) -> Iterator[str]:
    """Each picture's texts, best first."""
    for path, row in rows:
        if isinstance(row, ImageError):
            yield from _unreadable(args, path, row)
        else:
            ranked = Matches(texts, row[None]).rank_texts(k=args.top_k)
            yield _ranking(args, ("image", path), ("text", ranked), titled=several)


def _by_text(rows: Stream[Row], texts: tuple[str, ...], args: argparse.Namespace) -> Iterator[str]:
    """Each text's pictures, best first; before them, in JSON, the pictures that cannot be read."""
    paths: list[str] = []
    logits: list[Row] = []
    unreadable: list[str] = []
    for path, row in rows:
        if isinstance(row, ImageError):
            unreadable += _unreadable(args, path, row)
        else:
            paths.append(path)
            logits.append(row)
    yield from unreadable  # now, since the bar stands where they would have been printed
    if not paths:
        return
    matches = Matches(texts, np.stack(logits))
    for position, text in enumerate(texts):
        ranked = [(paths[i], logit) for i, logit in matches.rank_images(position, args.top_k)]
        yield _ranking(args, ("text", text), ("image", ranked), titled=len(texts) > 1)


def _ranking(
    args: argparse.Namespace,
    about: tuple[str, str],
    found: tuple[str, Sequence[tuple[str, float]]],
    *,
    titled: bool,
) -> str:
    """What one picture or text is `about`, if that is to be told, and what was `found` for it."""
    kind, ranked = found
    if args.json:
        entries = [{kind: name, "logit": logit} for name, logit in ranked]
        return _line({about[0]: about[1], f"{kind}s": entries})
    title = [about[1]] if titled else []
    return "\n".join([*title, *(f"{logit:8.3f}  {name}" for name, logit in ranked)]) + "\n"


# --- both -----------------------------------------------------------------------------------------


def _target(args: argparse.Namespace) -> Path | None:
    """The file for the results, checked before anything is loaded; None for stdout."""
    if args.output is None:
        return None
    target = Path(args.output)
    if not args.json or target.suffix.lower() != ".jsonl":
        raise OptionError(f"-o {args.output!r:.200}: valid is, with --json, a name in .jsonl")
    options.check_free(target, overwrite=args.overwrite)
    return target


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"


def _unreadable(args: argparse.Namespace, path: str, error: ImageError) -> Iterator[str]:
    """What results tell of a picture that cannot be read; stderr tells it in any case."""
    if args.json:
        yield _line(options.json_line(path, error))


def _print(
    chunks: Callable[[Stream[T]], Iterator[str]],
    stream: Stream[T],
    number: int,
    target: Path | None,
    *,
    at_once: bool,
) -> int:
    """Print or write what becomes of a stream of pictures, and say which cannot be read.

    Args:
        chunks: makes texts of the stream.
        stream: of pictures, each with its result or its error.
        number: of pictures.
        target: the file to write; None for stdout.
        at_once: whether results are printed as they come, and not all at the end.

    Returns:
        The exit code: 1 if a picture cannot be read.
    """
    bar = options.Progress(number, printing=at_once and target is None)
    failed = 0

    def rows() -> Stream[T]:
        nonlocal failed
        for path, result in stream:
            if isinstance(result, ImageError):
                bar.say(f"vlrt: {result}")
                failed += 1
            yield path, result
            bar.advance(1)
        bar.close()  # here, since what is printed at the end goes below it

    options.write_results(chunks(rows()), target)
    if failed and number > 1:
        print(f"vlrt: {failed} of {number} could not be read", file=sys.stderr)
    return 1 if failed else 0
