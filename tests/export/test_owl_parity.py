"""OWL-ViT and OWLv2 against transformers: every output, and the objects found."""

import copy
import gc
import io
import shutil

import numpy as np
import pytest
from checkpoints import read_json, write_json, write_owl_checkpoint
from pictures import FILES
from PIL import Image, ImageOps
from tolerances import OBJECT_ABS, OWL_ABS

import vlrt
from vlrt.detection import class_logits
from vlrt.ops import l2_normalize, sigmoid
from vlrt.results import Detections
from vlrt.session import Session, place

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnx")

from vlrt_export import owlv2, owlvit, pipeline, reference  # noqa: E402
from vlrt_export.checkpoint import Checkpoint  # noqa: E402
from vlrt_export.precision import Recipe  # noqa: E402
from vlrt_export.samples import Samples  # noqa: E402

pytestmark = pytest.mark.torch

EXPORTERS = {"owlvit": owlvit, "owlv2": owlv2}
LABELS = ["a red cat", "the blue dog", "a photo of a square", "circle"]
FIVE = ["exif 6", "CMYK", "rgb square", "one pixel high", "one pixel wide"]
# Changes to the text tower and to the vision tower.
TINY = {
    "as it is": ({}, {}),
    "a long sequence, another kernel": ({}, {"image_size": 84, "patch_size": 4}),
    "pixels left over": ({}, {"image_size": 37}),
    "one patch": ({}, {"image_size": 8}),
    "gelu and other heads": (
        {"hidden_act": "gelu", "num_attention_heads": 4},
        {"hidden_act": "gelu", "num_attention_heads": 5},
    ),
    "a large epsilon": ({"layer_norm_eps": 0.1}, {"layer_norm_eps": 0.1}),
}


class Theirs:
    """A checkpoint in transformers, with its own processors."""

    def __init__(self, root):
        auto = transformers.AutoModelForZeroShotObjectDetection
        self.model = auto.from_pretrained(root, attn_implementation="eager").eval()
        name = {"owlvit": "OwlViT", "owlv2": "Owlv2"}[self.model.config.model_type]
        images = reference.pil_processor_class(name).from_pretrained(root)
        texts = transformers.CLIPTokenizer.from_pretrained(root)
        self.processor = getattr(transformers, f"{name}Processor")(images, texts)

    def forward(self, images, texts):
        """Their outputs for pictures, each with a list of texts of its own."""
        given = self.processor(text=texts, images=images, return_tensors="pt")
        with torch.inference_mode():
            return self.model(**given)

    def objects(self, outputs, images, threshold):
        """Boxes, scores and label positions of each picture, as their processor reports them."""
        sizes = [(image.height, image.width) for image in images]
        return [
            [found[key].numpy() for key in ("boxes", "scores", "labels")]
            for found in self.processor.image_processor.post_process_object_detection(
                outputs, threshold, torch.tensor(sizes)
            )
        ]


def assert_same_objects(found, boxes, scores, labels=None):
    """The same boxes, each with the same score and label, in the same order where scores differ."""
    assert len(found) == len(scores) >= 5
    distance = np.abs(found.boxes[:, None] - boxes[None]).max(axis=-1)
    match = distance.argmin(axis=1)
    assert sorted(match) == list(range(len(scores)))
    allowed = OBJECT_ABS["fp32"]
    assert distance.min(axis=1).max() <= allowed * max(found.size_hw)
    displayed = found.scores if found.alphas is None else found.alphas
    assert np.abs(displayed - scores[match]).max() <= allowed
    assert np.diff(scores[match]).max(initial=0) <= allowed
    if labels is not None:
        assert np.array_equal(found.label_ids, labels[match])


def between(logits, number):
    """A score that those of half to twice as many logits exceed, none of them by a hair."""
    best, low = np.sort(logits, axis=None)[::-1], number // 2
    gaps = -np.diff(best[low : 2 * number])
    assert gaps.max() > 4 * OBJECT_ABS["fp32"]
    at = low + gaps.argmax()
    return float(sigmoid(best[at : at + 2].mean()))


