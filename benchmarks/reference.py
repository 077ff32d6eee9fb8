"""PyTorch and transformers behind vlrt's own methods, to be compared with on equal terms.

Pictures are opened as `transformers.image_utils.load_image` does and go through transformers' own
PIL image processors, texts through its tokenizers; models run in `torch.inference_mode`, in eager
mode with transformers' default attention. Results are of vlrt's types. No graph, session or
processor of vlrt's takes part.
"""

import json
from pathlib import Path
from typing import Any

from vlrt.errors import OptionError

from .reference_families import DTYPES, ClipReference, OwlReference, Reference
from .reference_vilt import ViltReference

FAMILIES: dict[str, type[Reference]] = {
    "clip": ClipReference,
    "owlvit": OwlReference,
    "owlv2": OwlReference,
    "vilt": ViltReference,
}


def load_reference(
    checkpoint: Path, dtype: str = "fp32", device: str = "cpu", threads: int | None = None
) -> Any:
    """Load a checkpoint in PyTorch.

    Args:
        checkpoint: a directory that transformers loads: a CLIP, OWL-ViT, OWLv2 or ViLT.
        dtype: "fp32", "bf16" or "fp16", of weights and of all that is computed.
        device: "cpu", "cuda", "cuda:0" and so on.
        threads: threads of PyTorch's, in this whole process; as it chooses by default.

    Returns:
        A `ClipReference`, `OwlReference` or `ViltReference`.

    Raises:
        OptionError: an argument outside its valid choices, or a checkpoint of another family.
    """
    import torch

    if dtype not in DTYPES:
        raise OptionError(f"PyTorch's precision is {dtype!r}; valid: {', '.join(DTYPES)}")
    _check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    file = Path(checkpoint) / "config.json"
    if not file.is_file():
        raise OptionError(f"{str(checkpoint)!r} is no checkpoint: it has no config.json")
    config = json.loads(file.read_bytes())
    kind = FAMILIES.get(config.get("model_type"))
    if kind is None:
        raise OptionError(
            f"{file}: model_type is {config.get('model_type')!r}; valid: {', '.join(FAMILIES)}"
        )
    return kind(Path(checkpoint), config, dtype, device)


def _check_device(device: str) -> None:
    import torch

    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    valid = ["cpu", *(["cuda"] if number else []), *(f"cuda:{i}" for i in range(number))]
    if device not in valid:
        raise OptionError(f"device is {device!r}; valid for PyTorch here: {', '.join(valid)}")
