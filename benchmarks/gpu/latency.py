"""Latency and throughput of each model's tower of pictures, by `vlrt bench latency`.

Contenders are processes of their own that take turns. A run starts with pictures as levels in the
host's memory, and ends with the outputs there. Beside the record lies what `vlrt bench` writes.
"""

import json
import subprocess
import sys
from typing import Any

from vlrt.errors import BenchmarkError

from ..children import last_words
from ..peers import BOTH, IMAGE
from .child import end
from .jobs import held
from .record import name_of
from .settings import FULL, Model, Settings

MODELS = tuple(FULL)
_POWERS = tuple(2**at for at in range(9))  # 1 to 256
_QUICK, _SMALL = (1, 8, 64), (1, 2)
_BASES = {"cuda": "torch-fp16", "cpu": "torch-fp32"}


def sizes_of(settings: Settings) -> tuple[int, ...]:
    """Pictures in a run."""
    if settings.sizes:
        return settings.sizes
    return _SMALL if settings.small else _QUICK if settings.quick else _POWERS


def measure(settings: Settings, model: str | None) -> dict[str, Any]:
    """Medians, throughput, and ratios with their intervals, by row.

    Raises:
        BenchmarkError: `vlrt bench latency` failed; the message holds the last that it said.
    """
    one = settings.models[str(model)]
    path = settings.out / "latency" / f"{name_of('latency', one.name, settings)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", __package__.rpartition(".")[0], "latency"]
    command += arguments(settings, one)
    with subprocess.Popen(
        [*command, "-o", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=settings.limit_s)
        except subprocess.TimeoutExpired:
            end(process)
            raise BenchmarkError(
                f"it ran past {settings.limit_s:.0f} s; what was measured is kept, and the same "
                "command goes on from there"
            ) from None
        except BaseException:
            end(process)
            raise
    if process.returncode != 0:
        raise BenchmarkError(f"vlrt bench latency failed:\n{last_words(said)}")
    return summed(json.loads(path.read_text())) | {
        "file": path.relative_to(settings.out).as_posix()
    }


def arguments(settings: Settings, model: Model) -> list[str]:
    """What `vlrt bench latency` is asked."""
    sizes = sizes_of(settings)
    first, more = sizes[0], sizes[1:]
    bundle = settings.bundle(model)
    there = held(bundle)
    cuda = settings.device == "cuda"
    rounds, turn = ("3", "0.02") if settings.small else ("5", "0.1" if settings.quick else "0.2")
    ours = (
        ["vlrt-fp16", "vlrt-fp16-cuda-graph", "vlrt-fp32"] if cuda else ["vlrt-fp32", "vlrt-fp16"]
    )
    theirs = (
        ["torch-fp16", "torch-compile-fp16", "torch-cuda-graph-fp16"] if cuda else ["torch-fp32"]
    )
    against = ["torch", "torch-compile", "torch-cuda-graph"] if cuda else ["torch"]
    ours = [name for name in ours if name.split("-")[1] in there]
    return [
        str(bundle),
        *("--checkpoint", str(settings.checkpoint(model))),
        *("--device", settings.device),
        *("--precision", *[p for p in there if p in ("fp16", "fp32")]),
        *("--against", *against),
        *("--only", *ours, *theirs),
        *("--base", _BASES[settings.device]),
        *("--stages", BOTH if model.family == "vilt" else IMAGE),
        *("--batch", str(first)),
        *(("--sizes", *map(str, more)) if more else ()),
        *("--threads", str(settings.threads)),
        *("--rounds", rounds, "--turn", turn, "--size", "640x480"),
        *("--cache", str(settings.work / "cache")),
        *("--allow-mismatch", "--leave-out-failed"),
        *(("--together",) if cuda else ()),
    ]


def summed(told: dict[str, Any]) -> dict[str, Any]:
    """The rows of a result of `vlrt bench latency`, without its samples."""
    body = told["body"]
    return {
        "rows": [
            {
                "stage": row["stage"],
                "pictures": row["items"],
                "base": row["base"],
                "summary": row["summary"],
                "ratios": row["ratios"],
                "same_class": row["same_class"],
                "noise": row["noise"],
            }
            for row in body["rows"]
        ],
        "agreement": body["agreement"],
        "contenders": body["contenders"],
        "skipped": told["skipped"],
        "fairness": told["fairness"],
        "notes": told["notes"],
    }
