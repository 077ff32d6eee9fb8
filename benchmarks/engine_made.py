"""What `engines.py` runs: checkpoints, bundles and OpenVINO's models, kept for the next time."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.files import file_sha256
from vlrt_export.samples import DRAWN

from .checkpoints import make_seeded
from .engine_work import Work, make_calibration

PEERS = Path(__file__).with_name("engine_peers.py")
_SOURCES = (PEERS, PEERS.with_name("engine_models.py"))
_PACKAGES = ("openvino", "nncf", "torch", "transformers")


@dataclass(frozen=True)
class Place:
    """Where the files of one model are."""

    checkpoint: Path
    bundle: Path
    peers: Path


def make_places(
    seeded_root: Path, cache_root: Path, snapshots: Iterable[str], *, reuse: bool
) -> dict[str, Place]:
    """Checkpoints and bundles, by snapshot.

    Args:
        seeded_root: holds the snapshots.
        cache_root: where to keep what is made of them.
        snapshots: their folders' names.
        reuse: take bundles that are there, whatever made them.
    """
    places = {}
    for snapshot in snapshots:
        root = cache_root / snapshot
        checkpoint, bundle = root / "checkpoint", root / "bundle-fp32-int8-calibrated"
        if not (reuse and bundle.is_dir()):
            checkpoint, bundle = make_seeded(
                seeded_root / snapshot, root, "fp32", "int8", calibrate=[DRAWN]
            )
        places[snapshot] = Place(checkpoint, bundle, root / "openvino")
    return places


def make_peers(row: Work, place: Place) -> None:
    """What OpenVINO runs; made anew when anything that it depends on is another.

    Raises:
        SystemExit: it cannot be made.
    """
    calibration = make_calibration(row, place.bundle)
    made_from = {
        "packages": {name: version(name) for name in _PACKAGES},
        "sources_sha256": file_sha256(*_SOURCES),
        "checkpoint_sha256": _checkpoint_sha256(place.checkpoint),
        "calibration_sha256": arrays_sha256(calibration),
    }
    stamp = place.peers / f"{row.shape_name}.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == made_from:
        return
    print(f"{row.name}: converting for OpenVINO and quantising", file=sys.stderr)
    place.peers.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)  # should this be cut off, no stamp stands beside half of it
    with tempfile.TemporaryDirectory(prefix="vlrt-engines-") as scratch:
        inputs = Path(scratch, "calibration.npz")
        np.savez(inputs, **calibration)
        job = {
            "checkpoint": str(place.checkpoint),
            "component": row.component,
            "calibration": str(inputs),
            "folder": str(place.peers),
            "name": row.shape_name,
        }
        made = subprocess.run(
            [sys.executable, str(PEERS), json.dumps(job)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    if made.returncode:
        raise SystemExit(f"{PEERS.name} failed:\n{made.stderr}")
    stamp.write_text(json.dumps(made_from))


@cache
def _checkpoint_sha256(checkpoint: Path) -> str:
    """Of its configuration and weights; once a run, for they are large."""
    return file_sha256(checkpoint / "config.json", checkpoint / "model.safetensors")


def arrays_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Of names, types, shapes and numbers, in hexadecimal; their order does not matter."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
