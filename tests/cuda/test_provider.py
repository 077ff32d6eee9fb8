"""ONNX Runtime's CUDA provider on pretended machines: it takes our options, or says why not."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from child import mark
from machine import Machine

from vlrt import session
from vlrt.bundle import graph_file
from vlrt.errors import ProviderError
from vlrt.session import CPU, CUDA

# --- what runs on the machine ---------------------------------------------------------------------


def start(device="cuda", options=None):
    """Start the provider on one addition."""
    placement = session.place(device)
    if options is not None:
        placement = session.place(providers=[(CUDA, options), CPU])
    session.start(placement)


def options_of(device):
    """The options that vlrt gives, and those that the provider then has."""
    placement = session.place(device)
    opened = session._opened(
        session._ONE_SUM,
        placement,
        session.session_options(1, spinning=False, exact_products=False),
        1,
    )
    given = {name: str(value) for name, value in placement.providers[0][1].items()}
    return given, opened.get_provider_options()[CUDA]


def operators(graph):
    """How many nodes of each operator run on each provider."""
    ort = session.engine()
    session.preload()
    options = session.session_options(1, spinning=False, exact_products=False)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    opened = ort.InferenceSession(graph, options, providers=[CUDA, CPU])
    found = {}
    for part in opened.get_provider_graph_assignment_info():
        counted = found.setdefault(part.ep_name, Counter())
        counted.update(node.op_type for node in part.get_nodes())
    return found


def run_graph(graph, times):
    """Run a graph that takes pictures, and mark each run in the log."""
    mark("load")
    opened = session.Session(Path(graph), session.place("cuda"), threads=1)
    shape = [size or 1 for size in opened.inputs["pixel_values"].shape]
    for number in range(times):
        mark(f"run {number}")
        opened.run({"pixel_values": np.zeros(shape, np.float32)})
    mark("ran")


# --- the tests ------------------------------------------------------------------------------------


def test_it_starts_and_computes_on_the_device(on_cuda):
    log = on_cuda(start).log
    assert any("OP_Add" in name for name in log.of("kernel").names)
    assert {call["device"] for call in log.of("malloc", of="device")} == {0}
    assert log.of("copy", from_="pageable", to="device")
    assert log.of("copy", from_="device", to="pageable")
    assert not log.of("refused")


@pytest.mark.parametrize(("device", "number"), [("cuda", "0"), ("cuda:1", "1")])
def test_the_provider_takes_every_option_that_we_give_it(on_cuda, device, number):
    given, taken = on_cuda(options_of, device).value
    assert given["device_id"] == number
    # It takes this one too, but does not tell.
    del given["enable_skip_layer_norm_strict_mode"]
    assert given.items() <= taken.items()


def test_an_option_that_it_does_not_know_is_named(on_cuda):
    with pytest.raises(ProviderError, match=r"does not start.*no_such_option"):
        on_cuda(start, "auto", {"no_such_option": "1"})


def test_the_second_device_is_the_second(on_cuda):
    log = on_cuda(start, "cuda:1").log
    assert {call["device"] for call in log.of("malloc", of="device")} == {1}
    assert {call["device"] for call in log.of("kernel")} == {1}


@pytest.mark.parametrize(
    ("device", "machine", "why"),
    [
        ("cuda", Machine(devices=0), "no CUDA-capable device is detected"),
        ("cuda:7", Machine(), "device ID: 7, must be between 0 .* and 2"),
        ("cuda", Machine(driver=12040), "driver version is insufficient"),
        ("cuda", Machine(capability=61), "no kernel image is available"),
        ("cuda", Machine(memory=0), "Failed to allocate memory"),
        ("cuda", Machine(without=("libcuda.so.1",)), "vlrt doctor"),
        ("cuda", Machine(without=("libcublasLt.so.13",)), "vlrt doctor"),
    ],
    ids=["none", "eighth", "driver", "old", "full", "no driver", "no cuBLASLt"],
)
def test_a_machine_that_cannot_is_told_why(on_cuda, device, machine, why):
    with pytest.raises(ProviderError, match=why):
        on_cuda(start, device, machine=machine)


def test_without_cudnn_it_starts(on_cuda):
    on_cuda(start, machine=Machine(without=("libcudnn.so.9",)))


def test_int8_products_run_on_the_cpu_which_is_why_int8_is_not_for_cuda(on_cuda, tiny_bundle):
    found = on_cuda(operators, tiny_bundle / graph_file("vision_model", "int8")).value
    products = {"MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul"}
    assert found[CPU].keys() & products
    assert not found[CUDA].keys() & products


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_pictures_graphs_run_on_cuda_whole(on_cuda, tiny_bundle, precision):
    graph = tiny_bundle / graph_file("vision_model", precision)
    assert list(on_cuda(operators, graph).value) == [CUDA]


def test_memory_is_taken_by_the_first_two_runs_and_then_kept(on_cuda, tiny_bundle):
    """The second may find what the first took cut into pieces that are too small."""
    graph = tiny_bundle / graph_file("vision_model", "fp16")
    log = on_cuda(run_graph, graph, 50).log
    assert log.between("load", "run 0").of("malloc", of="device")
    later = log.between("run 2", "ran")
    assert later.of("kernel")
    assert not later.of("malloc") + later.of("free")
