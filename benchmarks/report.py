"""A result as Markdown and as one page of HTML, and `vlrt bench report`, which joins several.

The page stands alone: no script, nothing from the network. The same results give the same page.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlrt.errors import ExtraMissingError, OptionError
from vlrt.files import whole_file

from . import joined
from .plots import unique
from .views import view_of
from .wording import ABSENT, Figure, Highlight, Table, is_number

Document = dict[str, Any]
_TEMPLATE = Path(__file__).with_name("templates") / "report.html"
_VERBS = {"latency": "Latency", "accuracy": "Accuracy", "footprint": "Footprint", "load": "Load",
          "serve": "Serving", "tune": "Tuning", "compare": "Comparison"}  # fmt: skip
_SEEDED = "The weights are from a seed: speed and memory are real, quality is chance."


def add(verbs: Any) -> None:
    """The verb."""
    parser = verbs.add_parser(
        "report",
        help="show results again, several of one model on one page",
        description="Show results of one model on one page: latency with accuracy, several numbers "
        "of threads, footprint.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json", help="results")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PAGE.html", required=True, help="the page to write"
    )
    parser.add_argument("--title", help="of the page (default: the model's name)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page."""
    from . import document

    if options.output.suffix != ".html":
        raise OptionError(f"-o is {str(options.output)!r}; valid: a name that ends in .html")
    documents = [document.read(path) for path in options.files]
    text = page(documents, title=options.title)
    with whole_file(options.output) as file:
        file.write(text.encode())
    print(options.output)
    return 0


# --- Markdown -------------------------------------------------------------------------------------


