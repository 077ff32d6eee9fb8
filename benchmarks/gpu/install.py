"""What is in the folder of wheels, unpacked beside this checkout; and whether it runs on the GPU.

The packages go to `WORK/site`, which `gpu.sh` puts in front of the machine's own. There, a CPU-only
onnxruntime of the machine's is hidden by the GPU's, and `nvidia` leads to the machine's libraries,
as `onnxruntime.preload_dlls` looks for them beside itself.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vlrt.errors import BenchmarkError, ProviderError

from ..machine import gpus
from .child import Child, run
from .record import IncompleteError
from .settings import Settings

MODELS: tuple[str, ...] = ()
_CUDA = "CUDAExecutionProvider"
_LIMIT_S = 240.0


def needed(settings: Settings) -> bool:  # noqa: ARG001
    """Always: what was made before is kept, and costs little to look at."""
    return True


def measure(settings: Settings, model: str | None) -> dict[str, Any]:  # noqa: ARG001
    """What was installed, and what runs.

    Raises:
        BenchmarkError: a package cannot be unpacked, or ONNX Runtime does not load.
        IncompleteError: it loads, and does not add two numbers on the device.
    """
    site = settings.work / "site"
    site.mkdir(parents=True, exist_ok=True)
    found = {"installed": _unpack(settings, site), "nvidia": _link_nvidia(site)}
    job = {"device": settings.device, "threads": settings.threads, "title": settings.device}
    found |= run(Child("install", "prove", job), _LIMIT_S)
    found["gpus"] = gpus()
    there = found["ran_on"] == found["wanted"]
    if not there or not found["right"]:
        wrong = "what it gave is wrong" if there else f"wanted was {found['wanted']}"
        raise IncompleteError(
            f"ONNX Runtime {found['onnxruntime']} has {', '.join(found['providers'])}; an addition "
            f"ran on {found['ran_on']}, and {wrong}. {found['said']}".strip(),
            found,
        )
    return found


def _unpack(settings: Settings, site: Path) -> list[str]:
    """Install the wheels and unpack the archives; their names."""
    folder = settings.wheels
    if folder is None:
        if settings.device == "cuda" and not any(site.glob("onnxruntime*")):
            print("no WHEELS: the machine's own packages are measured", file=sys.stderr)
        return []
    wheels, archives = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.xz"))
    if not wheels and not archives:
        raise BenchmarkError(f"WHEELS is {folder}, which has no *.whl and no *.tar.xz")
    stamp = {path.name: path.stat().st_size for path in (*wheels, *archives)}
    note = site / "installed.json"  # unpacking takes half a minute
    if note.is_file() and json.loads(note.read_text()) == stamp:
        return list(stamp)
    if wheels:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        command += ["--no-compile", "--no-cache-dir", "--upgrade", "--target", str(site)]
        done = subprocess.run(
            [*command, *map(str, wheels)], check=False, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise BenchmarkError(f"pip cannot install {wheels}:\n{done.stderr.strip()}")
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(site, filter="data")
    note.write_text(json.dumps(stamp))
    return list(stamp)


def _link_nvidia(site: Path) -> str | None:
    """Let `nvidia` beside the packages be the machine's; where that is."""
    spec = find_spec("nvidia")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    theirs = [place for place in places if Path(place).parent != site]
    if not theirs:
        return None
    link = site / "nvidia"
    if not link.exists() and not link.is_symlink():
        link.symlink_to(Path(theirs[0]).resolve())
    return str(theirs[0])


def prove(job: Mapping[str, Any]) -> dict[str, Any]:
    """In a process of its own: ONNX Runtime by itself, by vlrt, and what vlrt's doctor says."""
    from vlrt.cli import main
    from vlrt.session import engine, place, start

    ort = engine()
    said = io.StringIO()
    with redirect_stdout(said):
        preload = getattr(ort, "preload_dlls", None)
        if preload is not None and job["device"] == "cuda":
            preload()
    provider = _CUDA if job["device"] == "cuda" else "CPUExecutionProvider"
    providers = list(ort.get_available_providers())
    ran_on, right = _add(ort, provider) if provider in providers else (None, False)
    try:
        start(place(job["device"]))
        by_vlrt = "starts"
    except ProviderError as error:
        by_vlrt = str(error)
    doctor = io.StringIO()
    with redirect_stdout(doctor):
        healthy = main(["doctor"]) == 0
    return {
        "onnxruntime": ort.__version__,
        "file": str(ort.__file__),
        "providers": providers,
        "wanted": provider,
        "ran_on": ran_on,
        "right": right,
        "vlrt": by_vlrt,
        "said": said.getvalue().strip(),
        "doctor": doctor.getvalue().strip(),
        "healthy": healthy,
        "torch": _torch(),
    }


def _add(ort: Any, provider: str) -> tuple[str | None, bool]:
    """Run an addition on a provider: which one its profile says that it ran on, and if it is right.

    None for the provider where it does not start.
    """
    import numpy as np
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1024]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "sum", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch, "profile"))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
        if session.get_providers()[0] != provider:
            return None, False
        given = np.arange(1024, dtype=np.float32)
        (made,) = session.run(None, {"x": given})
        events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["args"].get("provider") for event in events if event.get("cat") == "Node"]
    return next((str(one) for one in ran if one), None), bool(np.array_equal(made, given * 2))


def _torch() -> dict[str, Any]:
    if find_spec("torch") is None:
        return {"version": None}
    import torch

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "available": torch.cuda.is_available(),
    }
