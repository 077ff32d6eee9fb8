"""From a request's body to its model: JSON and multipart/form-data end in the same."""

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from reprlib import Repr
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vlrt.errors import LimitError, OptionError, RequestError
from vlrt.server.fields import TAGS
from vlrt.server.multipart import Part, parts
from vlrt.server.schemas import (
    DetectRequest,
    EmbeddingsRequest,
    ImageInput,
    PictureRequest,
    Strict,
    TextInput,
)
from vlrt.server.settings import Settings
from vlrt.server.strict_json import Bounds, bounds_of, parsed_json

R = TypeVar("R", bound=Strict)

JSON, FORM = "application/json", "multipart/form-data"

_TEXT = ("model", "question", "text")
_TEXTS = ("labels", "questions", "texts", "templates")
_MOST_TOLD = 5  # of the mistakes in one request
_SHORT = Repr()
_SHORT.maxstring, _SHORT.maxother = 60, 60
_LARGE = 2**18  # bytes


async def read(
    request: Request, model: type[R], settings: Settings, *, media_types: Sequence[str] = (JSON,)
) -> R:
    """Read a request's body.

    Args:
        request: of which nothing was read yet.
        model: what it should be.
        settings: for their limits.
        media_types: those that are taken, of `JSON` and `FORM`.

    Raises:
        RequestError: the body is not what its Content-Type says.
        OptionError: a field is missing, unknown, or not valid; all of them are named.
        TextError: a text holds a lone surrogate.
        LimitError: it is beyond a limit of the server.
        HTTPException: 415, another Content-Type, or it is compressed.
    """
    check_plain(request)
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in media_types:
        raise HTTPException(
            415, f"Content-Type is {content_type!r:.120}; valid: {', '.join(media_types)}"
        )
    body = await body_of(request)

    def understood() -> R:
        if kind == JSON:
            raw = parsed_json(body, bounds_of(settings))
        else:
            raw = parsed_form(body, content_type, settings)
        try:
            asked = model.model_validate(raw)
        except ValidationError as error:
            raise OptionError(told(error, model)) from error
        check_limits(asked, settings)
        return asked

    # A large one takes a tenth of a second and more, for which the loop serves others.
    return await asyncio.to_thread(understood) if len(body) > _LARGE else understood()


async def body_of(request: Request) -> bytes:
    """The whole body. The request does not keep it, however long its work waits for others."""
    return b"".join([piece async for piece in request.stream()])


def check_plain(request: Request) -> None:
    """Refuse a body that is compressed: what it unfolds to, nothing bounds.

    Raises:
        HTTPException: 415.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise HTTPException(415, f"Content-Encoding is {encoding!r:.40}; valid: identity")


def parsed_form(body: bytes, content_type: str, settings: Settings) -> dict[str, Any]:
    """What the fields of multipart/form-data say, as the JSON of the same request would.

    Pictures are parts named `image`, files or text. A list is its field repeated, or one field of
    JSON; whatever is no text is JSON.

    Raises:
        RequestError: the body is not multipart/form-data, or a field is not the JSON that it must
            be, or a field that takes one value comes twice.
        LimitError: there are more fields than any request within the limits has.
    """
    most = settings.max_images + 2 * settings.max_labels + settings.max_prompts + 20
    fields: dict[str, list[Part]] = {}
    for part in parts(body, content_type, most=most):
        fields.setdefault(part.name, []).append(part)
    bounds = bounds_of(settings)
    return dict(_field(name, given, bounds) for name, given in fields.items())


def _field(name: str, given: list[Part], bounds: Bounds) -> tuple[str, Any]:
    """A field's name and value in JSON."""
    if name == "image":
        pictures = [part.data if part.is_file else part.text for part in given]
        return ("image", pictures[0]) if len(pictures) == 1 else ("images", pictures)
    if name == "images":
        raise RequestError("in multipart/form-data each picture is a part named 'image'")
    file = next((part for part in given if part.is_file), None)
    if file is not None:
        raise RequestError(f"the field {name!r:.80} is a file; files are named 'image'")
    texts = [part.text for part in given]
    if name in _TEXTS:
        return name, _texts(name, texts, bounds)
    if name in ("threshold", "examples"):
        values = [_json_field(name, text, bounds) for text in texts]
        whole = len(values) == 1 and not (name == "examples" and isinstance(values[0], dict))
        return name, values[0] if whole else values
    if len(texts) > 1:
        raise RequestError(f"the field {name!r:.80} is there {len(texts)} times; valid: once")
    return name, texts[0] if name in _TEXT else _json_field(name, texts[0], bounds)


