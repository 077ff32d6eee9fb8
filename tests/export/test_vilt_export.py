"""Exporting ViLT: what is written for each task, sampled, counted and refused."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from checkpoints import (
    MAX_TOKENS,
    VILT_PREPROCESSOR,
    VILT_TASKS,
    edit_json,
    read_json,
    word_pieces,
    write_json,
    write_vilt_checkpoint,
)
from pictures import picture

import vlrt
from vlrt import cli
from vlrt.bundle import FORMS, MANIFEST, SETTINGS_FILES, graph_file
from vlrt.errors import BundleError, ExportError
from vlrt.files import read_settings
from vlrt.text import Tokenizer

pytest.importorskip("safetensors")

from safetensors.numpy import load_file, save_file

from vlrt_export import pipeline, reference, samples, vilt
from vlrt_export.checkpoint import Checkpoint
from vlrt_export.precision import PRECISIONS, Recipe
from vlrt_export.samples import Samples
from vlrt_export.transformer import samples_at_once

QUESTION, RETRIEVAL, PAIR, WORDS = VILT_TASKS
TASKS = {
    QUESTION: "visual-question-answering",
    RETRIEVAL: "image-text-retrieval",
    PAIR: "images-and-text-classification",
    WORDS: "fill-mask",
}
INPUTS = ["input_ids", "attention_mask", "token_type_ids", "pixel_values", "pixel_mask"]
PICTURES = [picture("RGB", size) for size in ((50, 40), (40, 50), (90, 40))]
TEXTS = ["a red cat?", "the dog", "of a thing"]


def export(source, out, *precisions, **options):
    options = {"calibrate": Samples(PICTURES, TEXTS), "say": lambda line: None} | options
    return pipeline.export(str(source), out, precisions=precisions or ("fp32",), **options)


@pytest.fixture
def unproved(monkeypatch):
    monkeypatch.setattr(reference, "missing", lambda: ["torch"])


@pytest.fixture(scope="module", params=TASKS)
def root(request, tmp_path_factory):
    return write_vilt_checkpoint(tmp_path_factory.mktemp("vilt") / "checkpoint", request.param)


# --- what is written ------------------------------------------------------------------------------


@pytest.mark.torch
def test_every_task_is_exported_and_proved(tmp_path, root, capsys):
    """In every precision, from pictures and texts drawn by default."""
    pytest.importorskip("transformers")
    (root / "tokenizer.json").unlink(missing_ok=True)  # as on the hub
    lines = []
    report = export(root, tmp_path / "out", *PRECISIONS, calibrate=(), say=lines.append)
    assert (report.written, report.refused, report.verified) == (list(PRECISIONS), {}, True)
    name = read_json(root / "config.json")["architectures"][0]
    assert lines[0].endswith(f"{48 if name == PAIR else 24} pictures, 24 texts")
    manifest = read_json(tmp_path / "out" / MANIFEST)
    assert (manifest["family"], manifest["task"]) == ("vilt", TASKS[name])
    assert manifest["values"] == {}
    assert manifest["verified"]["pixel_values"] == manifest["verified"]["input_ids"] == "bit-exact"
    component = manifest["components"]["model"]
    assert (component["inputs"], component["outputs"]) == (INPUTS, ["logits"])
    for precision in PRECISIONS:
        assert component["variants"][precision]["repeatable"] is True
        assert manifest["quality"][precision]["agreement"] >= 0.95
        assert manifest["quality"][precision]["compared"] >= 24
        assert manifest["quality"][precision]["pairs"] == 24
    graphs = {graph_file("model", precision) for precision in PRECISIONS}
    graphs |= {graph_file("model", p, form) for p in ("fp32", "fp16") for form in FORMS}
    assert {f"onnx/{path.name}" for path in (tmp_path / "out" / "onnx").iterdir()} == graphs
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {MANIFEST, *SETTINGS_FILES}
    assert cli.main(["info", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert manifest["quality"]["int8"]["of"] in printed
    (row,) = [r.split() for r in printed.splitlines() if r.split()[:2] == ["model", "int8"]]
    assert row[3] == "-"  # nothing here is an embedding
    assert vlrt.load(tmp_path / "out", device="cpu").info["task"] == TASKS[name]


def graph_of(root, precision="fp32"):
    recipe = Recipe(precision, vilt.KEEP_FP32.get(precision, frozenset()))
    return vilt.build(Checkpoint("tiny", root), "model", recipe).model("test").graph


def test_all_that_varies_is_free(root):
    made, name = graph_of(root), read_json(root / "config.json")["architectures"][0]
    per = [2] if name == PAIR else []
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*made.input, *made.output)
    }
    text = ["batch", "length"]
    assert shapes == {
        "input_ids": text,
        "attention_mask": text,
        "token_type_ids": text,
        "pixel_values": ["batch", *per, 3, "height", "width"],
        "pixel_mask": ["batch", *per, "height", "width"],
        "logits": [*(text if name == WORDS else text[:1]), "labels"],
    }


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_is_small_or_must_be_exact_stays_fp32(root, precision):
    kinds = {tensor.name: tensor.data_type for tensor in graph_of(root, precision).initializer}
    narrow = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8
    assert sum(kind == narrow for kind in kinds.values()) > 8
    # What places depend on, and the number that hides padding, in every precision.
    exact = [f"{name}.fp32" if precision == "fp16" else name
             for name in ("vilt.embeddings.position_embeddings", "places", "hidden")]  # fmt: skip
    assert {kinds[name] for name in exact} == {onnx.TensorProto.FLOAT}
    if precision == "int8":
        heads = [n for n in kinds if n.startswith(("classifier", "rank_output", "vilt.pooler"))]
        assert all(kinds[name] == onnx.TensorProto.FLOAT for name in heads)
        tables = [
            n for n in kinds if n.endswith(("word_embeddings.weight_s8", "decoder.weight_s8"))
        ]
        words = read_json(root / "config.json")["architectures"] == [WORDS]
        assert len(tables) == 1 + words


def test_settings_as_transformers_5_saves_them_are_found(unproved, tmp_path):
    root = write_vilt_checkpoint(tmp_path / "checkpoint")
    (root / "preprocessor_config.json").unlink()
    write_json(root / "processor_config.json", {"image_processor": VILT_PREPROCESSOR})
    export(root, tmp_path / "out")
    assert read_json(tmp_path / "out" / "preprocessor_config.json") == VILT_PREPROCESSOR


@pytest.mark.torch
def test_the_hubs_vocabulary_is_converted(data, tmp_path):
    """vocab.txt alone, a feature extractor's name, an integer size."""
    transformers = pytest.importorskip("transformers")
    source = data / "vilt-b32-finetuned-vqa"
    Checkpoint("vilt", source).write_settings(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= set(SETTINGS_FILES)
    from vlrt.files import read_settings
    from vlrt.text import Tokenizer, token_limit

    settings = read_settings(tmp_path, "tokenizer_config.json")
    limit = token_limit(settings, read_settings(tmp_path, "config.json"))
    ours = Tokenizer(tmp_path / "tokenizer.json", settings, limit)
    theirs = transformers.BertTokenizer.from_pretrained(source)
    texts = ["How many cats are there?", "Is the café's naïve WAITER 37 years-old?", "外 x", "?!"]
    texts += [" ".join(["word"] * 60)]
    expected = theirs(texts, truncation=True)
    assert limit == max(map(len, expected["input_ids"])) == 40
    assert ours.ids(texts, truncate=True) == expected["input_ids"]
    assert {kind for row in expected["token_type_ids"] for kind in row} == {0}


# --- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "images", "texts", "pairs"),
    [
        (QUESTION, 1, 1, 1),
        (QUESTION, 2, 5, 5),
        (RETRIEVAL, 5, 2, 5),
        (PAIR, 1, 1, 1),
        (PAIR, 5, 1, 3),
        (PAIR, 2, 4, 4),
        (WORDS, 3, 3, 3),
    ],
)
def test_samples_are_pairs_and_none_is_left_out(tmp_path, task, images, texts, pairs):
    opened = Checkpoint("tiny", write_vilt_checkpoint(tmp_path, task))
    given = [f"text {n} of some" for n in range(texts)]
    pictures = [picture("RGB", (8, 8), seed=n) for n in range(images)]
    paired, written = vilt.samples(opened, pictures, given)
    each = 2 if task == PAIR else 1
    assert (len(paired), len(written)) == (pairs * each, pairs)
    assert [pictures.index(one) for one in paired] == [n % images for n in range(pairs * each)]
    if task == WORDS:
        assert written == ["[MASK] 0 of some", "text [MASK] of some", "text 2 [MASK] some"]
    else:
        assert written == [given[n % texts] for n in range(pairs)]


