"""Quantised variants: the arithmetic, outliers, and what follows when one fails its gate."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import read_json, write_checkpoint, write_vilt_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import picture
from tolerances import EMBED_ABS, EMBED_COSINE

import vlrt
import vlrt.families.clip as clip_runtime
import vlrt.families.vilt as vilt_runtime
from vlrt.bundle import MANIFEST, graph_file
from vlrt.errors import BundleError, ExportError, GateError, OptionError
from vlrt.session import Session, place
from vlrt.tasks import TASKS

pytest.importorskip("onnx")
pytest.importorskip("safetensors")

import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from vlrt_export import (
    clip,
    ladder,
    owlvit,
    pipeline,
    products,
    recipes,
    reference,
    run,
    verify,
    vilt,
)
from vlrt_export.checkpoint import open_checkpoint
from vlrt_export.precision import (
    WEIGHT_ONLY,
    Channels,
    Recipe,
    affine,
    quantize_blocks,
    quantize_columns,
    smoothing,
)
from vlrt_export.preparation import Preparation
from vlrt_export.samples import Samples, drawn_pictures, texts

DEMO = Path(__file__).parents[1] / "data" / "clip-shapes"
LAYERS = "vision_model.encoder.layers"
PICTURES = [picture("RGB", (50, 40), seed=n) for n in range(6)]
TEXTS = ["a red cat", "the blue dog", "of a thing"]
NUMBERS = st.floats(-1e3, 1e3, width=32)
MATRICES = arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=NUMBERS)


@pytest.fixture(autouse=True)
def unproved(monkeypatch):
    """Against the own fp32 graph: PyTorch has tests of its own in `test_export.py`."""
    monkeypatch.setattr(reference, "missing", lambda: ["torch"])


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "checkpoint")


def samples(*, calibrated):
    more = (PICTURES[3:], TEXTS) if calibrated else ([], [])
    return Samples(PICTURES[:3], TEXTS, *more)


def export(source, out, *precisions, calibrated=False, **options):
    options = {"calibrate": samples(calibrated=calibrated), "say": lambda line: None} | options
    report = pipeline.export(str(source), out, precisions=precisions, **options)
    return report, read_json(out / MANIFEST)


def change_weights(root, change):
    weights = dict(load_file(root / "model.safetensors"))
    change(weights)
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})


def fused(model):
    """The operators that only ONNX Runtime has, or only late engines."""
    late = ("Attention", "Gelu")
    return {node.op_type for node in model.graph.node if node.domain or node.op_type in late}


def variant(manifest, precision, component="vision_model"):
    return manifest["components"][component]["variants"][precision]


def initializers(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


# --- arithmetic -----------------------------------------------------------------------------------


@given(MATRICES, st.sampled_from([7, 8]))
def test_columns_are_off_by_half_a_step_at_most(weight, bits):
    quantized, scales = quantize_columns(weight, bits)
    assert np.abs(quantized.astype(int)).max() <= 2 ** (bits - 1) - 1
    assert (np.abs(quantized * scales - weight) <= scales * 0.501).all()


@given(MATRICES, st.sampled_from([4, 8]), st.sampled_from([2, 4]))
def test_blocks_are_off_by_half_a_step_at_most(weight, bits, block):
    packed, scales, zeros = quantize_blocks(weight, bits, block)
    blocks = -(-len(weight) // block)
    assert packed.shape == (weight.shape[1], blocks, block * bits // 8)
    assert scales.shape == (weight.shape[1], blocks)
    numbers, origins = unpacked(packed, bits), unpacked(zeros, bits)[:, :blocks]
    found = (numbers - origins[..., None]) * scales[..., None]
    found = found.reshape(weight.shape[1], -1)[:, : len(weight)].T
    # A zero point is a whole number, so that an end of the range may be half a step away.
    limit = np.repeat(scales, block, axis=1)[:, : len(weight)].T
    assert (np.abs(found - weight) <= limit * 1.001).all()


def unpacked(packed, bits):
    if bits == 8:
        return packed.astype(int)
    both = np.stack([packed & 15, packed >> 4], axis=-1)
    return both.reshape(*packed.shape[:-1], -1).astype(int)


# Exact products prove how blocks are read; those in int8, which are shipped, are near them.
@pytest.mark.parametrize(("level", "allowed"), [(0, 1e-5), (4, 0.02)])
@pytest.mark.parametrize("precision", WEIGHT_ONLY)
@pytest.mark.parametrize("rows", [256, 200])
def test_onnx_runtime_reads_blocks_as_they_are_meant(tmp_path, precision, rows, level, allowed):
    bits, block = WEIGHT_ONLY[precision]
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((rows, 48)).astype(np.float32)
    value = rng.standard_normal((3, rows)).astype(np.float32)
    packed, scales, zeros = quantize_blocks(weight, bits, block)
    meant = (unpacked(packed, bits) - unpacked(zeros, bits)[:, : scales.shape[1], None]) * scales[
        ..., None
    ]
    meant = meant.reshape(48, -1)[:, :rows].T
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s", "z"], ["y"], domain="com.microsoft",
        K=rows, N=48, bits=bits, block_size=block, accuracy_level=level,
    )  # fmt: skip
    parts = {"w": packed, "s": scales, "z": zeros}
    graph = helper.make_graph(
        [node], "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 48])],
        [numpy_helper.from_array(array, name) for name, array in parts.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=11), tmp_path / "g")
    found = Session(tmp_path / "g", place("cpu"), threads=1).run({"x": value})["y"]
    assert np.linalg.norm(found - value @ meant) <= allowed * np.linalg.norm(value @ meant)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_a_range_holds_its_ends_and_zero(low, high):
    low, high = sorted((low, high))
    scale, zero = affine(low, high)
    for number in (low, high, 0.0):
        found = (np.clip(np.rint(number / scale) + int(zero), 0, 255) - int(zero)) * scale
        assert abs(found - number) <= scale * 1.01
    assert scale > 0


@given(
    arrays(np.float32, 6, elements=st.floats(0, 1e3, width=32)),
    arrays(np.float32, (6, 3), elements=NUMBERS),
)
def test_smoothing_is_positive_and_bounded(peaks, weight):
    divisor = smoothing(peaks, weight)
    assert divisor.dtype == np.float32
    assert np.isfinite(divisor).all()
    assert (divisor > 0).all()
    alike = smoothing(peaks, np.ones((6, 3), np.float32))
    # A channel that was quiet, or dead, is not blown up when it speaks on other data.
    assert alike.min() >= 0.099 * np.median(alike)


def test_smoothing_meets_the_channels_half_way():
    weight = np.float32([[1, -1], [4, 2], [1, 1]])
    divisor = smoothing(np.float32([1, 4, 16]), weight)
    expected = np.sqrt(np.float32([1, 1, 16]))
    np.testing.assert_allclose(divisor / divisor[0], expected / expected[0], rtol=1e-5)


def test_channels_join_and_know_their_peaks():
    one = Channels(np.float32([-3, 0]), np.float32([1, 2]))
    both = one.joined(Channels(np.float32([-1, -5]), np.float32([4, 1])))
    assert both.low.tolist() == [-3, -5]
    assert both.high.tolist() == [4, 2]
    assert both.peaks.tolist() == [4, 5]
    assert both.divided(np.float32([2, 1])).peaks.tolist() == [2, 5]


# --- outliers -------------------------------------------------------------------------------------


def louder_gains(weights, channels, factor):
    """Channels behind a LayerNorm, brought down again by the layers that take them."""
    for layer in numbers(weights):
        for norm, takers in (
            ("layer_norm1", [f"self_attn.{part}_proj" for part in "qkv"]),
            ("layer_norm2", ["mlp.fc1"]),
        ):
            for part in ("weight", "bias"):
                weights[f"{layer}.{norm}.{part}"][channels] *= factor
            for taker in takers:
                weights[f"{layer}.{taker}.weight"][:, channels] /= factor


def louder_residual(weights, channels, factor):
    """Channels of the residual stream, from its beginning to its end."""
    weights["vision_model.pre_layrnorm.weight"][channels] *= factor
    weights["vision_model.pre_layrnorm.bias"][channels] += factor


def louder_hidden(weights, channels, factor):
    """Channels that the second matrix of the MLP takes."""
    for layer in numbers(weights):
        for part in ("weight", "bias"):
            weights[f"{layer}.mlp.fc1.{part}"][channels] *= factor
        weights[f"{layer}.mlp.fc2.weight"][:, channels] /= factor


def louder_values(weights, channels, factor):
    """Channels that the last matrix of attention takes."""
    for layer in numbers(weights):
        for part in ("weight", "bias"):
            weights[f"{layer}.self_attn.v_proj.{part}"][channels] *= factor
        weights[f"{layer}.self_attn.out_proj.weight"][:, channels] /= factor


def numbers(weights):
    known = {
        name.split(".mlp")[0] for name in weights if name.startswith(LAYERS) and ".mlp" in name
    }
    return sorted(known)


PLANTED = [
    (None, 1, 0),
    (louder_gains, 100, 0),
    (louder_residual, 50, 0),
    (louder_hidden, 100, 6),
    (louder_values, 100, 0),
]


@pytest.mark.parametrize(("plant", "factor", "smoothed"), PLANTED)
def test_calibrated_int8_bears_outliers_in_a_trained_checkpoint(tmp_path, plant, factor, smoothed):
    """Without a layer left in fp32; only those of the MLP's second matrix take a product more."""
    root = tmp_path / "checkpoint"
    shutil.copytree(DEMO, root)
    (root / "training.json").unlink()  # what it says of accuracy does not hold any more
    (root / "model.safetensors").chmod(0o644)
    if plant is not None:
        change_weights(root, lambda weights: plant(weights, [3, 50, 77], np.float32(factor)))
    drawn = Samples(drawn_pictures(8), texts(8), drawn_pictures(8, seed=1), texts(8))
    _, manifest = export(root, tmp_path / "out", "int8", calibrate=drawn)
    made = variant(manifest, "int8")
    assert made["parity"]["image_embeds"]["min_cosine"] >= 0.998
    assert made["recipe"]["scales"] == "static"
    assert made["recipe"]["layers_kept_fp32"] == ["visual_projection"]
    assert len(made["recipe"]["layers_smoothed"]) == smoothed


