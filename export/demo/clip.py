"""A small CLIP trained on drawn scenes, saved in the Hugging Face layout."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize, softplus
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ..checkpoint import open_checkpoint
from ..clip import Reference
from ..reference import pil_processor_class
from .batches import PICTURE, Batch, Recipe, corpus, make_batch
from .evaluate import (
    SEED,
    Array,
    EncodeImages,
    EncodeTexts,
    Table,
    format_table,
    pair_accuracy,
)
from .loop import Schedule, train, versions
from .tokenizer import build_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_TOKENS = 32
WIDTH = 128  # of the common space
AMOUNT = 25  # pictures of each pair to evaluate on
MEAN, STD = (0.6, 0.6, 0.6), (0.25, 0.25, 0.25)


def build_processor() -> Any:
    """CLIP's own steps: shortest edge, centre crop, rescale, normalise."""
    return pil_processor_class("CLIP")(
        size={"shortest_edge": PICTURE},
        crop_size={"height": PICTURE, "width": PICTURE},
        resample=Image.Resampling.BICUBIC,
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def build_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """The shape of the model; about 2.4 million parameters."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "hidden_act": "quick_gelu",
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
        "projection_dim": WIDTH,
    }
    vision = {
        "hidden_size": 160,
        "intermediate_size": 640,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "image_size": PICTURE,
        "patch_size": 8,
        "hidden_act": "quick_gelu",
        "projection_dim": WIDTH,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)


def contrastive_loss(logits: Tensor, own: Tensor, negative: Tensor) -> Tensor:
    """Symmetric InfoNCE that never counts a true caption as a negative.

    logits: [pictures, captions]; own and negative: bool of the same shape, as in `Batch`.
    For a picture and a caption of its own, -log(e^p / (e^p + sum of e^n)) is softplus(N - p) with
    N the log-sum-exp over the negatives in the picture's row, or in the caption's column.
    """
    negatives = logits.masked_fill(~negative, float("-inf"))
    # A finite floor where there is no negative at all keeps the gradient defined.
    by_picture = negatives.logsumexp(dim=1, keepdim=True).clamp_min(-1e4)
    by_caption = negatives.logsumexp(dim=0, keepdim=True).clamp_min(-1e4)
    losses = softplus(by_picture - logits) + softplus(by_caption - logits)
    return losses[own].mean() / 2


def normalised(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Pictures, uint8 [n, side, side, 3], as the model takes them: float32 [n, 3, side, side]."""
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (scaled - mean) / std


class ClipTrainee:
    """A CLIP in training with its tokenizer; `encode_*` serve evaluation in NumPy."""

    def __init__(self, seed: int) -> None:
        self.tokenizer = build_tokenizer(corpus(seed), max_length=MAX_TOKENS)
        torch.manual_seed(seed)
        self.model = CLIPModel(build_config(self.tokenizer))
        # On a CPU the backward pass of the fused attention costs as much as all the rest.
        self.model.set_attn_implementation("eager")

    def _text_features(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        pooled = self.model.text_model(**tokens).pooler_output
        return normalize(self.model.text_projection(pooled), dim=-1)

    def _picture_features(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
        """Unit features of uint8 pictures [n, side, side, 3]."""
        pooled = self.model.vision_model(pixel_values=normalised(pixels)).pooler_output
        return normalize(self.model.visual_projection(pooled), dim=-1)

    def loss(self, batch: Batch) -> Tensor:
        """The contrastive loss of a batch, a float32 scalar."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=float(np.log(100)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pictures = self._picture_features(batch.pixels)
            texts = self._text_features(batch.texts)
        logits = pictures.float() @ texts.float().T * self.model.logit_scale.exp()
        own, negative = torch.from_numpy(batch.own), torch.from_numpy(batch.negative)
        return contrastive_loss(logits, own, negative)

    @torch.no_grad()
    def encode_small(self, images: list[Image.Image]) -> Array:
        """Features of pictures drawn at the model's own size: float32 [n, width]."""
        array: Array = self._picture_features(np.stack([np.asarray(i) for i in images])).numpy()
        return array

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> Array:
        """Features of texts: float32 [n, width]."""
        array: Array = self._text_features(texts).numpy()
        return array

    def report(self) -> str:
        """Accuracies on a small fixed set, for the training log."""
        table = pair_accuracy(
            self.encode_small, self.encode_texts, per_pair=8, size_wh=(PICTURE, PICTURE), seed=99
        )
        return f"{format_table(table)}; scale {float(self.model.logit_scale.detach().exp()):.1f}"


def load_encoders(folder: Path) -> tuple[EncodeImages, EncodeTexts]:
    """The encoders of a saved CLIP, through its own processor and tokenizer."""
    model = Reference(open_checkpoint(str(folder)))

    def encode_images(images: list[Image.Image]) -> Array:
        return model.run("vision_model", model.process(images))["image_embeds"]

    def encode_texts(texts: list[str]) -> Array:
        return model.run("text_model", model.tokenize(texts))["text_embeds"]

    return encode_images, encode_texts


def evaluate_folder(folder: Path, amount: int = AMOUNT, seed: int = SEED) -> Table:
    """The accuracy table of a saved CLIP in PyTorch, on `amount` fresh pictures of each pair."""
    return pair_accuracy(*load_encoders(folder), per_pair=amount, seed=seed)


def baselines(_amount: int, _seed: int) -> dict[str, Table]:
    """What a model must be compared with: nothing; chance is one in 64."""
    return {}


def evaluate_model(model: Any, amount: int = AMOUNT, seed: int = SEED) -> Table:
    """The same of a model that `vlrt.load` returned."""
    return pair_accuracy(model.encode_images, model.encode_texts, per_pair=amount, seed=seed)


def _save(trainee: ClipTrainee, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    trainee.model.save_pretrained(out)
    save_tokenizer(trainee.tokenizer, out)
    build_processor().save_pretrained(out)


def train_family(
    out: Path, *, steps: int, seed: int, work: Path, pictures: int = 128, resume: bool = True
) -> dict[str, Any]:
    """Train from scratch or go on, save to `out`, and return what training.json says."""
    work.mkdir(parents=True, exist_ok=True)
    trainee = ClipTrainee(seed)
    recipe = Recipe(seed=seed, steps=steps, pictures=pictures)
    schedule = Schedule(steps=steps)
    outcome = train(
        trainee.model,
        partial(make_batch, recipe),
        trainee.loss,
        trainee.report,
        schedule=schedule,
        work=work,
        resume=resume,
        made_of={"recipe": asdict(recipe)},
    )
    _save(trainee, out)
    record = {
        "seed": seed,
        **asdict(outcome),
        "recipe": asdict(recipe),
        "schedule": asdict(schedule),
        "parameters": sum(p.numel() for p in trainee.model.parameters()),
        "accuracy": evaluate_folder(out),
        "versions": versions(),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    return record
