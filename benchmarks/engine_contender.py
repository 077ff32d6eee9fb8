"""A contender of `engines.py`, a program of its own: load, warm up, and run when told to.

    python engine_contender.py KIND JOB

JOB is JSON: threads, outputs (where to save what a run gives, as .npz), and what the kind needs.
Loading, compiling and three runs come first; the line of JSON printed then holds the versions of
what runs. From then on each line read, a number of seconds, is a turn: one run that is not counted,
for another contender had the caches, and runs for about so long, at least three. The seconds of
each are printed as a line of JSON. It ends with its input.

The programs import what they run inside of functions: no contender has another's library.
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Job = dict[str, Any]
Arrays = dict[str, NDArray[Any]]
# One run, and what its result is as arrays by name.
Run = tuple[Callable[[], Any], Callable[[Any], Arrays]]
_WARM_UPS, _LEAST_RUNS = 3, 3
_PACKAGES = (
    "onnxruntime", "onnxruntime-openvino", "torch", "transformers", "openvino", "nncf",
    "numpy", "pillow", "simplejpeg", "tokenizers",
)  # fmt: skip


def load_vlrt(job: Job) -> Run:
    """A graph of a bundle in `vlrt.session.Session`, chosen and set as `vlrt.load` does."""
    from vlrt.bundle import open_bundle
    from vlrt.choice import choose_precision
    from vlrt.session import Session, int8_kernels, place

    provider, threads, graph = job["provider"], job["threads"], job["graph"]
    chosen = [(provider, {"num_of_threads": str(threads)})] if provider else None
    placement = place("auto" if chosen else "cpu", chosen)
    bundle = open_bundle(Path(job["bundle"]))
    choice = choose_precision(bundle, [graph], job["precision"], placement.kind, int8_kernels())
    file = bundle.fetch((graph,), choice.precision, portable=choice.portable)[graph]
    session = Session(file, placement, threads=threads, exact_products=choice.exact_products)
    inputs = _inputs(job)
    return lambda: session.run(inputs), lambda outputs: outputs


def load_torch(job: Job) -> Run:
    """The model in PyTorch, as it is or compiled."""
    import engine_models
    import torch

    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]
    model: Any = engine_models.load(
        Path(job["checkpoint"]), job["component"], dtype, unpadded=job["compiled"]
    )
    names, arrays = model.outputs, _inputs(job)
    given = engine_models.tensors([arrays[name] for name in model.inputs], dtype)
    if job["compiled"]:
        # Weights as constants, in the layout that oneDNN's products want.
        model = torch.compile(model, dynamic=False, options={"freezing": True})

    def as_arrays(outputs: tuple[Any, ...]) -> Arrays:
        return {n: tensor.float().numpy() for n, tensor in zip(names, outputs, strict=True)}

    return lambda: model(*given), as_arrays


def load_openvino(job: Job) -> Run:
    """A model that `engine_peers.py` made, compiled for this one shape."""
    import openvino

    inputs = _inputs(job)
    core = openvino.Core()
    model = core.read_model(job["model"])
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    hints = {
        "INFERENCE_NUM_THREADS": job["threads"],
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        **({"INFERENCE_PRECISION_HINT": job["hint"]} if job["hint"] else {}),
    }
    request = core.compile_model(model, "CPU", hints).create_infer_request()

    def run() -> Any:
        return request.infer(inputs, share_inputs=True, share_outputs=True)

    def as_arrays(outputs: Any) -> Arrays:
        # Where nothing is left between two tensors, an output bears the names of both.
        return {n: np.array(array) for port, array in outputs.items() for n in port.get_names()}

    return run, as_arrays


def load_classify(job: Job) -> Run:
    """`vlrt.load` and `classify`, from a file to scores."""
    import vlrt

    clip = vlrt.load(
        job["bundle"],
        precision=job["precision"],
        device="cpu",
        threads=job["threads"],
        decode=job["decode"],
    )
    labels = clip.encode_labels(job["labels"]) if job["encoded"] else job["labels"]
    return (
        lambda: clip.classify(job["picture"], labels),
        lambda found: {"scores": found.scores[None]},
    )


def load_pipeline(job: Job) -> Run:
    """The zero-shot-image-classification pipeline of transformers."""
    import torch
    from transformers import CLIPModel, CLIPTokenizer, pipeline

    from vlrt_export.reference import pil_processor_class

    torch.set_num_threads(job["threads"])
    classify = pipeline(
        "zero-shot-image-classification",
        model=CLIPModel.from_pretrained(job["checkpoint"], dtype=torch.float32).eval(),
        image_processor=pil_processor_class("CLIP").from_pretrained(job["checkpoint"]),
        tokenizer=CLIPTokenizer.from_pretrained(job["checkpoint"]),
    )

    def as_arrays(found: list[dict[str, Any]]) -> Arrays:
        by_label = {one["label"]: one["score"] for one in found}
        return {"scores": np.array([[by_label[label] for label in job["labels"]]])}

    return (
        lambda: classify(job["picture"], candidate_labels=job["labels"], hypothesis_template="{}"),
        as_arrays,
    )


def _inputs(job: Job) -> Arrays:
    with np.load(job["inputs"]) as file:
        return dict(file)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def turn(run: Callable[[], Any], seconds: float) -> list[float]:
    """The seconds of each run of one turn."""
    run()
    taken: list[float] = []
    while sum(taken) < seconds or len(taken) < _LEAST_RUNS:
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return taken


def main() -> None:
    """Run the contender named on the command line."""
    load = {
        "vlrt": load_vlrt,
        "torch": load_torch,
        "openvino": load_openvino,
        "classify": load_classify,
        "pipeline": load_pipeline,
    }[sys.argv[1]]
    job = json.loads(sys.argv[2])
    run, as_arrays = load(job)
    found = [run() for _ in range(_WARM_UPS)]
    np.savez(job["outputs"], **as_arrays(found[-1]))
    del found
    gc.collect()
    gc.freeze()
    gc.disable()
    print(json.dumps(_versions()), flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(run, float(line))), flush=True)


if __name__ == "__main__":
    main()
