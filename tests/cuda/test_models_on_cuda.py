"""Models on pretended GPUs: where their nodes run, what goes up, what is taken, what is recorded.

What comes out is meaningless; that it is right is shown on the CPU and, where one is at hand, on a
GPU (`benchmarks/gpu.sh`).
"""

import io
import itertools
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout

import numpy as np
import pytest
from child import mark
from machine import Machine

import vlrt
from vlrt import cli, pinned
from vlrt.errors import InferenceError, OptionError, ProviderError, VlrtError
from vlrt.session import CPU, CUDA

FAMILIES = ("clip", "owlvit", "vilt")
TEXTS = ["a photo of a cat", "a red circle"]
# Height and width at which the pictures below go into each family's graph.
SIZES = {"clip": (64, 64), "owlvit": (128, 128), "vilt": (96, 128)}
DRAWN = (60, 80, 3)
RECORDED = ({}, {"cuda_graph": True})
# The batches that numbers of pictures up to 8 are padded to.
BUCKETS = (1, 2, 3, 4, 6, 8)

# --- what runs on the machine ---------------------------------------------------------------------


def served(model, number):
    """What the family's main method gives for so many pictures, in words or in shapes."""
    pictures = list(np.zeros((number, *DRAWN), np.uint8))
    if model.info["family"] == "clip":
        embeds = model.encode_images(pictures, batch_size=8)
        return [*embeds.shape, *model.encode_texts(TEXTS).shape]
    if model.info["family"] == "owlvit":
        found = model.detect(pictures, TEXTS, batch_size=8)
        return [len(found), list(found[0].labels), len(found[0].boxes) == len(found[0].scores)]
    answers = model.ask(pictures, "what is it?", batch_size=8)
    return [len(answers), answers[0].question]


def load(bundle, numbers=(), rounds=1, **options):
    """Load a model, have it serve some numbers of pictures, some times, and mark the rounds."""
    model = vlrt.load(bundle, **{"device": "cuda", **options})
    found = {"info": model.info}
    for turn in range(rounds):
        mark(f"round {turn}")
        found["served"] = [served(model, number) for number in numbers]
    mark("end")
    return found


def warm_up(bundle, rounds, **options):
    """Warm a model up for batches of up to 8; then have it serve any of them."""
    model = vlrt.load(bundle, device="cuda", **options)
    mark("warm-up")
    warmed = model.warmup(BUCKETS, sizes_hw=[DRAWN[:2]])
    for turn in range(rounds):
        mark(f"round {turn}")
        served(model, 1 + turn % 8)
    mark("end")
    return len(warmed)


def show_labels(bundle, number, **options):
    """Show four pictures to a number of labels, again and again."""
    model = vlrt.load(bundle, device="cuda", **options)
    labels = model.encode_labels([f"thing {at}" for at in range(number)])
    show = model.classify if model.info["family"] == "clip" else model.detect
    for turn in range(3):
        mark(f"round {turn}")
        show(list(np.zeros((4, *DRAWN), np.uint8)), labels)
    mark("end")


def serve_in_threads(bundle, **options):
    """Have a model serve all numbers of pictures up to 8 from eight threads, several times."""
    model = vlrt.load(bundle, device="cuda", **options)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda number: served(model, number)[0], [*range(1, 9)] * 4))


def record_beside(bundle, what):
    """Record a model's runs while another thread does something else with CUDA, again and again."""
    model = vlrt.load(bundle, device="cuda", cuda_graph=True)
    other = vlrt.load(bundle, device="cuda")
    done, loaded = threading.Event(), []

    def act(turn):
        if what == "takes pinned memory":
            pinned.empty((turn << 10, 64), np.uint8)  # of a size that was not there yet
            time.sleep(0.002)
        elif what == "runs another model":
            served(other, turn)
        else:
            loaded.append(vlrt.load(bundle, device="cuda"))

    def go_on():
        for turn in itertools.takewhile(lambda _: not done.is_set(), itertools.count(1)):
            act(turn)

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(go_on)
        try:
            model.warmup(BUCKETS)
        finally:
            done.set()
        acting.result()