@pytest.mark.parametrize("plant", [louder_gains, louder_hidden, louder_values])
def test_what_smoothing_is_for(tmp_path, plant, monkeypatch):
    """The planted outliers do harm where nothing is done about them."""
    root = tmp_path / "checkpoint"
    shutil.copytree(DEMO, root)
    (root / "model.safetensors").chmod(0o644)
    change_weights(root, lambda weights: plant(weights, [3, 50, 77], np.float32(100)))
    made = workshop(root, tmp_path)
    prepare = Preparation(clip, clip_runtime, root)
    pixels = prepare.inputs(drawn_pictures(8), ["x"])["vision_model"]
    seen = prepare.one_by_one(drawn_pictures(8, seed=1), ["x"])["vision_model"]
    plain = Recipe("int8", clip.KEEP_FP32["int8"], made.channels("vision_model", seen)[0])
    smooth = replace(plain, smoothed=made.build("vision_model", plain).unsmoothed)
    expected = made.outputs("vision_model", Recipe("fp32"), pixels, 8)["image_embeds"]

    def lowest(recipe):
        found = made.outputs("vision_model", recipe, pixels, 8)["image_embeds"]
        return verify.parity({"image_embeds": found}, {"image_embeds": expected})["image_embeds"][
            "min_cosine"
        ]

    assert lowest(smooth) >= 0.998
    monkeypatch.setattr(products, "smoothing", lambda peaks, _: np.ones_like(peaks))
    assert lowest(plain) < 0.99


