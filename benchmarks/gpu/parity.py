"""How exact every variant is where it runs: against PyTorch in fp32 on the same machine.

PyTorch computes without TF32, on the GPU if it sees one. Each variant is a process of its own, so
that one that crashes takes none along; it runs twice, and must give the same bits. int8 runs on the
CPU: CUDA has no kernels for it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlrt.errors import BenchmarkError

from .. import agreement
from ..peers import BOTH, IMAGE, STAGES, TEXT, Arrays, Entry, eager, ours
from .child import Child, run, run_each
from .jobs import job_of, towers, write_arrays
from .record import IncompleteError
from .settings import FULL, Model, Settings

MODELS = tuple(FULL)
_PICTURES = 8
_ON_CPU = "on the CPU's provider: CUDA has no kernels for it"


def measure(settings: Settings, model: str | None) -> dict[str, Any]:
    """Of each variant and output: the largest difference, the lowest cosine, the same choices.

    Raises:
        IncompleteError: a variant does not run, or not within what its precision is allowed.
        BenchmarkError: PyTorch does not run.
    """
    one = settings.models[str(model)]
    scratch = settings.work / "parity"
    pictures = 2 if settings.small else _PICTURES
    shared = job_of(settings, one, precision="fp32", batch=pictures, stages=towers(one))
    places = {"arrays": f"{scratch}/{one.name}.npz", "expected": f"{scratch}/{one.name}-torch.npz"}
    limit = settings.limit_s / 2
    told = run(Child("parity", "reference", {**shared, **places}), limit)
    children = _variants(settings, one, pictures, places)
    made = dict(zip(children, run_each(list(children.values()), limit), strict=True))
    found: dict[str, Any] = {"reference": told, "pictures": pictures, "variants": {}}
    whys = []
    for name, child in children.items():
        variant = made[name]
        if isinstance(variant, BenchmarkError):
            variant = {"failed": str(variant)}
            whys.append(str(made[name]))
        elif not variant["same"]:
            whys.append(f"{name} is not within what is allowed")
        device = child.job["device"]
        note = _ON_CPU if device != settings.device else None
        found["variants"][name] = {"device": device, "note": note, **variant}
    if whys:
        raise IncompleteError("; ".join(whys), found)
    return found


def _variants(
    settings: Settings, model: Model, pictures: int, places: Mapping[str, str]
) -> dict[str, Child]:
    """A process for each variant; on CUDA also with CUDA graphs."""
    found = {}
    for precision in settings.precisions(model):
        device = "cpu" if precision == "int8" else settings.device
        job = job_of(
            settings,
            model,
            precision=precision,
            batch=pictures,
            stages=towers(model),
            device=device,
        )
        for graphs in (False, True) if device == "cuda" else (False,):
            name = f"{precision}, cuda_graph" if graphs else precision
            more = {"cuda_graph": True} if graphs else {}
            found[name] = Child("parity", "variant", {**job, **places, **more, "title": name})
    return found


def reference(job: Mapping[str, Any]) -> dict[str, Any]:
    """PyTorch, in a process of its own: writes what its towers give."""
    import torch

    write_arrays(job)
    device = job["device"] if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    stages = eager.load({**job, "precision": "fp32", "device": device})
    made = {
        f"{stage}/{name}": array
        for stage, one in stages.items()
        for name, array in one.outputs(one.run()).items()
    }
    np.savez(job["expected"], **made)  # type: ignore[arg-type]
    return {"torch": torch.__version__, "device": device, "tf32": False}


def variant(job: Mapping[str, Any]) -> dict[str, Any]:
    """One variant of ours, in a process of its own, beside what PyTorch gave."""
    expected = _read(Path(job["expected"]))
    found: dict[str, Arrays] = {}
    repeatable = True
    for stage, one in ours.load(job).items():
        found[stage] = dict(one.outputs(one.run()))
        again = one.outputs(one.run())
        repeatable &= all(np.array_equal(a, again[name]) for name, a in found[stage].items())
    return {"repeatable": repeatable, **compared(job["family"], job["precision"], found, expected)}


def compared(
    family: str, precision: str, found: Mapping[str, Arrays], expected: Mapping[str, Arrays]
) -> dict[str, Any]:
    """A variant's outputs and PyTorch's, by stage and name.

    Returns:
        `outputs`, of each what `agreement.compare` says, `max_abs`, the largest difference,
        `largest`, PyTorch's largest number, and `cosine`, the lowest of a sample; `agreement`, how
        many choices are the same (of a label for a picture, of a label for each place of one, of an
        answer; None where outputs are of other shapes); and whether all is the `same` within what
        the precision is allowed.
    """
    mine = Entry(f"vlrt-{precision}", "vlrt", precision, STAGES[family])
    theirs = Entry("torch-fp32", "torch", "fp32", STAGES[family])
    outputs = {}
    for stage, arrays in expected.items():
        for row in agreement.compare(mine, theirs, family, stage, found[stage], arrays):
            ours_, base = found[stage][row["output"]], arrays[row["output"]]
            alike = ours_.shape == base.shape
            outputs[f"{stage}, {row['output']}"] = {
                **{name: row[name] for name in ("measure", "value", "needed", "same")},
                "max_abs": agreement.largest_difference(ours_, base) if alike else None,
                "largest": float(np.abs(base).max()),
                "cosine": agreement.lowest_cosine(ours_, base) if alike else None,
            }
    same = {"outputs": outputs, "same": all(one["same"] for one in outputs.values())}
    if any(one["max_abs"] is None for one in outputs.values()):
        return {**same, "agreement": None, "choices": 0}
    chosen, wanted = choices(family, found), choices(family, expected)
    agreement_ = float((chosen == wanted).mean())
    return {**same, "agreement": agreement_, "choices": int(wanted.size)}


def choices(family: str, made: Mapping[str, Arrays]) -> Any:
    """What the outputs of a model's towers come to, as numbers of labels or answers."""
    from vlrt.detection import class_logits
    from vlrt.ops import l2_normalize

    if family == "vilt":
        return made[BOTH]["logits"].argmax(axis=-1)
    texts = l2_normalize(made[TEXT]["text_embeds"])
    image = made[IMAGE]
    if family == "clip":
        return (l2_normalize(image["image_embeds"]) @ texts.T).argmax(axis=-1)
    names = ("image_class_embeds", "logit_shift", "logit_scale")
    rows = zip(*(image[name] for name in names), strict=True)
    return np.stack([class_logits(*row, texts).argmax(axis=-1) for row in rows])


def _read(path: Path) -> dict[str, Arrays]:
    """Arrays by stage and name."""
    found: dict[str, Arrays] = {}
    with np.load(path) as file:
        for key in file:
            stage, _, name = key.rpartition("/")
            found.setdefault(stage, {})[name] = file[key]
    return found
