"""`vlrt serve`: its flags, and what they come to."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic.fields import FieldInfo

from vlrt import demo
from vlrt.cli_options import file_lines
from vlrt.errors import ExtraMissingError, OptionError
from vlrt.server import layers
from vlrt.server.settings import PREFIX, Settings

_PROGRAM = "vlrt serve"
_AFTER = f"""
Every setting can also stand in a TOML file (--config, or {layers.CONFIG}) or in the environment
({PREFIX}MAX_DELAY_MS=2); --show-config prints them all, as such a file. Flags win over the
environment, and that over the file. A list in the environment is JSON or separated by commas.
Models given here replace those of the file, where each is a table: [[models]] with source, name,
and what else the flags for models say, and revision and values.
"""
# Settings that are lists: each flag adds one.
_REPEATED = {"api_keys": "api-key", "cors_origins": "cors-origin", "url_hosts": "url-host"}
# For all models of the command line: key of `ModelSettings` -> its flag, and its help.
_OF_MODELS = {
    "precision": ("--precision", "auto, fp32, fp16, int8, ..."),
    "device": ("--device", "auto, cpu, cuda, cuda:1, tensorrt"),
    "threads": ("--threads", "threads of each model (all CPUs of this process if absent)"),
    "decode": ("--decode", "exact, or fast: large JPEGs at less size"),
    "memory_limit": ("--memory-limit", "on CUDA, MiB that each graph may take of the GPU"),
    "engine_cache": ("--engine-cache", "where TensorRT keeps its engines"),
    "max_batch": ("--max-batch", "most rows of a graph that are run at once"),
}


def main(arguments: Sequence[str]) -> int:
    """Read the settings and serve until a signal ends it.

    Returns:
        0 if it was ended by SIGTERM or SIGINT and had the time to; 1 if it was not. Wrong usage,
        in a file and the environment too, exits with 2.

    Raises:
        VlrtError: a model cannot be loaded, or the address cannot be had.
    """
    _open_outputs()
    parser = _parser()
    args = parser.parse_intermixed_args(arguments)
    try:
        effective = layers.read(_flags(args), os.environ, args.config)
    except OptionError as error:
        return _misused(str(error))
    if args.show_config:
        print("\n".join(layers.shown(effective)))
        return 0
    if not effective.settings.models:
        return _misused(
            "there is no model to serve; name its SOURCE, or pass --demo, or a file with [[models]]"
        )
    try:
        from vlrt.server import serving
    except ModuleNotFoundError as error:  # pydantic, which reads settings, often is there alone
        raise ExtraMissingError(_PROGRAM, "server", error.name or "?") from error
    return serving.serve(effective.settings)


def _open_outputs() -> None:
    """Let what is said go nowhere where a supervisor has closed stdout or stderr.

    Else there would be nothing to print to, and a connection could get the number of either.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115  kept to the end


def _misused(message: str) -> int:
    print(f"{_PROGRAM}: error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        usage=f"{_PROGRAM} [NAME=]SOURCE ... [options]",
        description="Answer over HTTP: REST, OpenAI embeddings, Open Inference Protocol, a page.",
        epilog=_AFTER,
        allow_abbrev=False,
    )
    parser.add_argument(
        "models", nargs="*", metavar="[NAME=]SOURCE",
        help="a model's bundle: a directory, or owner/name on the hub",
    )  # fmt: skip
    parser.add_argument("--demo", action="store_true", help="serve the models that come with vlrt")
    parser.add_argument("--config", metavar="FILE.toml", help="settings in a file")
    parser.add_argument("--show-config", action="store_true", help="print the settings, and end")
    of_models = parser.add_argument_group("the models given on the command line")
    for key, (flag, text) in _OF_MODELS.items():
        of_models.add_argument(flag, dest=f"model_{key}", metavar=_metavar(flag), help=text)
    of_models.add_argument(
        "--provider", dest="model_providers", action="append", metavar="PROVIDER",
        help="an ONNX Runtime provider, by its name",
    )  # fmt: skip
    for flag, text in (
        ("--offline", "use only the hub's cache"),
        ("--spinning", "let threads that wait within a run spin"),
        ("--cuda-graph", "on CUDA, record the first run of each shape and replay it"),
    ):
        key = flag[2:].replace("-", "_")
        of_models.add_argument(
            flag, dest=f"model_{key}", action="store_true", default=None, help=text
        )
    group = parser.add_argument_group("settings")
    for key, field in Settings.model_fields.items():
        if key != "models":
            _add(group, key, field)
    group.add_argument("--api-keys-file", metavar="FILE", help="keys, one a line")
    return parser


def _add(group: Any, key: str, field: FieldInfo) -> None:
    """Add the flag of a setting. It is only read here: `layers` checks what it says."""
    flag = _flag(key)
    text = (field.description or "").replace("%", "%%")
    if field.annotation is bool:
        usual = "on" if field.default else "off"
        group.add_argument(
            flag, action=argparse.BooleanOptionalAction, default=None, help=f"{text} ({usual})"
        )
    elif key in _REPEATED:
        group.add_argument(
            flag, dest=key, action="append", metavar=_metavar(flag),
            help=f"{text}; may be given again",
        )  # fmt: skip
    else:
        usual = "" if field.default is None else f" ({field.default})"
        group.add_argument(flag, dest=key, metavar=_metavar(flag), help=f"{text}{usual}")


def _flag(key: str) -> str:
    return f"--{_REPEATED.get(key, key.replace('_', '-'))}"


def _metavar(flag: str) -> str:
    return flag.rpartition("-")[2].upper()


def _flags(args: argparse.Namespace) -> dict[str, tuple[Any, str]]:
    """The settings that flags give, each with its flag."""
    given: dict[str, tuple[Any, str]] = {}
    for key in Settings.model_fields:
        value = getattr(args, key, None)
        if value is not None and key != "models":
            given[key] = value, f"--no-{key}" if value is False else _flag(key)
    if args.api_keys_file is not None:
        more = file_lines(args.api_keys_file, "keys")
        keys, origin = given.get("api_keys", ([], ""))
        both = f"{origin}, --api-keys-file" if origin else "--api-keys-file"
        given["api_keys"] = [*keys, *more], both
    models = list(_models(args))
    if models:
        given["models"] = models, "the command line"
    return given


def _models(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    loading = {
        name.removeprefix("model_"): value
        for name, value in vars(args).items()
        if name.startswith("model_") and value is not None
    }
    if loading and not (args.models or args.demo):
        flags = ", ".join(_flag("provider" if key == "providers" else key) for key in loading)
        raise OptionError(
            f"{flags}: only for models of the command line, and it names none; those of the file "
            "and the environment say it themselves"
        )
    for text in args.models:
        yield {**layers.model_of(text), **loading}
    for family in demo.families() if args.demo else ():
        name = family.__name__.rpartition(".")[2]
        yield {"name": f"{name}-demo", "source": str(demo.bundle(name)), **loading}
