"""What each task does with its request. What it computes is the library's, bit for bit.

Each picture is a job of its own, so that those of several requests share the graphs. Jobs give back
JSON: it is written in their threads, and the event loop only puts it together.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vlrt.errors import (
    AddressError,
    ImageError,
    LimitError,
    NotServedError,
    OptionError,
    RequestError,
)
from vlrt.results import Detections, LabelSet
from vlrt.server.answering import rendered
from vlrt.server.context import Context
from vlrt.server.fetch import fetch
from vlrt.server.fields import Address, Source
from vlrt.server.jobs import Done
from vlrt.server.models import Served
from vlrt.server.pictures import picture
from vlrt.server.schemas import AskRequest, ClassifyRequest, DetectRequest, Example, MatchRequest
from vlrt.server.settings import Settings

# Of one picture, as lines of its answer: with every box told for every label, or every answer to
# every question, there would be millions, and a few requests would fill the memory.
MOST_FOUND = 10_000
FETCHING = "fetching pictures"  # stands where jobs have a model's name; none can be called this

_BY_EXAMPLE = ("threshold", "iou_threshold", "top_k")
_BY_LABEL = ("class_agnostic", "multi_label", "soft_nms")
_OF_LABELS = ("templates", "truncate")


async def classify(context: Context, served: Served, asked: ClassifyRequest) -> list[Done[str]]:
    """Score pictures against labels."""
    sources = await fetched(context, asked.sources)
    labels = await context.labels.encoded(
        served, asked.labels, asked.templates, truncate=asked.truncate
    )

    def work(data: bytes) -> Any:
        found = served.model.classify(data, labels).to_dict()
        return {"labels": found["labels"][: asked.top_k]}

    return await each(context, served, sources, work)


async def detect(context: Context, served: Served, asked: DetectRequest) -> list[Done[str]]:
    """Find what labels name, or what looks like examples."""
    if asked.labels is None:
        return await _detect_like(context, served, asked)
    options = asked.given(*_BY_EXAMPLE, *_BY_LABEL)
    sources = await fetched(context, asked.sources)
    labels = await context.labels.encoded(
        served, asked.labels, asked.templates, truncate=asked.truncate
    )
    if not isinstance(labels, LabelSet):  # a model that reads labels with each picture
        options |= asked.given(*_OF_LABELS)

    def work(data: bytes) -> Any:
        return _objects(served.model.detect(data, labels, **options))

    return await each(context, served, sources, work)


async def _detect_like(context: Context, served: Served, asked: DetectRequest) -> list[Done[str]]:
    unused = asked.given(*_BY_LABEL, *_OF_LABELS)
    if unused:
        raise OptionError(
            f"{', '.join(unused)} cannot be had with examples; valid: {', '.join(_BY_EXAMPLE)}"
        )
    if "detect_like" not in served.model.methods:
        raise NotServedError(f"{served.name} finds objects by labels alone, not by examples")
    options = asked.given(*_BY_EXAMPLE)
    examples: Sequence[Example] = asked.examples or ()
    shown = {at: one.image for at, one in enumerate(examples) if one.image is not None}
    on_itself = len(shown) < len(examples)
    if on_itself and len(asked.sources) > 1:
        raise OptionError(
            "an example without an image is in the picture that is searched, so there must be one "
            f"picture, not {len(asked.sources)}"
        )
    names = [("picture", at) for at in range(len(asked.sources))]
    names += [("example", at) for at in shown]
    several = await fetched(context, [*asked.sources, *shown.values()], names)
    sources, pictures = several[: len(asked.sources)], several[len(asked.sources) :]

    def encoded(searched: Any) -> LabelSet:
        """The examples as a set; those without a picture are in the one that is searched."""
        rest = iter(pictures)
        found: LabelSet = served.model.encode_examples(
            [
                searched
                if one.image is None
                else data_of(next(rest), "example", position, len(examples), context.settings)
                for position, one in enumerate(examples)
            ],
            names=[one.name or f"example {position}" for position, one in enumerate(examples)],
            boxes=[one.box for one in examples],
        )
        return found

    if on_itself:

        def work(data: bytes) -> Any:
            seen = served.model.encode_image(data)  # once, though it is searched and an example
            return _objects(served.model.detect_like(seen, encoded(seen), **options))

    else:
        labels = (await context.jobs.run(served.name, partial(encoded, None))).value

        def work(data: bytes) -> Any:
            return _objects(served.model.detect_like(data, labels, **options))

    return await each(context, served, sources, work)


def _objects(found: Detections) -> dict[str, Any]:
    """What was found in a picture, as JSON has it.

    Raises:
        LimitError: it is too much.
    """
    if len(found) > MOST_FOUND:
        raise LimitError(
            f"{len(found)} objects were found; this server tells {MOST_FOUND} of a picture: give a "
            "higher threshold, or top_k"
        )
    return found.to_dict()


async def ask(context: Context, served: Served, asked: AskRequest) -> list[Done[str]]:
    """Answer questions about pictures."""
    sources = await fetched(context, asked.sources)

    def work(data: bytes) -> Any:
        found = served.model.ask(data, asked.asked, top_k=asked.top_k, truncate=asked.truncate)
        number = sum(map(len, found))
        if number > MOST_FOUND:
            raise LimitError(
                f"{number} answers to {len(found)} questions; this server tells {MOST_FOUND} of a "
                "picture: give a lower top_k, or ask less at once"
            )
        return [one.to_dict() for one in found]

    return await each(context, served, sources, work)


async def match(context: Context, served: Served, asked: MatchRequest) -> list[Done[str]]:
    """Score how well pictures and texts belong together."""
    sources = await fetched(context, asked.sources)

    def work(data: bytes) -> Any:
        found = served.model.match(data, asked.matched, truncate=asked.truncate)
        return found.to_dict()["images"][0]

    return await each(context, served, sources, work)


async def fetched(
    context: Context, sources: Sequence[Source], names: Sequence[tuple[str, int]] = ()
) -> list[str | bytes]:
    """Pictures with those fetched that are elsewhere.

    Before there is a job of the model: others of its jobs do not wait for a slow host. But by jobs,
    so that there are no more of them, of all requests, than a model may have. All of a request's
    together may be as large as its body may.

    Args:
        sources: the pictures.
        names: what and which each is, for errors; left out, "picture" and its position.

    Raises:
        AddressError, RequestError: this server does not fetch from there.
        ImageError, LimitError: there is none, or it is too large; of several, it is named.
        OverloadError: too many are being fetched.
    """
    settings = context.settings
    elsewhere = [at for at, source in enumerate(sources) if isinstance(source, Address)]
    if not elsewhere:
        return list(sources)  # type: ignore[arg-type]
    most = int(settings.max_body_mib * 2**20) // len(elsewhere)

    def get(at: int) -> bytes:
        url = sources[at].url  # type: ignore[union-attr]
        try:
            return fetch(url, settings.url_hosts, settings.url_timeout_s, most)
        except (AddressError, ImageError, RequestError) as error:
            what, position = names[at] if names else ("picture", at)
            raise named(error, what, position, len(sources)) from error

    done = await context.fetches.run_all(FETCHING, [partial(get, at) for at in elsewhere])
    found: list[Any] = list(sources)
    for at, one in zip(elsewhere, done, strict=True):
        found[at] = one.value
    return found


async def each(
    context: Context, served: Served, sources: Sequence[str | bytes], work: Callable[[bytes], Any]
) -> list[Done[str]]:
    """Do some work with each picture, in a job of its own.

    Args:
        sources: the pictures, here already.
        work: from the bytes of a picture to what is to be JSON.

    Raises:
        ImageError, LimitError: a picture cannot be read, or is too large; of several, it is named.
        What the work and the jobs raise.
    """

    def job(position: int, source: str | bytes) -> str:
        data = data_of(source, "picture", position, len(sources), context.settings)
        try:
            return rendered(work(data))
        except (ImageError, LimitError) as error:
            raise named(error, "picture", position, len(sources)) from error

    works = [partial(job, position, source) for position, source in enumerate(sources)]
    return await context.jobs.run_all(served.name, works)


def data_of(
    source: str | bytes, what: str, position: int, number: int, settings: Settings
) -> bytes:
    """The bytes of a picture, if the server takes it.

    Args:
        source: as it was given.
        what: to call it.
        position, number: which of how many it is.

    Raises:
        ImageError, LimitError: it cannot be read, or is too large; of several, it is named.
    """
    try:
        return picture(source, settings)
    except (ImageError, LimitError) as error:
        raise named(error, what, position, number) from error


def named(error: Any, what: str, position: int, number: int) -> Any:
    """An error that says which of several it is about; of one alone, the position is not told."""
    return type(error)(f"{what} {position}: {error}") if number > 1 else error
