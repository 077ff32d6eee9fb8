"""Finding pictures: files, directories and patterns become one list of paths."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from PIL import Image

from vlrt.errors import ImageError, OptionError


class Source(NamedTuple):
    """One picture.

    Attributes:
        path: as given, or as found.
        name: relative to the directory, or to the fixed part of the pattern, that it was found in;
            of a file that was given, its name alone.
    """

    path: str
    name: PurePath


def find_pictures(sources: Sequence[str]) -> tuple[list[Source], list[str]]:
    """Files as given, and every picture below the directories given, in order of path.

    A source that does not exist and holds `*`, `?` or `[` is a pattern, as a shell would read it,
    where `**` stands for any number of directories. In directories and patterns a file counts as a
    picture by its suffix, as Pillow knows them; a file that was given is one whatever its name, and
    one that does not exist is left to be refused by whoever reads it.

    Returns:
        The pictures, and the files in directories and patterns that are none.

    Raises:
        OptionError: there is no picture at all.
        ImageError: a pattern that no file matches.
    """
    Image.init()
    suffixes = Image.registered_extensions()
    pictures: list[Source] = []
    others: list[str] = []
    for source in sources:
        for found, is_given in _expanded(source):
            if is_given or PurePath(found.path).suffix.lower() in suffixes:
                pictures.append(found)
            else:
                others.append(found.path)
    if not pictures:
        raise OptionError(f"there are no pictures in {', '.join(sources) or 'nothing'}")
    return pictures, others


def names_pictures(text: str) -> bool:
    """Whether a text stands for pictures, there or missing, and not for something to be said.

    It does if a file or directory has this name, if it is a pattern that files match, or if it ends
    like a picture's name.
    """
    Image.init()
    if PurePath(text).suffix.lower() in Image.registered_extensions():
        return True
    if not text:  # which a path would take for the directory at hand
        return False
    is_there = _says(Path(text).exists)
    return is_there or (glob.has_magic(text) and any(glob.iglob(text, recursive=True)))  # noqa: PTH207


def _expanded(source: str) -> Iterator[tuple[Source, bool]]:
    """The files of one source, each with whether it was given by name."""
    path = Path(source)
    if _says(path.is_dir):
        for file in sorted(file for file in path.rglob("*") if _says(file.is_file)):
            yield Source(str(file), file.relative_to(path)), False
    elif not glob.has_magic(source) or _says(path.exists) or "://" in source:
        yield Source(source, PurePath(path.name)), True
    else:
        yield from ((found, False) for found in _matches(source))


def _says(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError:  # such as a name too long: its reader will say so
        return False


def _matches(pattern: str) -> list[Source]:
    root = _fixed_part(pattern)
    # Unlike Path.glob, glob leaves hidden files out and finds files by `**` on every Python.
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207
    files = sorted(file for file in matches if _says(Path(file).is_file))
    if not files:
        raise ImageError(f"no file matches {pattern!r}")
    return [Source(file, PurePath(os.path.relpath(file, root))) for file in files]


def _fixed_part(pattern: str) -> Path:
    """The directories before the first part that is a pattern itself."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])
