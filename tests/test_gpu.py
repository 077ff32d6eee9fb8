"""What a graph's runs on a GPU do, on an engine that notes what it is told. `tests/cuda` has the
real one."""

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_pinned import Runtime

from vlrt import pinned
from vlrt.device import OnDevice
from vlrt.errors import ProviderError
from vlrt.gpu import Gpu, where_nodes_run
from vlrt.placement import CPU, CUDA, Placement, Wishes, placed
from vlrt.recorded import MOST_SHAPES
from vlrt.recording_lock import NOTHING_IS_RECORDED

ON_GPU = (CUDA, CPU)


class Value:
    """ONNX Runtime's OrtValue: an array that is said to be elsewhere."""

    def __init__(self, array):
        self.array = array

    def shape(self):
        return list(self.array.shape)

    def data_type(self):
        return {"float32": "tensor(float)", "float16": "tensor(float16)"}[str(self.array.dtype)]

    def numpy(self):
        return self.array.copy()

    def update_inplace(self, data):
        self.array[...] = data.array if isinstance(data, Value) else data

    @classmethod
    def ortvalue_from_numpy(cls, array, device, device_id):
        assert (device, device_id) == ("cuda", 3)
        return cls(array.copy())

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape, kind, device, device_id):
        assert (device, device_id) == ("cuda", 3)
        return cls(np.zeros(shape, kind))


class Options(dict):
    def add_run_config_entry(self, name, value):
        self[name] = value


ORT = SimpleNamespace(OrtValue=Value, RunOptions=Options, __version__="1.31.1")


class Binding:
    def __init__(self):
        self.inputs, self.outputs, self.given = {}, {}, {}

    def bind_cpu_input(self, name, array):
        self.inputs[name] = Value(array)

    def bind_ortvalue_input(self, name, value):
        self.inputs[name] = value

    def bind_output(self, name, device, device_id):
        assert (device, device_id) in {("cuda", 3), ("cpu", 0)}
        self.outputs[name] = None

    def bind_ortvalue_output(self, name, value):
        self.outputs[name] = value

    def get_outputs(self):
        return [self.given[name] for name in self.outputs]


class Engine:
    """A graph that doubles `x` [batch, 2] to `y`, and adds its columns to `z` [batch]."""

    def __init__(self, axes="batch"):
        self.axes, self.shapes, self.ids, self.threads = axes, [], [], []

    def get_inputs(self):
        return [SimpleNamespace(name="x", shape=[self.axes, 2])]

    def get_outputs(self):
        return [
            SimpleNamespace(name="y", shape=[self.axes, 2]),
            SimpleNamespace(name="z", shape=[self.axes]),
        ]

    def io_binding(self):
        return Binding()

    def run(self, names, feed, options=None):
        self.shapes.append(feed["x"].shape)
        return [{"y": feed["x"] * 2, "z": feed["x"].sum(axis=1)}[name] for name in names]

    def run_with_iobinding(self, binding, options):
        self.threads.append(threading.get_ident())
        self.ids.append(None if options is None else options["gpu_graph_id"])
        made = self.run(list(binding.outputs), {"x": binding.inputs["x"].array})
        for (name, value), array in zip(binding.outputs.items(), made, strict=True):
            if value is None:
                binding.given[name] = Value(array)
            else:
                value.update_inplace(array)


def on_gpu(engine, *, cuda_graph=False):
    placement = placed(ON_GPU, "cuda:3", wishes=Wishes(cuda_graph=cuda_graph))
    return Gpu(ORT, engine, placement)


def rows(number, start=0):
    return {"x": np.arange(start, start + 2 * number, dtype=np.float32).reshape(number, 2)}


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 5, 7, 20])
def test_results_are_those_of_the_rows_that_were_given(number, cuda_graph):
    gpu = on_gpu(Engine(), cuda_graph=cuda_graph)
    for start in (0, 7):
        found, x = gpu.run(rows(number, start)), rows(number, start)["x"]
        assert np.array_equal(found["y"], x * 2)
        assert np.array_equal(found["z"], x.sum(axis=1))


