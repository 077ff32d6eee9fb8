"""CLIP at run time: labels, templates, scales, batches, threads, and what is refused."""

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checkpoints import END, WORDS, edit_json, read_json, write_checkpoint
from pictures import FILES, encoded, picture
from tolerances import BATCHING_ABS, MATHS_ABS

import vlrt
from vlrt.bundle import open_bundle
from vlrt.errors import BundleError, ImageError, LabelError, OptionError, TextError
from vlrt.families.clip import Model

LABELS = ["red circle", "blue square", "a cat", "the green dog"]
TEMPLATES = ["a photo of {}", "{}", "the {} of the {}".replace("{}", "red", 1)]
PICTURES = [picture("RGB", (40 + 5 * n, 37), seed=n) for n in range(7)]


class FakeSession:
    """A graph that gives what a function makes of its input, and remembers what it was asked."""

    def __init__(self, output, function, shapes):
        self.output, self.function, self.input_shapes, self.asked = output, function, shapes, []

    def run(self, inputs):
        self.asked.append({name: array.shape for name, array in inputs.items()})
        return {self.output: self.function(**inputs).astype(np.float32)}


def embed_ids(input_ids, attention_mask):
    """Another vector for every text, that padding does not reach."""
    real = np.where(attention_mask == 1, input_ids, 0).astype(np.float64)
    return np.stack([real.sum(axis=1), (real**2).sum(axis=1) / 500, real.max(axis=1)], axis=1)


def embed_pixels(pixel_values):
    return pixel_values.mean(axis=(2, 3)) + 3


@pytest.fixture
def fake(tiny_bundle):
    """The family on fake graphs: `fake(logit_scale=10.0)`."""

    def make(text_length=None, **values):
        sessions = {
            "vision_model": FakeSession(
                "image_embeds", embed_pixels, {"pixel_values": (None, 3, 32, 32)}
            ),
            "text_model": FakeSession("text_embeds", embed_ids, {"input_ids": (None, text_length)}),
        }
        info = {"threads": 2, "decode": "exact"}
        return Model(open_bundle(tiny_bundle), sessions, info=info, values=values), sessions

    return make


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# --- classify -------------------------------------------------------------------------------------


def test_one_picture_gives_one_result_and_a_list_gives_a_list(tiny):
    one = tiny.classify(PICTURES[0], LABELS)
    listed, tupled = tiny.classify([PICTURES[0]], LABELS), tiny.classify((PICTURES[0],), LABELS)
    assert isinstance(one, vlrt.Classification)
    assert [r.to_dict() for r in listed] == [r.to_dict() for r in tupled] == [one.to_dict()]
    assert len(tiny.classify(PICTURES, LABELS)) == len(PICTURES)


def test_scores_are_the_softmax_over_scaled_cosines(fake):
    model, _ = fake(logit_scale=7.0)
    result = model.classify(PICTURES[0], LABELS)
    image = unit(model.encode_images([PICTURES[0]], normalize=False)[0].astype(np.float64))
    texts = unit(model.encode_texts(LABELS, normalize=False).astype(np.float64))
    logits = 7 * texts @ image
    assert result.logits == pytest.approx(logits, abs=1e-4)
    assert result.scores == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-4)
    assert result.labels == tuple(LABELS)


def test_a_single_label_scores_one(tiny):
    assert tiny.classify(PICTURES[0], ["a cat"]).scores.tolist() == [1.0]


def test_labels_encoded_once_give_the_same_and_are_not_encoded_again(fake):
    model, sessions = fake(logit_scale=5.0)
    labels = model.encode_labels(LABELS)
    before = len(sessions["text_model"].asked)
    results = [model.classify(p, labels) for p in PICTURES]
    assert len(sessions["text_model"].asked) == before
    for image, result in zip(PICTURES, results, strict=True):
        assert result.to_dict() == model.classify(image, LABELS).to_dict()


def test_label_sets_pickle(tiny):
    labels = tiny.encode_labels(LABELS)
    copy = pickle.loads(pickle.dumps(labels))
    assert (copy.labels, copy.model) == (labels.labels, labels.model)
    assert np.array_equal(copy.embeds, labels.embeds)
    assert (
        tiny.classify(PICTURES[0], copy).to_dict() == tiny.classify(PICTURES[0], LABELS).to_dict()
    )


def test_labels_of_one_precision_serve_another_of_the_same_weights(tiny, tiny_bundle):
    labels = tiny.encode_labels(LABELS)
    assert vlrt.load(tiny_bundle, precision="int8", device="cpu").classify(PICTURES[0], labels)


def test_labels_of_another_model_are_refused(tiny):
    labels = tiny.encode_labels(LABELS)
    other = dataclasses.replace(labels, model="another checkpoint")
    with pytest.raises(LabelError, match="another checkpoint"):
        tiny.classify(PICTURES[0], other)


