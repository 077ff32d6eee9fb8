"""Where settings come from: flags win over the environment, it over a file, that over defaults."""

import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vlrt.errors import OptionError
from vlrt.server.settings import MASK, PREFIX, ModelSettings, Settings, is_name, valid_values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG = f"{PREFIX}CONFIG"  # the variable that names the file
DEFAULT = "default"
_LISTS = ("models", "api_keys", "cors_origins", "url_hosts")


@dataclass(frozen=True)
class Effective:
    """Settings, and where each came from.

    Attributes:
        settings: the settings.
        origins: setting -> a flag, a variable, the file's path, or "default".
        models: the models as they were given, so that one sees which of their keys were.
    """

    settings: Settings
    origins: Mapping[str, str]
    models: Sequence[Mapping[str, Any]]


def read(
    flags: Mapping[str, tuple[Any, str]], environment: Mapping[str, str], config: str | None = None
) -> Effective:
    """Put the layers together.

    Args:
        flags: setting -> its value, and the flag that gave it.
        environment: variables. Those that begin with `VLRT_SERVE_` are settings. Lists are JSON, or
            separated by commas.
        config: the TOML file, if a flag names one; else `VLRT_SERVE_CONFIG` may.

    Raises:
        OptionError: a key that is not known, or a value that is not valid. The message says where
            it stands.
    """
    path = environment.get(CONFIG) if config is None else config
    layers = [
        {} if path is None else {key: (value, path) for key, value in _table(path).items()},
        dict(_variables(environment)),
        flags,
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, DEFAULT)
    for layer in layers:
        for key, (value, origin) in layer.items():
            values[key], origins[key] = value, origin
    try:
        settings = Settings(**values)
    except ValidationError as error:
        # The input is a key of the API in some: pydantic's own text would show it.
        told = [_told(detail, origins) for detail in error.errors()]
        raise OptionError("; ".join(told)) from None
    return Effective(settings, origins, values.get("models", []))


def model_of(text: str) -> dict[str, str]:
    """Read `[NAME=]SOURCE`. What stands before `=` is a name if it can be one."""
    name, equals, source = text.partition("=")
    return {"name": name, "source": source} if equals and is_name(name) else {"source": text}


def shown(effective: Effective) -> Iterator[str]:
    """The settings as lines of TOML, each with where it came from; keys are masked."""
    for key, field in Settings.model_fields.items():
        if key != "models":
            value = getattr(effective.settings, key)
            yield _line(key, value, field, effective.origins[key])
    for model, given in zip(effective.settings.models, effective.models, strict=True):
        yield ""
        yield "[[models]]"
        for key, field in ModelSettings.model_fields.items():
            origin = effective.origins["models"] if key in given else DEFAULT
            yield _line(key, getattr(model, key), field, origin)


def _line(key: str, value: Any, field: FieldInfo, origin: str) -> str:
    if value is None:
        return f"# {key} is not set; valid: {valid_values(field)}"
    where = origin if origin.isprintable() else ascii(origin)
    return f"{key} = {_toml(value)}  # {where}"


def _toml(value: Any) -> str:
    if isinstance(value, SecretStr):
        return _toml(MASK)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(item)}' for key, item in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _table(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            table = tomllib.load(file)
    except OSError as error:
        raise OptionError(
            f"the settings file {path!r} cannot be read: {error.strerror or error}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is not TOML: {error}") from error
    return table


def _variables(environment: Mapping[str, str]) -> Iterator[tuple[str, tuple[Any, str]]]:
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable == CONFIG:
            continue
        key = variable.removeprefix(PREFIX).lower()
        if variable != variable.upper() or key not in Settings.model_fields:
            known = [PREFIX + name.upper() for name in Settings.model_fields]
            raise OptionError(_unknown(variable, [*known, CONFIG], "the environment"))
        text = environment[variable]
        yield key, (_listed(key, text) if key in _LISTS else text, variable)


def _listed(key: str, text: str) -> list[Any]:
    """Read a list: JSON if it begins as such, else separated by commas."""
    if not text.lstrip().startswith("["):
        entries = [entry.strip() for entry in text.split(",")]
        return [model_of(entry) for entry in entries] if key == "models" else entries
    try:
        values = json.loads(text)
    except ValueError as error:
        where = f"{error}" if key != "api_keys" else "it cannot be parsed"
        raise OptionError(
            f"{PREFIX}{key.upper()} begins as a JSON list and is none: {where}; valid: JSON, or "
            "entries separated by commas"
        ) from None
    return list(values)


def _told(detail: ErrorDetails, origins: Mapping[str, str]) -> str:
    """One error of pydantic's in plain words."""
    location = detail["loc"]
    key = str(location[0])
    kind, where = detail["type"], origins.get(key, "")
    of_model = key == "models" and len(location) > 2
    fields = ModelSettings.model_fields if of_model else Settings.model_fields
    name = str(location[2]) if of_model else key
    if kind == "extra_forbidden":
        known = [field for field in fields if of_model or field != "models"]
        return _unknown(name, known if of_model else [*known, "models"], where)
    what = f"{name} of model {int(location[1]) + 1}" if of_model else name
    if kind == "missing":
        return f"{where}: {what} is missing; valid: {valid_values(fields[name])}"
    if kind == "value_error":
        return f"{where}: {what}: {detail['ctx']['error']}"
    if len(location) > (3 if of_model else 1):
        what += (
            f", entry {location[-1]!r}"
            if isinstance(location[-1], str)
            else (f", entry {location[-1] + 1}")
        )
    value = "no text" if key == "api_keys" else _brief(detail["input"])
    return f"{where}: {what} is {value}; valid: {valid_values(fields[name])}"


def _unknown(key: str, known: Sequence[str], where: str) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join(known)}"
    return f"{where}: {key} is not known; {hint}"


def _brief(value: Any) -> str:
    text = _toml(value) if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