def test_batches_have_the_sizes_of_their_buckets():
    engine = Engine()
    for number in (1, 5, 6, 7, 9, 11):
        on_gpu(engine).run(rows(number))
    assert [shape[0] for shape in engine.shapes] == [1, 6, 6, 8, 12, 12]


@pytest.mark.parametrize("axes", [None, 5])
def test_graphs_whose_rows_have_no_name_are_given_what_there_is(axes):
    engine = Engine(axes)
    found = on_gpu(engine).run(rows(5))
    assert (engine.shapes, len(found["y"])) == ([(5, 2)], 5)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_what_stays_is_a_copy_with_its_rows_and_goes_into_another_run(cuda_graph):
    gpu = on_gpu(Engine(), cuda_graph=cuda_graph)
    first = gpu.run(rows(5), fetch=["z"], keep=["y"])
    assert isinstance(first["y"], OnDevice)
    assert (first["y"].rows, first["y"].shape) == (5, (6, 2))
    assert np.array_equal(first["z"], rows(5)["x"].sum(axis=1))
    gpu.run(rows(5, 100), fetch=[], keep=["y"])  # writes over what a recording left
    assert np.array_equal(first["y"].numpy(), rows(5)["x"] * 2)
    for _ in range(2):
        again = gpu.run({"x": first["y"]})
        assert np.array_equal(again["y"][:5], rows(5)["x"] * 4)


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize(
    ("fetch", "keep"), [([], []), (["z"], []), (["z", "y"], []), ([], ["y"]), (["z"], ["y"])]
)
def test_what_is_neither_fetched_nor_kept_is_left(cuda_graph, fetch, keep):
    gpu = on_gpu(Engine(), cuda_graph=cuda_graph)
    for _ in range(2):
        found = gpu.run(rows(5), fetch, keep)
        assert {name: isinstance(value, OnDevice) for name, value in found.items()} == {
            **dict.fromkeys(fetch, False),
            **dict.fromkeys(keep, True),
        }


def test_an_upload_is_there_for_any_run():
    gpu = on_gpu(Engine())
    there = gpu.upload(rows(3)["x"])
    assert (there.rows, there.shape) == (3, (3, 2))
    assert np.array_equal(gpu.run({"x": there})["y"], rows(3)["x"] * 2)


def test_each_shape_is_recorded_once():
    engine = Engine()
    gpu = on_gpu(engine, cuda_graph=True)
    for number in (1, 5, 6, 1, 5):
        gpu.run(rows(number))
    # To learn what comes out, nothing is recorded.
    assert engine.ids == ["-1", "1", "-1", "2", "2", "1", "2"]


def test_shapes_beyond_the_most_are_run_without_a_recording():
    engine = Engine()
    gpu = on_gpu(engine, cuda_graph=True)
    for number in range(MOST_SHAPES):
        gpu.run({"x": np.ones((1, 2 + number), np.float32)})
    engine.ids.clear()
    for _ in range(2):
        found = gpu.run({"x": np.ones((1, 500), np.float32)})
    assert engine.ids == ["-1", "-1"]
    assert found["z"] == 500
    gpu.run({"x": np.ones((1, 2), np.float32)})
    assert engine.ids[-1] == "1"


