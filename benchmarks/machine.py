"""Where and with what a benchmark runs: machine, processor, GPUs, versions, commit."""

import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlrt.hardware import available_cpus, cpu_features, processor_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "vlrt", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "numpy", "pillow",
    "simplejpeg", "tokenizers", "torch", "transformers", "openvino", "nncf", "hf-processors-rs",
    "opencv-python-headless", "torchvision", "pycocotools", "scipy", "fastapi", "starlette",
    "uvicorn", "pydantic",
)  # fmt: skip


def conditions(threads: int) -> dict[str, Any]:
    """When, where and with what a benchmark runs; asked first, for it adds to the load itself."""
    import psutil

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "processor": processor_name(),
            "cpu_features": cpu_features(),
            "cores": available_cpus(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "system": platform.platform(),
            # Other work on the machine; near 0 for numbers worth quoting.
            "load_average": [round(load, 2) for load in psutil.getloadavg()],
            "gpus": gpus(),
        },
        "threads": threads,
        "versions": {"python": platform.python_version(), **versions()},
    }


def identity() -> dict[str, Any]:
    """What must be the same for samples to belong to one result, for a journal's plan."""
    return {
        "versions": {"python": platform.python_version(), **versions()},
        "commit": commit(),
        "processor": processor_name(),
    }


def versions() -> dict[str, str]:
    """Of the packages that matter here, those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def gpus() -> list[dict[str, str]]:
    """NVIDIA's GPUs as its driver names them: name, driver and memory; none without a driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    if done.returncode != 0:  # a driver that does not run: said, and no reason to stop
        return [{"name": f"nvidia-smi failed: {done.stderr.strip() or done.stdout.strip()}"}]
    keys = ("name", "driver", "memory")
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.strip()]
    return [dict(zip(keys, row, strict=False)) for row in rows]


def pinned(threads: int) -> list[int]:
    """The processors that every contender is pinned to: as many as it has threads, if there are.

    Empty where the system pins nothing (macOS, Windows).
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[:threads]


def commit() -> str | None:
    """The checkout's commit, marked where files differ from it; outside a checkout what is stated.

    Where git refuses to tell, "unknown" and why. A copy of the sources without git is of the commit
    that the environment's VLRT_COMMIT states, or None.
    """
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return os.environ.get("VLRT_COMMIT") or None

    told = []
    for question in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        command = [git, "-C", str(ROOT), *question]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:  # another user's checkout, say: git tells nothing of it
            return f"unknown: {done.stderr.strip().partition(chr(10))[0]}"
        told.append(done.stdout.strip())
    head, changed = told
    return head + (" with changes" if changed else "")