def test_a_mask_that_is_there_is_left(tmp_path):
    opened = Checkpoint("tiny", write_vilt_checkpoint(tmp_path, WORDS))
    assert vilt.samples(opened, PICTURES, ["a [MASK] cat"])[1] == ["a [MASK] cat"] * 3


def test_two_pictures_go_with_a_text():
    made = {
        "input_ids": np.ones((2, 5), np.int64),
        "attention_mask": np.ones((2, 5), np.int64),
        "pixel_values": np.arange(4 * 3 * 2 * 2, dtype=np.float32).reshape(4, 3, 2, 2),
        "pixel_mask": np.ones((4, 2, 2), np.int64),
    }
    stacked = vilt.inputs(made)["model"]
    assert list(stacked) == INPUTS
    assert stacked["pixel_values"].shape == (2, 2, 3, 2, 2)
    assert np.array_equal(stacked["pixel_values"][1, 0], made["pixel_values"][2])
    assert stacked["pixel_mask"].shape == (2, 2, 2, 2)
    assert stacked["token_type_ids"].tolist() == [[0] * 5] * 2
    single = vilt.inputs(made | {name: made[name][:2] for name in ("pixel_values", "pixel_mask")})
    assert single["model"]["pixel_values"].shape == (2, 3, 2, 2)


