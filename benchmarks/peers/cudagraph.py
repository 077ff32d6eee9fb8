"""PyTorch with the model's forward pass captured as a CUDA graph: no launches by Python at all.

The strongest that one can do with PyTorch's own kernels. Inputs are tensors of one place and shape,
filled before each replay; outputs are read from theirs after it. Both ends are in pinned memory of
the host, and pictures are uploaded as levels, whose normalisation is in the graph. ViLT is taken
without its random choice of patches, as by torch.compile: a graph cannot wait for the host.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Entry, Stage, of_towers, several_shapes, staying

if TYPE_CHECKING:
    from ..plan import Plan
    from ..subject import Subject

NAME = "torch-cuda-graph"
NEEDS = ("torch", "transformers")
INSTALL = 'pip install "vlrt[export]"'
NEEDS_CHECKPOINT = True

_WARM_UPS = 3  # PyTorch's own number, in another stream, before a capture


def refused(subject: "Subject", plan: "Plan") -> dict[str, str]:
    """What it has no contender for here, and why."""
    if plan.device == "cpu":
        return {NAME: "CUDA graphs are of NVIDIA's GPUs: --device cuda"}
    why = several_shapes(subject, plan)
    return {NAME: why} if why else {}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """One for each precision that PyTorch computes in well on such a device."""
    from .eager import PRECISIONS

    if refused(subject, plan):
        return []
    return of_towers(NAME, PRECISIONS[plan.device], subject.family)


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """The stages of one precision, each captured for its one shape."""
    import torch

    from .towers import load_model

    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    dtypes = {"fp32": torch.float32, "fp16": torch.float16}
    dtype = dtypes[job["precision"]]
    model = load_model(Path(job["checkpoint"]), job["family"], dtype).to(job["device"])
    return {stage: _stage(job, model, dtype, stage) for stage in job["stages"]}


def _stage(job: Mapping[str, Any], model: Any, dtype: Any, stage: str) -> Stage:
    import torch

    from .towers import Download, Upload, given_to, numpy_of

    part, given = given_to(job, model, stage, dtype, unpadded=True)
    upload = Upload(given, dtype, job["device"])
    download = Download(part.outputs, staying(job))
    static = upload()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # cuBLAS and cuDNN set themselves up, and choose what to run
        for _ in range(_WARM_UPS):
            part(*static)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = part(*static)

    def run() -> list[Any]:
        upload()
        graph.replay()
        return download(made)

    return Stage(
        run,
        lambda found: {n: numpy_of(one) for n, one in zip(part.outputs, found, strict=True)},
    )