def markdown(document: Document) -> str:
    """A result in GitHub's Markdown: what it says, its conditions in short, and its tables."""
    view = view_of(document["kind"])
    parts = [f"# {_escaped(document['title'])}: {_VERBS[document['kind']].lower()}"]
    headline = view.headline(document)
    if headline:
        parts.append(f"**{_escaped(headline)}**")
    parts.append(_in_short(document))
    for table in view.tables(document):
        parts.append(f"## {_escaped(table.title)}")
        parts.append(markdown_table(table.header, table.rows))
        if table.note:
            parts.append(_escaped(table.note))
    for title, sentences in _lists(document):
        parts.append(f"## {title}")
        parts.append("\n".join(f"- {_escaped(sentence)}" for sentence in sentences))
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's; columns of numbers are aligned to the right."""
    right = [_is_numeric(row[column] for row in rows) for column in range(len(header))]
    rules = ["---:" if one else "---" for one in right]
    lines = [[_cell(cell) for cell in header], rules, *([_cell(cell) for cell in r] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_short(document: Document) -> str:
    """One paragraph: the command, where, when and with what."""
    known = document["conditions"]
    machine = known.get("machine", {})
    versions = known.get("versions", {})
    main = [f"{name} {versions[name]}" for name in _MAIN if name in versions]
    said = [
        f"`{_plain_code(document.get('command', ''))}`",
        _escaped(str(machine.get("processor", ""))),
        _threads(known.get("threads")),
        _escaped(", ".join(main)),
        f"commit {str(known['commit'])[:10]}" if known.get("commit") else "",
        str(known.get("date", "")),
    ]
    return "; ".join(one for one in said if one) + "."


_MAIN = ("vlrt", "onnxruntime", "torch", "transformers", "openvino")


def _plain_code(text: str) -> str:
    return text.replace("`", "'").replace("\n", " ")


def _escaped(text: str) -> str:
    """Text that Markdown takes as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*]|\](?=[(\[:]))", r"\\\1", text)  # no code, no emphasis, no link
    return text.replace("\n", " ")


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


def _is_numeric(cells: Iterable[str]) -> bool:
    return all(is_number(cell) for cell in cells)


# --- HTML -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """One result on a page, as the template takes it."""

    name: str
    title: str
    headline: str
    highlights: list[Highlight]
    figures: list[Figure]
    tables: list[Table]
    lists: list[tuple[str, list[str]]]
    command: str
    conditions: list[tuple[str, str]]


def html(document: Document) -> str:
    """A result as a page."""
    return page([document])


def page(documents: Sequence[Document], *, title: str | None = None) -> str:
    """Results of one model as one page.

    Args:
        documents: results.
        title: of the page (default: the first one's).

    Raises:
        OptionError: there are none, or they are of several models.
        ExtraMissingError: what draws or fills the page in is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise ExtraMissingError("a report", "bench", error.name or "jinja2") from error
    joined.check_together(documents)
    kinds = Counter(one["kind"] for one in documents)
    sections = [
        _section(one, f"s{number}", alone=kinds[one["kind"]] == 1)
        for number, one in enumerate(documents, start=1)
    ]
    together = joined.figures(documents) if len(documents) > 1 else []
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(svg=Markup, numeric=_numeric_columns)
    environment.tests["number"] = is_number
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=title or documents[0]["title"],
        about=_about(documents[0]),
        sections=sections,
        together=[_placed(figure, f"j{n}") for n, figure in enumerate(together, start=1)],
    )


def _section(document: Document, name: str, *, alone: bool) -> Section:
    """A result's section; one that is not alone of its kind bears its number of threads."""
    threads = document["conditions"].get("threads")
    view = view_of(document["kind"])
    return Section(
        name,
        _VERBS[document["kind"]] + ("" if alone else f", {_threads(threads)}"),
        view.headline(document),
        view.highlights(document),
        [_placed(one, f"{name}f{n}") for n, one in enumerate(view.figures(document), start=1)],
        view.tables(document),
        list(_lists(document)),
        document.get("command", ""),
        list(_conditions(document)),
    )


def _placed(figure: Figure, prefix: str) -> Figure:
    """A figure whose ids are its own on the whole page."""
    return Figure(figure.title, figure.caption, figure.alt, unique(figure.svg, prefix), figure.wide)


def _about(document: Document) -> str:
    """One line below the title: the machine, its threads and the day."""
    known = document["conditions"]
    said = [
        known.get("machine", {}).get("processor"),
        _threads(known.get("threads")) or None,
        *(gpu.get("name") for gpu in known.get("machine", {}).get("gpus", ())),
        str(known.get("date") or "")[:10] or None,
    ]
    return ", ".join(str(one) for one in said if one)


def _threads(number: int | None) -> str:
    if number is None:
        return ""
    return f"{number} thread{'' if number == 1 else 's'}"


def _lists(document: Document) -> Iterator[tuple[str, list[str]]]:
    """What is said in sentences: fairness, who was skipped, notes."""
    seeded = [_SEEDED] if (document.get("model") or {}).get("seeded") else []
    notes = [*seeded, *document.get("notes", ())]
    skipped = [f"{name}: {how}" for name, how in document.get("skipped", {}).items()]
    for title, sentences in (
        ("What made it fair", list(document.get("fairness", ()))),
        ("Skipped, and how to have it", skipped),
        ("Notes", notes),
    ):
        if sentences:
            yield title, sentences


def _conditions(document: Document) -> Iterator[tuple[str, str]]:
    """Everything that is known of machine, versions, settings and model, flat."""
    for part in ("conditions", "settings", "model"):
        yield from _flat(document.get(part) or {}, "" if part == "conditions" else part)


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, one in value.items():
            said = str(key) if "." in str(key) else str(key).replace("_", " ")  # a file's as it is
            yield from _flat(one, f"{name}, {said}" if name else said)
    elif isinstance(value, list):
        yield name, "; ".join(_item(one) for one in value) or "none"
    else:
        yield name, ABSENT if value is None else str(value)


def _item(value: Any) -> str:
    return ", ".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _numeric_columns(table: Table) -> list[bool]:
    return [_is_numeric(row[column] for row in table.rows) for column in range(len(table.header))]