def command(*arguments):
    """Run `vlrt`."""
    said = io.StringIO()
    with redirect_stdout(said):
        code = cli.main(list(arguments))
    return code, said.getvalue()


# --- the tests ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def bundle(family, bundles):
    return bundles(family)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_every_node_runs_on_the_device(on_cuda, bundle, precision):
    info = on_cuda(load, bundle, precision=precision).value["info"]
    assert info["precision"] == {"auto": "fp16"}.get(precision, precision)
    assert info["provider"] == CUDA
    assert [list(nodes) for nodes in info["nodes"].values()] == [[CUDA]] * len(info["components"])
    assert info["pixels"] == "uint8"


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_models_serve_as_on_the_cpu(on_cuda, bundle, precision):
    as_there = served(vlrt.load(bundle, device="cpu", precision="fp32"), 3)
    assert on_cuda(load, bundle, [3], precision=precision).value["served"] == [as_there]


@pytest.mark.parametrize(
    ("name", "precision", "fused", "not_fused"),
    [
        ("clip", "fp16", "flash_fwd", 0),
        ("clip", "fp32", "AttentionKernel", 0),
        ("owlvit", "fp16", "flash_fwd", 0),
        ("owlvit", "fp32", "AttentionKernel", 0),
        # The last layer computes one row, under a mask: no fused kernel takes that.
        ("vilt", "fp16", "AttentionKernel", 1),
    ],
)
def test_attention_is_one_kernel(on_cuda, bundles, name, precision, fused, not_fused):
    names = on_cuda(load, bundles(name), [2], precision=precision).log.of("kernel").names
    assert any(fused in name for name in names)
    assert len([name for name in names if "oftmax" in name]) == not_fused


def test_pictures_go_up_as_bytes_from_where_the_device_fetches_them(on_cuda, family, bundle):
    log = on_cuda(load, bundle, [4], 2).log.between("round 1", "end")
    height, width = SIZES[family]
    pictures = 4 * height * width * 3
    assert len(log.of("copy", from_="pinned", to="device", bytes=pictures)) == 1
    up = [call for call in log.of("copy", to="device") if call["from"] != "device"]
    # The rest is texts and, in ViLT, a byte for each pixel that tells it from the padding.
    assert sum(call["bytes"] for call in up) < pictures * 1.5


@pytest.mark.parametrize("options", RECORDED, ids=["", "recorded"])
@pytest.mark.parametrize(("name", "each"), [("clip", 300 * 4), ("owlvit", 256 * (4 + 4 + 16))])
def test_of_similarities_made_there_only_results_come_back(on_cuda, bundles, name, each, options):
    """CLIP: a logit a label. OWL-ViT: of each place the best label, its logit, and a box."""
    log = on_cuda(show_labels, bundles(name), 300, similarity="device", **options).log
    log = log.between("round 2", "end")
    assert log.of("copy", from_="device", to="pageable").bytes == 4 * each
    height, width = SIZES[name]
    up = [call["bytes"] for call in log.of("copy", to="device") if call["from"] != "device"]
    assert sum(up) <= 4 * height * width * 3 + 4  # labels are there already; a scale is not
    assert not log.of("malloc")


@pytest.mark.parametrize("options", RECORDED, ids=["", "recorded"])
def test_memory_is_flat_after_a_warm_up(on_cuda, bundle, options):
    log = on_cuda(warm_up, bundle, 50, **options).log
    assert log.between("warm-up", "round 0").of("malloc", of="device")
    assert not log.between("round 0", "end").of("malloc", of="device")
    # Pinned memory is taken for as many pictures as there are, the first time that there are.
    assert not log.between("round 8", "end").of("malloc")


def test_each_shape_is_recorded_once_and_then_replayed(on_cuda, bundle):
    found = on_cuda(warm_up, bundle, 16, cuda_graph=True)
    first, later = found.log.between("warm-up", "round 0"), found.log.between("round 0", "end")
    assert len(first.of("capture")) == len(first.of("captured", whole=True)) == found.value
    assert not later.of("kernel") + later.of("routine") + later.of("capture")
    assert later.of("graph") == later.of("graph", stale=0) != []


