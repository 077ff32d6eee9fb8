"""Embedding many pictures to a `.npy` file in bounded memory, losing none silently."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import ImageError, OptionError
from vlrt.files import whole_file, writing


@dataclass
class Written:
    """What `write_vectors` did.

    Attributes:
        vectors: the `.npy` file, float32 [rows, D].
        index: the JSON file beside it, with the path of each row and why others were skipped.
        rows: paths in the order of the rows.
        skipped: path -> why it could not be embedded.
    """

    vectors: Path
    index: Path
    rows: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def write_vectors(
    model: Any,
    pictures: Sequence[str],
    out: Path,
    *,
    batch_size: int = 16,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Written:
    """Embed pictures and write them as they come, so that memory does not grow with their number.

    The files appear under their names when all is done.

    Args:
        model: with `iter_image_embeds`, such as CLIP's.
        pictures: paths.
        out: where to write; the index goes beside it as `<stem>.json`.
        batch_size: pictures in one run of the graph.
        overwrite: replace files that are there.
        progress: called with the number of pictures done since the last call.

    Raises:
        OptionError: `out` does not end in .npy, a file is there already, or none can be written.
        ImageError: not one of the pictures could be read.
    """
    if out.suffix != ".npy":
        raise OptionError(f"the output is {str(out)!r}; it must end in .npy")
    written = Written(out, out.with_suffix(".json"))
    with writing(out):
        for file in (written.vectors, written.index):
            if file.exists() and not overwrite:
                raise OptionError(
                    f"{file} already exists; choose another name, or pass --overwrite"
                )
    with whole_file(out) as rows:
        _write_rows(
            rows,
            written,
            model.iter_image_embeds(pictures, batch_size=batch_size),
            pictures,
            progress,
        )
    index = {"model": model.info, "rows": written.rows, "skipped": written.skipped}
    with writing(written.index):
        written.index.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return written


def _write_rows(
    file: BinaryIO,
    written: Written,
    batches: Iterator[tuple[list[ImageError | None], NDArray[np.float32]]],
    pictures: Sequence[str],
    progress: Callable[[int], None],
) -> None:
    paths = iter(pictures)
    width = 0
    for errors, embeds in batches:
        for path, error in zip(_take(paths, len(errors)), errors, strict=True):
            if error is None:
                written.rows.append(path)
            else:
                written.skipped[path] = str(error)
        if len(embeds):
            with writing(written.vectors):
                if not width:
                    width = embeds.shape[1]
                    _write_header(file, (len(pictures), width))
                file.write(np.ascontiguousarray(embeds, np.float32).tobytes())
        progress(len(errors))
    if not written.rows:
        first = next(iter(written.skipped.values()))
        raise ImageError(f"none of {len(pictures)} pictures could be read; first: {first}")
    with writing(written.vectors):
        file.seek(0)
        _write_header(file, (len(written.rows), width))


def _take(paths: Iterator[str], number: int) -> list[str]:
    return [next(paths) for _ in range(number)]


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    """A .npy header; NumPy leaves room in it for the number of rows to change in place."""
    description: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
