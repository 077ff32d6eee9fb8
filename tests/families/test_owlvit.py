"""OWL-ViT at run time: text, examples, streams, foreign graphs, threads, and what is refused."""

import dataclasses
import importlib
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from owl import PLACES, make, one_graph, read, see, towers, write_bundle
from pictures import FILES, encoded, picture, rotated_jpeg
from tolerances import BATCHING_ABS, MATHS_ABS

import vlrt
from vlrt import boxes as geometry
from vlrt.bundle import open_bundle
from vlrt.errors import (
    BundleError,
    ImageError,
    InferenceError,
    LabelError,
    OptionError,
    TextError,
)
from vlrt.families import clip, owlv2, owlvit
from vlrt.load import components_of
from vlrt.ops import sigmoid
from vlrt.results import Detections, LabelSet

LABELS = ["a cat", "the red dog", "blue square"]
SIZES_WH = [(61, 37), (1, 1), (37, 61), (2000, 5), (48, 48)]
PICTURES = [picture("RGB", wh, seed=n) for n, wh in enumerate(SIZES_WH)]


@pytest.fixture
def owl(tmp_path):
    return make(tmp_path, "owlvit", towers())


@pytest.fixture
def model(owl):
    return owl.model


@pytest.fixture
def foreign(tmp_path):
    return make(tmp_path / "foreign", "owlvit", one_graph())


