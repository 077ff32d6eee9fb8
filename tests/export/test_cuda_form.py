"""The form for CUDA: what its graphs are made of, and that they compute what the others do.

Here they run on the CPU, which has all of their operators; `tests/cuda` sees where they run with
CUDA's provider.
"""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from checkpoints import (
    VILT_TASKS,
    edit_json,
    read_json,
    write_checkpoint,
    write_owl_checkpoint,
    write_vilt_checkpoint,
)
from pictures import picture
from tolerances import CUDA_FORM_REL

from vlrt.bundle import FOR_CUDA, MANIFEST, graph_file
from vlrt.levels import Levels
from vlrt.ops import l2_normalize
from vlrt.session import Session, place

pytest.importorskip("onnx")
pytest.importorskip("safetensors")

import onnx
from onnx import TensorProto, numpy_helper

from vlrt_export import clip, owlv2, owlvit, pipeline, pixels, recipes, reference, vilt
from vlrt_export.checkpoint import Checkpoint
from vlrt_export.precision import IN_FORMS, Recipe
from vlrt_export.samples import Samples

QUESTION, RETRIEVAL, PAIR, WORDS = VILT_TASKS
EXPORTERS = {"clip": clip, "owlvit": owlvit, "owlv2": owlv2, "vilt": vilt}
GELU = {"hidden_act": "gelu", "num_attention_heads": 4}
WRITERS = {"clip": write_checkpoint, "owlvit": write_owl_checkpoint, "vilt": write_vilt_checkpoint}
ODD = {"rescale_factor": 0.0123, "do_rescale": True}  # no whole number divides to that
CASES = {
    "clip": ("clip", (), {}),
    "clip, gelu": ("clip", (), {"text": GELU, "vision": GELU}),
    "clip, the highest id ends a text": ("clip", (), {"wrong_eos": True}),
    "clip, pixels left over": ("clip", (), {"vision": {"image_size": 37}}),
    "clip, one patch, one layer": (
        "clip", (), {"vision": {"image_size": 8, "num_hidden_layers": 1}},
    ),
    "owlvit": ("owlvit", (), {}),
    "owlvit, gelu": ("owlvit", (), {"text": GELU, "vision": GELU}),
    "owlvit, pixels left over": ("owlvit", (), {"vision": {"image_size": 37}}),
    "owlv2": ("owlvit", ("owlv2",), {}),
    "vilt, answers": ("vilt", (QUESTION,), {}),
    "vilt, matches": ("vilt", (RETRIEVAL,), {}),
    "vilt, pairs": ("vilt", (PAIR,), {}),
    "vilt, words": ("vilt", (WORDS,), {}),
    "vilt, quick_gelu": ("vilt", (QUESTION,), {"hidden_act": "quick_gelu"}),
    "vilt, no biases, one layer": (
        "vilt", (QUESTION,), {"qkv_bias": False, "num_hidden_layers": 1},
    ),
    "vilt, one position": ("vilt", (QUESTION,), {"image_size": 8}),
}  # fmt: skip
SHAPES = [(32, 32), (32, 48), (48, 32), (8, 48), (48, 8), (40, 24)]  # in patches of 8
LENGTHS = [3, 12, 7, 16, 1, 9]
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module", params=CASES)
def opened(request, tmp_path_factory):
    kind, arguments, named = CASES[request.param]
    root = WRITERS[kind](tmp_path_factory.mktemp("case") / "checkpoint", *arguments, **named)
    return Checkpoint(request.param, root)


@pytest.fixture(params=["clip", "owlvit", "vilt"])
def trained(request):
    return Checkpoint(request.param, DATA / f"{request.param}-shapes")


def of(opened):
    return EXPORTERS[opened.model_type]


def build(opened, component, precision="fp32", form="", **changes):
    recipe = Recipe(precision, form=form, **changes)
    return of(opened).build(opened, component, recipe).model("test")


def run(model, inputs):
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        return Session(path, place("cpu"), threads=1).run(inputs)


