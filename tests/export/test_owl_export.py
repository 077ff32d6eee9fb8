"""Exporting OWL-ViT and OWLv2: what is written, kept in fp32, counted, and refused."""

import shutil

import numpy as np
import onnx
import pytest
from checkpoints import read_json, write_json, write_owl_checkpoint
from pictures import picture
from tolerances import OBJECT_ABS

import vlrt
from vlrt import cli
from vlrt.bundle import MANIFEST, SETTINGS_FILES
from vlrt.errors import BundleError, ExportError, GateError
from vlrt.files import read_settings
from vlrt.processor import ImageProcessor
from vlrt.text import Tokenizer, token_limit

pytest.importorskip("safetensors")

from safetensors.numpy import load_file, save_file

from vlrt_export import owlv2, owlvit, pipeline, reference
from vlrt_export.checkpoint import Checkpoint
from vlrt_export.precision import Recipe
from vlrt_export.samples import Samples

EXPORTERS = {"owlvit": owlvit, "owlv2": owlv2}
PICTURES = [picture("RGB", (50, 40), seed=n) for n in range(3)]
TEXTS = ["a red cat", "the blue dog", "of a thing"]


def export(source, out, *precisions, **options):
    options = {"calibrate": Samples(PICTURES, TEXTS), "say": lambda line: None} | options
    return pipeline.export(str(source), out, precisions=precisions or ("fp32",), **options)


@pytest.fixture
def unproved(monkeypatch):
    monkeypatch.setattr(reference, "missing", lambda: ["torch"])


@pytest.fixture(scope="module", params=EXPORTERS)
def root(request, tmp_path_factory):
    return write_owl_checkpoint(tmp_path_factory.mktemp("owl") / "checkpoint", request.param)


@pytest.fixture(scope="module")
def proved(root, tmp_path_factory):
    """A bundle of every precision, compared with PyTorch on the drawn samples."""
    pytest.importorskip("transformers")
    out, lines = tmp_path_factory.mktemp("proved") / "bundle", []
    report = export(root, out, "fp32", "fp16", "int8", calibrate=(), say=lines.append)
    assert report.refused == {}
    assert lines[0] == "verifying against PyTorch on drawn scenes: 8 pictures, 72 texts"
    return out


# --- what is written ------------------------------------------------------------------------------


@pytest.mark.torch
def test_the_manifest_says_what_was_measured_of_every_output(proved, root):
    manifest, family = read_json(proved / MANIFEST), read_json(root / "config.json")["model_type"]
    assert (manifest["family"], manifest["task"]) == (family, "zero-shot-object-detection")
    assert manifest["values"] == {}
    outputs = ["image_class_embeds", "logit_shift", "logit_scale", "pred_boxes"]
    outputs += ["objectness_logits"] if family == "owlv2" else []
    assert manifest["components"]["vision_model"]["outputs"] == outputs
    assert manifest["components"]["text_model"]["outputs"] == ["text_embeds"]
    words = "bit-exact" if family == "owlvit" else "within 1e-05"
    assert manifest["verified"]["pixel_values"] == words
    assert manifest["verified"]["input_ids"] == "bit-exact"
    for name in ("fp32", "fp16", "int8"):
        variant = manifest["components"]["vision_model"]["variants"][name]
        assert list(variant["parity"]) == outputs
        assert 0 < variant["parity"]["pred_boxes"]["max_abs_error_unit"] < 0.02
        quality = manifest["quality"][name]
        assert quality["agreement"] > 0.99
        assert quality["compared"] > quality["pictures"] == 8
        assert quality["mean_iou"] > 0.9
        assert 0 < quality["largest_score_error"] < 0.05
        assert quality.get("example_agreement") == (1 if family == "owlv2" else None)