def test_threads_that_share_a_recording_get_their_own_results():
    gpu, wrong = on_gpu(Engine(), cuda_graph=True), []

    def work(start):
        given = rows(2, start)
        found = [gpu.run(given)["y"] for _ in range(100)]
        wrong.extend(start for y in found if not np.array_equal(y, given["x"] * 2))

    threads = [threading.Thread(target=work, args=(10 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_one_thread_records_itself_and_several_let_another_do_it():
    """ONNX Runtime keeps what it recorded for each thread apart."""
    engine = Engine()
    gpu = on_gpu(engine, cuda_graph=True)
    for _ in range(3):
        gpu.run(rows(1))
    assert set(engine.threads) == {threading.get_ident()}
    engine.threads.clear()
    for _ in range(3):
        in_a_thread(lambda: gpu.run(rows(1)))
        gpu.run(rows(1))
    (worker,) = set(engine.threads)
    assert worker != threading.get_ident()


class Slow(Engine):
    """A graph whose recording takes until it is told to end."""

    def __init__(self):
        super().__init__()
        self.began, self.may_end = threading.Event(), threading.Event()

    def run_with_iobinding(self, binding, options):
        self.began.set()
        assert self.may_end.wait(10)
        super().run_with_iobinding(binding, options)


@pytest.mark.parametrize("work", ["run", "upload", "take"])
def test_while_something_is_recorded_nobody_else_uses_cuda(work):
    engine, others = Slow(), on_gpu(Engine())
    recorded, done = on_gpu(engine, cuda_graph=True), threading.Event()

    def use_cuda():
        if work == "run":
            others.run(rows(1))
        elif work == "upload":
            others.upload(rows(1)["x"])
        else:
            pinned.Pool(Runtime(), 0).empty((1,), np.uint8)
        done.set()

    threads = [threading.Thread(target=lambda: recorded.run(rows(1)))]
    threads[0].start()
    assert engine.began.wait(10)
    threads.append(threading.Thread(target=use_cuda))
    threads[1].start()
    assert not done.wait(0.05)
    engine.may_end.set()
    assert done.wait(10)
    for thread in threads:
        thread.join()


def test_garbage_is_not_given_back_to_cuda_while_something_is_recorded(monkeypatch):
    monkeypatch.setattr(pinned, "_MOST_UNUSED", 0)
    runtime = Runtime()
    pool = pinned.Pool(runtime, 0)
    first, second = (pool.empty((1,), np.uint8) for _ in range(2))
    with NOTHING_IS_RECORDED:
        del first  # even by the thread that records
        assert len(runtime.given) == 2
    del second
    assert len(runtime.given) == 1


# --- where nodes run ------------------------------------------------------------------------------


def assigned(**by_provider):
    """A session whose nodes are on providers."""
    parts = [
        SimpleNamespace(
            ep_name={"cpu": CPU, "cuda": CUDA}[name],
            get_nodes=lambda own=own: [SimpleNamespace(op_type=operator) for operator in own],
        )
        for name, own in by_provider.items()
    ]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, {}),
        ({"cuda": ["MatMul", "Add", "MatMul"]}, {CUDA: 3}),
        ({"cuda": ["MatMul"], "cpu": ["Shape", "Concat", "Div"]}, {CUDA: 1, CPU: 3}),
    ],
)
def test_nodes_are_counted_and_arithmetic_on_shapes_is_no_work(parts, expected):
    found = where_nodes_run(ORT, assigned(**parts), Path("x"), placed(ON_GPU, "cuda"))
    assert (found.on, found.beside, found.told()) == (expected, {}, "")


def test_work_beside_the_gpu_is_refused_by_name():
    session = assigned(cuda=["MatMul"], cpu=["ArgMax", "Elu", "Shape", "ArgMax"])
    with pytest.raises(ProviderError) as caught:
        where_nodes_run(ORT, session, Path("x.onnx"), placed(ON_GPU, "cuda"))
    said = str(caught.value)
    assert said.startswith("x.onnx: 3 of its nodes would run on the CPU")
    assert "2 ArgMax, 1 Elu" in said
    assert said.endswith(f"providers=['{CUDA}', '{CPU}']")
    # A caller who names the CPU as a helper has allowed it, and one who names nothing, too.
    for placement in (placed(ON_GPU, providers=[CUDA, CPU]), placed(ON_GPU)):
        found = where_nodes_run(ORT, session, Path("x.onnx"), placement)
        assert (found.on, found.told()) == ({CUDA: 1, CPU: 4}, "2 ArgMax, 1 Elu")


def test_an_engine_that_does_not_tell_is_too_old():
    with pytest.raises(ProviderError, match=r"1\.31\.1 does not tell .* 1\.26 or newer"):
        where_nodes_run(ORT, SimpleNamespace(), Path("x"), placed(ON_GPU, "cuda"))


def test_on_the_cpu_nobody_asks():
    on_cpu = Placement(((CPU, {}),), "")
    assert where_nodes_run(ORT, SimpleNamespace(), Path("x"), on_cpu) == ({}, {})