def given(opened, shapes=None, lengths=LENGTHS, seed=0):
    """The inputs of each component, as floats and as bytes: {"": ..., "cuda": ...}."""
    rng, config = np.random.default_rng(seed), opened.config
    size = 32
    if opened.model_type != "vilt":
        size = config["vision_config"]["image_size"]
        config = config["text_config"]
    shapes = shapes or (SHAPES if opened.model_type == "vilt" else [(size, size)] * 3)
    if "num_images" in config and config["num_images"] > 1:  # a pair's pictures differ in shape
        shapes = [shapes[(i + j) % len(shapes)] for i in range(len(shapes)) for j in range(2)]
    levels, mask = batch([rng.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in shapes])
    seen = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    ids = rng.integers(5, config["vocab_size"], seen.shape) * seen
    made = {"input_ids": ids, "attention_mask": seen}
    known = pixels.levels_of(opened)
    if known is None:
        values = rng.normal(0, 1, (len(shapes), 3, size, size)).astype(np.float32)
        both = {"": values, FOR_CUDA: values}
    else:
        values = np.stack([known.table[c][levels[..., c]] for c in range(3)], axis=1)
        both = {"": values * mask[:, None].astype(np.float32), FOR_CUDA: levels}
    masks = {"": mask.astype(np.int64), FOR_CUDA: mask}
    return {
        form: of(opened).inputs({**made, "pixel_values": both[form], "pixel_mask": masks[form]})
        for form in both
    }


def batch(pictures):
    """Pictures padded to the largest, uint8 [N, H, W, 3], and their mask, uint8 [N, H, W]."""
    height, width = (max(each.shape[axis] for each in pictures) for axis in (0, 1))
    levels = np.zeros((len(pictures), height, width, 3), np.uint8)
    mask = np.zeros(levels.shape[:3], np.uint8)
    for each, slot, seen in zip(pictures, levels, mask, strict=True):
        slot[: each.shape[0], : each.shape[1]] = each
        seen[: each.shape[0], : each.shape[1]] = 1
    return levels, mask


def difference(found, expected):
    """The largest error, embeddings scaled to length 1, others as shares of the largest number."""
    worst = 0.0
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape
        assert found[name].dtype == np.float32
        a, b = found[name], wanted
        if name.endswith("_embeds"):
            a, b = l2_normalize(a), l2_normalize(b)
        worst = max(worst, float(np.abs(a - b).max() / max(1, np.abs(b).max())))
    return worst


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", IN_FORMS)
def test_it_computes_what_the_exact_graph_does(opened, precision):
    made = given(opened)
    for component in of(opened).COMPONENTS:
        exact = run(build(opened, component), made[""][component])
        found = run(build(opened, component, precision, FOR_CUDA), made[FOR_CUDA][component])
        assert difference(found, exact) < CUDA_FORM_REL[precision], component


@pytest.mark.parametrize("precision", IN_FORMS)
def test_it_computes_what_trained_weights_do(trained, precision):
    shapes = [(192, 256), (256, 192), (224, 224)] if trained.model_type == "vilt" else None
    made = given(trained, shapes, [5, 9, 2])
    for component in of(trained).COMPONENTS:
        exact = run(build(trained, component), made[""][component])
        found = run(build(trained, component, precision, FOR_CUDA), made[FOR_CUDA][component])
        assert difference(found, exact) < CUDA_FORM_REL[precision], component


def components_of_pictures(opened):
    return [c for c, taken in given(opened)[""].items() if "pixel_values" in taken]


@pytest.mark.parametrize("settings", [{}, ODD, ODD | {"do_normalize": False}], ids=str)
@pytest.mark.parametrize("name", ["clip", "clip, pixels left over", "owlvit", "vilt, answers",
                                  "vilt, pairs", "vilt, words"])  # fmt: skip