def test_threads_share_what_is_recorded(on_cuda, bundles):
    found = on_cuda(serve_in_threads, bundles("clip"), cuda_graph=True)
    assert found.value == [*range(1, 9)] * 4
    assert not found.log.of("refused")
    # And texts of one shape; what the first thread recorded before others came, once more.
    shapes = len(BUCKETS) + 1
    assert shapes <= len(found.log.of("capture")) <= 2 * shapes


@pytest.mark.parametrize(
    "what", ["takes pinned memory", "runs another model", "loads another model"]
)
def test_a_run_is_recorded_whatever_another_thread_does(on_cuda, bundles, what):
    log = on_cuda(record_beside, bundles("clip"), what, machine=Machine(capture_ms=20)).log
    assert log.of("captured", whole=True)
    assert not log.of("captured", whole=False) + log.of("refused")


def test_a_second_device_takes_it_all(on_cuda, bundle):
    log = on_cuda(load, bundle, [2], device="cuda:1").log
    assert {call["device"] for call in log.of("malloc", of="device") + log.of("kernel")} == {1}


def test_a_limit_of_memory_is_kept(on_cuda, bundles):
    owlvit = bundles("owlvit")
    taken = on_cuda(load, owlvit, [1], memory_limit=8).log.of("malloc", of="device").bytes
    assert taken <= 2 * 8 << 20  # each of its two graphs
    with pytest.raises(InferenceError, match="memory"):
        on_cuda(load, owlvit, [8], memory_limit=8)
    with pytest.raises(
        ProviderError, match=r"does not fit into the memory .*\n?.* larger memory_limit"
    ):
        on_cuda(load, owlvit, memory_limit=1)


def test_memory_that_ends_in_a_run_is_an_error_of_the_run(on_cuda, bundles):
    with pytest.raises(InferenceError, match="memory"):
        on_cuda(load, bundles("owlvit"), [8], machine=Machine(memory=12))
    on_cuda(load, bundles("owlvit"), [1], machine=Machine(memory=12))


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"precision": "int8"}, VlrtError, "int8"),
        ({"device": "tensorrt"}, OptionError, "engine_cache"),
        ({"device": "tensorrt", "engine_cache": "engines"}, ProviderError, "TensorRT"),
        ({"device": "cuda:2"}, ProviderError, "device ID: 2, must be between 0 .* and 2"),
        ({"device": "cpu", "cuda_graph": True}, OptionError, "cuda_graph"),
    ],
)
def test_what_cannot_be_is_an_error_that_says_so(on_cuda, bundles, options, error, why):
    with pytest.raises(error, match=why):
        on_cuda(load, bundles("clip"), **options)


def test_the_command_warms_up(on_cuda, bundles):
    code, said = on_cuda(
        command,
        "warmup",
        bundles("clip"),
        "--device",
        "cuda",
        "--cuda-graph",
        "--batch-size",
        "1",
        "2",
    ).value
    assert code == 0
    assert f"fp16 on {CUDA}" in said


def auto(bundle):
    """What `vlrt.load` decides by itself."""
    info = vlrt.load(bundle, precision="fp16").info
    return info["provider"], info["provider_reason"], info["nodes"]


def test_auto_lets_the_cpu_have_what_cuda_lacks_and_says_so(on_cuda, tiny_bundle, tmp_path):
    """Such as those of before there was a form for CUDA, and the hub's."""
    root = tmp_path / "foreign"
    shutil.copytree(tiny_bundle, root)
    (root / "vlrt.json").unlink()
    provider, reason, nodes = on_cuda(auto, str(root)).value
    assert provider == CUDA
    assert reason.endswith("nodes on the CPU, for want of kernels: text_model: 1 ArgMax")
    assert nodes["text_model"][CPU] == 1
    with pytest.raises(ProviderError, match=r"1 of its nodes would run on the CPU.*1 ArgMax"):
        on_cuda(load, str(root), precision="fp16")
