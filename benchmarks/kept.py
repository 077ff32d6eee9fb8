"""Models that other engines made of a checkpoint, kept with a stamp of what they were made from.

A stamp is a file of JSON beside what was made. It is written last: where something was cut off,
there is none, and it is made anew, as it is when anything that it depends on is another.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vlrt.errors import BenchmarkError
from vlrt.files import file_sha256, whole_file

from .children import OFFLINE, last_words
from .peers import Arrays


def kept(out: Path, stamp: Mapping[str, Any], make: Callable[[], None]) -> Path:
    """A file or folder, made unless what is there has the same stamp.

    Args:
        out: the place.
        stamp: all that it depends on, ready for JSON.
        make: makes it; its errors are passed on.
    """
    note = out.parent / f"{out.name}.stamp.json"
    if out.exists() and note.is_file() and json.loads(note.read_text()) == stamp:
        return out
    print(f"making {out}", file=sys.stderr)
    note.unlink(missing_ok=True)
    make()
    with whole_file(note) as file:
        file.write(json.dumps(stamp).encode())
    return out


def run(command: Sequence[str], what: str) -> None:
    """A program that makes something, without a hub, in an empty folder.

    Args:
        command: its interpreter and arguments.
        what: it makes, for the message.

    Raises:
        BenchmarkError: it failed; the message holds the last that it said.
    """
    env = {**os.environ, **OFFLINE}
    with tempfile.TemporaryDirectory(prefix="vlrt-bench-") as empty:  # where imports look first
        done = subprocess.run(
            list(command), check=False, capture_output=True, text=True, cwd=empty, env=env
        )
    if done.returncode:
        raise BenchmarkError(
            f"{what} cannot be made; exit code {done.returncode}:\n{last_words(done.stderr)}"
        )


@cache
def checkpoint_sha256(checkpoint: Path) -> str:
    """Of its configuration and weights; once a run, for they are large."""
    from vlrt_export.checkpoint import open_checkpoint

    return file_sha256(checkpoint / "config.json", *open_checkpoint(str(checkpoint)).weight_files)


def arrays_sha256(arrays: Arrays) -> str:
    """Of names, types, shapes and numbers, in hexadecimal; their order does not matter."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