def test_bytes_give_what_floats_give_to_the_bit(tmp_path, monkeypatch, name, settings):
    kind, arguments, named = CASES[name]
    root = WRITERS[kind](tmp_path / "checkpoint", *arguments, **named)
    edit_json(root / "preprocessor_config.json", **settings)
    case = Checkpoint(name, root)
    assert (pixels.levels_of(case).divisor is None) == bool(settings)
    made = given(case)
    for component in components_of_pictures(case):
        for precision in IN_FORMS:
            taking_bytes = build(case, component, precision, FOR_CUDA)
            with monkeypatch.context() as patch:
                patch.setattr(pixels, "levels_of", lambda checkpoint: None)
                taking_floats = build(case, component, precision, FOR_CUDA)
            kinds = [
                {i.name: i.type.tensor_type.elem_type for i in model.graph.input}["pixel_values"]
                for model in (taking_bytes, taking_floats)
            ]
            assert kinds == [TensorProto.UINT8, TensorProto.FLOAT]
            found = run(taking_bytes, made[FOR_CUDA][component])
            expected = run(taking_floats, made[""][component])
            for output, values in expected.items():
                assert np.array_equal(found[output], values), (component, precision, output)


def test_every_level_becomes_the_very_value_of_the_processor(tmp_path):
    root = write_checkpoint(tmp_path / "checkpoint")
    levels = pixels.levels_of(Checkpoint("clip", root))
    made = build(Checkpoint("clip", root), "vision_model", form=FOR_CUDA)
    weights = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    assert np.array_equal(weights["levels"], levels.table.reshape(-1))
    rescaled = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.array_equal(levels.table[2], (rescaled - levels.mean[2]) / levels.std[2])


@pytest.mark.parametrize("task", VILT_TASKS)
@pytest.mark.parametrize("precision", IN_FORMS)
def test_what_is_padding_changes_nothing(tmp_path, task, precision):
    """Pictures of many shapes and texts of many lengths: each as by itself, whatever is padded."""
    case = Checkpoint(task, write_vilt_checkpoint(tmp_path / "checkpoint", task))
    made, model = given(case)[FOR_CUDA]["model"], build(case, "model", precision, FOR_CUDA)
    together = run(model, made)["logits"]
    noise = np.random.default_rng(9).integers(0, 256, made["pixel_values"].shape).astype(np.uint8)
    hidden = made["pixel_mask"][..., None] == 0
    assert hidden.any()
    spoiled = {**made, "pixel_values": np.where(hidden, noise, made["pixel_values"])}
    assert np.array_equal(run(model, spoiled)["logits"], together)
    for row, length in enumerate(LENGTHS):
        alone = {name: array[row : row + 1] for name, array in made.items()}
        if task != PAIR:  # its pictures are of two shapes
            h, w = SHAPES[row]
            alone["pixel_values"] = alone["pixel_values"][:, :h, :w]
            alone["pixel_mask"] = alone["pixel_mask"][:, :h, :w]
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            alone[name] = alone[name][:, :length]
        found = run(model, alone)["logits"][0]
        expected = together[row, :length] if task == WORDS else together[row]
        worst = np.abs(found - expected).max() / max(1, np.abs(expected).max())
        assert worst < CUDA_FORM_REL[precision]


@pytest.mark.parametrize(
    ("wrong_eos", "ids", "cut"),
    [
        (True, [5, 9, 70, 3, 70, 70], 3),  # the first of the highest
        (True, [70, 1, 1, 1], 1),
        (True, [1, 2, 3, 4, 70], 5),
        (False, [5, 9, "end", 3, "end", "end"], 3),  # the first end-of-text token
        (False, [5, "end", 200, 201], 2),
        (False, [7, 8, 9], 1),  # without any, the first token, as transformers has it
    ],
)
def test_a_text_is_pooled_where_it_ends(tmp_path, wrong_eos, ids, cut):
    """Nothing behind it counts: a text that is cut there gives the same."""
    case = Checkpoint("clip", write_checkpoint(tmp_path / "checkpoint", wrong_eos=wrong_eos))
    end = case.config["text_config"]["eos_token_id"]
    row = np.array([[end if each == "end" else each for each in ids]], np.int64)
    model = build(case, "text_model", form=FOR_CUDA)
    whole, short = (run(model, {"input_ids": each})["text_embeds"] for each in (row, row[:, :cut]))
    np.testing.assert_allclose(whole, short, rtol=1e-5, atol=1e-6)
    standard = run(build(case, "text_model"), {"input_ids": row})["text_embeds"]
    np.testing.assert_allclose(whole, standard, rtol=1e-4, atol=1e-5)


