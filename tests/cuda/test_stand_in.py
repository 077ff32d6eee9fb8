"""The stand-ins keep to CUDA's rules where ONNX Runtime relies on them, and answer for a driver."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import pytest
from machine import Machine

SYSTEM = Machine(system=True)  # libraries are opened by their names
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
INVALID, NO_MEMORY = 1, 2  # cudaError_t
GLOBAL, OWN, RELAXED = 0, 1, 2  # cudaStreamCaptureMode

# --- what runs on the machine ---------------------------------------------------------------------


def block(cuda, bytes_, function="cudaMalloc"):
    address = ctypes.c_void_p()
    error = getattr(cuda, function)(ctypes.byref(address), ctypes.c_size_t(bytes_))
    return address, error


def copy(cuda, to, start, bytes_, kind):
    return cuda.cudaMemcpyAsync(to, start, ctypes.c_size_t(bytes_), kind, None)


def copies():
    """Bytes there and back, and what a copy says whose ends are not where it says."""
    cuda = ctypes.CDLL("libcudart.so.13")
    there, _ = block(cuda, 5)
    pinned, _ = block(cuda, 5, "cudaMallocHost")
    back = ctypes.create_string_buffer(6)
    ctypes.memmove(pinned, b"bytes", 5)
    errors = [
        copy(cuda, there, pinned, 5, TO_DEVICE),
        copy(cuda, back, there, 5, TO_HOST),
        copy(cuda, back, pinned, 5, TO_DEVICE),
        cuda.cudaFree(pinned),
    ]
    return back.value.decode(), errors


def memory():
    """What two blocks of 600 KiB say, and a third when the first was given back."""
    cuda = ctypes.CDLL("libcudart.so.13")
    first, said = block(cuda, 600 << 10)
    errors = [said, block(cuda, 600 << 10)[1]]
    cuda.cudaFree(first)
    return [*errors, block(cuda, 600 << 10)[1]]


def captures():
    """What a host's bytes become on the device: after a capture, and after two launches."""
    cuda = ctypes.CDLL("libcudart.so.13")
    there, _ = block(cuda, 1)
    host = ctypes.create_string_buffer(b"a")
    stream, graph, executable = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    cuda.cudaStreamCreate(ctypes.byref(stream))
    found = []

    def look():
        back = ctypes.create_string_buffer(2)
        cuda.cudaMemcpy(back, there, ctypes.c_size_t(1), TO_HOST)
        found.append(back.value.decode())

    cuda.cudaStreamBeginCapture(stream, 0)
    cuda.cudaMemcpyAsync(there, host, ctypes.c_size_t(1), TO_DEVICE, stream)
    cuda.cudaStreamEndCapture(stream, ctypes.byref(graph))
    cuda.cudaGraphInstantiate(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    cuda.cudaGraphDestroy(graph)
    look()
    for value in (b"a", b"b"):
        host[0] = value
        cuda.cudaGraphLaunch(executable, stream)
        look()
    return found


def spoilt(mode, heeds, *, elsewhere):
    """What is said where memory is asked for within a capture, and by the capture's end.

    `mode` is the capture's, `heeds` that of the thread that asks, which may be another.
    """
    cuda = ctypes.CDLL("libcudart.so.13")
    stream, graph = ctypes.c_void_p(), ctypes.c_void_p()
    cuda.cudaStreamCreate(ctypes.byref(stream))

    def ask():
        cuda.cudaThreadExchangeStreamCaptureMode(ctypes.byref(ctypes.c_int(heeds)))
        return block(cuda, 1)[1]

    cuda.cudaStreamBeginCapture(stream, mode)
    if elsewhere:
        with ThreadPoolExecutor(1) as pool:
            said = pool.submit(ask).result()
    else:
        said = ask()
    return [said, cuda.cudaStreamEndCapture(stream, ctypes.byref(graph))]


def driver():
    """What the driver's libraries answer."""
    cuda, nvml = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnvidia-ml.so.1")
    found = {"cuInit": cuda.cuInit(0)}
    for name in ("cuDriverGetVersion", "cuDeviceGetCount"):
        number = ctypes.c_int()
        getattr(cuda, name)(ctypes.byref(number))
        found[name] = number.value
    device, text = ctypes.c_int(), ctypes.create_string_buffer(80)
    found["cuDeviceGet"] = cuda.cuDeviceGet(ctypes.byref(device), found["cuDeviceGetCount"] - 1)
    cuda.cuDeviceGetName(text, 80, device)
    found["name"] = text.value.decode()
    size, major, minor = ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    nvml.nvmlInit_v2()
    nvml.nvmlSystemGetDriverVersion(text, 80)
    nvml.nvmlShutdown()
    return {
        **found,
        "MiB": size.value >> 20,
        "capability": [major.value, minor.value],
        "release": text.value.decode(),
    }


# --- the tests ------------------------------------------------------------------------------------


def test_copies_are_real_and_their_ends_are_known(on_cuda):
    found = on_cuda(copies, machine=SYSTEM)
    assert found.value == ["bytes", [0, 0, INVALID, INVALID]]
    ends = [(call["from"], call["to"], call["bytes"]) for call in found.log.of("copy")]
    assert ends == [("pinned", "device", 5), ("device", "pageable", 5)]


@pytest.mark.parametrize(
    ("memory_of_each", "errors"), [(0, [NO_MEMORY] * 3), (1, [0, NO_MEMORY, 0]), (None, [0] * 3)]
)
def test_memory_ends_where_the_machine_says(on_cuda, memory_of_each, errors):
    found = on_cuda(memory, machine=Machine(memory=memory_of_each, system=True))
    assert found.value == errors
    given = [call["given"] for call in found.log.of("malloc", of="device")]
    assert given == [error == 0 for error in errors]


def test_what_is_captured_happens_at_each_launch(on_cuda):
    found = on_cuda(captures, machine=SYSTEM)
    assert found.value == ["", "a", "b"]
    assert len(found.log.of("graph", copies=1)) == 2


@pytest.mark.parametrize(
    ("mode", "heeds", "elsewhere", "refused"),
    [
        (GLOBAL, GLOBAL, False, True),
        (GLOBAL, GLOBAL, True, True),
        (GLOBAL, RELAXED, True, False),
        (OWN, GLOBAL, False, True),
        (OWN, GLOBAL, True, False),
        (RELAXED, GLOBAL, False, False),
    ],
)
def test_memory_may_be_refused_while_a_stream_is_captured(on_cuda, mode, heeds, elsewhere, refused):
    found = on_cuda(spoilt, mode, heeds, elsewhere=elsewhere, machine=SYSTEM)
    assert found.value == ([900, 901] if refused else [0, 0])
    assert len(found.log.of("refused")) == refused


@pytest.mark.parametrize(
    "machine",
    [
        Machine(devices=0),
        Machine(devices=1),
        Machine(name="NVIDIA T4", capability=75, memory=15109, driver=13020, release="590.1"),
    ],
)
def test_the_driver_tells_of_the_machine(on_cuda, machine):
    found = on_cuda(driver, machine=machine).value
    there = machine.devices > 0
    assert (found["cuInit"] == 0, found["cuDeviceGet"] == 0) == (there, there)
    assert found["cuDeviceGetCount"] == machine.devices
    assert found["cuDriverGetVersion"] == machine.driver
    assert found["name"] == machine.name
    assert found["MiB"] == (81920 if machine.memory is None else machine.memory)
    assert found["capability"] == [machine.capability // 10, machine.capability % 10]
    assert found["release"] == machine.release
