"""A checkpoint in PyTorch and transformers, to compare graphs with."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, cast

from numpy.typing import NDArray
from PIL import Image

from vlrt.load import import_family

from .checkpoint import Checkpoint
from .verify import SLICE, run_in_slices, slice_size

_NEEDED = ("torch", "transformers", "optimum")


def missing() -> list[str]:
    """The packages that a reference needs and that are not installed."""
    return [name for name in _NEEDED if find_spec(name) is None]


def versions() -> dict[str, str]:
    """Versions of what the reference runs on."""
    from importlib.metadata import version

    return {name: version(name) for name in _NEEDED}


def pil_processor_class(family: str) -> Any:
    """The image processor on PIL that transformers has for "CLIP", "OwlViT", "Owlv2" or "Vilt".

    The first releases of version 5 have it under the name that later ones give to another.
    """
    import transformers

    named: Any = getattr(transformers, f"{family}ImageProcessorPil", None)
    return named or getattr(transformers, f"{family}ImageProcessor")


class TorchModel:
    """The checkpoint in PyTorch, fp32, eager, with transformers' own processors.

    Args:
        checkpoint: any that transformers loads.
        at_once: pictures in one run.
    """

    def __init__(self, checkpoint: Checkpoint, at_once: int = SLICE) -> None:
        import torch
        import transformers

        cast(
            "Any", transformers.logging
        ).disable_progress_bar()  # the export says itself how far it is
        self.model = (
            self.model_class(checkpoint)
            .from_pretrained(checkpoint.root, dtype=torch.float32, attn_implementation="eager")
            .eval()
        )
        self.at_once = at_once
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.root)
        self.image_processor: Any = _pil_processor(checkpoint)

    @staticmethod
    def model_class(checkpoint: Checkpoint) -> Any:
        """The class that optimum's TasksManager knows for the checkpoint's task."""
        from optimum.exporters.tasks import TasksManager

        model_type = checkpoint.model_type
        return TasksManager.get_model_class_for_task(
            import_family(model_type).task(checkpoint.config), framework="pt", model_type=model_type
        )

    def process(self, images: Sequence[Image.Image]) -> dict[str, NDArray[Any]]:
        """What transformers' PIL image processor makes of pictures, by name."""
        return dict(self.image_processor(images=list(images), return_tensors="np"))

    def tokenize(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """What transformers' tokenizer makes of texts, padded to the longest, by name."""
        return dict(self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="np"))

    def outputs(
        self, inputs: Mapping[str, NDArray[Any]], function: Callable[..., dict[str, Any]]
    ) -> dict[str, NDArray[Any]]:
        """Call a torch function on NumPy arrays by name."""
        import torch

        def run(named: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            made = function(**{name: torch.from_numpy(array) for name, array in named.items()})
            return {name: tensor.numpy() for name, tensor in made.items()}

        with torch.inference_mode():
            return run_in_slices(run, inputs, slice_size(inputs, self.at_once))


def _pil_processor(checkpoint: Checkpoint) -> Any:
    """The PIL image processor, under the name that this transformers has for it."""
    import transformers

    renamed = find_spec("transformers.image_processing_backends") is not None
    kind = {"backend": "pil"} if renamed else {"use_fast": False}
    auto: Any = transformers.AutoImageProcessor
    return auto.from_pretrained(checkpoint.root, **kind)
