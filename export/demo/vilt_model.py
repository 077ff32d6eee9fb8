"""The demo ViLT as it is before its training: an OWL-ViT's picture tower with layers above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm
from transformers import (
    BertTokenizer,
    OwlViTForObjectDetection,
    ViltConfig,
    ViltForQuestionAnswering,
)

from .clip import normalised
from .evaluate import SEED
from .owlvit import resized_table
from .question_batches import QuestionRecipe, make_questions
from .questions import ANSWERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SIDE = 96  # the shorter side of pictures, in pixels
PATCH = 8
MAX_TOKENS = 24
NEW_LAYERS = 3


def build_model(owl_folder: Path, tokenizer: BertTokenizer) -> ViltForQuestionAnswering:
    """A ViLT that begins with an OWL-ViT's picture tower; what is above, and for texts, is new."""
    owl = OwlViTForObjectDetection.from_pretrained(owl_folder)
    vision: Any = owl.config.vision_config
    settings = vision.to_dict()
    shared = ("hidden_size", "intermediate_size", "num_attention_heads", "patch_size")
    config = ViltConfig(
        **{name: settings[name] for name in shared},
        num_hidden_layers=settings["num_hidden_layers"] + NEW_LAYERS,
        image_size=SIDE,
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(ANSWERS)),
        label2id={answer: i for i, answer in enumerate(ANSWERS)},
    )
    model = ViltForQuestionAnswering(config)
    _, unexpected = model.vilt.load_state_dict(_tower(owl), strict=False)
    assert not unexpected, unexpected
    # Every answer starts as unlikely as it is.
    last: Any = model.classifier[-1]
    torch.nn.init.constant_(last.bias, -float(np.log(len(ANSWERS))))
    return model


_LAYER = {
    "layer_norm1": "layernorm_before",
    "layer_norm2": "layernorm_after",
    "self_attn.q_proj": "attention.attention.query",
    "self_attn.k_proj": "attention.attention.key",
    "self_attn.v_proj": "attention.attention.value",
    "self_attn.out_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


@torch.no_grad()
def _tower(owl: OwlViTForObjectDetection) -> dict[str, Tensor]:
    """OWL-ViT's picture tower under the names of `ViltModel`.

    One step has no place in ViLT, the norm of every patch before the first layer. Its subtraction
    of the mean, its gain and its bias are linear, and go into the embeddings; its division by the
    deviation is by that of an average patch instead. And ViLT's layers have GELU itself where
    OWL-ViT's have its quick approximation, and a smaller epsilon. Training mends the rest.
    """
    tower, settings = owl.owlvit.vision_model, cast("Any", owl.config.vision_config)
    embeddings, norm = tower.embeddings, tower.pre_layernorm
    patches = embeddings.patch_embedding.weight
    positions = embeddings.position_embedding.weight
    sample = make_questions(
        QuestionRecipe(SEED, 0, settings.image_size, settings.patch_size, 32), 0
    )
    tokens = embeddings(normalised(sample.pixels), interpolate_pos_encoding=True)[:, 1:]
    gain = norm.weight / tokens.std(dim=-1).mean()
    token = layer_norm(
        embeddings.class_embedding + positions[0], norm.normalized_shape, norm.weight, norm.bias
    )
    table = gain * (positions - positions.mean(dim=1, keepdim=True)) + norm.bias
    table = resized_table(table, SIDE // settings.patch_size)
    table[0] = 0  # already in the token
    state = {
        "embeddings.cls_token": token[None, None],
        "embeddings.position_embeddings": table[None],
        "embeddings.patch_embeddings.projection.weight": gain[:, None, None, None]
        * (patches - patches.mean(dim=0)),
        "embeddings.patch_embeddings.projection.bias": torch.zeros(len(gain)),
    }
    for name, value in tower.encoder.layers.state_dict().items():
        number, _, rest = name.partition(".")
        module, _, kind = rest.rpartition(".")
        state[f"encoder.layer.{number}.{_LAYER[module]}.{kind}"] = value
    return state


class Pointing(nn.Module):
    """A ViLT that also points at what a question is about, and tells its place, and every patch's.

    Only training makes use of that. It is what a model must find out to answer at all, and what an
    answer alone hardly tells it.
    """

    def __init__(self, vilt: ViltForQuestionAnswering) -> None:
        super().__init__()
        self.vilt = vilt
        self.pointer = nn.Linear(vilt.config.hidden_size, 4)
        self.placer = nn.Linear(vilt.config.hidden_size, 4)
        self.own_placer = nn.Linear(vilt.config.hidden_size, 2)

    def slow(self, tower: float) -> dict[str, float]:
        """What comes from OWL-ViT, by the prefixes of its names, and how fast it learns."""
        embeddings = ("cls_token", "position_embeddings", "patch_embeddings.")
        layers = range(self.vilt.config.num_hidden_layers - NEW_LAYERS)
        names = [*(f"embeddings.{e}" for e in embeddings), *(f"encoder.layer.{i}." for i in layers)]
        return {f"vilt.vilt.{name}": tower for name in names}

    def forward(
        self, tokens: Mapping[str, Tensor], pixels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a question and a picture give, and what training asks beside the answer.

        Returns:
            Logits of the answers [n, answers] and of pointing at patches [n, h, w, 4]; the places
            [n, 4] of what is asked about, and of all patches [n, h, w, 2].

        The logits are those of transformers' own `forward`, which takes patches in random order
        and so cannot say which is which.
        """
        vilt: Any = self.vilt.vilt
        parts = vilt.embeddings
        texts = parts.text_embeddings(tokens["input_ids"]) + parts.token_type_embeddings.weight[0]
        patches = parts.patch_embeddings(pixels)
        height, width = patches.shape[-2:]
        table, side = parts.position_embeddings[0], SIDE // PATCH
        grid = table[1:].T.reshape(1, -1, side, side)
        places = interpolate(grid, (height, width), mode="bilinear", align_corners=True)
        whole = (parts.cls_token + table[0]).expand(len(pixels), -1, -1)
        seen = torch.cat([whole, (patches + places).flatten(2).transpose(1, 2)], dim=1)
        hidden = torch.cat([texts, seen + parts.token_type_embeddings.weight[1]], dim=1)
        mask = nn.functional.pad(tokens["attention_mask"], (0, seen.shape[1]), value=1)
        hidden_by_layer = vilt.encoder(
            hidden, (1 - mask[:, None, None].float()) * -1e4, output_hidden_states=True
        ).hidden_states
        last = vilt.layernorm(hidden_by_layer[-1])
        known = hidden_by_layer[-2][:, -height * width :].unflatten(1, (height, width))
        logits, places = self.vilt.classifier(vilt.pooler(last)), self.placer(last[:, 0])
        return logits, self.pointer(known), places, self.own_placer(known)
