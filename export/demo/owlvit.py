"""A small OWL-ViT, started from the demo CLIP's towers and fine-tuned on drawn scenes.

As the paper does it (Minderer et al. 2022, section 3): contrastive pre-training, then the pooling
goes, a class head and a box head come on every token, and all is tuned by the matching loss, the
text tower most gently. The picture side grows twice, and with it the table of positions: most steps
are taken on small pictures, which are quick, and the last on larger ones, which are sharp.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import CLIPModel, CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection

from vlrt import boxes as geometry
from vlrt.results import Detections

from ..checkpoint import open_checkpoint
from ..reference import pil_processor_class
from .clip import MEAN, STD, normalised
from .detection_accuracy import BEST, LABELS, Detect, accuracy, check_scorer
from .detection_batches import SceneBatch, SceneRecipe, make_scenes, squeezed
from .evaluate import SEED, Table, format_table
from .loop import Schedule, train, versions
from .matching import Weights, matching_loss
from .tokenizer import save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

AMOUNT = 500  # scenes to evaluate on


@dataclass(frozen=True)
class Stage:
    """A part of the training: `share` of all steps, on `pictures` of `side` pixels at a time.

    The heads are new and learn at `rate`; the towers are not, and learn at a share of it.
    """

    side: int
    pictures: int
    share: float
    rate: float
    vision: float


STAGES = (
    Stage(side=96, pictures=48, share=5 / 9, rate=1e-3, vision=0.3),
    Stage(side=128, pictures=28, share=4 / 9, rate=6e-4, vision=1.0),
)
# The text tower already holds every pair apart, also those that detection never trains on.
TEXT = 0.02


def build_processor(side: int) -> Any:
    """OWL-ViT's own steps: squeeze into a square, rescale, normalise."""
    return pil_processor_class("OwlViT")(
        size={"height": side, "width": side},
        resample=Image.Resampling.BICUBIC,
        do_center_crop=False,
        crop_size={"height": side, "width": side},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def build_tokenizer(clip: Path) -> CLIPTokenizer:
    """CLIP's, padding with id 0 as OWL-ViT's do: its text pooling takes the highest id."""
    made: CLIPTokenizer = CLIPTokenizer.from_pretrained(clip, pad_token="!")  # noqa: S106
    return made


_POSITIONS = "vision_model.embeddings.position_embedding.weight"


def resized_table(positions: Tensor, side: int) -> Tensor:
    """A position table [1 + n * n, d] for a grid of side * side instead of n * n."""
    token, grid = positions[:1], positions[1:]
    old = round(len(grid) ** 0.5)
    square = grid.T.reshape(1, -1, old, old)
    wider = interpolate(square, (side, side), mode="bicubic", align_corners=False)
    return torch.cat([token, wider.flatten(2)[0].T])


def build_model(clip_folder: Path, side: int) -> OwlViTForObjectDetection:
    """An OWL-ViT with a CLIP's towers and fresh heads that start silent."""
    clip = CLIPModel.from_pretrained(clip_folder)
    settings: dict[str, Any] = clip.config.to_dict()
    text, vision = settings["text_config"], settings["vision_config"]
    for tower in (text, vision):
        tower.pop("model_type")
    config = OwlViTConfig(
        text_config={**text, "pad_token_id": 0},
        vision_config={**vision, "image_size": side},
        projection_dim=settings["projection_dim"],
    )
    model = OwlViTForObjectDetection(config)
    state = {
        key.replace("pre_layrnorm", "pre_layernorm"): value
        for key, value in clip.state_dict().items()
    }
    state[_POSITIONS] = resized_table(state[_POSITIONS], side // vision["patch_size"])
    model.owlvit.load_state_dict(state)
    for layer in (model.class_head, model.box_head):
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    # Every box starts on its own patch, and every logit near -5.
    nn.init.zeros_(model.box_head.dense2.weight)
    for head, bias in ((model.class_head.logit_shift, -0.5), (model.class_head.logit_scale, 9.0)):
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, bias)
    # On a CPU the backward pass of the fused attention costs as much as all the rest.
    model.set_attn_implementation("eager")
    return model


def grow(model: OwlViTForObjectDetection, side: int) -> OwlViTForObjectDetection:
    """The same model for larger pictures."""
    config = OwlViTConfig(**model.config.to_dict())
    settings: Any = config.vision_config
    settings.image_size = side
    grown = OwlViTForObjectDetection(config)
    state = model.state_dict()
    name = f"owlvit.{_POSITIONS}"
    state[name] = resized_table(state[name], side // settings.patch_size)
    grown.load_state_dict(state)
    grown.set_attn_implementation("eager")
    return grown


def best_of(logits: Tensor, boxes: Tensor, size_wh: tuple[int, int]) -> Detections:
    """The best detections in one picture; a box may carry several labels.

    logits: [places, labels]; boxes: [places, 4], (centre x, centre y, width, height) in 0..1.
    """
    scores = logits.sigmoid().flatten().numpy()
    best = np.argsort(-scores, kind="stable")[:BEST]
    places, label_ids = np.divmod(best, logits.shape[1])
    corners = geometry.center_to_corners(boxes.numpy()[places]) * np.array(size_wh * 2, np.float32)
    return Detections(tuple(LABELS), corners, scores[best], label_ids, size_wh[::-1])


@dataclass
class OwlTrainee:
    """An OWL-ViT in training with its tokenizer."""

    model: OwlViTForObjectDetection
    tokenizer: CLIPTokenizer
    weights: Weights
    side: int

    def _queries(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        owl = self.model.owlvit
        queries: Tensor = owl.text_projection(owl.text_model(**tokens).pooler_output)
        return queries

    def predict(self, pixels: np.ndarray[Any, np.dtype[np.uint8]], texts: list[str]) -> Any:
        """Logits [n, places, texts] and boxes [n, places, 4] of uint8 pictures, in fp32."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.model.training):
            grid = self.model.image_embedder(normalised(pixels))[0]
            queries = self._queries(texts)
        features = grid.float().flatten(1, 2)
        boxes = self.model.box_predictor(features, grid)
        rows = queries.float().expand(len(pixels), -1, -1)
        logits = self.model.class_predictor(features, rows)[0]
        return logits, boxes

    def loss(self, batch: SceneBatch) -> Tensor:
        """The matching loss of a batch, a float32 scalar."""
        logits, boxes = self.predict(batch.pixels, batch.texts)
        return matching_loss(logits, boxes, batch.targets, self.weights)

    @torch.no_grad()
    def detect(self, images: Sequence[Image.Image]) -> list[Detections]:
        """The best detections in each picture among all pairs, several labels a box."""
        found = []
        for image in images:
            logits, boxes = self.predict(squeezed(image, self.side)[None], LABELS)
            found.append(best_of(logits[0], boxes[0], image.size))
        return found

    def report(self) -> str:
        """Accuracy on a small fixed set, for the training log."""
        return format_table(accuracy(self.detect, scenes=150, seed=99))


def load_detector(folder: Path) -> Detect:
    """A saved OWL-ViT as a detector of all pairs, through its own processor and tokenizer."""
    model: Any = OwlViTForObjectDetection.from_pretrained(folder)
    model.eval()
    processor = pil_processor_class("OwlViT").from_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokens = tokenizer(LABELS, padding=True, return_tensors="pt")

    @torch.no_grad()
    def detect(images: Sequence[Image.Image]) -> list[Detections]:
        found = []
        for image in images:
            pixels = processor(images=image, return_tensors="pt")
            made = model(**pixels, **tokens)
            found.append(best_of(made.logits[0], made.pred_boxes[0], image.size))
        return found

    return detect


def evaluate_folder(folder: Path, amount: int = AMOUNT, seed: int = SEED) -> Table:
    """COCO's mAP of a saved OWL-ViT in PyTorch, on `amount` fresh scenes."""
    return accuracy(load_detector(folder), scenes=amount, seed=seed)


def baselines(_amount: int, _seed: int) -> dict[str, Table]:
    """What a model must be compared with: nothing; chance is one in 64."""
    return {}


def evaluate_model(model: Any, amount: int = AMOUNT, seed: int = SEED) -> Table:
    """The same of a model that `vlrt.load` returned."""
    labels = model.encode_labels(LABELS)
    options = {"threshold": 0.0, "multi_label": True, "top_k": BEST}
    return accuracy(
        lambda images: model.detect(list(images), labels, **options), scenes=amount, seed=seed
    )


def _save(trainee: OwlTrainee, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    trainee.model.save_pretrained(out)
    save_tokenizer(trainee.tokenizer, out)
    build_processor(trainee.side).save_pretrained(out)


def train_family(
    out: Path, *, clip: Path, steps: int, seed: int, work: Path, resume: bool = True
) -> dict[str, Any]:
    """Fine-tune or go on, save to `out`, and return what training.json says.

    Raises:
        ExtraMissingError: pycocotools is not installed.
        ValueError: the checkpoint in `work` is of another run.
    """
    check_scorer()
    clip_sha256 = open_checkpoint(str(clip)).weights_sha256
    torch.manual_seed(seed)
    trainee = OwlTrainee(
        build_model(clip, STAGES[0].side), build_tokenizer(clip), Weights(), STAGES[0].side
    )
    outcomes = []
    for number, stage in enumerate(STAGES):
        if trainee.side != stage.side:
            trainee.model, trainee.side = grow(trainee.model, stage.side), stage.side
        folder = work / f"{number}-{stage.side}"
        folder.mkdir(parents=True, exist_ok=True)
        recipe = SceneRecipe(seed + number, stage.side, stage.pictures)
        outcome = train(
            trainee.model,
            partial(make_scenes, recipe),
            trainee.loss,
            trainee.report,
            schedule=Schedule(steps=round(steps * stage.share), rate=stage.rate),
            work=folder,
            resume=resume,
            slow={"owlvit.text_": TEXT, "owlvit.": stage.vision},
            made_of={
                "recipe": asdict(recipe),
                "weights": asdict(trainee.weights),
                "clip_sha256": clip_sha256,
            },
        )
        outcomes.append({**asdict(stage), **asdict(outcome)})
    _save(trainee, out)
    record = {
        "seed": seed,
        "started_from": clip.name,
        "steps": steps,
        "seconds": sum(outcome["seconds"] for outcome in outcomes),
        "stages": outcomes,
        "text": TEXT,
        "weights": asdict(trainee.weights),
        "parameters": sum(p.numel() for p in trainee.model.parameters()),
        "accuracy": evaluate_folder(out),
        "versions": versions(),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    return record