def test_texts_are_taken_from_first_to_last():
    every = samples.texts()
    assert samples.texts(len(every)) == every
    few = samples.texts(24)
    assert (few[0], few[-1], len(set(few))) == (every[0], every[-1], 24)


def test_large_pictures_are_verified_a_few_at_a_time():
    assert [samples_at_once(tokens, 12) for tokens in (1, 400, 2000, 5000)] == [8, 8, 5, 1]


# --- what is counted ------------------------------------------------------------------------------

THEIRS = [[3, 1, 0], [1, 1.3, 0], [0, 0, 9]]


@pytest.mark.parametrize(
    ("logits", "agreement", "same"),
    [
        (THEIRS, 1, 1),
        ([[3, 1, 0], [1.3, 1, 0], [0, 0, 9]], 1, 2 / 3),  # a tie the other way
        ([[1, 3, 0], [1, 1.3, 0], [0, 0, 9]], 2 / 3, 2 / 3),
        ([[1, 3, 0], [0, 0, 5], [1, 0, 0]], 0, 0),
        ([[3, 1, 0], [1, 1.3, 0], [0, 0, np.nan]], 2 / 3, 2 / 3),
    ],
)
@pytest.mark.parametrize("words", [False, True])
def test_the_best_answer_is_the_same(logits, agreement, same, words, masks):
    ours, theirs = (np.array(rows, np.float32) for rows in (logits, THEIRS))
    inputs = {}
    if words:  # the others are wrong, and nobody reads them
        ids = np.array([[2, masks.mask, 9, 3], [2, masks.mask, masks.mask, 3]])
        inputs = {"model": {"input_ids": ids}}
        ours, theirs = (at_masks(ids == masks.mask, rows) for rows in (ours, theirs))
        ours[ids != masks.mask] *= -1
    counted = vilt.quality({"logits": ours}, {"logits": theirs}, {}, inputs, masks.tokenizer)
    assert counted["agreement"] == pytest.approx(agreement)
    assert counted["top1_agreement"] == pytest.approx(same)
    assert (counted["compared"], counted["labels"]) == (3, 3)
    assert counted["pairs"] == (2 if words else 3)


def test_without_a_mask_there_is_nothing_to_compare(masks):
    one = {"logits": np.ones((1, 3, 4), np.float32)}
    inputs = {"model": {"input_ids": np.array([[2, 9, 3]])}}
    counted = vilt.quality(one, one, {}, inputs, masks.tokenizer)
    assert (counted["agreement"], counted["compared"]) == (None, 0)


@pytest.fixture
def masks(tmp_path):
    """A tokenizer and the id of its mask token."""
    mask = word_pieces(tmp_path)["[MASK]"]
    settings = read_settings(tmp_path, "tokenizer_config.json")
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", settings, MAX_TOKENS)
    return SimpleNamespace(tokenizer=tokenizer, mask=mask)


