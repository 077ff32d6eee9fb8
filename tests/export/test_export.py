"""Exporting: what is read, what is refused, what is written, and what is left behind."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import edit_json, read_json, write_checkpoint, write_json
from pictures import picture
from tolerances import EMBED_ABS, EMBED_COSINE
from without import run_without

import vlrt
from vlrt.bundle import FORMS, MANIFEST, SETTINGS_FILES, SIMILARITY, graph_file
from vlrt.errors import (
    BundleError,
    ExportError,
    ExtraMissingError,
    GateError,
    IntegrityError,
    OptionError,
    UnknownFamilyError,
    VlrtError,
)
from vlrt.files import file_sha256

pytest.importorskip("onnx")
pytest.importorskip("safetensors")

from safetensors.numpy import load_file, save_file

from vlrt_export import __main__ as command
from vlrt_export import clip, gates, pipeline, recipes, reference, verify
from vlrt_export.checkpoint import Checkpoint, open_checkpoint
from vlrt_export.gates import Gate
from vlrt_export.precision import Recipe
from vlrt_export.samples import Samples
from vlrt_export.transformer import pictures_at_once

CHECKOUT = Path(__file__).parents[2]
TASK = "zero-shot-image-classification"
PICTURES = [picture("RGB", (50, 40), seed=n) for n in range(3)]
TEXTS = ["a red cat", "the blue dog", "of a thing"]
FC1 = "vision_model.encoder.layers.0.mlp.fc1"
FC2 = "vision_model.encoder.layers.0.mlp.fc2"


@pytest.fixture
def unproved(monkeypatch):
    """Export without the reference, which has tests of its own below."""
    monkeypatch.setattr(reference, "missing", lambda: ["torch"])


def export(source, out, *precisions, **options):
    options = {"calibrate": Samples(PICTURES, TEXTS), "say": lambda line: None} | options
    return pipeline.export(str(source), out, precisions=precisions or ("fp32",), **options)


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny checkpoint of one's own, to change."""
    return write_checkpoint(tmp_path / "checkpoint")


def change_weights(root, change):
    weights = dict(load_file(root / "model.safetensors"))
    change(weights)
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})


