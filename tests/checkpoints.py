"""Tiny checkpoints in the hub's layout, written without torch: seeded weights, real files."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ("a", "photo", "of", "the", "red", "green", "blue", "circle", "square", "cat", "dog")
MERGES = [("t", "h"), ("th", "e</w>"), ("o", "f</w>"), ("p", "h"), ("r", "e"), ("re", "d</w>"),
          ("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]  # fmt: skip
# As in transformers' CLIPTokenizer, which is the reference for the real vocabulary.
PATTERN = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
MAX_TOKENS = 16

CONFIG: dict[str, Any] = {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": 24,
    "logit_scale_init_value": 2.6592,
    "text_config": {
        "model_type": "clip_text_model",
        "hidden_act": "quick_gelu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": MAX_TOKENS,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "projection_dim": 24,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_act": "quick_gelu",
        "hidden_size": 40,
        "image_size": 32,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-5,
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": 8,
        "projection_dim": 24,
    },
}
PREPROCESSOR: dict[str, Any] = {
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 32},
}
# Queries are compared with what the class head gives, which is as wide as the text tower.
OWL_CONFIG: dict[str, Any] = CONFIG | {"architectures": None, "projection_dim": 32}
OWL_PREPROCESSOR: dict[str, dict[str, Any]] = {
    "owlvit": {
        "do_center_crop": False,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "OwlViTFeatureExtractor",
        "image_mean": PREPROCESSOR["image_mean"],
        "image_std": PREPROCESSOR["image_std"],
        "resample": 3,
    },
    "owlv2": {
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": PREPROCESSOR["image_mean"],
        "image_processor_type": "Owlv2ImageProcessor",
        "image_std": PREPROCESSOR["image_std"],
        "resample": 2,
        "rescale_factor": 1 / 255,
    },
}
VILT_CONFIG: dict[str, Any] = {
    "architectures": ["ViltForQuestionAnswering"],
    "model_type": "vilt",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "id2label": {str(n): f"answer {n}" for n in range(11)},
    "image_size": 32,
    "intermediate_size": 48,
    "layer_norm_eps": 1e-12,
    "max_image_length": -1,
    "max_position_embeddings": MAX_TOKENS,
    "modality_type_vocab_size": 2,
    "num_attention_heads": 2,
    "num_channels": 3,
    "num_hidden_layers": 2,
    "num_images": -1,
    "patch_size": 8,
    "qkv_bias": True,
    "type_vocab_size": 2,
}
# What a task changes, by the class that transformers has for it.
VILT_TASKS: dict[str, dict[str, Any]] = {
    "ViltForQuestionAnswering": {},
    "ViltForImageAndTextRetrieval": {"id2label": None},
    "ViltForImagesAndTextClassification": {
        "id2label": {"0": "False", "1": "True"}, "modality_type_vocab_size": 3, "num_images": 2,
    },
    "ViltForMaskedLM": {"id2label": None},
}  # fmt: skip
VILT_PREPROCESSOR: dict[str, Any] = {
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ViltFeatureExtractor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "size": 32,
    "size_divisor": 8,
}


def tokenizer_files(root: Path, pad: str = END) -> dict[str, int]:
    """Write tokenizer.json and tokenizer_config.json; returns the vocabulary."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [left + right for left, right in MERGES]
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *merged, START, END]
    vocabulary = {token: position for position, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, MERGES, end_of_word_suffix="</w>", unk_token=END,
                   continuing_subword_prefix="")
    )  # fmt: skip
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), False, False
    )
    tokenizer.add_special_tokens([START, END])
    tokenizer.save(str(root / "tokenizer.json"))
    settings = {
        "bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END,
        "model_max_length": MAX_TOKENS, "tokenizer_class": "CLIPTokenizer",
    }  # fmt: skip
    write_json(root / "tokenizer_config.json", settings)
    return vocabulary


def word_pieces(root: Path, *, vocabulary_alone: bool = False) -> dict[str, int]:
    """Write BERT's tokenizer: vocab.txt, tokenizer_config.json and, if wanted, tokenizer.json."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*special, *WORDS, *"?,0123456789", *letters[1:], *(f"##{c}" for c in letters)]
    vocabulary = {token: position for position, token in enumerate(tokens)}
    (root / "vocab.txt").write_text("\n".join(tokens) + "\n")
    settings = {
        "cls_token": "[CLS]", "do_lower_case": True, "mask_token": "[MASK]",
        "model_max_length": MAX_TOKENS, "pad_token": "[PAD]", "sep_token": "[SEP]",
        "strip_accents": None, "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]",
    }  # fmt: skip
    write_json(root / "tokenizer_config.json", settings)
    if not vocabulary_alone:
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.BertProcessing(
            ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
        )
        tokenizer.add_special_tokens(list(special))
        tokenizer.save(str(root / "tokenizer.json"))
    return vocabulary


class _Tensors(dict[str, np.ndarray]):
    """Seeded tensors by name."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def normal(self, name: str, *shape: int, std: float) -> None:
        self[name] = self.rng.normal(0, std, shape).astype(np.float32)

    def linear(self, name: str, rows: int, columns: int) -> None:
        self.normal(f"{name}.weight", rows, columns, std=columns**-0.5)
        self.normal(f"{name}.bias", rows, std=0.05)

    def norm(self, name: str, width: int) -> None:
        self.normal(f"{name}.weight", width, std=0.1)
        self[f"{name}.weight"] += 1
        self.normal(f"{name}.bias", width, std=0.05)


def weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded tensors under transformers' names, scaled so that every layer matters."""
    made, is_owl = _Tensors(seed), config["model_type"] != "clip"
    before = f"{config['model_type']}." if is_owl else ""
    made[f"{before}logit_scale"] = np.array(2.6592, np.float32)
    for prefix, tower in (("text_model", "text_config"), ("vision_model", "vision_config")):
        settings = config[tower]
        width, hidden = settings["hidden_size"], settings["intermediate_size"]
        for number in range(settings["num_hidden_layers"]):
            layer = f"{before}{prefix}.encoder.layers.{number}"
            made.norm(f"{layer}.layer_norm1", width)
            made.norm(f"{layer}.layer_norm2", width)
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                made.linear(f"{layer}.self_attn.{part}", width, width)
            made.linear(f"{layer}.mlp.fc1", hidden, width)
            made.linear(f"{layer}.mlp.fc2", width, hidden)
    text, vision = config["text_config"], config["vision_config"]
    width, prefix = text["hidden_size"], f"{before}text_model"
    made.normal(f"{prefix}.embeddings.token_embedding.weight", text["vocab_size"], width, std=0.5)
    positions = text["max_position_embeddings"]
    made.normal(f"{prefix}.embeddings.position_embedding.weight", positions, width, std=0.2)
    made.norm(f"{prefix}.final_layer_norm", width)
    projected = config["projection_dim"]
    made.normal(f"{before}text_projection.weight", projected, width, std=width**-0.5)
    width, prefix = vision["hidden_size"], f"{before}vision_model"
    patch, channels = vision["patch_size"], vision["num_channels"]
    fan_in = channels * patch**2
    made.normal(f"{prefix}.embeddings.patch_embedding.weight", width, channels, patch, patch,
                std=fan_in**-0.5)  # fmt: skip
    made.normal(f"{prefix}.embeddings.class_embedding", width, std=0.5)
    positions = (vision["image_size"] // patch) ** 2 + 1
    made.normal(f"{prefix}.embeddings.position_embedding.weight", positions, width, std=0.2)
    made.norm(f"{prefix}.{'pre_layernorm' if is_owl else 'pre_layrnorm'}", width)
    made.norm(f"{prefix}.post_layernorm", width)
    made.normal(f"{before}visual_projection.weight", projected, width, std=width**-0.5)
    if is_owl:
        _add_heads(made, config["model_type"], width, text["hidden_size"])
    return dict(made)


def vilt_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded tensors of a ViLT under transformers' names.

    Positions are large: stretched over the wrong number of patches, they would spoil everything.
    """
    made, width, patch = _Tensors(seed), config["hidden_size"], config["patch_size"]
    before = "vilt.embeddings."
    texts = {"word": config["vocab_size"], "token_type": config["type_vocab_size"],
             "position": config["max_position_embeddings"]}  # fmt: skip
    for name, rows in texts.items():
        made.normal(f"{before}text_embeddings.{name}_embeddings.weight", rows, width, std=0.5)
    made.norm(f"{before}text_embeddings.LayerNorm", width)
    made.normal(f"{before}cls_token", 1, 1, width, std=0.5)
    places = (config["image_size"] // patch) ** 2 + 1
    made.normal(f"{before}position_embeddings", 1, places, width, std=3)
    kinds = config["modality_type_vocab_size"]
    made.normal(f"{before}token_type_embeddings.weight", kinds, width, std=0.5)
    projection, channels = f"{before}patch_embeddings.projection", config["num_channels"]
    deviation = (channels * patch**2) ** -0.5
    made.normal(f"{projection}.weight", width, channels, patch, patch, std=deviation)
    made.normal(f"{projection}.bias", width, std=0.05)
    for number in range(config["num_hidden_layers"]):
        layer = f"vilt.encoder.layer.{number}"
        for part in ("before", "after"):
            made.norm(f"{layer}.layernorm_{part}", width)
        for part in ("query", "key", "value"):
            made.linear(f"{layer}.attention.attention.{part}", width, width)
            if not config["qkv_bias"]:
                del made[f"{layer}.attention.attention.{part}.bias"]
        made.linear(f"{layer}.attention.output.dense", width, width)
        made.linear(f"{layer}.intermediate.dense", config["intermediate_size"], width)
        made.linear(f"{layer}.output.dense", width, config["intermediate_size"])
    made.norm("vilt.layernorm", width)
    made.linear("vilt.pooler.dense", width, width)
    if config["architectures"] == ["ViltForMaskedLM"]:  # the decoder shares the word table
        made.linear("mlm_score.transform.dense", width, width)
        made.norm("mlm_score.transform.LayerNorm", width)
        made.normal("mlm_score.decoder.bias", config["vocab_size"], std=0.05)
        return dict(made)
    if config["architectures"] == ["ViltForImageAndTextRetrieval"]:
        made.linear("rank_output", 1, width)
        made["rank_output.weight"] *= 3
        return dict(made)
    hidden = width * max(2, config["num_images"])
    seen = width * max(1, config["num_images"])
    made.linear("classifier.0", hidden, seen)
    made.norm("classifier.1", hidden)
    made.linear("classifier.3", len(config["id2label"]), hidden)
    return dict(made)


def _add_heads(made: _Tensors, family: str, width: int, queries: int) -> None:
    """The heads of an OWL family. As transformers would start them, boxes would saturate."""
    made.norm("layer_norm", width)
    made.linear("class_head.dense0", queries, width)
    for part in ("logit_shift", "logit_scale"):
        made.linear(f"class_head.{part}", 1, width)
    heads = {"box_head": 4} | ({"objectness_head": 1} if family == "owlv2" else {})
    for name, columns in heads.items():
        made.linear(f"{name}.dense0", width, width)
        made.linear(f"{name}.dense1", width, width)
        made.linear(f"{name}.dense2", columns, width)


def write_checkpoint(
    root: Path,
    *,
    wrong_eos: bool = False,
    seed: int = 0,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
) -> Path:
    """Write a tiny CLIP checkpoint.

    Args:
        root: a directory, made if needed.
        wrong_eos: say eos_token_id=2, as openai's own files do; otherwise the tokenizer's id.
        seed: of the weights.
        text, vision: changes to the towers' settings.
    """
    root.mkdir(parents=True, exist_ok=True)
    vocabulary = tokenizer_files(root)
    config = copy.deepcopy(CONFIG)
    config["text_config"] |= {
        "vocab_size": len(vocabulary),
        "bos_token_id": 0 if wrong_eos else vocabulary[START],
        "eos_token_id": 2 if wrong_eos else vocabulary[END],
        "pad_token_id": 1 if wrong_eos else vocabulary[END],
        **(text or {}),
    }
    config["vision_config"] |= vision or {}
    size = config["vision_config"]["image_size"]
    sizes = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    return _write(root, config, PREPROCESSOR | sizes, seed)


def write_owl_checkpoint(
    root: Path,
    family: str = "owlvit",
    *,
    seed: int = 0,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
) -> Path:
    """Write a tiny OWL-ViT checkpoint in the hub's old style, or a tiny OWLv2 checkpoint.

    Args:
        root: a directory, made if needed.
        family: "owlvit" or "owlv2".
        seed: of the weights.
        text, vision: changes to the towers' settings.
    """
    root.mkdir(parents=True, exist_ok=True)
    vocabulary = tokenizer_files(root, pad="!")
    config = copy.deepcopy(OWL_CONFIG) | {"model_type": family}
    # transformers reads only the text tower's own ids, and they are wrong, as in google's files.
    ids = {"vocab_size": len(vocabulary), "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    config["text_config"] |= {"model_type": f"{family}_text_model"} | ids | dict(text or {})
    config["vision_config"] |= {"model_type": f"{family}_vision_model"} | dict(vision or {})
    size = config["vision_config"]["image_size"]
    old = {"size": [size, size], "crop_size": size}
    sizes = old if family == "owlvit" else {"size": {"height": size, "width": size}}
    return _write(root, config, OWL_PREPROCESSOR[family] | sizes, seed)


def write_vilt_checkpoint(
    root: Path,
    architecture: str = "ViltForQuestionAnswering",
    *,
    vocabulary_alone: bool = False,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a tiny ViLT checkpoint.

    Args:
        root: a directory, made if needed.
        architecture: one of `VILT_TASKS`.
        vocabulary_alone: leave out tokenizer.json, as the hub's checkpoints do.
        seed: of the weights.
        changes: to the settings.
    """
    root.mkdir(parents=True, exist_ok=True)
    vocabulary = word_pieces(root, vocabulary_alone=vocabulary_alone)
    config = copy.deepcopy(VILT_CONFIG) | {"vocab_size": len(vocabulary)}
    config |= {"architectures": [architecture]} | VILT_TASKS[architecture] | changes
    config = {key: value for key, value in config.items() if value is not None}
    return _write(root, config, VILT_PREPROCESSOR, seed)


def _write(root: Path, config: Any, preprocessor: Any, seed: int) -> Path:
    from safetensors.numpy import save_file

    write_json(root / "config.json", config)
    write_json(root / "preprocessor_config.json", preprocessor)
    made = (vilt_weights if config["model_type"] == "vilt" else weights)(config, seed)
    save_file(made, root / "model.safetensors", metadata={"format": "pt"})
    return root


def read_json(path: Path) -> Any:
    """A JSON file's content."""
    return json.loads(path.read_text())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=2))


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = read_json(path) | changes
    write_json(path, {key: value for key, value in content.items() if value is not None})