def at_masks(masked, rows):
    """Logits of every token, those of `rows` at the masks and others elsewhere."""
    logits = np.broadcast_to(np.array([5, 1, 0], np.float32), (*masked.shape, 3)).copy()
    logits[masked] = rows
    return logits


@pytest.mark.parametrize(
    ("logits", "agreement", "compared"),
    [
        ([0, 0.2, 3], 1, 2),
        ([0.2, 0, 3], 1, 2),  # the first two are a tie
        ([4, 0.2, 3], 0.5, 2),
        ([0, 0.2, np.nan], 0, 2),
    ],
)
def test_pairs_keep_their_order(logits, agreement, compared):
    ours, theirs = (np.array(row, np.float32)[:, None] for row in (logits, [0, 0.2, 3]))
    counted = vilt.quality({"logits": ours}, {"logits": theirs}, {}, {}, None)
    assert (counted["agreement"], counted["compared"]) == (agreement, compared)


def test_one_pair_alone_has_no_order():
    one = {"logits": np.ones((1, 1), np.float32)}
    assert vilt.quality(one, one, {}, {}, None)["agreement"] is None


# --- what is refused ------------------------------------------------------------------------------

REFUSED = {
    "a limit": (QUESTION, {"max_image_length": 200}, ExportError, "200; valid: -1.*at random"),
    "a limit of none": (QUESTION, {"max_image_length": 0}, ExportError, "0; valid: -1"),
    "no square": (QUESTION, {"patch_size": [8, 8]}, ExportError, r"patch_size is \[8, 8\]; valid"),
    "no place for all": (QUESTION, {"image_size": 40}, ExportError, "17 positions.*needs 26"),
    "odd sides": (QUESTION, {"patch_size": 16}, ExportError, "size_divisor is 8.*patch_size, 16"),
    "three pictures": (PAIR, {"num_images": 3}, ExportError, "num_images is 3; valid: 2"),
    "kinds": (PAIR, {"modality_type_vocab_size": 2}, ExportError, "is 2; valid: 3 or more"),
    "no words": (QUESTION, {"id2label": None}, ExportError, "id2label.* 0 answers.*scores 11"),
    "a word less": (PAIR, {"id2label": {"0": "x"}}, ExportError, "1 answers.*scores 2"),
    "no class": (QUESTION, {"architectures": ["ViltModel"]}, BundleError, "ViltModel.*valid"),
    "no such class": (QUESTION, {"architectures": None}, BundleError, "None.*valid"),
    "tokens": (
        QUESTION,
        {"architectures": ["ViltForTokenClassification"]},
        BundleError,
        "ViltForTokenClassification.*ViltForMaskedLM",
    ),
    "activation": (RETRIEVAL, {"hidden_act": "relu"}, ExportError, "'relu'; valid: quick_gelu"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_exact_is_refused_and_nothing_is_left(unproved, tmp_path, kind):
    task, change, error, says = REFUSED[kind]
    root = write_vilt_checkpoint(tmp_path / "checkpoint", task)
    if kind == "kinds":
        name = "vilt.embeddings.token_type_embeddings.weight"
        weights = load_file(root / "model.safetensors")
        weights[name] = weights[name][:2].copy()
        save_file(weights, root / "model.safetensors", metadata={"format": "pt"})
    edit_json(root / "config.json", **change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=says):
        export(root, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name",
    ["vilt.pooler.dense.weight", "vilt.embeddings.cls_token", "mlm_score.decoder.bias"],
)
def test_a_missing_tensor_is_named(unproved, tmp_path, name):
    task = WORDS if name.startswith("mlm") else QUESTION
    root = write_vilt_checkpoint(tmp_path / "checkpoint", task)
    weights = load_file(root / "model.safetensors")
    del weights[name]
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=f"no tensor '{name}'"):
        export(root, tmp_path / "out")


def test_a_long_text_is_held_to_the_positions(unproved, tmp_path):
    export(write_vilt_checkpoint(tmp_path / "checkpoint"), tmp_path / "out")
    model = vlrt.load(tmp_path / "out", device="cpu")
    with pytest.raises(vlrt.errors.TextError, match=f"takes {MAX_TOKENS}"):
        model.ask(PICTURES[0], "a " * 40)
    assert len(model.ask(PICTURES[0], "a " * 40, truncate=True).answers) == 5