def everything_in(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def embeds(bundle, **options):
    model = vlrt.load(bundle, device="cpu", **{"precision": "fp32"} | options)
    return np.concatenate([model.encode_images(PICTURES), model.encode_texts(TEXTS)])


# --- what is written ------------------------------------------------------------------------------


def test_a_bundle_holds_its_graphs_settings_and_manifest(tiny_bundle, tiny_checkpoint):
    graphs = {graph_file(c, p) for c in clip.COMPONENTS for p in ("fp32", "fp16", "int8")}
    graphs |= {
        graph_file(c, p, form) for c in clip.COMPONENTS for p in ("fp32", "fp16") for form in FORMS
    }
    graphs.add(SIMILARITY)
    assert set(everything_in(tiny_bundle)) == {MANIFEST, "onnx", *SETTINGS_FILES, *graphs}
    for name in SETTINGS_FILES:
        assert (tiny_bundle / name).read_bytes() == (tiny_checkpoint / name).read_bytes()


def test_the_manifest_says_what_was_made_and_measured(tiny_bundle, tiny_checkpoint):
    manifest = read_json(tiny_bundle / MANIFEST)
    assert manifest["format_version"] == 1
    assert (manifest["family"], manifest["task"]) == ("clip", TASK)
    assert manifest["vlrt_version"] == vlrt.__version__
    assert manifest["refused"] == {}
    source = manifest["source"]
    assert (source["directory"], source["repository"]) == (tiny_checkpoint.name, None)
    assert source["weights_sha256"] == file_sha256(tiny_checkpoint / "model.safetensors")
    for component, (given, made) in {
        "vision_model": ("pixel_values", "image_embeds"),
        "text_model": ("input_ids", "text_embeds"),
    }.items():
        entry = manifest["components"][component]
        assert (entry["inputs"], entry["outputs"]) == ([given], [made])
        for name, variant in entry["variants"].items():
            assert variant["files"] == [graph_file(component, name)]
            assert list(variant["parity"]) == [made]
            assert variant["parity"][made]["min_cosine"] >= EMBED_COSINE[name]
            assert variant["repeatable"] is True
            assert variant["speed"]["median_ms"] > 0
            last = {"vision_model": "visual_projection", "text_model": "text_projection"}
            kept = [last[component]] if name == "int8" else []
            assert variant["recipe"]["layers_kept_fp32"] == kept
    for name, recorded in manifest["files"].items():
        path = tiny_bundle / name
        assert recorded == {"size": path.stat().st_size, "sha256": file_sha256(path)}
    assert set(manifest["files"]) | {MANIFEST, "onnx"} == set(everything_in(tiny_bundle))


def test_smaller_precisions_are_smaller_and_close(tiny_bundle):
    def size(component, name):
        return (tiny_bundle / graph_file(component, name)).stat().st_size

    for component in clip.COMPONENTS:
        assert size(component, "fp16") < 0.75 * size(component, "fp32")
    exact = embeds(tiny_bundle)
    for name in ("fp16", "int8"):
        cosines = (embeds(tiny_bundle, precision=name) * exact).sum(axis=1)
        assert EMBED_COSINE[name] <= cosines.min() < 1


def test_the_same_checkpoint_makes_the_same_graphs(unproved, tmp_path, tiny_checkpoint):
    hashes = []
    for name in ("one", "two"):
        export(tiny_checkpoint, tmp_path / name, "fp32", "int8")
        hashes.append({p.name: file_sha256(p) for p in (tmp_path / name / "onnx").iterdir()})
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 9


def test_large_weights_go_to_a_file_of_their_own(
    unproved, monkeypatch, tmp_path, tiny_checkpoint, tiny
):
    monkeypatch.setattr(recipes, "EXTERNAL_DATA_BYTES", 10_000)
    export(tiny_checkpoint, tmp_path / "out")
    graph = graph_file("vision_model", "fp32")
    manifest = read_json(tmp_path / "out" / MANIFEST)
    variant = manifest["components"]["vision_model"]["variants"]["fp32"]
    assert variant["files"] == [graph, f"{graph}_data"]
    assert f"{graph}_data" in manifest["files"]
    assert np.array_equal(
        vlrt.load(tmp_path / "out", device="cpu").encode_images(PICTURES),
        tiny.encode_images(PICTURES),
    )
    data = tmp_path / "out" / f"{graph}_data"
    data.write_bytes(data.read_bytes()[:-1] + b"\x77")
    with pytest.raises(IntegrityError, match="onnx_data"):
        vlrt.load(tmp_path / "out", device="cpu")


# --- where it is written --------------------------------------------------------------------------


def test_a_bundle_that_exists_is_not_overwritten_unless_told(unproved, tmp_path, checkpoint):
    out = tmp_path / "out"
    export(checkpoint, out, "fp32", "int8")
    before = {name: (out / name).stat().st_mtime_ns for name in everything_in(out)}
    with pytest.raises(ExportError, match=r"out already exists.*--overwrite"):
        export(checkpoint, out)
    assert {name: (out / name).stat().st_mtime_ns for name in everything_in(out)} == before
    export(checkpoint, out, overwrite=True)
    assert not (out / graph_file("text_model", "int8")).exists()
    assert embeds(out).shape == (6, 24)


@pytest.mark.parametrize("kind", ["directory", "file", "checkpoint"])
def test_what_is_no_bundle_is_never_overwritten(unproved, tmp_path, checkpoint, kind):
    out = checkpoint if kind == "checkpoint" else tmp_path / "out"
    if kind == "directory":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    elif kind == "file":
        out.write_text("years of work")
    before = everything_in(tmp_path)
    with pytest.raises(ExportError, match="no vlrt bundle"):
        export(checkpoint, out, overwrite=True)
    assert everything_in(tmp_path) == before


def test_an_empty_directory_may_be_filled_when_told(unproved, tmp_path, checkpoint):
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="already exists"):
        export(checkpoint, tmp_path / "out")
    export(checkpoint, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / MANIFEST).is_file()


