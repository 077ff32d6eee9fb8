"""CLIP against transformers: full-size configurations with seeded weights, and tiny odd ones."""

import copy
import gc
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from checkpoints import END, edit_json, read_json, write_checkpoint, write_json
from pictures import encoded, picture
from PIL import Image, ImageOps
from tolerances import EMBED_ABS, EMBED_COSINE, PROBABILITY_ABS

import vlrt
from vlrt.ops import l2_normalize
from vlrt.session import Session, place

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnx")

from vlrt_export import clip, pipeline, reference  # noqa: E402
from vlrt_export.checkpoint import Checkpoint  # noqa: E402
from vlrt_export.precision import Recipe  # noqa: E402
from vlrt_export.samples import Samples  # noqa: E402

pytestmark = pytest.mark.torch

LARGE = {
    "projection_dim": 768,
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
}
REAL_EOS = {"text_config": {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}}
# The openai checkpoints say eos_token_id=2, later ones 49407: two branches of the pooling.
# Changes to the configuration, the precisions, and how many photographs join the drawn pictures.
FULL_SIZE = {
    "B/32, eos 2": ({}, ("fp32",), 2),
    "B/32, eos 49407": (REAL_EOS, ("fp32", "fp16", "int8"), 5),
    "L/14-336, eos 2": (LARGE, ("fp32",), 0),
}
TEXTS = [
    "a photo of a cat",
    "dog",
    "it's two RED squares, side by side",
    "日本の猫 café 🐱",
    f"a cat {END} and what comes after the end",
    " ".join(["a long text"] * 25),
]
PICTURES = {
    "portrait": lambda: encoded(picture("RGB", (300, 451))),
    "landscape": lambda: encoded(picture("RGB", (500, 281)), "JPEG"),
    "grey": lambda: encoded(picture("L", (250, 333))),
    "RGBA": lambda: encoded(picture("RGBA", (333, 250))),
    "palette": lambda: encoded(picture("P with transparency", (400, 400))),
    "16-bit": lambda: encoded(picture("I;16", (200, 220))),
    "one pixel": lambda: encoded(picture("RGB", (1, 1))),
}


@dataclass
class Case:
    """One checkpoint, and what transformers makes of the pictures and texts."""

    bundle: Path
    sources: list[bytes]
    pixel_values: np.ndarray
    input_ids: np.ndarray
    image_embeds: np.ndarray
    text_embeds: np.ndarray
    probabilities: np.ndarray


def pooled(features):
    """Both what transformers 5 returns and the bare tensor of older ones."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output


def write_snapshot(root, source, changes):
    """The hub's files, in their older style, with seeded weights of this configuration."""
    shutil.copytree(source, root, copy_function=shutil.copyfile)
    config = copy.deepcopy(read_json(root / "config.json"))
    for key, change in changes.items():
        config[key] = config[key] | change if isinstance(change, dict) else change
    write_json(root / "config.json", config)
    size = config["vision_config"]["image_size"]
    edit_json(root / "preprocessor_config.json", size=size, crop_size=size)
    torch.manual_seed(0)
    model = transformers.CLIPModel(transformers.CLIPConfig.from_dict(config)).eval()
    model.save_pretrained(root / "weights")
    (root / "weights" / "model.safetensors").rename(root / "model.safetensors")
    return model


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.huge if name.startswith("L/14") else ())
        for name in FULL_SIZE
    ],
)
def case(request, data, tmp_path_factory):
    changes, precisions, photographs = FULL_SIZE[request.param]
    root = tmp_path_factory.mktemp("full") / "snapshot"
    model = write_snapshot(root, data / "clip-vit-base-patch32", changes)
    photos = sorted((data / "photos").iterdir())[:photographs]
    sources = [make() for make in PICTURES.values()] + [path.read_bytes() for path in photos]
    upright = [ImageOps.exif_transpose(Image.open(io.BytesIO(source))) for source in sources]
    processor = reference.pil_processor_class("CLIP").from_pretrained(root)
    pixels = processor(images=upright, return_tensors="pt")["pixel_values"]
    tokenizer = transformers.CLIPTokenizer.from_pretrained(root)
    encoding = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        together = model(pixel_values=pixels[: 1 + 2 * photographs], **encoding)
        images = torch.cat([pooled(model.get_image_features(p[None])) for p in pixels])
        texts = pooled(model.get_text_features(**encoding))
    made = Case(
        bundle=root.parent / "bundle",
        sources=sources,
        pixel_values=pixels.numpy(),
        input_ids=encoding["input_ids"].numpy(),
        image_embeds=images.numpy(),
        text_embeds=texts.numpy(),
        probabilities=together.logits_per_image.softmax(-1).numpy(),
    )
    del model, together
    gc.collect()
    pipeline.export(
        str(root), made.bundle, precisions=precisions, say=lambda line: None,
        calibrate=Samples([vlrt.load_image(source) for source in sources[:1]], TEXTS[:3]),
    )  # fmt: skip
    yield made
    shutil.rmtree(root.parent)  # the largest takes 3.4 GB


def held(case):
    return sorted(read_json(case.bundle / "vlrt.json")["quality"])


