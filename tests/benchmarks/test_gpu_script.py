"""`benchmarks/gpu.sh` itself: a rehearsal without a GPU, of the smallest checkpoint."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

for needed in ("psutil", "scipy", "torch", "transformers", "onnx"):
    pytest.importorskip(needed, reason="the benchmarks need the extras bench and export")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(sys.platform != "linux", reason="the script is for Linux"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def script(place):
    """Runs the script; everything that it makes stays in one folder."""
    variables = {"OUT": place / "out", "WORK": place / "work", "DEVICE": "cpu", "SIZE": "small",
                 "PYTHON": sys.executable, "ARCHIVE": place / "all.tar.gz"}  # fmt: skip
    env = {name: value for name, value in os.environ.items() if name not in ("WHEELS", "DATA")}
    env |= {name: str(value) for name, value in variables.items()}

    def run(*arguments, **more):
        command = ["bash", str(SCRIPT), *arguments]
        return subprocess.run(command, env=env | more, capture_output=True, text=True, check=False)

    return run


def record(place, name):
    return json.loads((place / "out" / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: PIECE"),
        (["tests"], "invalid choice: 'tests'"),
        (["parity", "resnet"], "there is no model 'resnet'; valid: clip-b32, owlvit-b32, vilt"),
        (["soak", "--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_what_is_valid(script, arguments, says):
    done = script(*arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_rehearsal_runs_through_and_is_not_done_twice(script, place):
    assert script("install").returncode == 0
    for piece in ("bundles", "parity", "soak"):
        more = ("--seconds", "2") if piece == "soak" else ()
        done = script(piece, "clip-b32", *more, "--quick")
        assert done.returncode == 0, (piece, done.stdout, done.stderr)
    for piece in ("compiled", "similarity", "tensorrt"):  # which need a GPU, and say so
        assert script(piece, "clip-b32").returncode == 0
    assert script("report").returncode == 0

    installed = record(place, "install")["found"]
    assert (installed["ran_on"], installed["right"]) == ("CPUExecutionProvider", True)
    assert "vlrt" in installed["doctor"]
    variants = record(place, "parity-clip-b32-quick")["found"]["variants"]
    assert list(variants) == ["fp32", "fp16"]
    assert all(one["same"] and one["repeatable"] for one in variants.values())
    assert variants["fp32"]["agreement"] == 1
    memory = record(place, "soak-clip-b32-quick")["found"]["memory"]
    assert memory.keys() == {"host_mib"}
    assert memory["host_mib"]["verdict"] in ("flat", "grows", "too noisy")
    assert "DEVICE=cuda" in record(place, "tensorrt-clip-b32")["why"]
    told = (place / "out" / "gpu.md").read_text()
    assert "A rehearsal" in told
    assert "| clip-b32 | fp16 | cpu |" in told
    with tarfile.open(place / "all.tar.gz") as tar:
        assert {"gpu.md", "gpu.json", "bundles-clip-b32-quick.json"} <= set(tar.getnames())

    again = script("parity", "clip-b32", "--quick")
    assert again.stdout.strip() == "parity-clip-b32-quick was done before"


def test_a_piece_that_fails_says_why_and_ends_with_1(script, place):
    done = script("parity", "vilt")  # of which there is no bundle
    assert done.returncode == 1
    told = record(place, "parity-vilt")
    assert told["status"] == "failed"
    assert "benchmarks/gpu.sh bundles" in told["why"]


def test_a_folder_without_wheels_is_refused(script, place, tmp_path):
    assert script("install", WHEELS=str(tmp_path)).returncode == 1
    assert "has no *.whl and no *.tar.xz" in record(place, "install")["why"]