def test_missing_parents_are_made(unproved, tmp_path, checkpoint):
    report = export(checkpoint, tmp_path / "a" / "b" / "c")
    assert report.path == tmp_path / "a" / "b" / "c"
    assert everything_in(tmp_path / "a" / "b")[0] == "c"


def test_a_failure_keeps_the_bundle_that_was_to_be_replaced(unproved, tmp_path, checkpoint):
    out = tmp_path / "out"
    export(checkpoint, out)
    before = embeds(out)
    change_weights(checkpoint, lambda w: w[f"{FC1}.weight"].fill(np.nan))
    with pytest.raises(ExportError):
        export(checkpoint, out, overwrite=True)
    assert np.array_equal(embeds(out), before)


# --- what is refused ------------------------------------------------------------------------------


def poison(value):
    def change(weights):
        weights[f"{FC1}.weight"][3, 3] = value

    return change


BROKEN = {
    "nan": (poison(np.nan), rf"{FC1}\.weight' holds NaN or infinity"),
    "infinity": (poison(-np.inf), rf"{FC1}\.weight' holds NaN or infinity"),
    "no weight": (lambda w: w.pop(f"{FC1}.weight"), rf"no tensor '{FC1}\.weight'"),
    "no position": (
        lambda w: w.pop("text_model.embeddings.position_embedding.weight"),
        "no tensor 'text_model.embeddings.position_embedding.weight'",
    ),
    "no projection": (lambda w: w.pop("text_projection.weight"), "text_projection"),
    "no scale": (lambda w: w.pop("logit_scale"), "no tensor 'logit_scale'"),
    "nan scale": (lambda w: w["logit_scale"].fill(np.nan), "'logit_scale' holds NaN or infinity"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_weights_are_named_and_nothing_is_left(unproved, tmp_path, checkpoint, kind):
    change, says = BROKEN[kind]
    change_weights(checkpoint, change)
    before = everything_in(tmp_path)
    with pytest.raises(ExportError, match=says):
        export(checkpoint, tmp_path / "out")
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (lambda r: (r / "config.json").unlink(), ExportError, r"no config\.json"),
        (lambda r: (r / "config.json").write_text("{"), ExportError, "is not JSON"),
        (lambda r: (r / "config.json").write_text("[]"), ExportError, "is not a JSON object"),
        (lambda r: edit_json(r / "config.json", model_type=None), ExportError, "no model_type"),
        (lambda r: edit_json(r / "config.json", model_type="gpt2"), UnknownFamilyError, "gpt2"),
        (lambda r: (r / "model.safetensors").unlink(), ExportError, "has no weights"),
        (lambda r: (r / "model.safetensors").write_bytes(b"x" * 99), ExportError, "cannot be read"),
        (lambda r: (r / "preprocessor_config.json").unlink(), ExportError, "processor_config"),
        (lambda r: edit_json(r / "preprocessor_config.json", size=None), BundleError, "'size'"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # transformers', of the odd model type
def test_a_broken_checkpoint_is_named_and_nothing_is_left(
    unproved, tmp_path, checkpoint, damage, error, says
):
    damage(checkpoint)
    before = everything_in(tmp_path)
    with pytest.raises(error, match=says):
        export(checkpoint, tmp_path / "out")
    assert everything_in(tmp_path) == before


def test_an_unknown_activation_is_refused(unproved, tmp_path):
    root = write_checkpoint(tmp_path / "checkpoint", text={"hidden_act": "relu"})
    with pytest.raises(ExportError, match="'relu'; valid: quick_gelu, gelu"):
        export(root, tmp_path / "out")


@pytest.mark.parametrize(
    ("precisions", "says"), [((), "no precision"), (("fp32", "int4"), "'int4'; valid: fp32, fp16")]
)
def test_precisions_that_cannot_be_made_are_refused_at_once(tmp_path, precisions, says):
    with pytest.raises(OptionError, match=says):
        pipeline.export("no/such", tmp_path / "out", precisions=precisions)


def test_a_revision_of_a_directory_is_refused(tmp_path, checkpoint):
    with pytest.raises(ExportError, match="is for the hub only"):
        export(checkpoint, tmp_path / "out", revision="main")


# --- gates ----------------------------------------------------------------------------------------


def test_a_variant_that_fails_its_gate_is_refused_by_how_much(
    unproved, monkeypatch, tmp_path, checkpoint, capsys
):
    strict = Gate(max_abs_error=None, min_cosine=0.9999999, min_agreement=0.0)
    monkeypatch.setitem(gates.GATES[TASK], "int8", strict)
    out = tmp_path / "out"
    report = export(checkpoint, out, "fp32", "int8")
    assert (report.written, sorted(report.refused)) == (["fp32"], ["int8"])
    assert any("lowest cosine 0.99" in why and "0.9999999" in why for why in report.refused["int8"])
    assert read_json(out / MANIFEST)["refused"] == report.refused
    assert not list((out / "onnx").glob("*int8*"))
    arguments = [str(checkpoint), "-o", str(out), "--overwrite", "--precision", "fp32", "int8"]
    assert command.main(arguments) == 1
    assert (
        "int8 was refused: vision_model, image_embeds: lowest cosine 0.99"
        in capsys.readouterr().err
    )


def test_when_nothing_passes_nothing_is_written(unproved, monkeypatch, tmp_path, checkpoint):
    monkeypatch.setitem(gates.GATES[TASK], "int8", Gate(None, 1.1, 0.0))
    with pytest.raises(GateError, match=r"no variant passed.*\n.*needs 1\.1"):
        export(checkpoint, tmp_path / "out", "int8")
    assert everything_in(tmp_path) == ["checkpoint", *[f"checkpoint/{n}" for n in sorted(
        [*SETTINGS_FILES, "model.safetensors"])]]  # fmt: skip


@pytest.mark.parametrize("factor", [5e3, 2e5])
def test_layers_that_fp16_cannot_hold_stay_fp32(unproved, tmp_path, checkpoint, factor):
    """Hidden activations beyond fp16's limit, brought down again by the next layer."""

    def plant(weights):
        weights[f"{FC1}.weight"][:] *= factor
        weights[f"{FC1}.bias"][:] *= factor
        weights[f"{FC2}.weight"][:] /= factor

    change_weights(checkpoint, plant)
    lines = []
    report = export(checkpoint, tmp_path / "out", "fp32", "fp16", say=lines.append)
    assert report.written == ["fp32", "fp16"], report.refused
    variant = read_json(tmp_path / "out" / MANIFEST)["components"]["vision_model"]["variants"]
    # The second too: on a GPU it would overflow on what the first gives.
    assert variant["fp16"]["recipe"]["layers_kept_fp32"] == [FC1, FC2]
    assert any("left in fp32" in line and FC1 in line for line in lines)
    cosines = (embeds(tmp_path / "out") * embeds(tmp_path / "out", precision="fp16")).sum(axis=1)
    assert cosines.min() >= EMBED_COSINE["fp16"]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # that is what is planted
def test_the_planted_layers_would_overflow_if_left_to_fp16(tmp_path, checkpoint):
    """So that the test above cannot pass without the rescue."""
    from vlrt.session import Session, place

    change_weights(checkpoint, lambda w: w[f"{FC1}.weight"].__imul__(2e5))
    made = clip.build(Checkpoint("c", checkpoint), "vision_model", Recipe("fp16")).model("test")
    (tmp_path / "x.onnx").write_bytes(made.SerializeToString())
    runner = Session(tmp_path / "x.onnx", place("cpu"), threads=1)
    pixels = np.ones((1, 3, 32, 32), np.float32)
    assert not np.isfinite(runner.run({"pixel_values": pixels})["image_embeds"]).all()


def test_slices_give_what_one_run_gives():
    inputs = {"x": np.arange(7)}
    for size in (1, 2, 7, 9):
        made = verify.run_in_slices(lambda given: {"y": given["x"] ** 2}, inputs, size)
        assert made["y"].tolist() == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.parametrize(
    ("tower", "number"),
    [
        ({"image_size": 224, "patch_size": 32, "num_attention_heads": 12}, 8),
        ({"image_size": 768, "patch_size": 16, "num_attention_heads": 12}, 4),
        ({"image_size": 1008, "patch_size": 14, "num_attention_heads": 16}, 1),
    ],
)
def test_the_more_tokens_the_fewer_samples_at_once(tower, number):
    assert pictures_at_once(tower) == number


def test_layers_are_kept_by_name_and_by_pattern():
    recipe = Recipe("int8", frozenset({"a.fc1", "head.*"})).keeping(frozenset({"b"}))
    assert [recipe.of(name) for name in ("a.fc1", "head.0", "head.1+head.2", "b")] == ["fp32"] * 4
    assert [recipe.of(name) for name in ("a.fc11", "ahead.0", "a.fc2")] == ["int8"] * 3
    made = recipe.describe(["b", "a.fc1", "a.fc2", "head.1+head.2"])
    assert made["layers_kept_fp32"] == ["a.fc1", "b", "head.1+head.2"]


# --- forms of checkpoints -------------------------------------------------------------------------


def torch_file(root, **more):
    torch = pytest.importorskip("torch")
    weights = load_file(root / "model.safetensors")
    (root / "model.safetensors").unlink()
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    torch.save(state | more, root / "pytorch_model.bin")
    return torch, state


@pytest.mark.torch
def test_pytorch_files_are_read_as_safetensors_are(unproved, tmp_path, checkpoint, tiny_bundle):
    torch_file(checkpoint)
    export(checkpoint, tmp_path / "out")
    assert np.array_equal(embeds(tmp_path / "out"), embeds(tiny_bundle))


@pytest.mark.torch
def test_parameters_bfloat16_and_other_values_in_a_pytorch_file(checkpoint):
    torch, state = torch_file(checkpoint)
    odd = {
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "bfloat16": torch.ones(2, dtype=torch.bfloat16),
        "step": 7,
    }
    torch.save(state | odd, checkpoint / "pytorch_model.bin")
    tensors = Checkpoint("c", checkpoint).tensors
    assert tensors["parameter"].tolist() == tensors["bfloat16"].tolist() == [1.0, 1.0]
    assert tensors["bfloat16"].dtype == np.float32
    assert "step" not in tensors


class Bomb:
    """A pickle that touches a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.torch
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(unproved, tmp_path, checkpoint, form):
    bomb = Bomb(tmp_path / "ran")
    torch_file(checkpoint, bomb=bomb)
    if form == "pickle":
        (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps({"bomb": bomb}))
    with pytest.raises(ExportError, match=r"pytorch_model\.bin cannot be read safely"):
        export(checkpoint, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def shard(root):
    weights = load_file(root / "model.safetensors")
    (root / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, root / file, metadata={"format": "pt"})
    where = {name: file for file, held in parts.items() for name in held}
    write_json(root / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})


def test_sharded_weights_are_put_together(unproved, tmp_path, checkpoint, tiny_bundle):
    shard(checkpoint)
    export(checkpoint, tmp_path / "out")
    assert np.array_equal(embeds(tmp_path / "out"), embeds(tiny_bundle))


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        ({"logit_scale": "gone.safetensors"}, "gone.safetensors"),
        ({"logit_scale": "../model-1-of-2.safetensors"}, "model-1-of-2"),
        (None, "weight_map"),
        ({"logit_scale": 3}, "weight_map|3"),
    ],
)
def test_an_index_of_shards_that_are_not_there_is_refused(checkpoint, weight_map, says):
    shard(checkpoint)
    write_json(checkpoint / "model.safetensors.index.json", {"weight_map": weight_map})
    with pytest.raises(ExportError, match=says):
        _ = Checkpoint("c", checkpoint).weight_files


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_float_types_are_widened(unproved, tmp_path, checkpoint, tiny_bundle, dtype):
    kind = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
    weights = load_file(checkpoint / "model.safetensors")
    narrow = {name: array.astype(kind) for name, array in weights.items()}
    save_file(narrow, checkpoint / "model.safetensors", metadata={"format": "pt"})
    export(checkpoint, tmp_path / "out")
    cosines = (embeds(tmp_path / "out") * embeds(tiny_bundle)).sum(axis=1)
    assert cosines.min() > 0.999


@pytest.mark.torch
def test_settings_as_transformers_5_saves_them(tmp_path, checkpoint, tiny_bundle):
    transformers = pytest.importorskip("transformers")
    model = transformers.CLIPModel.from_pretrained(checkpoint)
    processor = transformers.CLIPProcessor(
        reference.pil_processor_class("CLIP").from_pretrained(checkpoint),
        transformers.CLIPTokenizer.from_pretrained(checkpoint),
    )
    for made in (model, processor):
        made.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "preprocessor_config.json").exists()
    report = export(tmp_path / "saved", tmp_path / "out", "fp32", "int8")
    assert report.verified
    assert np.abs(embeds(tmp_path / "out") - embeds(tiny_bundle)).max() < EMBED_ABS["fp32"]


def vocabulary_alone(root):
    """As the oldest checkpoints come: vocab.json and merges.txt, and no tokenizer.json."""
    model = read_json(root / "tokenizer.json")["model"]
    write_json(root / "vocab.json", model["vocab"])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (root / "merges.txt").write_text("\n".join(lines) + "\n")
    (root / "tokenizer.json").unlink()


@pytest.mark.torch
def test_a_vocabulary_without_tokenizer_json_is_converted(tmp_path, checkpoint, tiny_bundle):
    pytest.importorskip("transformers")
    vocabulary_alone(checkpoint)
    assert export(checkpoint, tmp_path / "out").verified
    assert np.abs(embeds(tmp_path / "out") - embeds(tiny_bundle)).max() < EMBED_ABS["fp32"]


@pytest.mark.torch
def test_a_tokenizer_that_states_no_length_is_held_to_the_positions(tmp_path, checkpoint):
    """transformers then writes 1e30, and what passes the tokenizer would fail in the graph."""
    pytest.importorskip("transformers")
    vocabulary_alone(checkpoint)
    (checkpoint / "tokenizer_config.json").unlink()
    export(checkpoint, tmp_path / "out")
    model = vlrt.load(tmp_path / "out", device="cpu")
    with pytest.raises(vlrt.errors.TextError, match="the model takes 16"):
        model.encode_texts(["x" * 40])
    assert model.encode_texts(["x" * 40], truncate=True).shape == (1, 24)


# --- proof, and its absence -----------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("wrong_eos", [False, True])
def test_an_export_is_proved_against_pytorch(tmp_path, wrong_eos):
    pytest.importorskip("transformers")
    root, lines = write_checkpoint(tmp_path / "checkpoint", wrong_eos=wrong_eos), []
    report = export(root, tmp_path / "out", "fp32", "fp16", "int8", say=lines.append)
    assert report.verified
    assert report.written == ["fp32", "fp16", "int8"]
    assert any("against PyTorch" in line and "3 pictures, 3 texts" in line for line in lines)
    verified = read_json(tmp_path / "out" / MANIFEST)["verified"]
    assert verified["pixel_values"] == verified["input_ids"] == "bit-exact"
    assert {"torch", "transformers", "onnxruntime"} <= set(verified["versions"])


@pytest.mark.torch
@pytest.mark.parametrize("what", ["process", "tokenize"])
def test_other_pixels_or_ids_than_transformers_makes_are_refused(
    monkeypatch, tmp_path, checkpoint, what
):
    pytest.importorskip("transformers")
    theirs = getattr(reference.TorchModel, what)

    def off_by_one(self, given):
        return {name: array + 1 for name, array in theirs(self, given).items()}

    monkeypatch.setattr(reference.TorchModel, what, off_by_one)
    name = {"process": "pixel_values", "tokenize": "input_ids"}[what]
    with pytest.raises(GateError, match=f"transformers makes other {name}"):
        export(checkpoint, tmp_path / "out")


@pytest.mark.torch
def test_a_graph_that_computes_something_else_is_refused(monkeypatch, tmp_path, checkpoint):
    pytest.importorskip("transformers")
    build = clip.build

    def wrong(opened, component, recipe):
        opened.config["text_config"]["layer_norm_eps"] = 0.1
        return build(opened, component, recipe)

    monkeypatch.setattr(clip, "build", wrong)
    with pytest.raises(GateError, match=r"text_model, text_embeds: (lowest cosine|largest)"):
        export(checkpoint, tmp_path / "out")


def run_without_torch(*arguments):
    script = "from vlrt_export.__main__ import main; sys.exit(main(sys.argv[1:]))"
    return run_without(("torch", "transformers", "optimum"), script, *arguments)


def test_without_pytorch_it_exports_and_says_that_nothing_was_proved(tmp_path, checkpoint):
    done = run_without_torch(checkpoint, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "WARNING: torch, transformers, optimum not installed" in done.stdout
    assert "NOTHING is compared with PyTorch" in done.stdout
    verified = read_json(tmp_path / "out" / MANIFEST)["verified"]
    assert verified["against"].startswith("nothing")
    assert verified["pixel_values"] is verified["input_ids"] is None
    assert "torch" not in verified["versions"]
    assert embeds(tmp_path / "out", precision="int8").shape == (6, 24)


def test_without_transformers_a_sparse_configuration_names_what_it_lacks(tmp_path, checkpoint):
    """The hub's older configurations leave defaults unsaid, which transformers knows."""
    config = read_json(checkpoint / "config.json")
    del config["vision_config"]["layer_norm_eps"]
    write_json(checkpoint / "config.json", config)
    done = run_without_torch(checkpoint, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "layer_norm_eps" in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_transformers_a_vocabulary_alone_says_what_to_install(tmp_path, checkpoint):
    vocabulary_alone(checkpoint)
    done = run_without_torch(checkpoint, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert 'pip install "vlrt[export]"' in done.stderr
    assert "Traceback" not in done.stderr


# --- the command ----------------------------------------------------------------------------------


def test_the_module_runs_from_a_checkout(tmp_path, checkpoint):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "export", *map(str, arguments)],
            cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    shown = run("--help")
    assert shown.returncode == 0
    assert "--overwrite" in shown.stdout
    done = run(checkpoint, "-o", tmp_path / "out", "--precision", "int8")
    assert done.returncode == 0, done.stderr
    assert f"wrote {tmp_path / 'out'} with int8" in done.stdout
    assert embeds(tmp_path / "out", precision="int8").shape == (6, 24)
    again = run(checkpoint, "-o", tmp_path / "out", "--precision", "int8")
    assert again.returncode == 1
    assert "already exists" in again.stderr
    assert "Traceback" not in again.stderr


def test_errors_of_export_share_the_one_root():
    for error in (ExportError, GateError, ExtraMissingError):
        assert issubclass(error, VlrtError)
    with pytest.raises(ExportError, match="neither a directory here nor a repository"):
        open_checkpoint("a b c")