# --- nodes ----------------------------------------------------------------------------------------

# What CUDA has no kernels for, of these types; what cuDNN computes; what needs shapes, which the
# CPU would work out.
NOT_THERE = {"Elu", "ArgMax", "Range", "ReduceSum", "ReduceMax", "Conv", "Expand", "Tile"}


def nodes(model):
    return Counter(node.op_type for node in model.graph.node)


def tower(opened, component):
    """The settings of a component's transformer."""
    sections = {"text_model": "text_config", "vision_model": "vision_config"}
    return opened.config[sections[component]] if component in sections else opened.config


def test_its_blocks_are_fused(opened):
    for component in of(opened).COMPONENTS:
        made = build(opened, component, "fp16", FOR_CUDA)
        found, settings = nodes(made), tower(opened, component)
        layers, pictures = settings["num_hidden_layers"], component == "vision_model"
        # Both of each layer but the very first, which reads no sum, and the last one.
        assert found["SkipLayerNormalization"] == 2 * layers
        # Nothing reads all tokens of the last layer but OWL's heads; texts could end anywhere.
        few = int(component == "model" or (pictures and opened.model_type == "clip"))
        assert found["Attention"] == layers - few
        assert found["MultiHeadAttention"] == few
        # Each gives the sum that the next one reads, and the last does not.
        given_on = {name for node in made.graph.node for name in node.input}
        for node in made.graph.node:
            if node.op_type == "SkipLayerNormalization":
                assert {name for name in node.output if name} <= given_on
        attentions = [node for node in made.graph.node if "Attention" in node.op_type]
        assert {node.domain for node in attentions} == {"com.microsoft"}
        heads = {"owlvit": 2, "owlv2": 4}.get(opened.model_type, 0) if pictures else 0
        hidden = layers + (opened.config.get("architectures") == [WORDS])
        gelu = settings["hidden_act"] == "gelu"
        assert found["BiasGelu"] == hidden * gelu + heads
        assert found["QuickGelu"] == hidden * (not gelu)


def test_nothing_is_left_to_the_cpu_or_to_cudnn(opened):
    for component in of(opened).COMPONENTS:
        for precision in IN_FORMS:
            made = build(opened, component, precision, FOR_CUDA)
            assert not NOT_THERE & nodes(made).keys()
            shapes = {node.output[0] for node in made.graph.node if node.op_type == "Shape"}
            readers = {n.op_type for n in made.graph.node if shapes & set(n.input)}
            assert readers <= {"Slice"}  # which reads where it ends from the CPU's memory anyway


def test_nothing_is_split_into_unequal_parts(opened):
    """CUDA uploads their sizes, which a captured graph does not find again."""
    for component in of(opened).COMPONENTS:
        made = build(opened, component, "fp16", FOR_CUDA)
        splits = [node for node in made.graph.node if node.op_type == "Split"]
        assert all(len(node.input) == 1 for node in splits)


def test_fp16_is_widened_only_where_it_must_be(opened):
    """No value goes from fp16 to fp32 and back with nothing done to it between."""
    for component in of(opened).COMPONENTS:
        made = build(opened, component, "fp16", FOR_CUDA)
        casts = {node.output[0]: node for node in made.graph.node if node.op_type == "Cast"}
        for node in casts.values():
            assert node.input[0] not in casts
        seen = [(node.input[0], node.attribute[0].i) for node in casts.values()]
        assert len(seen) == len(set(seen))  # each is made once