def same(found, expected):
    assert found.labels == expected.labels
    assert found.size_hw == expected.size_hw
    for name in ("boxes", "scores", "label_ids", "alphas"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


# --- detect ---------------------------------------------------------------------------------------


def test_one_picture_gives_one_result_and_a_list_gives_a_list(model):
    one = model.detect(PICTURES[0], LABELS)
    (listed,), (tupled,) = (model.detect(kind([PICTURES[0]]), LABELS) for kind in (list, tuple))
    assert isinstance(one, Detections)
    assert len(one)
    same(one, listed)
    same(one, tupled)
    assert len(model.detect(PICTURES, LABELS)) == len(PICTURES)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("threshold", [0, 0.4, [0.2, 0.6, 0.4]])
def test_detections_are_what_float64_gives_one_picture_at_a_time(model, multi_label, threshold):
    found = model.detect(PICTURES, LABELS, threshold=threshold, multi_label=multi_label)
    ids = [model.tokenizer.pad([row])["input_ids"] for row in model.tokenizer.ids(LABELS)]
    texts = np.concatenate([read(row)["text_embeds"] for row in ids])
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    least = np.broadcast_to(threshold, 3)
    for image, detections in zip(PICTURES, found, strict=True):
        seen = {name: out[0] for name, out in see(model.processor([image])).items()}
        units = seen["image_class_embeds"]
        units = units / np.linalg.norm(units, axis=1, keepdims=True)
        logits = (units @ texts.T + seen["logit_shift"][:, None]) * seen["logit_scale"][:, None]
        scores = 1 / (1 + np.exp(-logits))
        expected = [
            (scores[p, n], p, n)
            for p in range(PLACES)
            for n in (range(3) if multi_label else [logits[p].argmax()])
            if scores[p, n] > least[n]
        ]
        expected.sort(key=lambda e: -e[0])
        assert detections.scores == pytest.approx([e[0] for e in expected], abs=1e-5)
        assert detections.label_ids.tolist() == [e[2] for e in expected]
        centers = seen["pred_boxes"][[e[1] for e in expected]].astype(np.float32).reshape(-1, 4)
        corners = geometry.center_to_corners(centers)
        width, height = image.size
        assert np.array_equal(detections.boxes, corners * np.float32([width, height] * 2))
        assert detections.size_hw == (height, width)


def test_options_reach_the_selection(model):
    image = model.encode_image(PICTURES[0])
    labels = model.encode_labels(LABELS)
    all_of_them = {"threshold": 0, "multi_label": True}
    everything = model.detect(image, labels, **all_of_them)
    assert len(everything) == PLACES * 3
    args = (everything.boxes, everything.scores)
    aware = model.detect(image, labels, **all_of_them, iou_threshold=0.3)
    keep = geometry.nms(*args, 0.3, everything.label_ids)
    assert np.array_equal(aware.boxes, everything.boxes[keep])
    agnostic = model.detect(image, labels, **all_of_them, iou_threshold=0.3, class_agnostic=True)
    assert np.array_equal(agnostic.boxes, everything.boxes[geometry.nms(*args, 0.3)])
    assert len(agnostic) < len(aware) < len(everything)
    soft = model.detect(image, labels, **all_of_them, soft_nms=0.5)
    order, scores = geometry.soft_nms(*args, sigma=0.5, score_threshold=0,
                                      label_ids=everything.label_ids)  # fmt: skip
    assert np.array_equal(soft.scores, scores)
    assert np.array_equal(soft.label_ids, everything.label_ids[order])
    few = model.detect(image, labels, **all_of_them, top_k=3)
    assert np.array_equal(few.scores, everything.scores[:3])


def test_every_label_may_have_its_own_threshold(model):
    given = {"the red dog": 0.9, "a cat": 0.3, "blue square": 1.0}
    found = model.detect(PICTURES[0], LABELS, threshold=given, multi_label=True)
    same(found, model.detect(PICTURES[0], LABELS, threshold=[0.3, 0.9, 1.0], multi_label=True))
    assert set(found.names) <= {"a cat", "the red dog"}
    assert all(score > given[name] for name, score in zip(found.names, found.scores, strict=True))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_the_batch_size_does_not_change_results(model, batch_size):
    expected = [model.detect(image, LABELS) for image in PICTURES]
    found = model.detect(PICTURES, LABELS, batch_size=batch_size)
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_pictures_run_in_batches_of_the_size_asked_for(owl):
    owl.model.detect(PICTURES, LABELS, batch_size=2)
    sizes = [len(asked["pixel_values"]) for asked in owl.graphs["vision_model"].asked]
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(("size_wh"), [(1, 1), (20000, 50), (50, 20000)])
def test_boxes_of_extreme_pictures_are_in_their_pixels(model, size_wh):
    image = picture("RGB", (1, 1)).resize(size_wh)
    seen = geometry.center_to_corners(model.encode_image(image).pred_boxes)
    found = model.detect(image, LABELS, threshold=0)
    assert len(found) == PLACES
    assert sorted(map(tuple, found.boxes)) == sorted(map(tuple, seen * np.float32([*size_wh] * 2)))


def test_turned_photographs_are_measured_upright(model):
    found = model.detect(rotated_jpeg(6, (60, 40)), LABELS)
    assert found.size_hw == (60, 40)


def test_every_kind_of_picture_is_searched(model):
    results = model.detect([make() for make in FILES.values()], LABELS, threshold=0)
    assert all(len(result) == PLACES for result in results)


def test_the_texts_of_a_graph_of_fixed_length_are_padded_to_it(tmp_path):
    owl = make(tmp_path, "owlvit", towers(text_length=16))
    owl.model.encode_labels(["a cat"])
    (asked,) = owl.graphs["text_model"].asked
    assert asked["input_ids"].shape == (1, 16)
    assert asked["input_ids"][0, -1] == 0


# --- encoded once ---------------------------------------------------------------------------------


def test_pictures_and_labels_encoded_once_are_not_encoded_again(owl):
    model = owl.model
    labels, images = model.encode_labels(LABELS), model.encode_image(PICTURES)
    before = [len(graph.asked) for graph in owl.graphs.values()]
    found = model.detect(images, labels)
    assert [len(graph.asked) for graph in owl.graphs.values()] == before
    for one, image in zip(found, PICTURES, strict=True):
        same(one, model.detect(image, LABELS))
    same(model.detect(images[0], labels), found[0])


def test_an_encoded_picture_passes_through_encoding(model):
    image = model.encode_image(PICTURES[0])
    assert model.encode_image(image) is image
    assert model.encode_image([image])[0] is image


def test_encoded_and_other_pictures_mix_in_any_order(model):
    mixed = [
        model.encode_image(image) if encoded_first else image
        for image, encoded_first in zip(PICTURES, [True, False, False, True, True], strict=True)
    ]
    for one, image in zip(model.detect(mixed, LABELS), PICTURES, strict=True):
        same(one, model.detect(image, LABELS))


def test_values_pickle(model):
    labels, image = (
        pickle.loads(pickle.dumps(value))
        for value in (model.encode_labels(LABELS), model.encode_image(PICTURES[0]))
    )
    same(model.detect(image, labels), model.detect(PICTURES[0], LABELS))


def test_label_sets_are_kept_in_files(model, tmp_path):
    path = tmp_path / "labels.npz"
    model.encode_labels(LABELS).save(path)
    same(
        model.detect(PICTURES[0], LabelSet.load(path)),
        model.detect(PICTURES[0], LABELS),
    )
    whole = path.read_bytes()
    for broken in (b"", b"no zip", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(broken)
        with pytest.raises(LabelError, match=r"labels\.npz"):
            LabelSet.load(path)


def test_values_of_another_model_are_refused(model):
    labels = dataclasses.replace(model.encode_labels(LABELS), model="another owl")
    image = dataclasses.replace(model.encode_image(PICTURES[0]), model="another owl")
    with pytest.raises(LabelError, match="another owl"):
        model.detect(PICTURES[0], labels)
    with pytest.raises(LabelError, match="another owl"):
        model.detect_like(PICTURES[0], labels)
    with pytest.raises(ImageError, match=r"picture 1: this EncodedImage .*another owl"):
        model.detect([PICTURES[0], image], LABELS)
    with pytest.raises(ImageError, match="another owl"):
        model.encode_examples(image)


def test_templates_are_averaged_and_refused_beside_encoded_labels(model):
    templates = ["the {}", "{}"]
    texts = [template.format(name) for name in LABELS for template in templates]
    single = model.encode_labels(texts).embeds.reshape(3, 2, -1)
    expected = single.mean(axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    labels = model.encode_labels(LABELS, templates=templates)
    assert np.abs(labels.embeds - expected).max() <= 10 * MATHS_ABS
    same(model.detect(PICTURES[0], LABELS, templates=templates), model.detect(PICTURES[0], labels))
    with pytest.raises(LabelError, match="already encoded"):
        model.detect(PICTURES[0], labels, templates=templates)


def test_labels_names_and_boxes_may_come_from_generators(model):
    same(
        model.detect(PICTURES[0], (name for name in LABELS), templates=(t for t in ("a {}", "{}"))),
        model.detect(PICTURES[0], LABELS, templates=["a {}", "{}"]),
    )
    box = (2, 3, 40, 30)
    given = model.encode_examples(
        PICTURES[:2], names=(n for n in "ab"), boxes=(b for b in (box, None))
    )
    expected = model.encode_examples(PICTURES[:2], names=["a", "b"], boxes=[box, None])
    assert given.labels == ("a", "b")
    assert np.array_equal(given.embeds, expected.embeds)


def test_every_label_may_have_its_own_templates(model):
    own = {"the red dog": ["my {}"], "a cat": ["{}", "a photo of {}"], "blue square": ["{}"]}
    labels = model.encode_labels(LABELS, templates=own)
    for position, name in enumerate(LABELS):
        (alone,) = model.encode_labels([name], templates=own[name]).embeds
        assert np.abs(labels.embeds[position] - alone).max() <= MATHS_ABS
    same(model.detect(PICTURES[0], LABELS, templates=own), model.detect(PICTURES[0], labels))
    with pytest.raises(OptionError, match=r"templates has no entry for \['the red dog'"):
        model.detect(PICTURES[0], LABELS, templates={"a cat": ["{}"]})


def test_a_kept_picture_does_not_keep_its_batch(model):
    for image in model.encode_image(PICTURES, batch_size=5):
        arrays = [value for value in vars(image).values() if isinstance(value, np.ndarray)]
        assert len(arrays) == 5
        assert all(array.base is None for array in arrays)


def test_labels_of_which_the_graph_makes_no_numbers_are_refused(tmp_path):
    graphs = towers()
    graphs["text_model"].function = lambda **inputs: {
        name: array * np.nan for name, array in read(**inputs).items()
    }
    model = make(tmp_path, "owlvit", graphs).model
    with pytest.raises(InferenceError, match="the labels: the graph gives text_embeds with NaN"):
        model.detect(PICTURES[0], LABELS)


# --- streams --------------------------------------------------------------------------------------


def test_a_stream_goes_on_after_a_bad_picture_in_order(model):
    sources = [PICTURES[0], b"bad", model.encode_image(PICTURES[1]), "no/such.jpg", PICTURES[2]]
    found = list(model.iter_detect(iter(sources), LABELS, batch_size=2))
    assert [source for source, _ in found] == sources
    assert [isinstance(result, ImageError) for _, result in found] == [0, 1, 0, 1, 0]
    for place, image in [(0, 0), (2, 1), (4, 2)]:
        same(found[place][1], model.detect(PICTURES[image], LABELS))


@pytest.mark.parametrize("search", ["iter_detect", "iter_detect_like"])
def test_a_stream_is_taken_two_batches_ahead_and_checked_before(model, search):
    taken = []

    def sources():
        for n in range(20):
            taken.append(n)
            yield PICTURES[n % 5]

    labels = model.encode_labels(LABELS)
    stream = getattr(model, search)(sources(), labels, batch_size=2)
    assert taken == []
    for number, _ in enumerate(stream, start=1):
        assert len(taken) <= number + 4
    assert len(taken) == number == 20
    with pytest.raises(OptionError, match="top_k"):
        getattr(model, search)(sources(), labels, top_k=0)
    assert list(getattr(model, search)([], labels)) == []


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_bad_picture_is_named_with_its_position(model, batch_size):
    sources = [*PICTURES[:3], "no/such.jpg", PICTURES[4]]
    for what, search in (
        ("picture", lambda: model.detect(sources, LABELS, batch_size=batch_size)),
        ("picture", lambda: model.encode_image(sources, batch_size=batch_size)),
        ("picture", lambda: model.detect_like(sources, PICTURES[0], batch_size=batch_size)),
        ("example", lambda: model.encode_examples(sources)),
        ("example", lambda: model.detect_like(PICTURES[0], sources)),
    ):
        with pytest.raises(ImageError, match=rf"^{what} 3: .*no/such\.jpg"):
            search()
    with pytest.raises(ImageError, match=r"^cannot read 'no/such\.jpg'"):
        model.detect("no/such.jpg", LABELS)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "error", "says"),
    [
        ([], LabelError, "no labels"),
        ((), LabelError, "no labels"),
        ("a cat,a dog", LabelError, "not one string"),
        (None, LabelError, "not None"),
        (7, LabelError, "not 7"),
        (["a cat", ""], LabelError, "label 1 is empty"),
        ([" \n"], LabelError, "label 0 is empty"),
        (["a cat", 7], LabelError, "label 1 is a int"),
        ([None], LabelError, "label 0 is a NoneType"),
        (["a cat", "a dog", "a cat"], LabelError, "label 2 is there twice: 'a cat'"),
        (["a cat", "a \udc80"], TextError, "1 holds a lone surrogate"),
        (["a cat", "x" * 99], TextError, "1 has 101 tokens, the model takes 16"),
    ],
)
def test_a_bad_label_is_named(model, foreign, labels, error, says):
    for search in (
        model.encode_labels,
        lambda bad: model.detect(PICTURES[0], bad),
        lambda bad: foreign.model.detect(PICTURES[0], bad),
    ):
        with pytest.raises(error, match=says):
            search(labels)


def test_a_label_too_long_is_cut_when_asked(owl, foreign):
    long = ["a cat", "x" * 99]
    assert len(owl.model.encode_labels(long, truncate=True)) == 2
    assert owl.model.detect(PICTURES[0], long, truncate=True).labels == tuple(long)
    foreign.model.detect(PICTURES[0], long, truncate=True)
    for graph in (owl.graphs["text_model"], foreign.graphs["model"]):
        assert graph.asked[-1]["input_ids"].shape[1] == 16


@pytest.mark.parametrize(
    ("options", "says"),
    [
        *(({"threshold": bad}, "threshold is") for bad in (-0.1, 1.1, math.nan, "high", None)),
        *(({"iou_threshold": bad}, "iou_threshold is") for bad in (-0.1, 1.1, math.nan, "high")),
        ({"threshold": {"a cat": 0.5}}, "no entry for"),
        ({"threshold": [0.5]}, "1 numbers for 3 labels"),
        ({"top_k": 0}, "top_k is 0"),
        ({"soft_nms": 0}, "soft_nms is 0"),
        ({"soft_nms": 0.5, "iou_threshold": 0.5}, "give one of them"),
        ({"class_agnostic": True}, "no effect"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "4"}, "batch_size is .4."),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
    ],
    ids=str,
)
def test_a_bad_option_is_named(model, foreign, options, says):
    for owl in (model, foreign.model):
        with pytest.raises(OptionError, match=says):
            owl.detect(PICTURES[0], LABELS, **options)