def test_smoothing_changes_nothing_before_numbers_are_rounded(tmp_path, checkpoint):
    """With weights and scales of 24 bits in place of 8, int8's graph would be the fp32 one."""
    made = workshop(checkpoint, tmp_path)
    pixels = {"pixel_values": np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)}
    known = made.channels("vision_model", [pixels])[0]
    whole = Recipe("int8", calibration=known)
    smooth = replace(whole, smoothed=made.build("vision_model", whole).unsmoothed)

    class Exact(type(made.build("vision_model", whole))):
        def _int8_product(self, value, weight, bias, name):
            product = self.op("MatMul", value, self.floats(weight, f"{name}.exact"))
            return self._biased(product, bias, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "Graph", Exact)
        found = made.outputs("vision_model", smooth, pixels, 2)["image_embeds"]
    expected = made.outputs("vision_model", Recipe("fp32"), pixels, 2)["image_embeds"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=EMBED_ABS["fp32"])


def workshop(root, scratch):
    opened = open_checkpoint(str(root))
    return recipes.Workshop(
        clip, opened, scratch, lambda path: Session(path, place("cpu"), threads=1), print
    )


# --- what is tried next ---------------------------------------------------------------------------


def test_a_layer_that_hurts_is_left_in_fp32_and_named(tmp_path, checkpoint):
    layer = f"{LAYERS}.0.mlp.fc2"
    change_weights(checkpoint, one_loud_layer)
    lines = []
    report, manifest = export(checkpoint, tmp_path / "out", "int8", say=lines.append)
    assert report.written == ["int8"]
    made = variant(manifest, "int8")
    assert layer in made["recipe"]["layers_kept_fp32"]
    assert next(iter(made["sensitivity"])) == layer  # the worst comes first
    assert any(
        "vision_model: the layers that hurt most" in line and layer in line for line in lines
    )
    assert "sensitivity" not in variant(manifest, "int8", "text_model")  # nothing was wrong with it


