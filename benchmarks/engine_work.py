"""What `engines.py` measures: rows of work, their inputs, and the ratios that are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt.bundle import open_bundle
from vlrt.labels import open_tokenizer
from vlrt.load import import_family
from vlrt_export.demo.scenes import ALL_PAIRS, draw_scene

CALIBRATION = 32  # samples, for a contender that is calibrated
# 640x400 pixels become 384x608 in ViLT: the largest there are, without padding.
_PICTURE_WH = (640, 400)
_SHORTEST = 12
_WORK_SEED, _CALIBRATION_SEED = 0, 1

VLRT_FP32, VLRT_INT8, TORCH = "vlrt fp32", "vlrt int8", "torch fp32"
COMPILED, OPENVINO_FP32 = "torch.compile bf16", "OpenVINO fp32"
OPENVINO_BF16, OPENVINO_INT8 = "OpenVINO bf16", "OpenVINO int8"
FAST, EXACT = "vlrt int8, decode fast", "vlrt int8, decode exact"
ENCODED, PIPELINE = "vlrt int8, decode fast, labels encoded before", "transformers pipeline fp32"


@dataclass(frozen=True)
class Work:
    """One row: a component of a model, on a batch of a fixed shape.

    Attributes:
        name: for the tables.
        snapshot: the model's folder.
        component: as `engine_models.load` takes it.
        graph: the same in a bundle.
        batch: samples in a run.
        length: tokens of each text, or None without texts.
    """

    name: str
    snapshot: str
    component: str
    graph: str
    batch: int
    length: int | None = None

    @property
    def shape_name(self) -> str:
        """For files that serve every batch of this shape."""
        return "-".join([*self.component.split(), *([str(self.length)] if self.length else [])])


@dataclass(frozen=True)
class Ratio:
    """What is asked for: `theirs` takes at least so many times as long as `ours`."""

    work: str
    ours: str
    theirs: str
    least: float


def _rows() -> Iterator[Work]:
    clip, owl, vilt = "clip-vit-base-patch32", "owlvit-base-patch32", "vilt-b32-finetuned-vqa"
    for batch in (1, 8):
        yield Work(f"CLIP image, batch {batch}", clip, "clip image", "vision_model", batch)
    for length in (12, 77):
        for batch in (1, 8):
            name = f"CLIP text, {length} tokens, batch {batch}"
            yield Work(name, clip, "clip text", "text_model", batch, length)
    yield Work("OWL-ViT image, batch 1", owl, "owlvit image", "vision_model", 1)
    for batch in (1, 4):
        yield Work(f"ViLT, batch {batch}", vilt, "vilt", "model", batch, 12)


ROWS = tuple(_rows())
END_TO_END = "CLIP, file to scores"
# Where no batch is named, it is one sample alone.
RATIOS = (
    Ratio("CLIP image, batch 1", VLRT_INT8, TORCH, 5),
    Ratio("CLIP image, batch 8", VLRT_INT8, TORCH, 6),
    *(
        Ratio(f"CLIP image, batch {batch}", VLRT_INT8, theirs, 1)
        for batch in (1, 8)
        for theirs in (COMPILED, OPENVINO_INT8)
    ),
    Ratio("CLIP text, 12 tokens, batch 1", VLRT_INT8, TORCH, 5.5),
    Ratio("CLIP text, 77 tokens, batch 1", VLRT_INT8, TORCH, 3.7),
    Ratio("OWL-ViT image, batch 1", VLRT_INT8, TORCH, 4),
    Ratio("OWL-ViT image, batch 1", VLRT_INT8, COMPILED, 1),
    Ratio("ViLT, batch 1", VLRT_INT8, TORCH, 5),
    Ratio("ViLT, batch 1", VLRT_INT8, OPENVINO_BF16, 1),
    Ratio("CLIP image, batch 1", VLRT_FP32, TORCH, 1.5),
    Ratio("OWL-ViT image, batch 1", VLRT_FP32, TORCH, 1.2),
    Ratio("ViLT, batch 1", VLRT_FP32, TORCH, 1.3),
    Ratio(END_TO_END, FAST, PIPELINE, 5),
)


def make_inputs(work: Work, bundle: Path) -> dict[str, NDArray[Any]]:
    """What the work is done on, by name: drawn scenes and captions, as the runtime takes them."""
    return _inputs(work, bundle, work.batch, _WORK_SEED)


def make_calibration(work: Work, bundle: Path) -> dict[str, NDArray[Any]]:
    """The same of other scenes and captions, `CALIBRATION` of them."""
    return _inputs(work, bundle, CALIBRATION, _CALIBRATION_SEED)


def _inputs(work: Work, bundle: Path, number: int, seed: int) -> dict[str, NDArray[Any]]:
    described, rng = open_bundle(bundle), np.random.default_rng(seed)
    model_type = str(described.config["model_type"])
    processor = import_family(model_type).image_processor(described.preprocessor)
    tokenizer = open_tokenizer(described)
    texts = [_caption(rng) for _ in range(number)]
    tokens = _cut(tokenizer.pad(tokenizer.ids(texts, truncate=True)), work.length or _SHORTEST)
    pixels = processor.inputs([draw_picture(seed, at) for at in range(number)])
    made = import_module(f"vlrt_export.{model_type}").inputs(tokens | pixels)
    given: dict[str, NDArray[Any]] = made[work.graph]
    return given


def draw_picture(seed: int, number: int, size_wh: tuple[int, int] = _PICTURE_WH) -> Image.Image:
    """A drawn scene of one to five objects."""
    rng = np.random.default_rng((seed, number))
    return draw_scene(rng, size_wh=size_wh, n_objects=(1, 5)).image


def _caption(rng: np.random.Generator) -> str:
    """All colours and shapes in some order: more words than any row takes."""
    pairs = [ALL_PAIRS[at] for at in rng.permutation(len(ALL_PAIRS))]
    return " and ".join(f"a {colour} {shape}" for colour, shape in pairs)


def _cut(made: dict[str, NDArray[Any]], length: int) -> dict[str, NDArray[Any]]:
    """Texts of `length` tokens, the last of which ends the text as it did before."""
    wanted = [*range(length - 1), -1]
    return {name: np.ascontiguousarray(array[:, wanted]) for name, array in made.items()}