@pytest.mark.parametrize("one", ["a.jpg", b"bytes", PICTURES[0], np.zeros((9, 9, 3), np.uint8)])
def test_one_picture_where_a_stream_belongs_is_refused_at_once(model, one):
    with pytest.raises(OptionError, match=r"iter_detect takes several pictures; wrap one as \["):
        model.iter_detect(one, LABELS)
    with pytest.raises(OptionError, match="iter_detect_like takes several pictures"):
        model.iter_detect_like(one, PICTURES[0])


def test_one_encoded_picture_is_no_stream_either(model):
    with pytest.raises(OptionError, match="wrap one as"):
        model.iter_detect(model.encode_image(PICTURES[0]), LABELS)


@pytest.mark.parametrize("missing", ["image_class_embeds", "logit_shift", "pred_boxes"])
def test_a_graph_without_an_output_is_named(tmp_path, missing):
    def seen(pixel_values):
        return {("other" if name == missing else name): array
                for name, array in see(pixel_values).items()}  # fmt: skip

    model = make(tmp_path, "owlvit", towers(seen=seen)).model
    says = rf"the vision_model of .*owlvit lacks {missing}; needed: .*; it gives: .*other \[1, 16"
    with pytest.raises(BundleError, match=says):
        model.detect(PICTURES[0], LABELS)


