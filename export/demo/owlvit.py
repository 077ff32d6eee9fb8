"""A small OWL-ViT, started from the demo CLIP's towers and fine-tuned on drawn scenes.

As the paper does it (Minderer et al. 2022, section 3): contrastive pre-training, then the pooling
goes, a class head and a box head come on every token, and all is tuned by the matching loss, the
text tower most gently. The picture side grows, and with it the table of positions.
"""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import CLIPModel, CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection
from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

from vlrt import boxes as geometry

from .clip import MEAN, STD
from .detection_accuracy import LABELS, Found, accuracy, format_table
from .detection_batches import SIDE, SceneBatch, SceneRecipe, make_scenes, squeezed
from .loop import Schedule, train
from .matching import Weights, matching_loss
from .tokenizer import save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

# Shares of the learning rate. The heads are new, the towers are not; the text tower already holds
# every pair apart, also those that detection never trains on.
SLOW = {"owlvit.text_": 0.02, "owlvit.": 0.3}
BEST = 100  # detections a picture that count in COCO's evaluation


def build_processor() -> OwlViTImageProcessorPil:
    """OWL-ViT's own steps: squeeze into a square, rescale, normalise."""
    return OwlViTImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        resample=Image.Resampling.BICUBIC,
        do_center_crop=False,
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def build_tokenizer(clip: Path) -> CLIPTokenizer:
    """CLIP's, padding with id 0 as OWL-ViT's do: its text pooling takes the highest id."""
    return CLIPTokenizer.from_pretrained(clip, pad_token="!")


def _grown(positions: Tensor, side: int) -> Tensor:
    """A position table [1 + n * n, d] for a grid of side * side instead of n * n."""
    token, grid = positions[:1], positions[1:]
    old = round(len(grid) ** 0.5)
    square = grid.T.reshape(1, -1, old, old)
    wider = interpolate(square, (side, side), mode="bicubic", align_corners=False)
    return torch.cat([token, wider.flatten(2)[0].T])


def build_model(clip_folder: Path) -> OwlViTForObjectDetection:
    """An OWL-ViT with a CLIP's towers and fresh heads that start silent."""
    clip = CLIPModel.from_pretrained(clip_folder)
    text, vision = clip.config.text_config.to_dict(), clip.config.vision_config.to_dict()
    for tower in (text, vision):
        tower.pop("model_type")
    config = OwlViTConfig(
        text_config={**text, "pad_token_id": 0},
        vision_config={**vision, "image_size": SIDE},
        projection_dim=clip.config.projection_dim,
    )
    model = OwlViTForObjectDetection(config)
    state = {
        key.replace("pre_layrnorm", "pre_layernorm"): value
        for key, value in clip.state_dict().items()
    }
    name = "vision_model.embeddings.position_embedding.weight"
    state[name] = _grown(state[name], SIDE // vision["patch_size"])
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


@dataclass
class OwlTrainee:
    """An OWL-ViT in training with its tokenizer."""

    model: OwlViTForObjectDetection
    tokenizer: CLIPTokenizer
    weights: Weights

    def _queries(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        owl = self.model.owlvit
        return owl.text_projection(owl.text_model(**tokens).pooler_output)

    def predict(self, pixels: np.ndarray[Any, np.dtype[np.uint8]], texts: list[str]) -> Any:
        """Logits [n, places, texts] and boxes [n, places, 4] of uint8 pictures, in fp32."""
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.model.training):
            grid = self.model.image_embedder((scaled - mean) / std)[0]
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
    def detect(self, images: Sequence[Image.Image]) -> list[Found]:
        """The best detections in each picture among all pairs, several labels a box."""
        found = []
        for image in images:
            logits, boxes = self.predict(squeezed(image)[None], LABELS)
            scores = logits[0].sigmoid().flatten().numpy()
            best = np.argsort(-scores, kind="stable")[:BEST]
            places, label_ids = np.divmod(best, len(LABELS))
            size = np.array([image.width, image.height] * 2, np.float32)
            corners = geometry.center_to_corners(boxes[0].numpy()[places]) * size
            found.append(Found(corners, scores[best], label_ids))
        return found

    def report(self) -> str:
        """mAP on a small fixed set, for the training log."""
        return format_table(accuracy(self.detect, scenes=150, seed=99))


def _save(trainee: OwlTrainee, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    trainee.model.save_pretrained(out)
    save_tokenizer(trainee.tokenizer, out)
    build_processor().save_pretrained(out)


def train_owlvit(
    out: Path,
    clip: Path,
    *,
    steps: int,
    seed: int,
    work: Path,
    pictures: int = 48,
    resume: bool = True,
) -> dict[str, Any]:
    """Fine-tune or go on, save to `out`, and return what training.json says."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    trainee = OwlTrainee(build_model(clip), build_tokenizer(clip), Weights())
    recipe = SceneRecipe(seed=seed, steps=steps, pictures=pictures)
    schedule = Schedule(steps=steps, rate=1e-3, clip_norm=1.0)
    outcome = train(
        trainee.model,
        partial(make_scenes, recipe),
        trainee.loss,
        trainee.report,
        schedule=schedule,
        work=work,
        resume=resume,
        slow=SLOW,
    )
    _save(trainee, out)
    record = {
        "seed": seed,
        "started_from": clip.name,
        **asdict(outcome),
        "recipe": asdict(recipe),
        "schedule": asdict(schedule),
        "slow": SLOW,
        "weights": asdict(trainee.weights),
        "parameters": sum(p.numel() for p in trainee.model.parameters()),
        "accuracy": accuracy(trainee.detect, scenes=500, seed=4321),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
        },
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    return record
