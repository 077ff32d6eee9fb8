"""What `vlrt bench tune` found for a bundle on this machine, and whether a load may go by it.

It is of one bundle on one machine. A bundle travels, is often not to be written to, and is checked
by its digests, so what was found stays with the user: a small JSON file for each bundle, under the
sha256 of its manifest, in `folder()`. A bundle without a manifest has none: nobody has checked its
variants, so that the fastest may be wrong.
"""

import json
import math
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vlrt import hardware
from vlrt.bundle import MANIFEST, Bundle
from vlrt.checks import is_number
from vlrt.errors import OptionError
from vlrt.files import file_sha256, whole_file, writing

FORMAT_VERSION = 1
VARIABLE = "VLRT_TUNED_DIR"
_FORGET = "vlrt bench tune --forget"


class Conditions(NamedTuple):
    """What times depend on besides the bundle.

    Attributes:
        processor: its name.
        cpus: those that the process may use.
        int8_kernels: a key of `hardware.MEANINGS`.
        onnxruntime: its version.
    """

    processor: str
    cpus: int
    int8_kernels: str
    onnxruntime: str


class Setup(NamedTuple):
    """What can be chosen of a load.

    Attributes:
        precision: as the bundle calls it.
        threads: inside an operator.
        provider: by ONNX Runtime's name.
    """

    precision: str
    threads: int
    provider: str

    def __str__(self) -> str:
        """The precision and the threads in words."""
        return (
            f"{self.precision} with {self.threads} {'thread' if self.threads == 1 else 'threads'}"
        )


class Tuning(NamedTuple):
    """What was found for one bundle.

    Attributes:
        path: the file that says so.
        date: the day, as 2026-11-21.
        conditions: under which it was measured.
        chosen: the fastest setup beyond noise.
        default: the setup of a load that was not tuned, there and then.
        gain: how many times as fast as the default the chosen one is; 1 if it is the default.
        aim: "latency", of one request at a time, or "throughput", of several at once.
    """

    path: Path
    date: str
    conditions: Conditions
    chosen: Setup
    default: Setup
    gain: float
    aim: str

    def __str__(self) -> str:
        """What was found, in words."""
        if self.chosen == self.default:
            found = f"the default, {self.chosen}, is as fast as any"
        else:
            found = f"{self.chosen}, {self.gain:.2f} times as fast as the default"
        aim = "" if self.aim == "latency" else f" for {self.aim}"
        return f"tuned on this machine on {self.date}{aim}: {found}"

    def misfit(self, here: Conditions, provider: str, available: Collection[str]) -> str:
        """Why a load may not go by it, in words; empty if it may.

        Args:
            here: this machine's conditions.
            provider: the one that this load would take.
            available: all that it may take: no others, if it was asked for one.
        """
        there = self.conditions
        whys = [
            f"tuned on {there.processor}, and this is {here.processor}"
            if there.processor != here.processor
            else "",
            f"tuned with {there.cpus} CPUs, of {here.cpus} here" if there.cpus != here.cpus else "",
            f"tuned with {there.int8_kernels} int8 kernels, which are {here.int8_kernels} here"
            if there.int8_kernels != here.int8_kernels
            else "",
            f"tuned with onnxruntime {there.onnxruntime}, which is {here.onnxruntime} here"
            if there.onnxruntime != here.onnxruntime
            else "",
            self._elsewhere(provider, available),
        ]
        return ", ".join(filter(None, whys))

    def _elsewhere(self, provider: str, available: Collection[str]) -> str:
        """Why the provider does not fit.

        A load that may take any goes to where it was tuned for, if it sets out from where the
        tuning did: a provider that was not there then may be faster than all that were.
        """
        if self.chosen.provider == provider:
            return ""
        if self.chosen.provider not in available or self.default.provider != provider:
            return f"tuned for {self.chosen.provider}, and this load is on {provider}"
        return ""


