"""Which int8 kernels ONNX Runtime has on this machine, and whether they are exact, by trying."""

import platform

import numpy as np

from vlrt import hardware
from vlrt.session import CPU, engine

# A graph of one operator; that it is what it is said to be, `tests/test_session.py` shows.
# MatMulInteger: uint8 `a` [1, 4] by int8 [4, 1] of 127.
_FOUR_PRODUCTS = bytes.fromhex(
    "08083a580a180a01610a0162120179220d4d61744d756c496e74656765721201672a0f0804080110"
    "034201624a047f7f7f7f5a130a0161120e0a0c080212080a0208010a02080462130a0179120e0a0c"
    "080612080a0208010a02080142040a00100d"
)


def products_saturate() -> bool:
    """Whether ONNX Runtime's int8 products go wrong on this processor, by trying two of them.

    On x86 without VNNI it adds two products of uint8 activations by int8 weights in 16 bits
    (`vpmaddubsw`), which end at 32,767. `hardware.int8_kernels` knows such processors where the
    system names their features; this asks the engine itself, in a millisecond.
    """
    ort = engine()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(_FOUR_PRODUCTS, sess_options=options, providers=[CPU])
    (total,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8)})[0].ravel()
    return int(total) != 4 * 255 * 127


def int8_kernels() -> str:
    """The machine's int8 kernels, a key of `hardware.MEANINGS`; how exact they are was tried."""
    if products_saturate():
        return hardware.SATURATING
    named = hardware.int8_kernels()
    if named == hardware.SATURATING:
        return "none"
    # Windows does not tell, but ONNX Runtime's build for it saturates on all x86 without VNNI.
    if named == "unknown" and (platform.system(), platform.machine()) == ("Windows", "AMD64"):
        return "vnni"
    return named