def test_templates_beside_encoded_labels_are_refused(tiny):
    with pytest.raises(LabelError, match="already encoded"):
        tiny.classify(PICTURES[0], tiny.encode_labels(LABELS), templates=["a {}"])


# --- labels and templates -------------------------------------------------------------------------


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
        ([b"a cat"], LabelError, "label 0 is a bytes"),
        (["a cat", "a dog", "a cat"], LabelError, "label 2 is there twice: 'a cat'"),
        (["a cat", "a \udc80"], TextError, "1 holds a lone surrogate"),
        (["a cat", "x" * 99], TextError, "1 has 101 tokens, the model takes 16"),
    ],
)
def test_a_bad_label_is_named(tiny, labels, error, says):
    for encode in (tiny.encode_labels, lambda bad: tiny.classify(PICTURES[0], bad)):
        with pytest.raises(error, match=says):
            encode(labels)


def test_a_label_too_long_is_cut_when_asked(tiny):
    assert len(tiny.encode_labels(["a cat", "x" * 99], truncate=True)) == 2
    assert tiny.classify(PICTURES[0], ["a cat", "x" * 99], truncate=True).scores.shape == (2,)


@pytest.mark.parametrize("templates", [["a {}"], TEMPLATES, vlrt.IMAGENET_TEMPLATES])
def test_an_ensemble_is_the_mean_of_unit_embeddings_scaled_back(fake, templates):
    model, _ = fake(logit_scale=5.0)
    expected = []
    for label in LABELS:  # one text at a time, in float64
        rows = [
            unit(model.encode_texts([t.replace("{}", label)], truncate=True).astype(np.float64)[0])
            for t in templates
        ]
        expected.append(unit(np.mean(rows, axis=0)))
    found = model.encode_labels(LABELS, templates=templates, truncate=True).embeds
    assert found == pytest.approx(np.array(expected), abs=10 * MATHS_ABS)


def test_one_bare_template_changes_nothing(tiny):
    plain, ensemble = tiny.encode_labels(LABELS), tiny.encode_labels(LABELS, templates=["{}"])
    assert np.array_equal(plain.embeds, ensemble.embeds)


@pytest.mark.parametrize("templates", [[], "a {}", ["a photo"], ["{} and {}"], [7], ["{}", ""]])
def test_bad_templates_are_refused(tiny, templates):
    with pytest.raises(TextError, match="template"):
        tiny.encode_labels(LABELS, templates=templates)


def test_labels_with_braces_are_taken_literally(tiny):
    labels = tiny.encode_labels(["{}", "{0}"], templates=["a {}"])
    assert np.array_equal(labels.embeds[0], tiny.encode_labels(["a {}"]).embeds[0])


# --- logit scale ----------------------------------------------------------------------------------


def test_a_foreign_bundle_without_logit_scale_encodes_and_does_not_guess(foreign_bundle):
    model = vlrt.load(foreign_bundle, precision="fp32", device="cpu")
    assert model.encode_images([PICTURES[0]]).shape == (1, 24)
    with pytest.raises(BundleError, match="logit_scale"):
        model.classify(PICTURES[0], LABELS)


def test_given_values_win(foreign_bundle, tiny_bundle):
    for root in (foreign_bundle, tiny_bundle):
        model = vlrt.load(root, precision="fp32", device="cpu", values={"logit_scale": 3.5})
        assert model.logit_scale == 3.5
        logits = model.classify(PICTURES[0], LABELS).logits
        cosines = model.encode_texts(LABELS) @ model.encode_images([PICTURES[0]])[0]
        assert logits == pytest.approx(3.5 * cosines, abs=1e-4)


def test_openais_published_scale_is_known(foreign_bundle):
    edit_json(foreign_bundle / "config.json", _name_or_path="openai/clip-vit-large-patch14")
    assert vlrt.load(foreign_bundle, precision="fp32", device="cpu").logit_scale == 100.0


def test_the_manifest_states_the_checkpoints_scale(tiny, tiny_bundle):
    assert tiny.logit_scale == pytest.approx(np.exp(np.float32(2.6592)))
    assert read_json(tiny_bundle / "vlrt.json")["values"]["logit_scale"] == tiny.logit_scale


# --- encoding -------------------------------------------------------------------------------------


def test_embeddings_keep_the_order_of_texts_of_any_length(fake):
    model, sessions = fake()
    texts = [" ".join(WORDS[: 1 + (7 * n) % 11]) + f" {n}" for n in range(150)]
    together = model.encode_texts(texts, normalize=False, truncate=True)
    alone = [model.encode_texts([t], normalize=False, truncate=True)[0] for t in texts]
    assert np.array_equal(together, np.stack(alone))
    batches = [asked["input_ids"] for asked in sessions["text_model"].asked[:3]]
    assert [shape[0] for shape in batches] == [64, 64, 22]
    assert [shape[1] for shape in batches] == sorted(shape[1] for shape in batches)