def one_loud_layer(weights):
    for part in ("weight", "bias"):
        weights[f"{LAYERS}.0.mlp.fc1.{part}"][[3, 7]] *= 1000
    weights[f"{LAYERS}.0.mlp.fc2.weight"][:, [3, 7]] /= 1000


def loud_everywhere(weights):
    louder_hidden(weights, [3, 7], np.float32(3000))
    louder_values(weights, [3, 7], np.float32(3000))


def test_a_variant_that_nothing_helps_is_refused_with_its_layers(tmp_path, checkpoint):
    change_weights(checkpoint, loud_everywhere)
    report, manifest = export(checkpoint, tmp_path / "out", "fp32", "int8")
    assert report.written == ["fp32"]
    (cosine,) = [why for why in report.refused["int8"] if "cosine" in why]
    assert cosine.startswith("vision_model, image_embeds: lowest cosine 0.")
    (hurt,) = [why for why in report.refused["int8"] if "hurt most" in why]
    assert f"{LAYERS}.0.mlp.fc2" in hurt
    assert manifest["refused"]["int8"] == report.refused["int8"]
    assert not (tmp_path / "out" / graph_file("vision_model", "int8")).exists()
    # With data to take scales from, the same weights are no trouble.
    report, _ = export(checkpoint, tmp_path / "more", "int8", calibrated=True)
    assert report.written == ["int8"]


def test_what_an_onnx_runtime_cannot_load_is_refused_and_the_rest_is_written(
    tmp_path, checkpoint, monkeypatch
):
    opened = run.Run.open

    def unable(self, path):
        if "fp16" in path.name:
            raise BundleError(f"ONNX Runtime 0.1 cannot load {path.name}: no such operator")
        return opened(self, path)

    monkeypatch.setattr(run.Run, "open", unable)
    report, manifest = export(checkpoint, tmp_path / "out", "fp32", "fp16")
    assert report.written == ["fp32"]
    (why,) = manifest["refused"]["fp16"]
    assert "ONNX Runtime 0.1 cannot load vision_model_fp16.onnx" in why
    assert not list((tmp_path / "out" / "onnx").glob("*fp16*"))