@pytest.mark.parametrize(("name", "takes"), [
    ("clip", {"pixel_values": ("uint8", ["batch", 32, 32, 3])}),
    ("owlvit", {"pixel_values": ("uint8", ["batch", 32, 32, 3])}),
    ("owlv2", {"pixel_values": ("float32", ["batch", 3, 32, 32])}),
    ("vilt, answers", {"pixel_values": ("uint8", ["batch", "height", "width", 3]),
                       "pixel_mask": ("uint8", ["batch", "height", "width"])}),
    ("vilt, pairs", {"pixel_values": ("uint8", ["batch", 2, "height", "width", 3]),
                     "pixel_mask": ("uint8", ["batch", 2, "height", "width"])}),
])  # fmt: skip
def test_pictures_are_bytes_where_they_are_so_once_resized(tmp_path, name, takes):
    kind, arguments, named = CASES[name]
    case = Checkpoint(name, WRITERS[kind](tmp_path / "checkpoint", *arguments, **named))
    component = "model" if kind == "vilt" else "vision_model"
    for precision in IN_FORMS:
        found = inputs_of(build(case, component, precision, FOR_CUDA))
        assert {name: found[name] for name in takes} == takes


def inputs_of(model):
    return {
        each.name: (
            onnx.helper.tensor_dtype_to_np_dtype(each.type.tensor_type.elem_type).name,
            [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim],
        )
        for each in model.graph.input
    }


def test_levels_are_what_processors_of_floats_lack(tmp_path):
    assert isinstance(pixels.levels_of(Checkpoint("c", write_checkpoint(tmp_path / "c"))), Levels)
    assert pixels.levels_of(Checkpoint("o", write_owl_checkpoint(tmp_path / "o", "owlv2"))) is None


# --- bundles --------------------------------------------------------------------------------------

PICTURES = [picture("RGB", (50, 40), seed=n) for n in range(3)]
TEXTS = ["a red cat", "the blue dog", "of a thing"]
FC1 = "vision_model.encoder.layers.0.mlp.fc1"
FC2 = "vision_model.encoder.layers.0.mlp.fc2"


@pytest.fixture
def unproved(monkeypatch):
    """Export without PyTorch, which has tests of its own."""
    monkeypatch.setattr(reference, "missing", lambda: ["torch"])


def export(root, out, *precisions, **options):
    options = {"calibrate": Samples(PICTURES, TEXTS), "say": lambda line: None} | options
    report = pipeline.export(str(root), out, precisions=precisions or IN_FORMS, **options)
    return report, read_json(out / MANIFEST)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", ["clip", "owlvit", "owlv2", "vilt, pairs"])
def test_it_is_written_proved_and_listed(unproved, monkeypatch, tmp_path, name, shared):
    if shared:  # weights in a file of their own serve all forms
        monkeypatch.setattr(recipes, "EXTERNAL_DATA_BYTES", 10_000)
    kind, arguments, named = CASES[name]
    root = WRITERS[kind](tmp_path / "checkpoint", *arguments, **named)
    report, manifest = export(root, tmp_path / "out", *IN_FORMS, "int8")
    assert report.refused == {}
    for component in of(Checkpoint(name, root)).COMPONENTS:
        variants = manifest["components"][component]["variants"]
        assert FOR_CUDA not in variants["int8"]
        for precision in IN_FORMS:
            entry = variants[precision][FOR_CUDA]
            file = graph_file(component, precision, FOR_CUDA)
            data = [f"{graph_file(component, precision)}_data"] if shared else []
            assert entry["files"] == [file, *data]
            assert set(entry["files"]) <= set(manifest["files"])
            assert entry["repeatable"] is True
            assert entry["parity"].keys() == variants[precision]["parity"].keys()
            assert entry["recipe"]["layers_kept_fp32"] == []
            made = onnx.load(tmp_path / "out" / file)
            taken = {n: {"type": k, "shape": s} for n, (k, s) in inputs_of(made).items()}
            assert entry["inputs"] == taken
            assert nodes(made)["SkipLayerNormalization"] > 0