@pytest.mark.parametrize(
    ("output", "cut"),
    [("pred_boxes", np.s_[..., :3]), ("logit_scale", np.s_[:, :5]),
     ("logit_shift", np.s_[..., None]), ("image_class_embeds", np.s_[0]),
     ("objectness_logits", np.s_[:, :5])],
)  # fmt: skip
def test_a_graph_of_other_shapes_is_named(tmp_path, output, cut):
    def seen(pixel_values):
        outputs = see(pixel_values)
        return outputs | {output: outputs[output][cut]}

    model = make(tmp_path, "owlvit", towers(seen=seen)).model
    with pytest.raises(BundleError, match=rf"gives other shapes .*it gives: .*{output}"):
        model.encode_image(PICTURES)


def test_embeddings_of_two_lengths_are_named(tmp_path):
    def seen(pixel_values):
        outputs = see(pixel_values)
        return outputs | {"image_class_embeds": outputs["image_class_embeds"][..., :4]}

    model = make(tmp_path, "owlvit", towers(seen=seen)).model
    with pytest.raises(BundleError, match="of pictures have 4 numbers, those of labels 5"):
        model.detect(PICTURES[0], LABELS)


@pytest.mark.parametrize(
    "outputs",
    [{}, {"logits": (1, PLACES, 3)}, {"pred_boxes": (1, PLACES, 4)},
     {"logits": (1, PLACES, 2), "pred_boxes": (1, PLACES, 4)},
     {"logits": (PLACES, 3), "pred_boxes": (PLACES, 4)}],
    ids=str,
)  # fmt: skip
def test_a_foreign_graph_that_is_no_detector_is_named(tmp_path, outputs):
    def other(**_):
        return {name: np.zeros(shape) for name, shape in outputs.items()}

    foreign = make(tmp_path, "owlvit", one_graph(other))
    says = r"the graph of .*owlvit .*needed: logits \[B, P, N\], pred_boxes \[B, P, 4\]"
    with pytest.raises(BundleError, match=says):
        foreign.model.detect(PICTURES[0], LABELS)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        *(({"threshold": bad}, "threshold is") for bad in (-0.1, 1.1, math.nan, [0.5], None)),
        *(({"iou_threshold": bad}, "iou_threshold is") for bad in (-0.1, 1.1, math.nan, "high")),
        ({"top_k": 0}, "top_k is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
    ids=str,
)
def test_a_bad_option_is_named_by_example_too(model, options, says):
    with pytest.raises(OptionError, match=says):
        model.detect_like(PICTURES[0], PICTURES[1], **options)


