"""Detectors to test with: the families on fake graphs, and transformers' own models, tiny."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkpoints import edit_json, tokenizer_files, write_json

from vlrt.bundle import open_bundle
from vlrt.gpu import Nodes
from vlrt.load import import_family

SIDE, PLACES, WIDTH = 16, 16, 5
PREPROCESSOR: dict[str, dict[str, Any]] = {
    "owlvit": {"do_center_crop": False, "do_normalize": True, "do_resize": True, "resample": 3},
    "owlv2": {"do_pad": True, "do_normalize": True, "do_resize": True, "resample": 2},
}
_WEIGHTS = np.random.default_rng(0)
_CLASS, _BOX = _WEIGHTS.normal(0, 1, (3, WIDTH)), _WEIGHTS.normal(0, 1, (3, 4))
_GRID = _WEIGHTS.normal(0, 1, (PLACES, 4))


class Fake:
    """A graph that gives what a function makes of its inputs, and remembers what it was asked."""

    def __init__(self, function, **shapes):
        self.function, self.input_shapes, self.asked = function, shapes, []
        self.inputs, self.nodes = {}, Nodes({}, {})  # which `vlrt.load` looks at

    def run(self, inputs):
        inputs = {name: inputs[name] for name in self.input_shapes}
        self.asked.append(inputs)
        return {name: out.astype(np.float32) for name, out in self.function(**inputs).items()}


def see(pixel_values):
    """What is at each of 4 x 4 places, from the mean colour there."""
    blocks = pixel_values.astype(np.float64).reshape(len(pixel_values), 3, 4, 4, 4, 4)
    colours = blocks.mean(axis=(3, 5)).reshape(-1, 3, PLACES).transpose(0, 2, 1)
    return {
        "image_class_embeds": np.einsum("bpc,cd->bpd", colours, _CLASS) + 0.1,
        "logit_shift": colours[..., 0] / 9,
        "logit_scale": 4 + abs(colours[..., 1]),
        "pred_boxes": 1 / (1 + np.exp(-np.einsum("bpc,cd->bpd", colours, _BOX) - _GRID)),
        "objectness_logits": colours[..., 2],
    }


def read(input_ids, attention_mask=None):
    """Another vector for every text, that padding with 0 does not reach."""
    ids = input_ids.astype(np.float64)
    powers = [np.sin(ids * (n + 1) / 7).sum(axis=1) for n in range(WIDTH)]
    return {"text_embeds": np.stack(powers, axis=1)}


def both(input_ids, attention_mask, pixel_values):
    """The graph of a foreign bundle: logits and boxes of one picture."""
    seen, texts = see(pixel_values), read(input_ids)["text_embeds"]
    embeds = seen["image_class_embeds"]
    embeds = embeds / np.linalg.norm(embeds, axis=-1, keepdims=True)
    texts = texts / np.linalg.norm(texts, axis=-1, keepdims=True)
    logits = (embeds @ texts.T + seen["logit_shift"][..., None]) * seen["logit_scale"][..., None]
    return {"logits": logits, "pred_boxes": seen["pred_boxes"]}


def write_bundle(root: Path, family: str, *components: str) -> Path:
    """A foreign bundle without content in its graphs."""
    (root / "onnx").mkdir(parents=True)
    for component in components:
        (root / "onnx" / f"{component}.onnx").touch()
    tokenizer_files(root)
    edit_json(root / "tokenizer_config.json", pad_token="!")  # token 0, as all OWLs pad
    write_json(root / "config.json", {"model_type": family})
    colours = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": [SIDE, SIDE]}
    write_json(root / "preprocessor_config.json", PREPROCESSOR[family] | colours)
    return root


def towers(*, text_length: int | None = None, seen=see) -> dict[str, Fake]:
    """The two graphs of a bundle of vlrt's own."""
    return {
        "vision_model": Fake(seen, pixel_values=(None, 3, SIDE, SIDE)),
        "text_model": Fake(read, input_ids=(None, text_length)),
    }


def one_graph(function=both) -> dict[str, Fake]:
    """The graph of a foreign bundle."""
    shapes = {"input_ids": (None, 16), "attention_mask": (None, 16)}
    return {"model": Fake(function, **shapes, pixel_values=(1, 3, SIDE, SIDE))}


def make(root: Path, family: str, sessions: dict[str, Fake]) -> SimpleNamespace:
    """A family on fake graphs: `model`, and the `graphs` by name."""
    bundle = open_bundle(write_bundle(root / family, family, *sessions))
    info = {"threads": 2, "decode": "exact"}
    model = import_family(family).Model(bundle, sessions, info=info, values={})
    return SimpleNamespace(model=model, graphs=sessions)


def torch_model(family: str) -> Any:
    """A seeded model of transformers, far smaller than any real one; its boxes do not saturate."""
    torch = pytest.importorskip("torch")
    import transformers

    tower = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2,
             "num_hidden_layers": 1}  # fmt: skip
    config = getattr(transformers, f"{family}Config")(
        text_config=tower | {"vocab_size": 99},
        vision_config=tower | {"image_size": 48, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForObjectDetection")(config).eval()
    with torch.no_grad():
        for weight in model.box_head.parameters():
            weight.mul_(0.3)
    return model
