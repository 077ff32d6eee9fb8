"""What the readers of datasets share: strict access to JSON, pictures that must be there, groups.

Whatever is wrong is a `DatasetError` that names the file, the entry by its id, and what is wrong.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vlrt.errors import DatasetError

K = TypeVar("K", bound=Hashable)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
GROUPS = "groups.json"  # beside a dataset's main file: which of its classes to count apart
_SHOWN = 3  # of many that are wrong alike

_KINDS: dict[type, str] = {int: "a whole number", str: "a text", list: "a list"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        DatasetError: there is no such file, or it is not JSON, or no object.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{path} is a JSON {type(found).__name__}; valid: an object")
    return found


def entries(found: Mapping[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    """The list of objects under `key`.

    Raises:
        DatasetError: there is none, it is empty, or holds something else.
    """
    listed = found.get(key)
    if not isinstance(listed, list):
        raise DatasetError(f"{file} has no list {key!r}; it has: {', '.join(found) or 'nothing'}")
    if not listed:
        raise DatasetError(f"{file}: the list {key!r} is empty")
    for position, entry in enumerate(listed):
        if not isinstance(entry, dict):
            raise DatasetError(f"{file}: {key}[{position}] is {entry!r:.60}; valid: an object")
    return listed


def field(entry: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """A value of an entry, if it is of a kind: int, str or list; a text must not be empty.

    Args:
        entry: the entry.
        name: the value's.
        kind: of the value.
        where: the file and what the entry is called, for the error.

    Raises:
        DatasetError: it is missing, or of another kind.
    """
    value: Any = entry.get(name)
    sound = isinstance(value, kind) and not isinstance(value, bool)
    if sound and (kind is not str or str(value).strip()):
        return value
    raise DatasetError(f"{where}: {name!r} is {value!r:.60}; valid: {_KINDS[kind]}")


def by_id(
    listed: Iterable[dict[str, Any]], name: str, file: Path, what: str
) -> dict[int, dict[str, Any]]:
    """Entries by the whole number under `name`.

    Raises:
        DatasetError: one has none, or two have the same.
    """
    found: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(listed):
        number = field(entry, name, int, f"{file}: {what} {position}")
        if number in found:
            raise DatasetError(f"{file}: {what} {number} is there twice (by its {name})")
        found[number] = entry
    return found


def need_distinct(names: Iterable[K], where: str) -> None:
    """See that nothing is there twice.

    Raises:
        DatasetError: something is.
    """
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise DatasetError(f"{where} twice: {few(twice)}")


def need_pictures(paths: Iterable[Path], where: str) -> None:
    """See that pictures are there.

    Raises:
        DatasetError: some are not; the first of them are named, and all are counted.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(f"{where}: {len(missing)} of its pictures are missing: {few(missing)}")


def few(things: Sequence[Any]) -> str:
    """The first few of things, for a message, and how many more there are."""
    shown = ", ".join(repr(str(thing)) for thing in things[:_SHOWN])
    more = len(things) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def read_groups(folder: Path, known: Mapping[Any, int], what: str) -> dict[str, tuple[int, ...]]:
    """The groups that a dataset's `groups.json` names: {group: [names or ids]}.

    Args:
        folder: where that file may be.
        known: the position of each name or id.
        what: they are called, for the error.

    Returns:
        The positions of each group; none without the file.

    Raises:
        DatasetError: it names something that is not in the dataset, or nothing.
    """
    path = folder / GROUPS
    if not path.is_file():
        return {}
    groups: dict[str, tuple[int, ...]] = {}
    for name, members in read_json(path).items():
        if not isinstance(members, list) or not members:
            raise DatasetError(f"{path}: {name!r} is {members!r:.60}; valid: a list of {what}")
        strange = [
            member for member in members if isinstance(member, list | dict) or member not in known
        ]
        if strange:
            raise DatasetError(
                f"{path}: {name!r} has {what} that there are none of: {few(strange)}"
            )
        need_distinct(members, f"{path}: {name!r} has")
        groups[name] = tuple(known[member] for member in members)
    return groups


def picture_folder(file: Path, given: Path | None) -> Path:
    """Where a file's pictures are: as given, or in `images` beside it, or beside it.

    Raises:
        DatasetError: what was given is no folder.
    """
    if given is not None:
        if not given.is_dir():
            raise DatasetError(f"--images {given} is no folder")
        return given
    beside = file.parent / "images"
    return beside if beside.is_dir() else file.parent
