"""ONNX Runtime's OpenVINO provider: it runs, gives what the CPU gives, refuses what it cannot do.

It is in the ONNX Runtime of `vlrt[openvino]`, which overwrites any other: these tests are skipped
in every environment but one of its own.
"""

import collections
import json
import subprocess
import sys

import numpy as np
import pytest
from tolerances import EMBED_ABS

import vlrt
from vlrt.bundle import graph_file
from vlrt.errors import ProviderError

onnxruntime = pytest.importorskip("onnxruntime")
OPENVINO = "OpenVINOExecutionProvider"
pytestmark = pytest.mark.skipif(
    OPENVINO not in onnxruntime.get_available_providers(),
    reason='needs pip install "vlrt[openvino]", in an environment without another ONNX Runtime',
)
TEXTS = ["a photo of a cat", "a red circle", "dog"]


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return vlrt.load(tiny_bundle, providers=[OPENVINO])


def test_auto_takes_the_exact_graphs(model):
    assert model.info["provider"] == OPENVINO
    assert model.info["precision"] == "fp32"


@pytest.mark.parametrize("number", [1, 3])
def test_pictures_of_any_batch_are_what_they_are_on_the_cpu(model, tiny, rng, number):
    pictures = list(rng.integers(0, 256, (number, 40, 56, 3), dtype=np.uint8))
    difference = model.encode_images(pictures) - tiny.encode_images(pictures)
    assert np.abs(difference).max() <= EMBED_ABS["fp32"]


@pytest.mark.parametrize("number", [1, 3])
def test_texts_of_any_length_are_what_they_are_on_the_cpu(model, tiny, number):
    difference = model.encode_texts(TEXTS[:number]) - tiny.encode_texts(TEXTS[:number])
    assert np.abs(difference).max() <= EMBED_ABS["fp32"]


def test_nodes_run_on_it(tiny_bundle, tmp_path):
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    path = tiny_bundle / graph_file("vision_model", "fp32", "portable")
    session = onnxruntime.InferenceSession(str(path), options, providers=[OPENVINO])
    session.run(None, {"pixel_values": np.zeros((1, 3, 32, 32), np.float32)})
    with open(session.end_profiling(), encoding="utf-8") as file:  # noqa: PTH123
        events = json.load(file)
    ran = collections.Counter(
        event["args"]["provider"] for event in events if "provider" in event.get("args", {})
    )
    assert list(ran) == [OPENVINO]


def test_the_doctor_sees_it_start():
    # In a process of its own, which OpenVINO ends at graphs that it does not know.
    program = "import sys; from vlrt import cli; sys.exit(cli.main(['doctor']))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"  {OPENVINO}: starts\n" in done.stdout
    assert "  CPUExecutionProvider: starts\n" in done.stdout


def test_options_that_it_refuses_are_not_the_bundles_fault(tiny_bundle, capfd):
    options = {"device_type": "NO_SUCH_DEVICE"}
    with pytest.raises(ProviderError, match=rf"^{OPENVINO} with .*NO_SUCH_DEVICE"):
        vlrt.load(tiny_bundle, providers=[(OPENVINO, options)])
    assert "Falling back" not in capfd.readouterr().out


@pytest.mark.parametrize("precision", ["int8"])
def test_graphs_that_crash_it_are_refused(tiny_bundle, precision):
    # In a process of its own, which OpenVINO would end with a segmentation fault.
    program = (
        "import sys, vlrt\n"
        "try:\n"
        "    vlrt.load(sys.argv[1], precision=sys.argv[2], providers=[sys.argv[3]])\n"
        "except vlrt.errors.PrecisionError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tiny_bundle), precision, OPENVINO]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert precision in done.stdout
    assert "fp32" in done.stdout