def test_products_are_shared_with_the_graph_beside_it(unproved, monkeypatch, tmp_path):
    """All matrices but those that are in another precision there."""
    monkeypatch.setattr(recipes, "EXTERNAL_DATA_BYTES", 10_000)
    for kind, own in (("clip", set()), ("owlvit", {"class_head", "box_head"}), ("vilt", set())):
        root = WRITERS[kind](tmp_path / f"{kind}-checkpoint")
        export(root, tmp_path / kind)
        for component in EXPORTERS[kind].COMPONENTS:
            for precision in IN_FORMS:
                file = tmp_path / kind / graph_file(component, precision, FOR_CUDA)
                kept = [
                    tensor.name
                    for tensor in onnx.load(file, load_external_data=False).graph.initializer
                    if len(tensor.dims) > 1
                    and tensor.name.endswith(".weight")
                    and not tensor.external_data
                    and np.prod(tensor.dims) > 1024  # smaller ones are never put outside
                ]
                heads = {name.split(".")[0] for name in kept}
                assert heads <= (own if precision == "fp16" else set())


def test_heads_that_fp16_spoils_stay_in_fp32(unproved, monkeypatch, tmp_path):
    """The recipe of the variant itself is taken, and the manifest says so."""
    root = write_owl_checkpoint(tmp_path / "checkpoint")
    quality, asked = owlvit.quality, []

    def strict(found, *others):
        counted = quality(found, *others)
        asked.append(len(asked))
        # The first is of fp32, the second of fp16, the third of fp16 with all heads in fp16.
        return counted | ({"agreement": 0.5} if len(asked) == 3 else {})

    monkeypatch.setattr(owlvit, "quality", strict)
    lines = []
    report, manifest = export(root, tmp_path / "out", say=lines.append)
    assert report.refused == {}
    assert len(asked) == 3  # the variant's own recipe was judged when the variant was
    variant = manifest["components"]["vision_model"]["variants"]["fp16"]
    kept = variant["recipe"]["layers_kept_fp32"]
    assert "class_head.dense0" in kept
    assert variant[FOR_CUDA]["recipe"]["layers_kept_fp32"] == kept
    assert any("not yet" in line and "only 0.5000" in line for line in lines)


def test_what_fails_is_refused_and_the_variant_stays(unproved, monkeypatch, tmp_path):
    root = write_checkpoint(tmp_path / "checkpoint")
    build_clip = clip.build

    def wrong(opened, component, recipe):
        if recipe.for_cuda and recipe.precision == "fp16" and component == "text_model":
            opened.config["text_config"]["layer_norm_eps"] = 5.0
        made = build_clip(opened, component, recipe)
        opened.config["text_config"]["layer_norm_eps"] = 1e-5
        return made

    monkeypatch.setattr(clip, "build", wrong)
    lines = []
    report, manifest = export(root, tmp_path / "out", say=lines.append)
    assert report.written == list(IN_FORMS)
    assert list(report.refused) == ["fp16 for cuda"]
    assert manifest["refused"] == report.refused
    (whys,) = report.refused.values()
    assert any("text_model, text_embeds: lowest cosine" in why for why in whys)
    assert any(line.startswith("fp16 for cuda REFUSED") for line in lines)
    for component in clip.COMPONENTS:  # of both, for one alone serves nobody
        variants = manifest["components"][component]["variants"]
        assert FOR_CUDA in variants["fp32"]
        assert FOR_CUDA not in variants["fp16"]
        assert not (tmp_path / "out" / graph_file(component, "fp16", FOR_CUDA)).exists()
        assert (tmp_path / "out" / graph_file(component, "fp16")).exists()


def test_layers_that_fp16_cannot_hold_stay_fp32_there_too(unproved, tmp_path):
    from safetensors.numpy import load_file, save_file

    root = write_checkpoint(tmp_path / "checkpoint")
    weights = dict(load_file(root / "model.safetensors"))
    for name, factor in ((f"{FC1}.weight", 2e5), (f"{FC1}.bias", 2e5), (f"{FC2}.weight", 5e-6)):
        weights[name] *= np.float32(factor)
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})
    report, manifest = export(root, tmp_path / "out")
    assert report.refused == {}
    entry = manifest["components"]["vision_model"]["variants"]["fp16"][FOR_CUDA]
    assert entry["recipe"]["layers_kept_fp32"] == [FC1, FC2]