def test_a_layer_that_gives_no_numbers_hurts_most_and_the_manifest_stays_json(
    tmp_path, checkpoint, monkeypatch
):
    layer = f"{LAYERS}.0.mlp.fc2"
    change_weights(checkpoint, one_loud_layer)
    share = ladder._share
    errors = iter([np.nan])
    monkeypatch.setattr(ladder, "_share", lambda *both: next(errors, share(*both)))
    _, manifest = export(checkpoint, tmp_path / "out", "int8")
    sensitivity = variant(manifest, "int8")["sensitivity"]
    assert next(iter(sensitivity.values())) is None
    assert layer in list(sensitivity)[:2]
    json.loads((tmp_path / "out" / MANIFEST).read_text(), parse_constant=pytest.fail)


def test_a_precision_that_is_asked_for_twice_is_made_once(tmp_path, checkpoint):
    report, _ = export(checkpoint, tmp_path / "out", "fp32", "fp32")
    assert report.written == ["fp32"]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (([], []), "no picture or no text to verify on"),
        ((PICTURES, []), "no picture or no text"),
        ((PICTURES, TEXTS, PICTURES, []), "from pictures alone, or from texts alone"),
        ((PICTURES, TEXTS, [], TEXTS), "from pictures alone, or from texts alone"),
    ],
)
def test_samples_that_lack_a_kind_are_refused(parts, says):
    with pytest.raises(ExportError, match=says):
        Samples(*parts)


def test_one_path_alone_is_no_list(tmp_path, checkpoint):
    with pytest.raises(OptionError, match="calibrate is 'drawn'; valid: a list of paths"):
        export(checkpoint, tmp_path / "out", "int8", calibrate="drawn")


def test_nothing_is_written_if_everything_is_refused(tmp_path, checkpoint):
    change_weights(checkpoint, loud_everywhere)
    with pytest.raises(GateError, match="hurt most"):
        export(checkpoint, tmp_path / "out", "int8")
    assert not (tmp_path / "out").exists()


# --- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("calibrated", [False, True])
def test_static_scales_make_a_result_its_own(tmp_path, checkpoint, calibrated):
    """Dynamic ones are those of a batch, and change with a picture's neighbours."""
    _, manifest = export(checkpoint, tmp_path / "out", "int8", calibrated=calibrated)
    scales = "static" if calibrated else "dynamic"
    assert variant(manifest, "int8")["recipe"]["scales"] == scales
    model = vlrt.load(tmp_path / "out", precision="int8", device="cpu")
    together = model.encode_images(PICTURES)
    alone = np.concatenate([model.encode_images([one]) for one in PICTURES])
    assert np.array_equal(together, alone) == calibrated


def test_texts_keep_scales_of_their_own_where_only_pictures_were_given(tmp_path, checkpoint):
    pictures = replace(samples(calibrated=True), asked_for=frozenset({"pixel_values"}))
    _, manifest = export(checkpoint, tmp_path / "out", "int8", calibrate=pictures)
    assert variant(manifest, "int8")["recipe"]["scales"] == "static"
    assert variant(manifest, "int8", "text_model")["recipe"]["scales"] == "dynamic"


@pytest.mark.parametrize("shared", [False, True])
def test_a_portable_graph_computes_the_same_with_plain_operators(
    tmp_path, checkpoint, monkeypatch, shared
):
    if shared:  # weights in a file of their own serve both graphs
        monkeypatch.setattr(recipes, "EXTERNAL_DATA_BYTES", 10_000)
    _, manifest = export(checkpoint, tmp_path / "out", "fp32", "fp16", "int8")
    for component in clip.COMPONENTS:
        for precision in ("fp32", "fp16"):
            portable = variant(manifest, precision, component)["portable"]
            name = graph_file(component, precision, "portable")
            data = [f"{graph_file(component, precision)}_data"] if shared else []
            assert portable["files"] == [name, *data]
            assert set(portable["files"]) <= set(manifest["files"])
            made = onnx.load(tmp_path / "out" / name)
            assert not fused(made)
            (numbers,) = portable["parity"].values()
            assert numbers["min_cosine"] >= EMBED_COSINE[precision]
        assert "portable" not in variant(manifest, "int8", component)