def _texts(name: str, texts: list[str], bounds: Bounds) -> Any:
    # The template "{}" is an object of JSON as well; one of templates has a key.
    json_like = r'\s*(\[|\{\s*")' if name == "templates" else r"\s*\["
    if len(texts) == 1 and re.match(json_like, texts[0]):
        return _json_field(name, texts[0], bounds)
    return texts


def _json_field(name: str, text: str, bounds: Bounds) -> Any:
    try:
        return parsed_json(text.encode(), bounds)
    except LimitError:
        raise
    except RequestError as error:
        raise RequestError(
            f"the field {name!r:.80} is {text!r:.60}, which must be JSON: {error}"
        ) from error


def check_limits(asked: BaseModel, settings: Settings) -> None:
    """Refuse what is more than a server takes.

    Raises:
        LimitError: it is; the message names the limit.
    """
    if isinstance(asked, EmbeddingsRequest):
        inputs = asked.input if isinstance(asked.input, list) else [asked.input]
        pictures = sum(isinstance(one, ImageInput) for one in inputs)
        _at_most("pictures", pictures, "max_images", settings.max_images)
        texts = [_text_of(one) for one in inputs if not isinstance(one, ImageInput)]
        _at_most("texts", len(texts), "max_prompts", settings.max_prompts)
        _short_enough(texts, settings)
    if isinstance(asked, PictureRequest):
        examples = (asked.examples or []) if isinstance(asked, DetectRequest) else []
        pictures = len(asked.sources) + sum(one.image is not None for one in examples)
        _at_most("pictures", pictures, "max_images", settings.max_images)
        _at_most("examples", len(examples), "max_images", settings.max_images)
        for name in ("labels", "questions", "texts"):
            number = len(getattr(asked, name, None) or ())
            _at_most(name, number, "max_labels", settings.max_labels)
        labels, templates = getattr(asked, "labels", None), getattr(asked, "templates", None)
        if templates is not None:
            number = (
                sum(map(len, templates.values()))
                if isinstance(templates, Mapping)
                else len(labels or ()) * len(templates)
            )
            _at_most("labels times templates", number, "max_prompts", settings.max_prompts)
        _short_enough(_every_text(asked, examples), settings)


def _text_of(one: str | TextInput) -> str:
    return one if isinstance(one, str) else one.text


def _every_text(asked: PictureRequest, examples: Iterable[Any]) -> Iterator[str]:
    """The texts of a request for models to read, or to be given back."""
    for name in ("question", "text"):
        if (one := getattr(asked, name, None)) is not None:
            yield one
    for name in ("labels", "questions", "texts", "templates"):
        several = getattr(asked, name, None) or []
        if isinstance(several, Mapping):
            for label, own in several.items():
                yield label
                yield from own
        else:
            yield from several
    yield from (one.name for one in examples if one.name is not None)


def _at_most(what: str, number: int, limit: str, most: int) -> None:
    if number > most:
        raise LimitError(f"{number} {what} in a request; this server takes {most} ({limit})")


def _short_enough(texts: Iterable[str], settings: Settings) -> None:
    for text in texts:
        if len(text) > settings.max_text_chars:
            raise LimitError(
                f"a text of {len(text)} characters, {text!r:.40}...; this server takes "
                f"{settings.max_text_chars} (max_text_chars)"
            )


def told(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with a request, in plain words: each mistake with its field."""
    mistakes = error.errors(include_url=False)
    lines = [_told(each, model) for each in mistakes[:_MOST_TOLD]]
    if len(mistakes) > _MOST_TOLD:
        lines.append(f"and {len(mistakes) - _MOST_TOLD} more")
    return "; ".join(lines)


def _told(mistake: ErrorDetails, model: type[BaseModel]) -> str:
    path = [str(part) for part in mistake["loc"] if part not in TAGS]
    where, given = repr(".".join(path))[:120], mistake["input"]
    match mistake["type"]:
        case "one_of":
            return mistake["msg"]
        case "extra_forbidden":
            valid = f" of this request; valid: {', '.join(model.model_fields)}"
            said = f"is no field{valid if len(path) == 1 else ''}"
        case "missing":
            said = "is missing"
        case "too_short" if not given:
            said = "is an empty list"
        case "string_too_short":
            said = "is an empty text"
        case "model_type":
            where, said = where if path else "the request", "must be an object"
        case _:
            shown = "" if isinstance(given, dict) else f" (it is {_SHORT.repr(given)})"
            said = f"{mistake['msg'].removeprefix('Input ')}{shown}"
    return f"{where} {said}"
