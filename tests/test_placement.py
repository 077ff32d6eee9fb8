"""What is wanted of a GPU, and the options that it becomes."""

import pytest

from vlrt import cuda
from vlrt.errors import OptionError, ProviderError
from vlrt.placement import CPU, CUDA, OPENVINO, TENSORRT, Placement, Wishes, placed

ON_CPU, ON_GPU = (CPU,), (TENSORRT, CUDA, CPU)


def options(placement, provider=CUDA):
    return dict(placement.providers)[provider]


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (Wishes(), {}),
        (Wishes(memory_limit=2048), {"gpu_mem_limit": "2147483648"}),
        (Wishes(cuda_graph=True), {"enable_cuda_graph": "1"}),
        (Wishes(3, cuda_graph=True), {"gpu_mem_limit": "3145728", "enable_cuda_graph": "1"}),
    ],
)
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:2"])
def test_wishes_become_options(device, wishes, expected):
    found = placed(ON_GPU, device, wishes=wishes)
    number = device.partition(":")[2] or "0"
    assert options(found) == {**cuda.options(), "device_id": number, **expected}
    assert (found.device_id, found.whole) == (int(number), device != "auto")
    assert found.cuda_graph == wishes.cuda_graph
    assert found.uses_cuda


def test_the_options_fit_these_models():
    assert cuda.options() == {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "0",
        "use_tf32": "0",
        "sdpa_kernel": "3",
        "enable_skip_layer_norm_strict_mode": "1",
    }


def test_tensorrt_keeps_engines_and_leaves_the_rest_to_cuda(tmp_path):
    wishes = Wishes(engine_cache=str(tmp_path / "engines"))
    found = placed(ON_GPU, "tensorrt:1", wishes=wishes)
    assert [name for name, _ in found.providers] == [TENSORRT, CUDA, CPU]
    assert (found.kind, found.device_id, found.whole) == (TENSORRT, 1, True)
    assert options(found)["device_id"] == "1"
    assert options(found, TENSORRT) == {
        "device_id": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path / "engines"),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path / "engines"),
        "trt_fp16_enable": "0",
    }
    in_half = found.for_precision("fp16")
    assert options(in_half, TENSORRT)["trt_fp16_enable"] == "1"
    assert in_half.providers[1:] == found.providers[1:]
    assert found.for_precision("fp32") is found
    on_cuda = placed(ON_GPU, "cuda")
    assert on_cuda.for_precision("fp16") is on_cuda


@pytest.mark.parametrize(
    ("available", "device", "wishes", "error", "says"),
    [
        (ON_GPU, "tensorrt", Wishes(), OptionError, "needs engine_cache=FOLDER"),
        (ON_GPU, "tensorrt", Wishes(engine_cache=""), OptionError, "needs engine_cache=FOLDER"),
        (ON_GPU, "tensorrt:x", Wishes(), OptionError, r"tensorrt, tensorrt:0, \.\.\."),
        (ON_CPU, "tensorrt", Wishes(), ProviderError, r"pip install \"vlrt\[gpu\]\" tensorrt"),
        (ON_GPU, "cuda", Wishes(memory_limit=0), OptionError, "memory_limit is 0; valid: a whole"),
        (ON_GPU, "cuda", Wishes(memory_limit=0.5), OptionError, "memory_limit is 0.5"),
        (ON_GPU, "cuda", Wishes(memory_limit=True), OptionError, "memory_limit is True"),
        (ON_GPU, "cuda", Wishes(engine_cache="x"), OptionError, "is for device='tensorrt'"),
        (ON_GPU, "cpu", Wishes(memory_limit=9), OptionError, "memory_limit is 9, and is for devic"),
        (ON_CPU, "auto", Wishes(cuda_graph=True), OptionError, "is for device='cuda'; .* without"),
        (ON_CPU, "cpu", Wishes(cuda_graph=True), OptionError, "device='cpu' was given"),
    ],
)
def test_a_wish_without_effect_is_refused(available, device, wishes, error, says):
    with pytest.raises(error, match=says):
        placed(available, device, wishes=wishes)


@pytest.mark.parametrize("wishes", [Wishes(memory_limit=1), Wishes(cuda_graph=True)])
def test_beside_providers_options_are_given_to_them(wishes):
    with pytest.raises(OptionError, match=r"beside providers=\.\.\., give the provider's own"):
        placed(ON_GPU, providers=[CUDA], wishes=wishes)


def test_cuda_by_its_name_has_the_same_options_but_those_given():
    found = placed(ON_GPU, providers=[(CUDA, {"use_tf32": 1, "device_id": 1}), CPU])
    assert options(found) == {**cuda.options(), "use_tf32": 1, "device_id": 1}
    assert (found.device_id, found.whole, found.cuda_graph) == (1, False, False)
    recorded = placed(ON_GPU, providers=[(CUDA, {"enable_cuda_graph": True})])
    assert recorded.cuda_graph


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        (Placement(((CPU, {}),), ""), CPU),
        (Placement(((OPENVINO, {"device_type": "CPU"}),), ""), f"{OPENVINO} with {{'device_type"),
        (Placement(((CUDA, cuda.options()),), ""), CUDA),
        (Placement(((CUDA, cuda.options(2)),), ""), f"{CUDA} with {{'device_id': '2'}}"),
    ],
)
def test_a_placement_tells_what_is_not_usual(placement, expected):
    assert str(placement).startswith(expected)
    assert (str(placement) == expected) == (not expected.endswith("device_type"))