@pytest.mark.parametrize("none", [[], ()])
def test_no_pictures_are_refused_where_results_are_asked_for(model, none):
    for search in (
        model.encode_image,
        model.encode_examples,
        lambda images: model.detect(images, LABELS),
        lambda images: model.detect_like(images, PICTURES[0]),
        lambda images: model.detect_like(PICTURES[0], images),
    ):
        with pytest.raises(ImageError, match="no pictures"):
            search(none)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("output", ["pred_boxes", "image_class_embeds", "logit_scale"])
def test_a_broken_graph_is_told_with_the_picture(tmp_path, output, bad):
    def broken(pixel_values):
        outputs = see(pixel_values)
        outputs[output][-1, 3] = bad
        return outputs

    model = make(tmp_path, "owlvit", towers(seen=broken)).model
    file = tmp_path / "broken.png"
    file.write_bytes(encoded(PICTURES[0]))
    says = rf"picture 2 \('.*broken\.png'\): the graph gives {output} with NaN"
    for search in (lambda images: model.detect(images, LABELS), model.encode_image):
        with pytest.raises(InferenceError, match=says):  # the last of its batch
            search([*PICTURES[:2], file])


@pytest.mark.parametrize("output", ["logits", "pred_boxes"])
def test_a_broken_foreign_graph_is_told_with_the_picture(tmp_path, output):
    foreign = make(tmp_path, "owlvit", one_graph())
    function = foreign.graphs["model"].function

    def broken(**inputs):
        outputs = function(**inputs)
        outputs[output][0, 3, 0] = np.nan
        return outputs

    foreign.graphs["model"].function = broken
    with pytest.raises(InferenceError, match=f"picture 0: the graph gives {output} with NaN"):
        foreign.model.detect(PICTURES[:2], LABELS)