@pytest.mark.parametrize(
    ("family", "name", "component"),
    [
        (clip, "clip", "vision_model"),
        (clip, "clip", "text_model"),
        (owlvit, "owlvit", "vision_model"),
        (owlvit, "owlvit", "text_model"),
        (vilt, "vilt", "model"),
    ],
)
def test_portable_graphs_of_all_families_are_plain(family, name, component):
    trained = open_checkpoint(str(DEMO.parent / f"{name}-shapes"))
    made = family.build(trained, component, Recipe("fp32")).model("test")
    assert fused(made)
    made = family.build(trained, component, Recipe("fp32", form="portable")).model("test")
    assert not fused(made)


@pytest.mark.parametrize("name", TASKS)
def test_every_vilt_is_calibrated_on_pairs(tmp_path, name):
    root = write_vilt_checkpoint(tmp_path / "vilt", name)
    _, manifest = export(root, tmp_path / "out", "int8", calibrated=True)
    assert variant(manifest, "int8", "model")["recipe"]["scales"] == "static"
    each = 2 if "ImagesAndText" in name else 1
    checkpoint = open_checkpoint(str(root))
    prepare = Preparation(vilt, vilt_runtime, tmp_path / "out")
    pairs = vilt.samples(checkpoint, PICTURES[3:], TEXTS)
    alone = prepare.one_by_one(*pairs)["model"]
    assert len(alone) == len(pairs[1]) == 3
    for number, sample in enumerate(alone):
        assert sample["pixel_values"].shape[:-2] == ((1, 2, 3) if each == 2 else (1, 3))
        pictures = pairs[0][number * each : (number + 1) * each]
        expected = prepare.inputs(pictures, pairs[1][number : number + 1])["model"]
        for key, array in sample.items():
            assert np.array_equal(array, expected[key]), key


@pytest.mark.parametrize("precision", WEIGHT_ONLY)
def test_small_weights_are_small_and_close(tmp_path, checkpoint, precision):
    report, manifest = export(checkpoint, tmp_path / "out", "fp32", precision)
    assert report.written == ["fp32", precision]
    made = variant(manifest, precision)
    bits, _ = WEIGHT_ONLY[precision]
    assert made["recipe"]["weight_bits"] == bits
    assert made["recipe"]["scales"] is None
    weights = initializers(tmp_path / "out" / graph_file("vision_model", precision))
    # The tiny layers are a third of a block: only a full-size one shows what is saved.
    assert weights[f"{LAYERS}.0.mlp.fc1.weight_u{bits}"].dtype == np.uint8
    assert "visual_projection.weight" in weights
    model = vlrt.load(tmp_path / "out", precision=precision, device="cpu")
    assert model.info["precision"] == precision


def test_seven_bits_on_request(tmp_path, checkpoint):
    _, manifest = export(checkpoint, tmp_path / "out", "int8", reduce_range=True)
    assert variant(manifest, "int8")["recipe"]["weight_bits"] == 7
    weights = initializers(tmp_path / "out" / graph_file("vision_model", "int8"))
    largest = [np.abs(w.astype(int)).max() for name, w in weights.items() if "weight_s8" in name]
    assert max(largest) == 63


def test_taps_say_what_layers_take_and_give(tmp_path, checkpoint):
    made = workshop(checkpoint, tmp_path)
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    layer = "vision_model.embeddings.patch_embedding"
    taken, given_ = (
        found[layer] for found in made.channels("vision_model", [{"pixel_values": pixels}])
    )
    patches = pixels.reshape(2, 3, 4, 8, 4, 8).transpose(0, 2, 4, 1, 3, 5).reshape(32, -1)
    assert np.array_equal(taken.low, patches.min(axis=0))
    assert np.array_equal(taken.high, patches.max(axis=0))
    weight = load_file(checkpoint / "model.safetensors")[f"{layer}.weight"]
    product = patches @ weight.reshape(len(weight), -1).T
    np.testing.assert_allclose(given_.high, product.max(axis=0), rtol=1e-4, atol=1e-5)