def folder() -> Path | None:
    """Where the files are, or would be; None where the system tells of no home.

    It is `$VLRT_TUNED_DIR`, or `vlrt/tuned` in the user's folder for configuration: `%APPDATA%` on
    Windows, elsewhere `$XDG_CONFIG_HOME` or `~/.config` (XDG Base Directory Specification 0.8: a
    path that is not absolute does not count).
    """
    if given := os.environ.get(VARIABLE):
        return Path(given)
    variable = "APPDATA" if sys.platform == "win32" else "XDG_CONFIG_HOME"
    roots = (os.environ.get(variable, ""), os.path.expanduser("~/.config"))  # noqa: PTH111
    return next((Path(root, "vlrt", "tuned") for root in roots if os.path.isabs(root)), None)  # noqa: PTH117


def path_of(bundle: Bundle) -> Path | None:
    """The file of a bundle, whether it is there or not; None for a bundle that can have none."""
    root = folder()
    if root is None or bundle.manifest is None:
        return None
    return root / f"{file_sha256(bundle.root / MANIFEST)}.json"


def conditions(int8_kernels: str, onnxruntime: str) -> Conditions:
    """Those of this process."""
    return Conditions(
        hardware.processor_name(), hardware.available_cpus(), int8_kernels, onnxruntime
    )


def find(bundle: Bundle) -> Tuning | None:
    """What was found for a bundle, under whatever conditions; None if it was not tuned.

    Raises:
        OptionError: there is a file, but it cannot be read.
    """
    path = path_of(bundle)
    if path is None:
        return None
    try:
        path.stat()
    except OSError:  # there is none, or a folder that this user may not look into
        return None
    try:
        return _tuning(path, json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise broken(path, bundle, str(error)) from error


def broken(path: Path, bundle: Bundle, why: str) -> OptionError:
    """The error for a file that cannot be gone by, which says how to be rid of it."""
    return OptionError(
        f"{path}, which says how {bundle.name} was tuned, cannot be used: {why}. Tune again, or "
        f"remove it: {_FORGET} {bundle.name}"
    )


def write(bundle: Bundle, tuning: Tuning, **more: Any) -> None:
    """Write a file, in place of one that is there.

    Args:
        bundle: what was tuned.
        tuning: what was found; its path is that of `path_of`.
        more: what loads do not read, and people may: how it was measured; ready for JSON.

    Raises:
        OptionError: it cannot be written.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "bundle": bundle.name,
        "date": tuning.date,
        "conditions": tuning.conditions._asdict(),
        "chosen": tuning.chosen._asdict(),
        "default": tuning.default._asdict(),
        "gain": tuning.gain,
        "aim": tuning.aim,
        **more,
    }
    with whole_file(tuning.path) as file, writing(tuning.path):
        file.write(json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")


def forget(bundle: Bundle) -> Path | None:
    """Remove a bundle's file, whatever it holds; its path, or None if there was none.

    Raises:
        OptionError: the system refuses.
    """
    path = path_of(bundle)
    if path is None:
        return None
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OptionError(f"{path} cannot be removed: {error}") from error
    return path


def _tuning(path: Path, content: Any) -> Tuning:
    """A file's content, checked.

    Raises:
        ValueError: it lacks something, or holds what it cannot be.
    """
    version = _count(content, "format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"its format_version is {version}; this vlrt reads {FORMAT_VERSION}")
    gain = _value(content, "gain")
    if not is_number(gain) or not 0 < gain < math.inf:
        raise ValueError(f"gain is {gain!r:.60}, not a number above 0")
    return Tuning(
        path,
        _text(content, "date"),
        Conditions(
            _text(content, "conditions", "processor"),
            _count(content, "conditions", "cpus"),
            _text(content, "conditions", "int8_kernels"),
            _text(content, "conditions", "onnxruntime"),
        ),
        chosen=_setup(content, "chosen"),
        default=_setup(content, "default"),
        gain=float(gain),
        aim=_text(content, "aim"),
    )


def _setup(content: Any, key: str) -> Setup:
    return Setup(
        _text(content, key, "precision"),
        _count(content, key, "threads"),
        _text(content, key, "provider"),
    )


def _value(content: Any, *keys: str) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _text(content: Any, *keys: str) -> str:
    value = _value(content, *keys)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{' '.join(keys)} is {value!r:.60}, not a text")
    return value


def _count(content: Any, *keys: str) -> int:
    value = _value(content, *keys)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{' '.join(keys)} is {value!r:.60}, not a whole number of 1 or more")
    return value