@pytest.mark.full
def test_a_full_size_checkpoint_agrees_with_transformers(case):
    model = vlrt.load(case.bundle, precision="fp32", device="cpu")
    ids = model.tokenizer.pad(model.tokenizer.ids(TEXTS, truncate=True))["input_ids"]
    assert np.array_equal(ids, case.input_ids)
    pixels = model.processor([vlrt.load_image(source) for source in case.sources])
    assert np.array_equal(pixels, case.pixel_values)
    images = model.encode_images(case.sources, normalize=False, batch_size=4)
    texts = model.encode_texts(TEXTS, truncate=True, normalize=False)
    for found, expected in ((images, case.image_embeds), (texts, case.text_embeds)):
        error = np.abs(found - expected).max()
        print(f"largest error {error:.1e}")  # pytest -rP shows it
        assert error <= EMBED_ABS["fp32"]
        # The test means something only if other inputs give other embeddings.
        assert np.abs(expected - expected[::-1]).max() > 100 * EMBED_ABS["fp32"]
    sources = case.sources[: len(case.probabilities)]
    results = model.classify(sources, TEXTS, truncate=True, batch_size=4)
    scores = np.stack([result.scores for result in results])
    assert np.abs(scores - case.probabilities).max() <= PROBABILITY_ABS["fp32"]


@pytest.mark.full
def test_smaller_precisions_stay_within_their_gates(case):
    for precision in set(held(case)) - {"fp32"}:
        model = vlrt.load(case.bundle, precision=precision, device="cpu")
        for found, expected in (
            (model.encode_images(case.sources), case.image_embeds),
            (model.encode_texts(TEXTS, truncate=True), case.text_embeds),
        ):
            cosines = (found * l2_normalize(expected)).sum(axis=1)
            assert cosines.min() >= EMBED_COSINE[precision], precision


@pytest.mark.full
def test_every_precision_asked_for_was_written(case, request):
    asked = FULL_SIZE[request.node.callspec.params["case"]][1]
    assert held(case) == sorted(asked)


# --- tiny configurations --------------------------------------------------------------------------

TINY = {
    "as it is": ({}, {}),
    "the wrong eos": ({"eos_token_id": 2}, {}),
    "gelu": ({"hidden_act": "gelu"}, {"hidden_act": "gelu"}),
    "one head": ({"num_attention_heads": 1}, {"num_attention_heads": 1}),
    "three and five heads": ({"hidden_size": 36, "num_attention_heads": 3},
                             {"hidden_size": 40, "num_attention_heads": 5}),
    "heads of one number": ({"hidden_size": 8, "num_attention_heads": 8}, {}),
    "one layer and three": ({"num_hidden_layers": 1}, {"num_hidden_layers": 3}),
    "one patch": ({}, {"image_size": 8}),
    "a large epsilon": ({"layer_norm_eps": 0.1}, {"layer_norm_eps": 0.1}),
    "a long sequence, another kernel": ({}, {"image_size": 84, "patch_size": 4}),
}  # fmt: skip


@pytest.fixture(scope="module", params=TINY)
def tiny_case(request, tmp_path_factory):
    text, vision = TINY[request.param]
    root = write_checkpoint(tmp_path_factory.mktemp("tiny"), text=text, vision=vision)
    model = transformers.CLIPModel.from_pretrained(root, attn_implementation="eager").eval()
    runners = {}
    for component in clip.COMPONENTS:
        made = clip.build(Checkpoint("tiny", root), component, Recipe("fp32")).model("test")
        (root / f"{component}.onnx").write_bytes(made.SerializeToString())
        runners[component] = Session(root / f"{component}.onnx", place("cpu"), threads=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # handing such small work to others takes longer than doing it
    yield model, runners
    torch.set_num_threads(threads)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_tiny_image_tower_agrees(tiny_case, batch):
    model, runners = tiny_case
    side = model.config.vision_config.image_size
    pixels = np.random.default_rng(batch).normal(0, 1, (batch, 3, side, side)).astype(np.float32)
    with torch.inference_mode():
        expected = pooled(model.get_image_features(torch.from_numpy(pixels))).numpy()
    found = runners["vision_model"].run({"pixel_values": pixels})["image_embeds"]
    assert np.abs(found - expected).max() <= EMBED_ABS["fp32"]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_tiny_text_tower_agrees_at_every_length(tiny_case, batch):
    model, runners = tiny_case
    end = model.config.text_config.vocab_size - 1
    rng = np.random.default_rng(batch)
    for length in range(1, model.config.text_config.max_position_embeddings + 1):
        ids = rng.integers(0, end, (batch, length))
        ends = rng.integers(0, length, batch)  # and padding of the same id behind it
        ids[np.arange(length) >= ends[:, None]] = end
        mask = (np.arange(length) <= ends[:, None]).astype(np.int64)
        with torch.inference_mode():
            features = model.get_text_features(torch.from_numpy(ids), torch.from_numpy(mask))
        found = runners["text_model"].run({"input_ids": ids})["text_embeds"]
        assert np.abs(found - pooled(features).numpy()).max() <= EMBED_ABS["fp32"]
