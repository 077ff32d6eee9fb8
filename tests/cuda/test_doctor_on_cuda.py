"""`vlrt doctor` on pretended machines: it says what ONNX Runtime's own provider then does."""

import pytest
from machine import Machine

from vlrt import doctor, session
from vlrt.errors import ProviderError
from vlrt.session import CUDA

# --- what runs on the machine ---------------------------------------------------------------------


def diagnose():
    """The doctor's report, and whether CUDA starts."""
    lines, _ = doctor.report()
    try:
        session.start(session.place("cuda"))
    except ProviderError:
        return lines, False
    return lines, True


# --- the tests ------------------------------------------------------------------------------------

GONE = ("libcuda.so.1", "libnvidia-ml.so.1")
OLD = Machine(driver=12040, release="550.54")


@pytest.mark.parametrize(
    ("machine", "works", "words"),
    [
        (Machine(), True, "will work on cuda:0"),
        (Machine(devices=1, name="NVIDIA T4", capability=75), True, "NVIDIA T4"),
        (Machine(without=("libcudnn.so.9",)), True, "does not find cuDNN 9"),
        (Machine(devices=0), False, "shows no GPU"),
        (OLD, False, "driver 550.54 supports CUDA up to 12.4"),
        (Machine(capability=61), False, "compute capability 6.1"),
        (Machine(without=GONE), False, "no NVIDIA GPU and no driver"),
        (Machine(without=("libcublasLt.so.13",)), False, "does not find libcublasLt.so.13"),
    ],
    ids=["two", "T4", "no cuDNN", "none", "old driver", "old device", "no driver", "no cuBLASLt"],
)
def test_it_tells_whether_cuda_works_and_why_not(on_cuda, machine, works, words):
    lines, started = on_cuda(diagnose, machine=machine).value
    said = "\n".join(lines)
    assert started == works
    assert words in said
    assert ("will NOT work" in said) == (not works)
    assert f"  {CUDA}: {'starts' if works else 'DOES NOT START'}" in said