def above(threshold, boxes, scores, label_ids):
    """The objects that exceed a threshold."""
    return [array[scores > threshold] for array in (boxes, scores, label_ids)]


# --- tiny configurations --------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(f, name) for f in EXPORTERS for name in TINY], ids=str)
def root(request, tmp_path_factory):
    family, name = request.param
    text, vision = TINY[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # handing such small work to others takes longer than doing it
    yield write_owl_checkpoint(tmp_path_factory.mktemp("owl"), family, text=text, vision=vision)
    torch.set_num_threads(threads)


def runner(root, component, precision):
    opened = Checkpoint("tiny", root)
    family = EXPORTERS[opened.model_type]
    recipe = Recipe(precision, family.KEEP_FP32.get(precision, frozenset()))
    path = root / f"{component}_{precision}.onnx"
    path.write_bytes(family.build(opened, component, recipe).model("test").SerializeToString())
    return Session(path, place("cpu"), threads=1)


def theirs_by_name(root, component, inputs):
    opened = Checkpoint("tiny", root)
    family = EXPORTERS[opened.model_type]
    return family.Reference(opened).run(component, inputs)


@pytest.mark.parametrize("batch", [1, 3])
def test_every_output_of_the_image_graph_agrees(root, batch):
    config = read_json(root / "config.json")
    side = config["vision_config"]["image_size"]
    pixels = np.random.default_rng(batch).normal(0, 1, (batch, 3, side, side)).astype(np.float32)
    expected = theirs_by_name(root, "vision_model", {"pixel_values": pixels})
    names = {"image_class_embeds", "logit_shift", "logit_scale", "pred_boxes"}
    assert set(expected) - {"objectness_logits"} == names
    assert ("objectness_logits" in expected) == (config["model_type"] == "owlv2")
    # The test means something only if boxes are neither at their bias nor saturated.
    assert expected["pred_boxes"][..., :2].std() > 0.05 or expected["pred_boxes"].shape[1] == 1
    for precision, allowed in OWL_ABS.items():
        found = runner(root, "vision_model", precision).run({"pixel_values": pixels})
        assert set(found) == set(expected)
        for name, theirs in expected.items():
            assert found[name].shape == theirs.shape
            scaled = l2_normalize if name == "image_class_embeds" else np.asarray
            error = np.abs(scaled(found[name]) - scaled(theirs)).max()
            assert error <= allowed.get(name, allowed["values"]), (precision, name)


def test_the_text_graph_agrees_at_every_length(root):
    config = read_json(root / "config.json")["text_config"]
    end, rng, run = config["vocab_size"] - 1, np.random.default_rng(0), runner(
        root, "text_model", "fp32"
    ).run  # fmt: skip
    for length in range(1, config["max_position_embeddings"] + 1):
        ids = rng.integers(1, end, (3, length))
        ends = rng.integers(0, length, 3)
        ids[np.arange(length) > ends[:, None]] = 0  # padding
        ids[np.arange(3), ends] = end
        expected = theirs_by_name(root, "text_model", {"input_ids": ids})["text_embeds"]
        found = run({"input_ids": ids})["text_embeds"]
        assert found.shape == expected.shape
        assert np.abs(l2_normalize(found) - l2_normalize(expected)).max() <= 1e-4


# --- from pictures and texts to objects -----------------------------------------------------------


@pytest.fixture(scope="module", params=[(f, n) for f in EXPORTERS for n in list(TINY)[:2]], ids=str)
def pair(request, tmp_path_factory):
    """A tiny checkpoint here and in transformers."""
    family, name = request.param
    text, vision = TINY[name]
    folder = tmp_path_factory.mktemp("pair")
    root = write_owl_checkpoint(folder / "checkpoint", family, text=text, vision=vision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "missing", lambda: ["torch"])
        image = vlrt.load_image(FILES["grey jpeg"]())
        pipeline.export(
            str(root), folder / "bundle", precisions=["fp32"], say=lambda line: None,
            calibrate=Samples([image], LABELS),
        )  # fmt: skip
    return vlrt.load(folder / "bundle", device="cpu"), Theirs(root)


def logits_of(model, picture, labels):
    seen, queries = model.encode_image(picture), model.encode_labels(labels).embeds
    logits = class_logits(seen.class_embeds, seen.logit_shift, seen.logit_scale, queries)
    return logits, seen


@pytest.mark.parametrize("kind", FILES)
def test_pictures_of_every_kind_give_the_same_logits_boxes_and_objects(pair, kind):
    model, theirs = pair
    source = FILES[kind]()
    image = vlrt.load_image(source)
    outputs = theirs.forward([image], [LABELS])
    logits, seen = logits_of(model, source, LABELS)
    assert np.abs(logits - outputs.logits[0].numpy()).max() <= OBJECT_ABS["fp32"]
    assert np.abs(seen.pred_boxes - outputs.pred_boxes[0].numpy()).max() <= OBJECT_ABS["fp32"]
    if seen.objectness_logits is not None:
        objectness = outputs.objectness_logits[0].numpy()
        assert np.abs(seen.objectness_logits - objectness).max() <= OBJECT_ABS["fp32"]
    threshold = between(outputs.logits[0].max(-1).values.numpy(), 8)
    (expected,) = theirs.objects(outputs, [image], threshold)
    assert_same_objects(model.detect(source, LABELS, threshold=threshold), *expected)


def test_a_mixed_batch_of_five_gives_the_same_objects(pair):
    model, theirs = pair
    sources = [FILES[kind]() for kind in FIVE]
    images = [vlrt.load_image(source) for source in sources]
    assert len({image.size for image in images}) == 5
    outputs = theirs.forward(images, [LABELS] * 5)
    limits = [between(row.numpy(), 8) for row in outputs.logits.max(-1).values]
    expected = theirs.objects(outputs, images, min(limits))
    for batch_size in (1, 2, 5):
        found = model.detect(sources, LABELS, threshold=min(limits), batch_size=batch_size)
        for ours, wanted, limit in zip(found, expected, limits, strict=True):
            cut = above(limit, ours.boxes, ours.scores, ours.label_ids)
            assert_same_objects(Detections(ours.labels, *cut, ours.size_hw), *above(limit, *wanted))


@pytest.mark.parametrize("kind", ["rgb portrait", "exif 6", "grey jpeg"])
def test_an_object_a_label_is_what_the_pipeline_of_transformers_reports(pair, kind):
    model, theirs = pair
    source = FILES[kind]()
    image = vlrt.load_image(source)
    pipe = transformers.pipeline(
        "zero-shot-object-detection", model=theirs.model,
        image_processor=theirs.processor.image_processor, tokenizer=theirs.processor.tokenizer,
    )  # fmt: skip
    threshold = between(theirs.forward([image], [LABELS]).logits[0].numpy(), 20)
    expected = pipe(image, candidate_labels=LABELS, threshold=threshold)
    found = model.detect(source, LABELS, multi_label=True, threshold=threshold)
    # It reports some boxes more than once, or this is no test of that.
    assert len(np.unique(found.boxes, axis=0)) < len(found) == len(expected) >= 10
    assert found.names == [one["label"] for one in expected]
    theirs_scores = np.array([one["score"] for one in expected])
    assert np.abs(found.scores - theirs_scores).max() <= OBJECT_ABS["fp32"]
    corners = np.array([list(one["box"].values()) for one in expected])
    assert list(expected[0]["box"]) == ["xmin", "ymin", "xmax", "ymax"]
    # They cut off what is behind the decimal point.
    assert np.abs(found.boxes - corners).max() < 1 + OBJECT_ABS["fp32"] * max(image.size)


def test_ragged_queries_agree_and_so_does_what_pads_them(pair):
    model, theirs = pair
    sources, ragged = [FILES[kind]() for kind in FIVE[:2]], [LABELS[:1], LABELS[1:]]
    outputs = theirs.forward([vlrt.load_image(source) for source in sources], ragged)
    start, end = model.tokenizer.ids(["a"])[0][::2]
    blank = {"input_ids": np.array([[start, end, *[0] * 14]])}  # what transformers makes of " "
    for source, labels, expected in zip(sources, ragged, outputs.logits.numpy(), strict=True):
        logits, seen = logits_of(model, source, labels)
        assert np.abs(logits - expected[:, : len(labels)]).max() <= OBJECT_ABS["fp32"]
        embeds = model._graphs.texts._runner.run(blank)["text_embeds"]
        padding = class_logits(seen.class_embeds, seen.logit_shift, seen.logit_scale, embeds)
        for column in expected.T[len(labels) :]:
            assert np.abs(padding[:, 0] - column).max() <= OBJECT_ABS["fp32"]


def test_a_masked_query_leaves_the_others_as_they_are(pair):
    """A query that starts with id 0 gets the lowest number there is, so no object is ever its."""
    model, theirs = pair
    source = FILES["exif 8"]()
    image = vlrt.load_image(source)
    given = theirs.processor(text=[LABELS], images=[image], return_tensors="pt")
    given["input_ids"][2] = 0
    with torch.inference_mode():
        outputs = theirs.model(**given)
    assert (outputs.logits[..., 2] == torch.finfo(torch.float32).min).all()
    labels = [label for at, label in enumerate(LABELS) if at != 2]
    threshold = between(outputs.logits[0].max(-1).values.numpy(), 8)
    ((boxes, scores, positions),) = theirs.objects(outputs, [image], threshold)
    positions = np.array([0, 1, -1, 2])[positions]
    found = model.detect(source, labels, threshold=threshold)
    assert_same_objects(found, boxes, scores, positions)


@pytest.mark.parametrize(
    ("kind", "example"), [("rgb portrait", "RGBA landscape"), ("exif 5", "grey jpeg")]
)
def test_detection_by_example_agrees(pair, kind, example):
    model, theirs = pair
    image, query = (vlrt.load_image(FILES[name]()) for name in (kind, example))
    pixels = [
        theirs.processor.image_processor(images=[given], return_tensors="pt")["pixel_values"]
        for given in (image, query)
    ]
    with torch.inference_mode():
        outputs = theirs.model.image_guided_detection(*pixels)
        grid = theirs.model.image_embedder(pixels[1])[0]
        queries, places, _ = theirs.model.embed_image_query(grid.flatten(1, 2), grid)
    examples = model.encode_examples([query])
    seen, at = model.encode_image(query), int(places.flatten()[0])
    # The query is one place's embedding; no other place has it.
    likeness = l2_normalize(seen.class_embeds) @ examples.embeds[0]
    assert likeness.argmax() == at
    expected = l2_normalize(queries.numpy().reshape(1, -1))
    assert np.abs(examples.embeds - expected).max() <= OBJECT_ABS["fp32"]
    target = model.encode_image(image)
    logits = class_logits(
        target.class_embeds, target.logit_shift, target.logit_scale, examples.embeds
    )
    assert np.abs(logits - outputs.logits[0].numpy()).max() <= OBJECT_ABS["fp32"]
    boxes = outputs.target_pred_boxes[0].numpy()
    assert np.abs(target.pred_boxes - boxes).max() <= OBJECT_ABS["fp32"]
    size = torch.tensor([(image.height, image.width)])
    (found,) = theirs.processor.image_processor.post_process_image_guided_detection(
        outputs, threshold=0.0, nms_threshold=0.3, target_sizes=size
    )
    assert_same_objects(
        model.detect_like(image, examples), found["boxes"].numpy(), found["scores"].numpy()
    )


# --- full size ------------------------------------------------------------------------------------

LARGE = {
    "projection_dim": 768,
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 840,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
# The family, changes to the configuration of OWL-ViT B/32, and the precisions.
FULL_SIZE = {
    "OWL-ViT B/32": ("owlvit", {}, ("fp32", "fp16", "int8")),
    "OWL-ViT B/16": ("owlvit", {"vision_config": {"patch_size": 16}}, ("fp32",)),
    "OWL-ViT L/14": ("owlvit", LARGE, ("fp32",)),
    "OWLv2 B/16": ("owlv2", {"vision_config": {"patch_size": 16, "image_size": 960}}, ("fp32",)),
}
SMALLEST = "OWL-ViT B/32"
TEXTS = ["a photo of a cat", "a person", "an owl", "a glove", "a diagram with arrows", "a frog"]


def write_snapshot(root, source, family, changes):
    """The hub's files with seeded weights of this configuration, whose boxes do not saturate."""
    shutil.copytree(source, root, copy_function=shutil.copyfile)
    config = copy.deepcopy(read_json(root / "config.json")) | {"model_type": family}
    for key, change in changes.items():
        config[key] = config[key] | change if isinstance(change, dict) else change
    for tower in ("text", "vision"):
        config[f"{tower}_config"]["model_type"] = f"{family}_{tower}_model"
    write_json(root / "config.json", config)
    size = config["vision_config"]["image_size"]
    old = read_json(root / "preprocessor_config.json") | {"size": [size, size], "crop_size": size}
    new = {key: old[key] for key in ("do_normalize", "do_resize", "image_mean", "image_std")}
    new |= {"do_pad": True, "do_rescale": True, "resample": 2, "rescale_factor": 1 / 255}
    new |= {"image_processor_type": "Owlv2ImageProcessor", "size": {"height": size, "width": size}}
    write_json(root / "preprocessor_config.json", old if family == "owlvit" else new)
    torch.manual_seed(0)
    auto = transformers.AutoModelForZeroShotObjectDetection
    model = auto.from_config(transformers.AutoConfig.from_pretrained(root)).eval()
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.Linear) and "_head." in name:
            torch.nn.init.normal_(part.weight, std=part.in_features**-0.5)
            torch.nn.init.normal_(part.bias, std=0.05)
    model.save_pretrained(root / "weights")
    (root / "weights" / "model.safetensors").rename(root / "model.safetensors")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.full if name == SMALLEST else pytest.mark.huge)
        for name in FULL_SIZE
    ],
)
def full(request, data, tmp_path_factory):
    """The bundle, the photographs, and what transformers finds in them."""
    family, changes, precisions = FULL_SIZE[request.param]
    folder = tmp_path_factory.mktemp("full")
    write_snapshot(folder / "snapshot", data / "owlvit-base-patch32", family, changes)
    sources = [path.read_bytes() for path in sorted((data / "photos").iterdir())]
    images = [ImageOps.exif_transpose(Image.open(io.BytesIO(source))) for source in sources]
    images = [vlrt.load_image(image) for image in images]
    theirs = Theirs(folder / "snapshot")
    expected = []
    for image in images:
        outputs = theirs.forward([image], [TEXTS])
        threshold = between(outputs.logits[0].max(-1).values.numpy(), 50)
        expected.append((threshold, *theirs.objects(outputs, [image], threshold)[0]))
    del theirs
    gc.collect()
    pipeline.export(
        str(folder / "snapshot"), folder / "bundle", precisions=precisions, say=print,
        calibrate=Samples(images[:1], TEXTS),
    )  # fmt: skip
    yield folder / "bundle", sources, expected
    shutil.rmtree(folder)


def test_photographs_give_the_same_objects_at_full_size(full):
    bundle, sources, expected = full
    model = vlrt.load(bundle, precision="fp32", device="cpu")
    labels = model.encode_labels(TEXTS)
    seen = model.encode_image(sources, batch_size=5)
    for source, encoded, (threshold, *objects) in zip(sources, seen, expected, strict=True):
        assert_same_objects(model.detect(encoded, labels, threshold=threshold), *objects)
        assert_same_objects(model.detect(source, TEXTS, threshold=threshold), *objects)


def test_every_precision_asked_for_was_written_at_full_size(full, request):
    asked = FULL_SIZE[request.node.callspec.params["full"]][2]
    assert sorted(read_json(full[0] / "vlrt.json")["quality"]) == sorted(asked)
