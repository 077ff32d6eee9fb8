"""The kinds of values that requests hold, each checked with one message that says what is valid."""

from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias, TypeVar

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from vlrt.checks import is_number

T = TypeVar("T")


class Address(NamedTuple):
    """A picture that is to be fetched."""

    url: str


Source: TypeAlias = str | bytes | Address  # text is base64 or a data: URL


def source_of(value: Any) -> Source:
    """A picture as JSON or a form gives it: to be fetched, or here.

    Raises:
        PydanticCustomError: it is none.
    """
    match value:
        case str() if value.startswith(("http://", "https://")):
            return Address(value)
        case str() | bytes():
            return value
        case {"url": str(url)} if len(value) == 1:
            return url if url.startswith("data:") else Address(url)
    raise PydanticCustomError(
        "picture",
        'must be a picture: base64, a data: URL, an https: URL or {"url": an https: URL}, where '
        "this server fetches from its host",
    )


def _threshold(value: Any) -> Any:
    numbers = value
    if isinstance(value, dict):
        numbers = list(value.values())
    elif not isinstance(value, list):
        numbers = [value]
    if not all(is_number(number) and 0 <= number <= 1 for number in numbers):
        raise PydanticCustomError(
            "threshold",
            "must be a number from 0 to 1, a list of them, one a label, or an object "
            "from every label to its own",
        )
    return value


def _given(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("null", "must not be null; leave it out instead")
    return value


def _shape(value: Any) -> str | None:
    """Which of the kinds of value that a field takes this one is, if it is one."""
    match value:
        case str():
            return "<text>"
        case list():
            return "<list>"
        case {"type": "text"}:
            return "<text object>"
        case {"type": "image_url"}:
            return "<picture>"
        case dict():
            return "<object>"
    return None


TAGS = ("<text>", "<list>", "<object>", "<text object>", "<picture>")  # not to be told


def kinds(message: str) -> Discriminator:
    """Tells the kinds of value that a field takes apart, each tagged with one of `TAGS`.

    Args:
        message: what the field must be.
    """
    return Discriminator(_shape, custom_error_type="kind", custom_error_message=message)


_UNIT = {"type": "number", "minimum": 0, "maximum": 1}
_PICTURE_TEXT = {
    "type": "string",
    "minLength": 1,
    "description": "base64 (standard alphabet), a data: URL, or an https: URL of a host that this "
    "server fetches from",
}
_PICTURE_ADDRESS = {
    "type": "object",
    "properties": {"url": {"type": "string"}},
    "required": ["url"],
    "additionalProperties": False,
}

Picture: TypeAlias = Annotated[
    Source,
    PlainValidator(source_of),
    WithJsonSchema({"title": "Picture", "anyOf": [_PICTURE_TEXT, _PICTURE_ADDRESS]}),
]
Threshold: TypeAlias = Annotated[
    Any,
    PlainValidator(_threshold),
    WithJsonSchema(
        {
            "anyOf": [
                _UNIT,
                {"type": "array", "items": _UNIT},
                {"type": "object", "additionalProperties": _UNIT},
            ]
        }
    ),
]
if TYPE_CHECKING:
    Maybe: TypeAlias = T | None
else:  # None is what it is where it is left out, and not a value that it takes
    Maybe = Annotated[T, BeforeValidator(_given)]
Text: TypeAlias = Annotated[str, Field(min_length=1)]
# Of a list, one mistake is told: there may be as many as it is long.
Texts: TypeAlias = Annotated[list[Text], Field(min_length=1, fail_fast=True)]
Labels: TypeAlias = Annotated[
    list[Text], Field(min_length=1, json_schema_extra={"uniqueItems": True}, fail_fast=True)
]
Pictures: TypeAlias = Annotated[list[Picture], Field(min_length=1, fail_fast=True)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Unit: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Templates: TypeAlias = Annotated[
    Annotated[Texts, Tag("<list>")] | Annotated[dict[str, Texts], Tag("<object>")],
    kinds("must be a list of texts, or an object from every label to a list of its own"),
]


def optional(description: str) -> Any:
    """A field that may be left out."""
    # A factory, as the schema would state a plain default of null, which is not a valid value.
    return Field(default_factory=NoneType, description=description)


def one_of(*groups: tuple[str, ...]) -> dict[str, Any]:
    """The JSON schema of "one field of each group, and not more than that"."""
    return {"allOf": [{"oneOf": [{"required": [name]} for name in group]} for group in groups]}