def test_labels_that_are_not_numbers_are_told(model):
    labels = model.encode_labels(LABELS)
    labels.embeds[1, 2] = np.nan
    with pytest.raises(InferenceError, match="picture 0: the graph gives logits with NaN"):
        model.detect(PICTURES[0], labels)


# --- by example -----------------------------------------------------------------------------------


def test_an_example_finds_itself(model):
    found = model.detect_like(PICTURES[0], PICTURES[0])
    example = model.encode_examples(PICTURES[0])
    image = model.encode_image(PICTURES[0])
    units = image.class_embeds / np.linalg.norm(image.class_embeds, axis=1, keepdims=True)
    logits = (units @ example.embeds[0] + image.logit_shift) * image.logit_scale
    scores = sigmoid(logits)
    assert found.alphas[0] == pytest.approx(1, abs=1e-4)  # always, as in transformers
    assert found.scores[0] == pytest.approx(scores.max(), abs=1e-5)
    assert (np.diff(found.scores) <= 0).all()
    assert (np.diff(found.alphas) <= 0).all()
    assert found.labels == ("example 0",)
    assert set(found.label_ids) == {0}


def test_all_is_found_when_nothing_is_suppressed_and_scores_are_near(model):
    found = model.detect_like(PICTURES[0], PICTURES[0], iou_threshold=None)
    full = model.detect(
        PICTURES[0], model.encode_examples(PICTURES[0]), threshold=0, iou_threshold=None
    )
    shown = full.scores > 0.1 * (full.scores[0] + 1e-6)
    assert np.array_equal(found.scores, full.scores[shown])
    assert np.array_equal(found.boxes, full.boxes[shown])
    same(found, model.detect_like(PICTURES[0], PICTURES[0], iou_threshold=1.0))
    assert len(model.detect_like(PICTURES[0], PICTURES[0])) < len(found)


def test_each_object_is_like_one_of_several_examples(model):
    examples = model.encode_examples(PICTURES[1:4], names=["dot", "tower", "dot"])
    assert examples.labels == ("dot", "tower", "dot")
    options = {"iou_threshold": None, "threshold": 0.2}
    together = model.detect_like(PICTURES[0], examples, **options)
    alone = [
        model.detect(PICTURES[0], LabelSet((str(n),), examples.embeds[[n]], examples.model),
                     threshold=0) for n in range(3)
    ]  # fmt: skip
    assert len(set(together.label_ids)) > 1
    for box, score, n in zip(together.boxes, together.scores, together.label_ids, strict=True):
        scores = [other.scores[(other.boxes == box).all(axis=1)].max() for other in alone]
        assert score == pytest.approx(max(scores), abs=1e-6)
        assert int(np.argmax(scores)) == n
    assert (together.scores >= np.float32(0.2)).all()
    same(model.detect_like(PICTURES[0], PICTURES[1:4], **options),
         dataclasses.replace(together, labels=("example 0", "example 1", "example 2")))  # fmt: skip


def test_lists_of_pictures_and_top_k_by_example(model):
    found = model.detect_like(PICTURES, PICTURES[0], top_k=2)
    assert len(found) == len(PICTURES)
    for one, image in zip(found, PICTURES, strict=True):
        whole = model.detect_like(model.encode_image(image), PICTURES[0])
        assert np.array_equal(one.scores, whole.scores[:2])
        assert np.array_equal(one.alphas, whole.alphas[:2])
        assert one.size_hw == image.size[::-1]


