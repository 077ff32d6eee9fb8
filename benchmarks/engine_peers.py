"""Makes what the OpenVINO contenders of `engines.py` run: a program of its own.

    python engine_peers.py JOB

JOB is JSON: checkpoint, component, calibration (an .npz of inputs), and folder and name of the
files to make, `NAME.xml` in fp32 and `NAME-int8.xml`, quantised by NNCF after training. Both take
any batch of the one shape that the calibration inputs have.
"""

import json
import sys
from pathlib import Path
from typing import Any

import engine_models
import nncf
import numpy as np
import openvino
import torch
from numpy.typing import NDArray


def convert(model: engine_models.Component, arrays: dict[str, NDArray[Any]]) -> openvino.Model:
    """The model of OpenVINO, its inputs and outputs under their names."""
    example = engine_models.tensors([array[:1] for array in arrays.values()], torch.float32)
    with torch.inference_mode():
        converted = openvino.convert_model(model, example_input=tuple(example))
    shapes = {}
    for port, (name, array) in zip(converted.inputs, arrays.items(), strict=True):
        port.get_tensor().set_names({name})
        shapes[name] = openvino.PartialShape([-1, *array.shape[1:]])
    for port, name in zip(converted.outputs, model.outputs, strict=True):
        port.get_tensor().set_names({name})
    converted.reshape(shapes)
    return converted


def main() -> None:
    """Convert, save, quantise, save."""
    job = json.loads(sys.argv[1])
    with np.load(job["calibration"]) as file:
        arrays = dict(file)
    model = engine_models.load(
        Path(job["checkpoint"]), job["component"], torch.float32, unpadded=True
    )
    arrays = {name: arrays[name] for name in model.inputs}
    converted = convert(model, arrays)
    path = Path(job["folder"], job["name"])
    openvino.save_model(converted, f"{path}.xml", compress_to_fp16=False)
    number = len(next(iter(arrays.values())))
    samples = [{name: a[at : at + 1] for name, a in arrays.items()} for at in range(number)]
    quantised = nncf.quantize(
        converted,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=number,
    )
    openvino.save_model(quantised, f"{path}-int8.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
