"""What can be set about the server. `vlrt.server.layers` reads it from where it may stand.

A field's description is the help of its flag; its bounds are told in errors. So what there is to
know about a setting stands here, once.
"""

import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from vlrt.image import DECODE

PREFIX = "VLRT_SERVE_"  # of the environment variables
MASK = "********"  # stands for a key where settings are shown
SHORTEST_KEY = 16

_BOUNDS = ("ge", "le", "gt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*(:[0-9]{{1,5}})?")


def is_name(text: str) -> bool:
    """Whether a model may be called this: it becomes a part of addresses."""
    return _NAME.fullmatch(text) is not None


def name_of(source: str) -> str:
    """What a model is called if nobody says: the last part of its path or of `owner/name`."""
    return Path(source).name or Path(source).resolve().name


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise ValueError(
            f"{name!r} cannot be a model's name; valid: up to 64 letters, digits, '.', '_' and "
            "'-', a letter or a digit first. Give it one: NAME=SOURCE, or name = \"NAME\""
        )
    return name


def _checked_text(text: str) -> str:
    if not text.strip():
        raise ValueError("an empty text is none")
    return text


def _checked_decode(decode: str) -> str:
    if decode not in DECODE:
        raise ValueError(f"{decode!r} is no way to decode; valid: {', '.join(DECODE)}")
    return decode


def _checked_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if text == MASK:
        raise ValueError(
            f"{MASK} only stands for a key that --show-config did not print; "
            "write the key itself, or give it by --api-keys-file"
        )
    if len(text) < SHORTEST_KEY:
        raise ValueError(
            f"a key of {len(text)} characters; valid: {SHORTEST_KEY} or more, hard to guess"
        )
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("a key holds a space or a character that no HTTP header can carry")
    return key


def _checked_host(host: str) -> str:
    lowered = host.lower()
    if not _HOST.fullmatch(lowered):
        raise ValueError(
            f"{host!r} is no host; valid: 'example.org', '*.example.org' for all below it, or "
            "'example.org:8443', without scheme, path or user"
        )
    _, _, port = lowered.partition(":")
    if port and not 1 <= int(port) <= 65535:
        raise ValueError(f"{host!r} has the port {port}; valid: 1 to 65535")
    return lowered


def _checked_origin(origin: str) -> str:
    parts = urlsplit(origin)
    plain = f"{parts.scheme}://{parts.netloc}"
    whole = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    if origin != "*" and not (whole and origin == plain):
        raise ValueError(
            f"{origin!r} is no origin; valid: 'https://example.org', with a port if it is not "
            "the usual one, without a path; or '*' for every site"
        )
    return origin


Text = Annotated[str, AfterValidator(_checked_text)]