def test_names_come_from_files(model, tmp_path):
    files = [tmp_path / "a" / "red mug.png", tmp_path / "cup.tar.png"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encoded(PICTURES[0]))
    labels = model.encode_examples([str(files[0]), PICTURES[0], files[1]])
    assert labels.labels == ("red mug", "example 1", "cup.tar")
    assert np.abs(np.linalg.norm(labels.embeds, axis=1) - 1).max() <= MATHS_ABS


def test_a_box_says_where_in_its_picture_the_example_is(model):
    image = model.encode_image(PICTURES[0])
    corners = geometry.center_to_corners(image.pred_boxes)
    boxes = model.processor.to_pixels(corners, image.size_hw)
    chosen = set()
    for box in boxes:
        (embed,) = model.encode_examples(PICTURES[0], boxes=[box.tolist()]).embeds
        cosines = image.class_embeds @ embed / np.linalg.norm(image.class_embeds, axis=1)
        overlap = geometry.iou(box[None], boxes)[0]
        assert overlap[cosines.argmax()] >= 0.8 * overlap.max()
        chosen.add(int(cosines.argmax()))
    assert len(chosen) > PLACES // 2
    whole = model.encode_examples(PICTURES[0], boxes=[None])
    assert np.array_equal(whole.embeds, model.encode_examples(PICTURES[0]).embeds)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"names": []}, LabelError, "0 names were given for 2 examples"),
        ({"names": ["a"]}, LabelError, "1 names were given for 2 examples"),
        ({"names": 7}, LabelError, "not 7"),
        ({"names": "ab"}, LabelError, "not .ab."),
        ({"names": ["a", ""]}, LabelError, "is empty"),
        ({"names": ["a", 7]}, LabelError, "is a int"),
        ({"boxes": []}, OptionError, "0 boxes were given for 2 examples"),
        ({"boxes": 7}, OptionError, "not 7"),
        ({"boxes": [(0, 0, 1, 1)]}, OptionError, "1 boxes were given for 2 examples"),
        ({"boxes": [None, (5, 5, 5, 9)]}, OptionError, r"box is \(5, 5, 5, 9\)"),
        ({"boxes": [(999, 0, 1000, 9), None]}, OptionError, "61x37"),
    ],
    ids=str,
)
def test_bad_names_and_boxes_are_refused(model, options, error, says):
    with pytest.raises(error, match=says):
        model.encode_examples([PICTURES[0], PICTURES[4]], **options)


def test_an_example_with_nothing_in_it_is_refused(model):
    image = model.encode_image(PICTURES[0])
    flat = image.pred_boxes.copy()
    flat[:, 2:] = 0, 3  # lines that leave the picture: no area, and outside in part
    nothing = dataclasses.replace(image, pred_boxes=flat)
    for search in (model.encode_examples, lambda e: model.detect_like(PICTURES[1], e)):
        with pytest.raises(
            ImageError, match="nothing was found in the example picture 'example 0'"
        ):
            search(nothing)
    away = dataclasses.replace(image, pred_boxes=np.tile(np.float32([0.9, 0.9, 0.1, 0.1]), (16, 1)))
    with pytest.raises(ImageError, match=r"'mug' at \[0, 0, 5, 5\]"):
        model.encode_examples([away], names=["mug"], boxes=[[0, 0, 5, 5]])


# --- foreign graphs -------------------------------------------------------------------------------


def test_a_foreign_graph_detects_the_same_one_picture_at_a_time(model, foreign):
    options = {"threshold": 0.3, "multi_label": True, "iou_threshold": 0.7}
    found = foreign.model.detect(PICTURES, LABELS, **options)
    for one, expected in zip(found, model.detect(PICTURES, LABELS, **options), strict=True):
        assert one.label_ids.tolist() == expected.label_ids.tolist()
        assert np.array_equal(one.boxes, expected.boxes)
        assert np.abs(one.scores - expected.scores).max(initial=0) <= BATCHING_ABS["fp32"]
        assert one.size_hw == expected.size_hw
    assert any(map(len, found))
    asked = foreign.graphs["model"].asked
    assert len(asked) == len(PICTURES)
    lengths = [len(row) for row in model.tokenizer.ids(LABELS)]
    for inputs in asked:
        assert inputs["pixel_values"].shape == (1, 3, 16, 16)
        assert inputs["attention_mask"].tolist() == [[1] * n + [0] * (16 - n) for n in lengths]
        assert (inputs["input_ids"] * (1 - inputs["attention_mask"]) == 0).all()
        assert inputs["input_ids"].shape == (3, 16)


