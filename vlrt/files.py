"""The files of a bundle: names that stay inside it, digests, JSON whose missing keys are named."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from vlrt.errors import BundleError, BundleNotFoundError, OptionError, VlrtError


class Settings(Mapping[str, Any]):
    """A JSON object that knows its file, so that a missing key names both."""

    def __init__(self, file: str, values: Mapping[str, Any]) -> None:
        self.file = file
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def need(self, key: str) -> Any:
        """The value of `key`.

        Raises:
            BundleError: it is missing, or null.
        """
        if self._values.get(key) is None:
            raise BundleError(f"{self.file} has no {key!r}, which this model needs")
        return self._values[key]

    def section(self, key: str) -> "Settings":
        """The object under `key`, as settings of their own."""
        value = self.need(key)
        if not isinstance(value, dict):
            raise BundleError(f"{self.file}: {key!r} is {value!r:.60}, not an object")
        return Settings(f"{self.file} ({key})", value)


def read_settings(root: Path, name: str) -> Settings:
    """One of a bundle's JSON files.

    Raises:
        BundleNotFoundError: it is missing.
        BundleError: it is not a JSON object.
    """
    path = inside(root, name)
    if not path.is_file():
        raise BundleNotFoundError(f"{root} lacks the file {name}")
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise BundleError(f"{path} is not a JSON object")
    return Settings(str(path), values)


def inside(root: Path, name: str) -> Path:
    """The path of a bundle's file.

    Raises:
        BundleError: the name would leave the bundle, by its text or by a link in a local bundle.
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
        raise BundleError(f"{name!r} leaves the bundle {root}; names in it are relative, inside it")
    path = root / pure
    # The hub's cache keeps snapshots/<commit>/ as links into blobs/, two levels up.
    allowed = root.resolve().parents[1] if root.parent.name == "snapshots" else root.resolve()
    if not path.resolve().is_relative_to(allowed):
        raise BundleError(f"{name!r} is a link that leaves the bundle {root}")
    return path


def file_sha256(*paths: Path) -> str:
    """The sha256 of a file, or of several one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def text_lines(path: str) -> list[str]:
    """The lines of a UTF-8 text file that are not empty, without the space around them.

    A byte order mark, which some editors write, is no part of the first line.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read; the caller knows what it was to be.
    """
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Around what writes a file, or looks at its place: what fails there names the file.

    Raises:
        OptionError: the system refuses, or the file's format cannot hold what is to be written.
    """
    try:
        yield
    except VlrtError:
        raise
    except (OSError, ValueError) as error:
        raise OptionError(f"{str(target)!r:.200} cannot be written: {error}") from error


@contextmanager
def whole_file(target: Path) -> Iterator[BinaryIO]:
    """A file to be written that appears under its name when all is written, and else not at all.

    Raises:
        OptionError: it cannot be written; in the block, `writing` says so.
    """
    partial = target.with_name(f"{target.name}.partial")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("wb")
    try:
        yield file
        with writing(target):
            file.close()  # what is written last may be what the disk has no room for
            partial.replace(target)
    finally:
        with suppress(OSError):  # said above
            file.close()
        partial.unlink(missing_ok=True)