class _Checked(BaseModel):
    """What all settings share: no unknown keys, and no `true` where a number belongs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise PydanticCustomError("truth_as_number", "true or false, which are no numbers")
        return value


class ModelSettings(_Checked):
    """A model to serve, and how to load it: `[[models]]` in the file."""

    name: str = ""  # of its source, if it is not given
    source: Text
    precision: Text = "auto"
    device: Text = "auto"
    providers: list[Text] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    revision: Text | None = None
    offline: bool = False
    decode: Annotated[str, AfterValidator(_checked_decode)] = "exact"
    memory_limit: Annotated[int, Field(ge=1)] | None = None  # MiB of a GPU, for each graph
    cuda_graph: bool = False
    engine_cache: Text | None = None
    spinning: bool = False
    max_batch: Annotated[int, Field(ge=1)] | None = None
    values: dict[str, float] = {}

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("source"), str) and given["source"]:
            return {"name": name_of(given["source"]), **given}
        return given

    @field_validator("name")
    @classmethod
    def _good_name(cls, name: str) -> str:
        return _checked_name(name)


class Settings(_Checked):
    """All that can be set about the server.

    It takes what it is given, and nothing else: `layers.read` looks into the environment and the
    file.
    """

    models: list[ModelSettings] = []
    host: Text = Field("127.0.0.1", description="address to listen at; 0.0.0.0 for every one")
    port: int = Field(8000, ge=0, le=65535, description="0 for any that is free")
    batching: bool = Field(True, description="run what several requests want of a graph as one")
    max_delay_ms: float = Field(
        5.0, ge=0, le=10_000, description="longest wait for others to join a batch"
    )
    lanes: int = Field(1, ge=1, le=64, description="graphs that run at the same time")
    work_threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="threads that read pictures and results (if absent: one a CPU)"
    )
    queue_length: int = Field(64, ge=1, description="jobs of one model taken on at a time")
    deadline_s: float = Field(30.0, gt=0, description="after it a job is answered 503")
    max_body_mib: float = Field(32.0, gt=0, description="largest request")
    body_memory_mib: float = Field(
        512.0, gt=0, description="memory for all requests that are not answered yet"
    )
    max_megapixels: float = Field(
        50.0, gt=0, le=89, description="largest picture; 89 is Pillow's own limit"
    )
    max_images: int = Field(16, ge=1, description="pictures in a request")
    max_labels: int = Field(1000, ge=1, description="labels in a request")
    max_prompts: int = Field(5000, ge=1, description="labels times templates in a request")
    max_text_chars: int = Field(2000, ge=1, description="longest label, question or text")
    label_cache_mib: float = Field(64.0, ge=0, description="memory for encoded labels")
    api_keys: list[Annotated[SecretStr, AfterValidator(_checked_key)]] = Field(
        [], description="a key that requests must have one of (none: open to all)"
    )
    cors_origins: list[Annotated[str, AfterValidator(_checked_origin)]] = Field(
        [], description="a site whose pages may ask this server, such as https://example.org"
    )
    url_hosts: list[Annotated[str, AfterValidator(_checked_host)]] = Field(
        [], description="a host that pictures may be fetched from (none: no URLs are taken)"
    )
    url_timeout_s: float = Field(5.0, gt=0, description="longest fetch of a picture")
    keep_alive_s: int = Field(5, ge=1, description="an idle connection is closed after it")
    drain_s: float = Field(30.0, ge=0, description="time to finish requests when told to end")
    page: bool = Field(True, description="the page for trying the models, at /")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="requests are logged up to info"
    )

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: list[ModelSettings]) -> list[ModelSettings]:
        names = [model.name for model in models]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise ValueError(
                    f"two models are called {name!r}; give one another name: NAME=SOURCE, or "
                    'name = "NAME"'
                )
            for other in names:
                if name.startswith(f"{other}."):  # MODEL.COMPONENT is what graphs are called
                    raise ValueError(
                        f"{name!r} could be a graph of the model {other!r}; rename one of them"
                    )
        return models

    @field_validator("cors_origins")
    @classmethod
    def _closed(cls, origins: list[str], info: ValidationInfo) -> list[str]:
        if "*" in origins and info.data.get("api_keys"):
            raise ValueError(
                "'*' does not go together with api_keys: pages of every site could use a key; "
                "name the sites"
            )
        return origins


def valid_values(field: FieldInfo) -> str:
    """The values that a field takes, in words."""
    kind, bounds = field.annotation, list(field.metadata)
    if isinstance(kind, UnionType) or get_origin(kind) not in (None, Literal, list, dict):
        kind = next(choice for choice in get_args(kind) if choice is not type(None))
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        for extra in more:
            bounds += extra.metadata if isinstance(extra, FieldInfo) else [extra]
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _bounds(bounds)
    if get_origin(kind) is list:
        return "a list of tables" if get_args(kind)[0] is ModelSettings else "a list of texts"
    if get_origin(kind) is dict:
        return "a table of numbers"
    return "true or false" if kind is bool else "a text"


def _bounds(metadata: list[Any]) -> str:
    found = {name: getattr(one, name) for one in metadata for name in _BOUNDS if hasattr(one, name)}
    low, high, above = map(found.get, _BOUNDS)
    if above is not None:
        return f" above {above}" + ("" if high is None else f", up to {high}")
    if low is None:
        return ""
    return f" from {low} to {high}" if high is not None else f" of {low} or more"