def test_a_foreign_stream_goes_on_after_a_bad_picture(foreign):
    sources = [PICTURES[0], b"bad", PICTURES[1]]
    found = list(foreign.model.iter_detect(sources, LABELS))
    assert [isinstance(result, ImageError) for _, result in found] == [False, True, False]


def test_a_foreign_graph_says_what_it_cannot_do(model, foreign):
    labels = model.encode_labels(LABELS)
    for what, search in {
        "encode_labels": lambda owl: owl.encode_labels(LABELS),
        "encode_image": lambda owl: owl.encode_image(PICTURES[0]),
        "encode_examples": lambda owl: owl.encode_examples(PICTURES[0]),
        "detect_like": lambda owl: owl.detect_like(PICTURES[0], PICTURES[1]),
        "label sets": lambda owl: owl.detect(PICTURES[0], labels),
        "templates": lambda owl: owl.detect(PICTURES[0], LABELS, templates=["a {}"]),
    }.items():
        with pytest.raises(BundleError, match=rf"{what}.* vlrt export CHECKPOINT"):
            search(foreign.model)
    with pytest.raises(ImageError, match="EncodedImage"):
        foreign.model.detect(model.encode_image(PICTURES[0]), LABELS)


BOTH = ("vision_model", "text_model")


@pytest.mark.parametrize(
    ("family", "held", "expected"),
    [
        (owlvit, (), BOTH),
        (owlvit, ("model",), ("model",)),
        (owlv2, ("model",), ("model",)),
        (owlvit, ("vision_model",), BOTH),
        (owlvit, ("model", "vision_model"), ("model",)),
        (owlvit, ("model", *BOTH), BOTH),
        (clip, ("model",), BOTH),
        (clip, ("model", *BOTH), BOTH),
    ],
)
def test_a_family_takes_its_own_components_before_foreign_ones(family, held, expected):
    bundle = SimpleNamespace(variants={name: {} for name in held})
    assert components_of(family, bundle) == expected


@pytest.mark.parametrize("family", ["owlvit", "owlv2"])
@pytest.mark.parametrize("components", [BOTH, ("model",), ("model", *BOTH)])
def test_load_says_which_graphs_it_took(monkeypatch, tmp_path, family, components):
    graphs = towers() | one_graph()
    load = importlib.import_module("vlrt.load")  # `vlrt.load` itself is the function
    monkeypatch.setattr(load, "Session", lambda path, *_, **__: graphs[path.stem])
    root = write_bundle(tmp_path / "bundle", family, *components)
    model = vlrt.load(root, device="cpu")
    alone = components == ("model",)
    assert model.info["components"] == (["model"] if alone else list(BOTH))
    assert ("one picture at a time" in model.info.get("note", "")) == alone
    assert model.info["task"] == "zero-shot-object-detection"
    assert len(model.detect(PICTURES[0], LABELS, threshold=0)) == PLACES


def test_a_bundle_that_lacks_a_tower_names_it(tmp_path):
    root = write_bundle(tmp_path / "bundle", "owlvit", "vision_model")
    with pytest.raises(BundleError, match="no component 'text_model'"):
        vlrt.load(root, device="cpu")


def test_values_are_refused_since_there_are_none(tmp_path):
    bundle = open_bundle(write_bundle(tmp_path / "bundle", "owlvit", *BOTH))
    info = {"threads": 1, "decode": "exact"}
    with pytest.raises(OptionError, match="given: logit_scale"):
        owlvit.Model(bundle, towers(), info=info, values={"logit_scale": 3.0})


# --- threads --------------------------------------------------------------------------------------


def test_eight_threads_give_what_one_gives(model):
    labels = model.encode_labels(LABELS)
    serial = [model.detect(image, labels) for image in PICTURES]
    liked = [model.detect_like(image, PICTURES[0]) for image in PICTURES]
    held = {name: id(value) for name, value in vars(model).items()}
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(model.detect, PICTURES[n % 5], LABELS) for n in range(40)]
        others = [pool.submit(model.detect_like, PICTURES[n % 5], PICTURES[0]) for n in range(40)]
        for n in range(40):
            same(jobs[n].result(), serial[n % 5])
            same(others[n].result(), liked[n % 5])
    assert {name: id(value) for name, value in vars(model).items()} == held