def test_a_graph_of_fixed_length_is_padded_to_it(fake):
    model, sessions = fake(text_length=16)
    model.encode_texts(["a cat"])
    assert sessions["text_model"].asked[0]["input_ids"] == (1, 16)


@pytest.mark.parametrize("normalize", [True, False])
def test_lengths_are_one_unless_the_projection_is_asked_for(tiny, normalize):
    for embeds in (
        tiny.encode_texts(LABELS, normalize=normalize),
        tiny.encode_images(PICTURES, normalize=normalize),
    ):
        assert embeds.dtype == np.float32
        lengths = np.linalg.norm(embeds, axis=1)
        assert np.allclose(lengths, 1, atol=MATHS_ABS) == normalize


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_the_batch_size_does_not_change_fp32_results(tiny, batch_size):
    expected = tiny.encode_images(PICTURES, batch_size=16)
    found = tiny.encode_images(PICTURES, batch_size=batch_size)
    assert np.abs(found - expected).max() <= BATCHING_ABS["fp32"]


def test_padding_beside_longer_texts_does_not_change_fp32_results(tiny):
    texts = ["cat", *LABELS, "a photo of the red square"]
    alone = np.concatenate([tiny.encode_texts([text]) for text in texts])
    assert np.abs(tiny.encode_texts(texts) - alone).max() <= BATCHING_ABS["fp32"]


def test_the_end_of_text_inside_a_text_ends_it(tiny):
    """The first end-of-text is pooled, as in transformers; what follows cannot be seen from it."""
    found = tiny.encode_texts(["a cat", f"a cat {END} a dog", f"a dog {END} a cat"])
    assert np.abs(found[0] - found[1]).max() <= BATCHING_ABS["fp32"]
    assert np.abs(found[0] - found[2]).max() > 0.01


def test_both_end_of_text_branches_agree_on_the_same_weights(tiny, tmp_path):
    pytest.importorskip("onnx")
    from vlrt_export import pipeline, reference

    checkpoint = write_checkpoint(tmp_path / "wrong-eos", wrong_eos=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "missing", lambda: ["torch"])
        pipeline.export(str(checkpoint), tmp_path / "out", precisions=["fp32"], say=lambda _: None)
    other = vlrt.load(tmp_path / "out", device="cpu")
    found, expected = other.encode_texts(LABELS), tiny.encode_texts(LABELS)
    assert np.abs(found - expected).max() <= BATCHING_ABS["fp32"]


@pytest.mark.parametrize("texts", [[], ()])
def test_no_texts_are_refused(tiny, texts):
    with pytest.raises(TextError, match="no texts"):
        tiny.encode_texts(texts)


def test_no_pictures_are_refused_where_embeddings_are_asked_for(tiny):
    with pytest.raises(ImageError, match="no pictures"):
        tiny.encode_images([])
    assert list(tiny.iter_image_embeds([])) == []


@pytest.mark.parametrize("one", ["photo.jpg", encoded(picture()), picture(), None])
def test_one_picture_where_a_list_belongs_is_refused(tiny, one):
    with pytest.raises(OptionError, match="list"):
        tiny.encode_images(one)


@pytest.mark.parametrize("one", ["photo.jpg", encoded(picture()), picture(), None])
def test_one_picture_where_a_stream_belongs_is_refused_at_once(tiny, one):
    with pytest.raises(OptionError, match="iter_image_embeds takes several pictures"):
        tiny.iter_image_embeds(one)
    with pytest.raises(OptionError, match=r"iter_classify takes several .* wrap one as \["):
        tiny.iter_classify(one, LABELS)


def test_a_stream_is_classified_in_order_and_goes_on_after_a_bad_picture(tiny):
    sources = [PICTURES[0], b"bad", "no/such.jpg", b"worse", PICTURES[1], PICTURES[2]]
    found = list(tiny.iter_classify(iter(sources), LABELS, batch_size=2))
    assert [source for source, _ in found] == sources
    assert [isinstance(result, ImageError) for _, result in found] == [0, 1, 1, 1, 0, 0]
    for place, image in [(0, 0), (4, 1), (5, 2)]:
        expected = tiny.classify(PICTURES[image], LABELS)
        assert np.abs(found[place][1].scores - expected.scores).max() <= BATCHING_ABS["fp32"]
    assert list(tiny.iter_classify([], LABELS)) == []
    with pytest.raises(LabelError, match="no labels"):
        tiny.iter_classify(sources, [])