@pytest.mark.torch
def test_info_tells_it_in_words(proved, capsys):
    assert cli.main(["info", str(proved)]) == 0
    printed = capsys.readouterr().out
    assert "objects of the reference have the same label and a box of IoU 0.75 or more" in printed
    rows = [line.split() for line in printed.splitlines()]
    (row,) = [row for row in rows if row[:2] == ["vision_model", "int8"]]
    manifest = read_json(proved / MANIFEST)
    parity = manifest["components"]["vision_model"]["variants"]["int8"]["parity"]
    assert float(row[3]) == pytest.approx(parity["image_class_embeds"]["min_cosine"], abs=1e-6)
    largest = max(numbers["max_abs_error"] for numbers in parity.values())
    assert float(row[4]) == pytest.approx(largest, rel=0.1)


@pytest.mark.torch
def test_every_precision_detects(proved):
    found = {
        precision: vlrt.load(proved, precision=precision, device="cpu").detect(
            PICTURES, TEXTS, threshold=0
        )
        for precision in ("fp32", "fp16", "int8")
    }
    for precision in ("fp16", "int8"):
        for exact, close in zip(found["fp32"], found[precision], strict=True):
            distance = np.abs(exact.boxes[:, None] - close.boxes[None]).max(axis=-1)
            match = distance.argmin(axis=1)
            assert sorted(match) == list(range(16))
            assert 0 < distance.min(axis=1).max() < 0.03 * 50
            assert 0 < np.abs(exact.scores - close.scores[match]).max() < 0.05


