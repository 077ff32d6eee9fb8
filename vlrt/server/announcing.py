"""What a server says when it starts: its models, its limits, and a request that works."""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vlrt import demo
from vlrt.server.models import TASKS, Catalogue, Served
from vlrt.server.settings import Settings


class Example(NamedTuple):
    """What a request may be about."""

    picture: str
    labels: Sequence[str]
    question: str


_EXAMPLE = Example("photo.jpg", ("a cat", "a dog"), "what is in the picture?")


def announcement(settings: Settings, catalogue: Catalogue, address: str) -> Iterator[str]:
    """Lines to print once the server listens.

    Args:
        settings: as it has them.
        catalogue: its models.
        address: where it listens, such as `http://127.0.0.1:8000`.
    """
    yield from table(
        ["model", "task", "precision", "provider", "threads", "serves"],
        [
            [
                served.name,
                str(served.info["task"]),
                f"{served.info['precision']} ({served.info['precision_reason']})",
                str(served.info["provider"]),
                str(served.info["threads"]),
                ", ".join(sorted(served.tasks)) or "its graphs alone, at /v2",
            ]
            for served in catalogue
        ],
    )
    yield (
        f"limits   {settings.max_body_mib:g} MiB and {settings.max_images} pictures a request, "
        f"{settings.max_megapixels:g} megapixels a picture, {settings.max_labels} labels, "
        f"{settings.queue_length} jobs a model, {settings.deadline_s:g} s a job"
    )
    yield f"address  {address}"
    # The page has nothing to show of embeddings, or of graphs alone.
    shown = settings.page and any(served.tasks - {"embeddings"} for served in catalogue)
    page = " (or open the address in a browser)" if shown else ""
    yield f"try it{page}:"
    yield f"  {curl(settings, catalogue, address)}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells as lines, each column as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def curl(settings: Settings, catalogue: Catalogue, address: str) -> str:
    """A command line that asks one of the models; a key stands in it as `$VLRT_KEY`."""
    start = "curl -s"
    if settings.api_keys:
        start += ' -H "Authorization: Bearer $VLRT_KEY"'
    sources = {model.name: model.source for model in settings.models}
    for task in TASKS:
        for served in catalogue:
            if task in served.tasks:
                about = example(Path(sources[served.name]))
                return f"{start} {address}{_request(task, served, about)}"
    return f"{start} {address}/v2/models/{next(iter(catalogue)).name}"


def example(source: Path) -> Example:
    """What a model may be asked: of its own pictures, if it is one that comes with vlrt."""
    family = source.name
    if source.absolute() != demo.bundle(family).absolute():
        return _EXAMPLE
    pictures = demo.ROOT / "pictures"
    described = json.loads((pictures / f"{family}.json").read_text(encoding="utf-8"))["pictures"]
    first = described[0]
    named = [entry["truth"] for entry in described if "truth" in entry]
    seen = [entry["label"] for entry in first.get("objects", ())]
    questions = [entry["question"] for entry in first.get("questions", ())]
    return Example(
        str(pictures / first["file"]),
        (named or seen or _EXAMPLE.labels)[:3],
        (questions or [_EXAMPLE.question])[0],
    )


def _request(task: str, served: Served, about: Example) -> str:
    """The path of a request, and what is sent there."""
    if task == "embeddings":
        body = json.dumps({"model": served.name, "input": list(about.labels)})
        return f"/v1/embeddings -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    fields = {"model": served.name, "image": f"@{_form_path(about.picture)}"}
    if task in ("classify", "detect"):
        fields["labels"] = json.dumps(list(about.labels))
    else:
        fields["question" if task == "ask" else "text"] = about.question
    told = (f"-F {shlex.quote(f'{name}={value}')}" for name, value in fields.items())
    return f"/v1/{task} {' '.join(told)}"


def _form_path(path: str) -> str:
    """A path as curl reads it in a form, where `;` and `,` would end it."""
    if re.search(r'[;,"\\]', path):
        escaped = path.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return path