def test_a_stream_runs_in_batches_of_the_size_asked_for(fake):
    model, sessions = fake(logit_scale=5.0)
    list(model.iter_classify(PICTURES, LABELS, batch_size=3))
    sizes = [asked["pixel_values"][0] for asked in sessions["vision_model"].asked]
    assert sizes == [3, 3, 1]


def test_every_label_may_have_its_own_templates(fake):
    model, _ = fake(logit_scale=5.0)
    own = {label: TEMPLATES[: 1 + n % 3] for n, label in enumerate(reversed(LABELS))}
    found = model.encode_labels(LABELS, templates=own, truncate=True)
    for position, label in enumerate(LABELS):
        (alone,) = model.encode_labels([label], templates=own[label], truncate=True).embeds
        assert np.array_equal(found.embeds[position], alone)
    with pytest.raises(OptionError, match=r"templates has \['a cow'\], not among the labels"):
        model.classify(PICTURES[0], LABELS, templates={**own, "a cow": ["{}"]})


def test_an_unknown_value_is_refused(fake):
    with pytest.raises(OptionError, match=r"logit_scale; given: \['logit_bias'\]"):
        fake(logit_bias=1.0)


@pytest.mark.parametrize("tower", ["vision_model", "text_model"])
def test_a_graph_that_gives_something_else_is_named(fake, tower):
    model, sessions = fake(logit_scale=5.0)
    sessions[tower].output = "last_hidden_state"
    says = rf"the {tower} of .* lacks .*_embeds; .*it gives: last_hidden_state"
    with pytest.raises(BundleError, match=says):
        model.classify(PICTURES[0], LABELS)


@pytest.mark.parametrize("batch_size", [0, -1, "4", 2.5, None])
def test_a_batch_size_below_one_is_refused(tiny, batch_size):
    for encode in (tiny.encode_images, lambda p, **kw: tiny.classify(p, LABELS, **kw)):
        with pytest.raises(OptionError, match=f"batch_size is {batch_size!r}"):
            encode(PICTURES, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_bad_picture_is_named_with_its_position(tiny, batch_size):
    sources = [*PICTURES[:3], "no/such.jpg", PICTURES[4]]
    with pytest.raises(ImageError, match=r"picture 3: .*no/such\.jpg"):
        tiny.encode_images(sources, batch_size=batch_size)


def test_a_stream_goes_on_after_a_bad_picture(tiny):
    sources = [PICTURES[0], b"bad", PICTURES[1], "no/such.jpg"]
    batches = list(tiny.iter_image_embeds(iter(sources), batch_size=3))
    errors = [error for batch_errors, _ in batches for error in batch_errors]
    assert [error is None for error in errors] == [True, False, True, False]
    embeds = np.concatenate([embeds for _, embeds in batches if len(embeds)])
    expected = tiny.encode_images(PICTURES[:2])
    assert np.abs(embeds - expected).max() <= BATCHING_ABS["fp32"]


def test_a_whole_batch_of_bad_pictures_is_reported(tiny):
    ((errors, embeds),) = tiny.iter_image_embeds([b"bad", b"worse"])
    assert len(errors) == 2
    assert len(embeds) == 0


def test_every_kind_of_picture_is_classified(tiny):
    sources = [make() for make in FILES.values()]
    results = tiny.classify(sources, LABELS)
    assert all(np.isfinite(result.scores).all() for result in results)


# --- similarity, threads, fast decoding -----------------------------------------------------------


def test_image_similarity_is_the_cosine_of_embeddings(tiny):
    among = tiny.image_similarity(PICTURES)
    assert among.shape == (7, 7)
    assert np.diag(among) == pytest.approx(np.ones(7), abs=MATHS_ABS)
    assert np.array_equal(among, among.T) or np.allclose(among, among.T, atol=MATHS_ABS)
    between = tiny.image_similarity(PICTURES[:2], PICTURES)
    assert between.shape == (2, 7)
    assert np.abs(between - among[:2]).max() <= BATCHING_ABS["fp32"]


def test_eight_threads_give_what_one_gives(tiny):
    serial = [tiny.classify(image, LABELS).scores for image in PICTURES]
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(tiny.classify, PICTURES[n % 7], LABELS) for n in range(56)]
        for n, job in enumerate(jobs):
            assert np.abs(job.result().scores - serial[n % 7]).max() <= BATCHING_ABS["fp32"]


def test_fast_decoding_is_opt_in_and_close(tiny, tiny_bundle):
    fast = vlrt.load(tiny_bundle, precision="fp32", device="cpu", decode="fast")
    file = encoded(picture("RGB", (800, 600)), "JPEG", quality=95)
    cosine = (tiny.encode_images([file]) * fast.encode_images([file])).sum()
    assert 0.9 < cosine < 1 - MATHS_ABS
    png = encoded(picture("RGB", (80, 60)))
    assert np.array_equal(tiny.encode_images([png]), fast.encode_images([png]))