def initializers(root, precision, component="vision_model"):
    opened = Checkpoint("tiny", root)
    family = EXPORTERS[opened.model_type]
    recipe = Recipe(precision, family.KEEP_FP32.get(precision, frozenset()))
    graph = family.build(opened, component, recipe).model("test").graph
    return {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_heads_stay_in_fp32(root, precision):
    kinds = initializers(root, precision)
    heads = {name: kind for name, kind in kinds.items() if "_head." in name or name == "box_bias"}
    assert len(heads) >= 10
    assert {onnx.TensorProto.FLOAT} == set(heads.values())
    narrow = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8
    assert sum(kind == narrow for kind in kinds.values()) > 8
    assert not [name for name in initializers(root, precision, "text_model")
                if name.endswith("text_projection.weight_s8")]  # fmt: skip


def test_the_axes_of_pictures_and_texts_are_free(root):
    opened = Checkpoint("tiny", root)
    for component in owlvit.COMPONENTS:
        made = EXPORTERS[opened.model_type].build(opened, component, Recipe("fp32")).model("test")
        for value in (*made.graph.input, *made.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.torch
def test_the_settings_of_the_hubs_oldest_form_are_read(data, tmp_path):
    """Integer sizes, a feature extractor's name, and a vocabulary without tokenizer.json."""
    pytest.importorskip("transformers")
    opened = Checkpoint("owlvit", data / "owlvit-base-patch32")
    opened.write_settings(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= set(SETTINGS_FILES)
    settings = read_settings(tmp_path, "preprocessor_config.json")
    processor = ImageProcessor.from_settings(settings, default_to_square=True)
    assert processor.output_hw == (768, 768)
    settings = read_settings(tmp_path, "tokenizer_config.json")
    limit = token_limit(settings, read_settings(tmp_path, "config.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", settings, limit)
    assert (limit, tokenizer.pad_id) == (16, 0)
    assert tokenizer.ids(["a photo of a cat"]) == [[49406, 320, 1125, 539, 320, 2368, 49407]]


@pytest.mark.torch
@pytest.mark.parametrize("side", [1, 3, 24])
def test_the_bias_of_the_boxes_is_that_of_transformers(side):
    transformers = pytest.importorskip("transformers")
    model = transformers.OwlViTForObjectDetection
    stand_in = type("StandIn", (), {"compute_box_bias": model.compute_box_bias})
    stand_in.normalize_grid_corner_coordinates = staticmethod(
        model.normalize_grid_corner_coordinates
    )
    theirs = stand_in().compute_box_bias(side, side).numpy()
    ours = owlvit.box_bias(side)
    assert (ours.shape, ours.dtype) == ((side * side, 4), np.float32)
    # Where a box reaches the edge, log1p is taken next to its pole.
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)
    assert np.abs(1 / (1 + np.exp(-ours)) - 1 / (1 + np.exp(-theirs))).max() < 1e-6


# --- what is counted ------------------------------------------------------------------------------


def outputs(logits, boxes):
    """Both components' outputs for logits [N, P, Q] of orthogonal texts, and boxes [N, P, 4]."""
    logits, number = np.asarray(logits, np.float32), np.shape(logits)[-1]
    # One number more, so that all places have one length and the cosines are the logits over it.
    rest = np.sqrt(400 - (logits**2).sum(axis=-1, keepdims=True))
    return {
        "image_class_embeds": np.concatenate([logits, rest], axis=-1),
        "logit_shift": np.zeros(logits.shape[:2], np.float32),
        "logit_scale": np.full(logits.shape[:2], 20, np.float32),
        "pred_boxes": np.asarray(boxes, np.float32),
        "text_embeds": np.eye(number, number + 1, dtype=np.float32),
    }


CLEAR, TIE = [-3.0, 2.0, -1.0], [1.0, 1.2, -3.0]
BOX, BESIDE = [0.5, 0.5, 0.4, 0.4], [0.6, 0.5, 0.4, 0.4]
EXPECTED = outputs([[CLEAR, TIE, [-5, -6, -7]]], [[BOX, BOX, BOX]])


@pytest.mark.parametrize(
    ("logits", "boxes", "agreement", "invented"),
    [
        ([CLEAR, TIE, [-5, -6, -7]], [BOX, BOX, BOX], 1.0, 0),
        ([[3, 2, -1], TIE, [-5, -6, -7]], [BOX, BOX, BOX], 0.5, 0),  # another label
        ([CLEAR, [1.2, 1, -3], [-5, -6, -7]], [BOX, BOX, BOX], 1.0, 0),  # a tie the other way
        ([CLEAR, TIE, [-5, -6, -7]], [BOX, BESIDE, BOX], 0.5, 0),  # a box beside it
        ([CLEAR, TIE, [5, -6, -7]], [BOX, BOX, BESIDE], 2 / 3, 1),  # the reference does not find it
        ([CLEAR, TIE, [-2.3, -6, -7]], [BOX, BOX, BESIDE], 1.0, 0),  # a score of 0.09
        ([[np.nan] * 3] * 3, [BOX, BOX, BOX], 0.0, 0),
        ([CLEAR, TIE, [-5, -6, -7]], [[np.nan] * 4] * 3, 0.0, 0),
    ],
)
def test_objects_are_the_same_by_label_and_box(logits, boxes, agreement, invented):
    counted = owlvit.quality(outputs([logits], [boxes]), EXPECTED, {}, {}, None)
    assert counted["agreement"] == pytest.approx(agreement)
    assert (counted["compared"], counted["invented"]) == (2 + invented, invented)


def test_an_object_that_the_reference_nearly_finds_is_no_invention():
    nearly = outputs([[CLEAR, TIE, [-2.5, -6, -7]]], [[BOX, BOX, BOX]])  # a score of 0.08
    found = outputs([[CLEAR, TIE, [-2.1, -6, -7]]], [[BOX, BOX, BOX]])  # and of 0.11
    assert owlvit.quality(found, nearly, {}, {}, None)["agreement"] == 1
    away = outputs([[CLEAR, TIE, [-2.8, -6, -7]]], [[BOX, BOX, BOX]])
    assert owlvit.quality(found, away, {}, {}, None)["invented"] == 1


def test_the_embeddings_of_objects_alone_must_be_near():
    counted = owlvit.quality(EXPECTED, EXPECTED, {}, {}, None)
    assert counted["min_object_cosine"] == pytest.approx(1, abs=1e-6)
    embeds = EXPECTED["image_class_embeds"]
    turned = embeds.copy()
    turned[0, 2] = -embeds[0, 2]  # background
    found = EXPECTED | {"image_class_embeds": turned}
    assert owlvit.quality(found, EXPECTED, {}, {}, None)["min_object_cosine"] == pytest.approx(1)
    turned[0, 1] = np.roll(embeds[0, 1], 1)  # an object
    expected = (embeds[0, 1] * turned[0, 1]).sum() / (embeds[0, 1] ** 2).sum()
    assert expected < 0.99
    counted = owlvit.quality(found, EXPECTED, {}, {}, None)
    assert counted["min_object_cosine"] == pytest.approx(expected, abs=1e-6)


def test_errors_of_scores_and_overlaps_are_told():
    found = outputs([[[-3, 0, -1], TIE, [-5, -6, -7]]], [[BOX, BESIDE, BOX]])
    counted = owlvit.quality(found, EXPECTED, {}, {}, None)
    assert counted["largest_score_error"] == pytest.approx(1 / (1 + np.exp(-2)) - 0.5, abs=1e-5)
    assert counted["mean_iou"] == pytest.approx((1 + 0.3 / 0.5) / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("objectness", "share"),
    [
        ([[0, 3, 1], [2, 0, 0]], 1.0),
        ([[0, 1, 0.9], [2, 2.1, 0]], 1.0),  # the second picture's tie falls the other way
        ([[3, 0, 0], [9, 0, 0]], 0.5),
        ([[0, 0, 9], [0, 0, 9]], 0.0),
    ],
)
def test_the_place_that_stands_for_an_example_is_counted(objectness, share):
    twice = outputs([[CLEAR, TIE, CLEAR]] * 2, [[BOX] * 3] * 2)
    assert "example_agreement" not in owlvit.quality(twice, twice, {}, {}, None)
    theirs = twice | {"objectness_logits": np.array([[0, 3, 1], [2, 1.6, 0]], np.float32)}
    ours = twice | {"objectness_logits": np.array(objectness, np.float32)}
    counted = owlvit.quality(ours, theirs, {}, {}, None)
    assert (counted["example_agreement"], counted["agreement"]) == (share, 1.0)


def test_where_nothing_is_found_the_best_places_count():
    rng = np.random.default_rng(0)
    logits, boxes = rng.uniform(-6, -4, (2, 16, 3)), rng.uniform(0.2, 0.8, (2, 16, 4))
    quiet = outputs(logits, boxes)
    counted = owlvit.quality(quiet, quiet, {}, {}, None)
    assert (counted["agreement"], counted["compared"]) == (1.0, 20)
    few = outputs(logits[:, :4], boxes[:, :4])
    counted = owlvit.quality(few, few, {}, {}, None)
    assert counted["compared"] == 8


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("class_head.dense0.weight"), r"no tensor 'class_head\.dense0\.weight'"),
        (lambda w: w.pop("layer_norm.bias"), r"no tensor 'layer_norm\.bias'"),
        (lambda w: w["box_head.dense2.bias"].fill(np.inf), r"dense2\.bias' holds NaN or infinity"),
        (
            lambda w: [w.update({k: v[:-1]}) for k, v in list(w.items()) if "n_embedding" in k],
            "has 16 positions; pictures of 32 pixels in patches of 8 need 17",
        ),
    ],
)
def test_broken_weights_are_named(unproved, tmp_path, root, change, says):
    broken = shutil.copytree(root, tmp_path / "broken")
    weights = dict(load_file(broken / "model.safetensors"))
    change(weights)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=says):
        export(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.torch
@pytest.mark.parametrize(("error", "passes"), [(5e-6, {"owlv2"}), (1e-4, set())])
def test_pixels_may_differ_by_what_the_family_states(monkeypatch, tmp_path, root, error, passes):
    pytest.importorskip("transformers")
    family = read_json(root / "config.json")["model_type"]
    process = reference.TorchModel.process

    def off(self, images):
        pixels = process(self, images)["pixel_values"]
        return {"pixel_values": pixels + np.float32(error)}

    monkeypatch.setattr(reference.TorchModel, "process", off)
    if family in passes:
        # The two resizes of OWLv2 differ by themselves; flat pictures leave this error alone.
        flat = picture("RGB", (32, 32)).resize((1, 1))
        export(root, tmp_path / "out", calibrate=Samples([flat], TEXTS))
        return
    with pytest.raises(GateError, match="transformers makes other pixel_values"):
        export(root, tmp_path / "out")


@pytest.mark.torch
def test_boxes_that_differ_are_refused(monkeypatch, tmp_path, root):
    pytest.importorskip("transformers")
    bias = owlvit.box_bias
    monkeypatch.setattr(owlvit, "box_bias", lambda side: bias(side)[:, [1, 0, 2, 3]])
    with pytest.raises(GateError, match=r"vision_model, pred_boxes: largest error .*, limit 1e-04"):
        export(root, tmp_path / "out")


# --- bundles of one graph -------------------------------------------------------------------------


@pytest.fixture
def one_graph(root, proved, tmp_path):
    """A bundle as the hub's converters leave it: texts and picture in one traced graph."""
    torch = pytest.importorskip("torch")
    model = reference.TorchModel(Checkpoint("tiny", root)).model
    out = tmp_path / "foreign"
    (out / "onnx").mkdir(parents=True)
    for name in SETTINGS_FILES:
        shutil.copy(proved / name, out)

    class Together(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, pixel_values):
            made = self.model(
                input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values
            )
            return made.logits, made.pred_boxes, made.text_embeds, made.image_embeds

    ids = torch.ones(2, 16, dtype=torch.int64)
    texts = {0: "texts", 1: "length"}
    torch.onnx.export(
        Together(), (ids, torch.ones_like(ids), torch.zeros(1, 3, 32, 32)),
        str(out / "onnx" / "model.onnx"), dynamo=False, opset_version=17,
        input_names=["input_ids", "attention_mask", "pixel_values"],
        output_names=["logits", "pred_boxes", "text_embeds", "image_embeds"],
        dynamic_axes={"input_ids": texts, "attention_mask": texts},
    )  # fmt: skip
    return out


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # torch.onnx, of itself and of what tracing loses
def test_a_bundle_of_one_graph_finds_the_same_objects(one_graph, proved, capsys):
    ours = vlrt.load(proved, precision="fp32", device="cpu").detect(PICTURES, TEXTS, threshold=0)
    foreign = vlrt.load(one_graph, device="cpu")
    for one, other in zip(foreign.detect(PICTURES, TEXTS, threshold=0), ours, strict=True):
        assert len(one) == len(other) == 16
        assert np.abs(one.scores - other.scores).max() <= OBJECT_ABS["fp32"]
        distance = np.abs(one.boxes[:, None] - other.boxes[None]).max(axis=-1)
        assert distance.min(axis=1).max() <= OBJECT_ABS["fp32"] * 50
    with pytest.raises(BundleError, match="vlrt export"):
        foreign.encode_image(PICTURES[0])
    assert cli.main(["info", str(one_graph)]) == 0
    printed = capsys.readouterr().out
    assert "none: a foreign bundle" in printed
    assert "one graph, which takes one picture at a time" in printed
    assert foreign.info["note"] in printed


def test_an_unknown_activation_of_a_tower_is_refused(unproved, tmp_path, root):
    odd = shutil.copytree(root, tmp_path / "odd")
    config = read_json(odd / "config.json")
    config["vision_config"]["hidden_act"] = "relu"
    write_json(odd / "config.json", config)
    with pytest.raises(ExportError, match="'relu'; valid: quick_gelu, gelu"):
        export(odd, tmp_path / "out")
