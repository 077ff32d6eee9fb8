"""ViLT at run time: answers, matches, comparisons, gaps, streams, threads, and what is refused."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoints import (
    VILT_CONFIG,
    VILT_PREPROCESSOR,
    VILT_TASKS,
    edit_json,
    word_pieces,
    write_json,
    write_vilt_checkpoint,
)
from owl import Fake
from pictures import encoded, picture
from tolerances import BATCHING_ABS, VILT_ABS, VILT_SCORE_ABS

import vlrt
from vlrt import ahead
from vlrt.bundle import open_bundle
from vlrt.errors import BundleError, ImageError, InferenceError, OptionError, TextError
from vlrt.families import vilt
from vlrt.image import decode

ASK, MATCH, COMPARE, FILL = VILT_TASKS
SIZES_WH = [(48, 48), (61, 37), (37, 61), (60, 40), (50, 50), (200, 60), (1, 1)]
PICTURES = [picture("RGB", wh, seed=n) for n, wh in enumerate(SIZES_WH)]
BAD = b"this is no picture"
QUESTIONS = ["the dog?", "a red circle, a green square?", "7"]
GAPS = "a [MASK] cat of [MASK]"
_WEIGHTS = np.random.default_rng(0).normal(0, 1, (12, 200))


def describe(input_ids, attention_mask, token_type_ids, pixel_values, pixel_mask):
    """Numbers for each pair that no padding changes: float64 [B, 6], or [B, 9] of two pictures."""
    assert {array.dtype.name for array in (input_ids, attention_mask, token_type_ids)} == {"int64"}
    assert (pixel_values.dtype, pixel_mask.dtype) == (np.float32, np.int64)
    assert not token_type_ids.any()
    mask = pixel_mask[..., None, :, :].astype(np.float64)
    colours = (pixel_values * mask).sum(axis=(-1, -2)) / mask.sum(axis=(-1, -2))
    words = np.where(attention_mask == 1, np.sin(input_ids), 0)
    parts = [colours.reshape(len(words), -1), words.sum(axis=1)[:, None],
             (words * np.arange(words.shape[1])).sum(axis=1)[:, None],
             mask.sum(axis=(-1, -2, -3)).reshape(len(words), -1)[:, :1] / 1000]  # fmt: skip
    return np.concatenate(parts, axis=1)


def heads(number):
    """A graph with so many logits a pair."""

    def run(**inputs):
        seen = describe(**inputs)
        return {"logits": seen @ _WEIGHTS[: seen.shape[1], :number]}

    return run


def decoder(words):
    """A graph with logits over so many words for each token."""

    def run(**inputs):
        tokens = np.sin(inputs["input_ids"][..., None] * np.arange(words))
        return {"logits": tokens + heads(words)(**inputs)["logits"][:, None]}

    return run


def make(root, architecture=ASK, function=None, *, decode="exact", **changes):
    """The family on a fake graph: `model`, its `graph` and the `root` of its bundle."""
    (root / "onnx").mkdir(parents=True)
    (root / "onnx" / "model.onnx").touch()
    words = word_pieces(root)
    config = VILT_CONFIG | {"architectures": [architecture]} | VILT_TASKS[architecture] | changes
    write_json(root / "config.json", config)
    write_json(root / "preprocessor_config.json", VILT_PREPROCESSOR)
    given = {ASK: heads(11), MATCH: heads(1), COMPARE: heads(2), FILL: decoder(len(words))}
    names = ("input_ids", "attention_mask", "token_type_ids", "pixel_values", "pixel_mask")
    graph = Fake(function or given[architecture], **dict.fromkeys(names, ()))
    info = {"threads": 2, "decode": decode}

    def open_model():
        return vilt.Model(open_bundle(root), {"model": graph}, info=info, values={})

    return SimpleNamespace(open=open_model, graph=graph, root=root)


@pytest.fixture
def fakes(tmp_path):
    """`fakes(architecture)`: a model on a fake graph, and that graph."""

    def made(architecture=ASK, function=None, **options):
        built = make(tmp_path / "bundle", architecture, function, **options)
        return built.open(), built.graph

    return made


def same(found, expected):
    """Whether two answers differ by the order of sums at the most."""
    assert (found.question, found.answers) == (expected.question, expected.answers)
    assert found.scores == pytest.approx(expected.scores, abs=BATCHING_ABS["fp32"])


@pytest.fixture
def decoded(monkeypatch):
    """What is decoded, in any order."""
    seen = []

    def spy(source, **options):
        seen.append(source)
        return decode(source, **options)

    monkeypatch.setattr(ahead, "decode", spy)
    return seen


# --- the task -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architectures", "expected"),
    [
        ([ASK], "visual-question-answering"),
        ([MATCH], "image-text-retrieval"),
        ([COMPARE], "images-and-text-classification"),
        ([FILL, "more"], "fill-mask"),
    ],
)
def test_the_architecture_says_the_task(architectures, expected):
    assert vilt.task({"architectures": architectures}) == expected


@pytest.mark.parametrize("stated", [None, [], "", ASK, ["ViltModel"], [None], [["a"]], {"a": 1}, 7])
def test_an_architecture_without_a_task_is_named_with_the_valid_ones(stated):
    with pytest.raises(BundleError, match=r"architectures.*valid.*ViltForQuestion.*Masked"):
        vilt.task({"architectures": stated})


CALLS = {
    "ask": lambda model: model.ask(PICTURES[0], "the dog?"),
    "iter_ask": lambda model: model.iter_ask(PICTURES, "the dog?"),
    "match": lambda model: model.match(PICTURES[0], "the dog"),
    "iter_match": lambda model: model.iter_match(PICTURES, "the dog"),
    "compare": lambda model: model.compare(*PICTURES[:2], "the dog"),
    "fill": lambda model: model.fill(PICTURES[0], GAPS),
}

SERVING = {ASK: "ask", MATCH: "match", COMPARE: "compare", FILL: "fill"}


@pytest.mark.parametrize("architecture", VILT_TASKS)
def test_methods_of_other_tasks_say_what_serves(fakes, architecture):
    model, _ = fakes(architecture)
    task, serving = vilt.task({"architectures": [architecture]}), SERVING[architecture]
    for method, call in CALLS.items():
        if method.removeprefix("iter_") == serving:
            call(model)
            continue
        with pytest.raises(
            OptionError, match=rf"{task}.*{method.removeprefix('iter_')}.*{serving}"
        ):
            call(model)


# --- ask ------------------------------------------------------------------------------------------


def test_what_was_given_one_by_one_comes_back_so(fakes):
    model, _ = fakes()
    alone = [[model.ask(image, question) for question in QUESTIONS] for image in PICTURES]
    assert isinstance(alone[0][0], vlrt.Answers)
    for found, expected in (
        (model.ask(PICTURES[1], QUESTIONS), alone[1]),
        (model.ask(PICTURES, QUESTIONS[0]), [row[0] for row in alone]),
        (model.ask(tuple(PICTURES), tuple(QUESTIONS)), alone),
        (model.ask(PICTURES[1], [QUESTIONS[2]]), [alone[1][2]]),
        (model.ask([PICTURES[1]], QUESTIONS[2]), [alone[1][2]]),
        (model.ask([PICTURES[1]], [QUESTIONS[2]]), [[alone[1][2]]]),
    ):
        assert np.shape(np.array(found, object)) == np.shape(np.array(expected, object))
        for one, other in zip(
            np.ravel(np.array(found, object)), np.ravel(np.array(expected, object)), strict=True
        ):
            same(one, other)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_batches_change_no_answer(fakes, batch_size, number):
    model, graph = fakes()
    found = model.ask(PICTURES * 3, QUESTIONS[:number], batch_size=batch_size)
    assert all(len(inputs["input_ids"]) <= batch_size for inputs in graph.asked)
    assert len(found) == len(PICTURES) * 3
    for image, row in zip(PICTURES * 3, found, strict=True):
        for question, answers in zip(QUESTIONS[:number], row, strict=True):
            same(answers, model.ask(image, question))


def test_like_shapes_share_a_batch_and_padding_is_masked(fakes):
    model, graph = fakes()
    square, wide = picture("RGB", (48, 48)), picture("RGB", (64, 40))
    model.ask([square, wide] * 4, "the dog?", batch_size=4)
    assert [a["pixel_values"].shape for a in graph.asked] == [(4, 3, 32, 32), (4, 3, 32, 48)]
    assert all(asked["pixel_mask"].all() for asked in graph.asked)


def test_scores_are_sigmoids_best_first(fakes):
    logits = np.array([[0.5, -1, 3, 0.5, 9, -9]])
    changes = {"id2label": {str(n): word for n, word in enumerate("abcdef")}}
    model, _ = fakes(ASK, lambda **_: {"logits": logits}, **changes)
    found = model.ask(PICTURES[0], "the dog?", top_k=4)
    assert found.answers == ("e", "c", "a", "d")  # of equal ones, the lower index first
    assert found.scores == pytest.approx(1 / (1 + np.exp(-logits[0, [4, 2, 0, 3]])))
    assert found.best == ("e", pytest.approx(0.9998766))
    assert model.ask(PICTURES[0], "the dog?", top_k=99).answers == tuple("ecadbf")
    assert len(model.ask(PICTURES[0], "the dog?")) == 5


def test_a_picture_is_decoded_once_for_all_its_questions(fakes, decoded):
    model, _ = fakes()
    files = [encoded(image) for image in PICTURES]
    model.ask(files, QUESTIONS * 7, batch_size=4)
    assert sorted(decoded) == sorted(files)


def test_a_generator_of_questions_will_do(fakes):
    model, _ = fakes()
    found = model.ask(PICTURES[0], (question for question in QUESTIONS))
    assert [answers.question for answers in found] == QUESTIONS


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", [[], [0], [1], [1, 0, 1, 1, 0], [0] * 9, [1, 0] * 9], ids=str)
def test_a_picture_that_cannot_be_read_stops_no_other(fakes, good):
    model, graph = fakes()
    sources = [PICTURES[n % 7] if ok else BAD for n, ok in enumerate(good)]
    found = list(model.iter_ask(iter(sources), QUESTIONS[:2], batch_size=2))
    assert [source for source, _ in found] == sources
    for n, (ok, (_, value)) in enumerate(zip(good, found, strict=True)):
        if not ok:
            assert isinstance(value, ImageError)
            continue
        for question, answers in zip(QUESTIONS[:2], value, strict=True):
            same(answers, model.ask(PICTURES[n % 7], question))
    assert bool(graph.asked) == any(good)


def test_one_question_gives_a_stream_of_lists_of_one(fakes):
    model, _ = fakes()
    ((_, (answers,)),) = model.iter_ask([PICTURES[0]], "the dog?")
    same(answers, model.ask(PICTURES[0], "the dog?"))


@pytest.mark.parametrize(("questions", "held"), [(1, 8), (3, 2), (20, 1)])
def test_a_stream_is_read_ahead_and_no_further(fakes, questions, held):
    """Four batches of 2 pairs make a window; one is worked on, and one is read."""
    model, _ = fakes()
    taken = []
    stream = model.iter_ask(
        (taken.append(n) or PICTURES[n % 7] for n in range(40)), ["7"] * questions, batch_size=2
    )
    assert taken == []
    for number, _ in enumerate(stream):
        assert len(taken) <= (number // held + 2) * held
    assert len(taken) == 40


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda m: m.iter_ask("a.png", "7"), OptionError, "iter_ask takes several"),
        (lambda m: m.iter_ask([], "7", top_k=0), OptionError, "top_k is 0"),
        (lambda m: m.iter_ask([], "7", top_k=None), OptionError, "top_k is None"),
        (lambda m: m.iter_ask([], "7", batch_size=0), OptionError, "batch_size is 0"),
        (lambda m: m.iter_ask([], "7", batch_size=2.5), OptionError, "batch_size is 2.5"),
        (lambda m: m.iter_ask([], []), TextError, "there are no questions"),
        (lambda m: m.iter_ask([], ""), TextError, "question 0 is empty"),
        (lambda m: m.iter_ask([], ["7", " "]), TextError, "question 1 is empty"),
        (lambda m: m.iter_ask([], "\u200b"), TextError, "question 0 is empty to the tokenizer"),
        (lambda m: m.iter_ask([], ["7", 7]), TextError, "question 1 is a int"),
        (lambda m: m.iter_ask([], None), TextError, "questions must be a list of strings"),
        (lambda m: m.iter_ask([], "7\ud83d"), TextError, "lone surrogate at character 1"),
        (lambda m: m.iter_ask([], "7 " * 500), TextError, "question 0 has 502 tokens.*takes 16"),
        (lambda m: m.ask([], "7"), ImageError, "there are no pictures"),
        (lambda m: m.ask(BAD, "7"), ImageError, "^the picture in 18 bytes"),
        (lambda m: m.ask([PICTURES[0], BAD], ["7"]), ImageError, "^picture 1: the picture in 18"),
        (lambda m: m.ask(None, "7"), ImageError, "NoneType"),
        (lambda m: m.ask(np.zeros((1, 99, 3), np.uint8), "7"), ImageError, "too elongated"),
    ],
)
def test_bad_input_is_named_at_once(fakes, call, kind, says):
    model, graph = fakes()
    with pytest.raises(kind, match=says):
        call(model)
    assert len(graph.asked) <= 1  # of the pictures before the bad one


def test_a_long_question_is_cut_where_that_is_asked_for(fakes):
    model, graph = fakes()
    found = model.ask(PICTURES[0], "7 " * 500, truncate=True)
    assert graph.asked[0]["input_ids"].shape == (1, 16)
    assert found.scores == pytest.approx(model.ask(PICTURES[0], "7 " * 14).scores)


# --- match ----------------------------------------------------------------------------------------


def test_every_picture_is_matched_with_every_text(fakes):
    model, _ = fakes(MATCH)
    found = model.match(PICTURES, QUESTIONS, batch_size=4)
    assert found.texts == tuple(QUESTIONS)
    assert (found.logits.shape, found.logits.dtype) == ((7, 3), np.float32)
    for n, image in enumerate(PICTURES):
        for m, text in enumerate(QUESTIONS):
            alone = model.match(image, text)
            assert alone.logits.shape == (1, 1)
            assert found.logits[n, m] == pytest.approx(alone.logits[0, 0], abs=1e-5)
    generated = model.match(PICTURES[0], (text for text in QUESTIONS))
    assert generated.rank_texts() == [
        (text, pytest.approx(logit, abs=1e-5)) for text, logit in found.rank_texts(0)
    ]


def test_rows_of_matches_come_in_a_stream(fakes):
    model, _ = fakes(MATCH)
    (_, first), (_, error), (_, last) = model.iter_match([PICTURES[0], BAD, PICTURES[1]], QUESTIONS)
    assert isinstance(error, ImageError)
    expected = model.match(PICTURES[:2], QUESTIONS).logits
    assert np.stack([first, last]) == pytest.approx(expected, abs=1e-5)
    assert first.dtype == np.float32


@pytest.mark.parametrize(
    ("images", "texts", "kind", "says"),
    [
        ([], "7", ImageError, "there are no pictures"),
        (PICTURES, [], TextError, "there are no texts"),
        (PICTURES, None, TextError, "texts must be a list of strings"),
        (PICTURES, ["7", ""], TextError, "text 1 is empty"),
        (PICTURES, ["7 " * 99], TextError, "text 0 has 101 tokens"),
        ([PICTURES[0], BAD], "7", ImageError, "picture 1: "),
    ],
)
def test_bad_input_to_match_is_named(fakes, images, texts, kind, says):
    model, _ = fakes(MATCH)
    with pytest.raises(kind, match=says):
        model.match(images, texts)


# --- compare --------------------------------------------------------------------------------------


def test_two_pictures_are_compared_in_their_order(fakes):
    model, graph = fakes(COMPARE)
    left, right = PICTURES[1], PICTURES[2]
    found, swapped = model.compare(left, right, "the dog"), model.compare(right, left, "the dog")
    assert isinstance(found, vlrt.Classification)
    assert found.labels == ("False", "True")
    assert found.scores == pytest.approx(np.exp(found.logits) / np.exp(found.logits).sum())
    assert found.logits != pytest.approx(swapped.logits)
    (asked, _) = graph.asked
    assert (asked["pixel_values"].shape, asked["pixel_mask"].shape) == (
        (1, 2, 3, 48, 48), (1, 2, 48, 48),
    )  # fmt: skip
    assert asked["pixel_mask"].sum(axis=(2, 3)).tolist() == [[48 * 32, 32 * 48]]


@pytest.mark.parametrize(
    ("images", "statement", "kind", "says"),
    [
        ((PICTURES[0], None), "7", OptionError, "two pictures.*image_b is None"),
        ((None, PICTURES[0]), "7", OptionError, "two pictures.*image_a is None"),
        ((PICTURES[:1], PICTURES[0]), "7", OptionError, "image_a is a list of 1"),
        ((PICTURES[0], []), "7", OptionError, "image_b is a list of 0"),
        ((PICTURES[0], BAD), "7", ImageError, "picture 1: "),
        (PICTURES[:2], "", TextError, "statement 0 is empty"),
        (PICTURES[:2], ["7"], TextError, "statement 0 is a list"),
        (PICTURES[:2], "7 " * 99, TextError, "statement 0 has 101 tokens"),
    ],
)
def test_bad_input_to_compare_is_named(fakes, images, statement, kind, says):
    model, graph = fakes(COMPARE)
    with pytest.raises(kind, match=says):
        model.compare(*images, statement)
    assert not graph.asked


# --- fill -----------------------------------------------------------------------------------------


def test_every_gap_gets_its_words(fakes):
    model, graph = fakes(FILL)
    found = model.fill(PICTURES[1], GAPS, top_k=3)
    assert [answers.question for answers in found] == [GAPS, GAPS]
    (asked,) = graph.asked
    logits = graph.function(**asked)["logits"][0][[2, 5]]  # behind [CLS] and "a"; and "of"
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for answers, scores in zip(found, expected, strict=True):
        best = np.argsort(-scores, kind="stable")[:3]
        assert answers.answers == tuple(model.tokenizer.token(int(i)) for i in best)
        assert answers.scores == pytest.approx(scores[best], rel=1e-5)


@pytest.mark.parametrize(
    ("image", "text", "options", "kind", "says"),
    [
        (PICTURES[0], "", {}, TextError, "text 0 is empty"),
        (PICTURES[0], "a cat", {}, TextError, r"no \[MASK\] among the 4 tokens.*'a cat'"),
        (PICTURES[0], "7 " * 14 + "[MASK]", {}, TextError, "text 0 has 17 tokens"),
        (PICTURES[0], "7 " * 14 + "[MASK]", {"truncate": True}, TextError, r"no \[MASK\] .* 16"),
        (PICTURES[0], ["[MASK]"], {}, TextError, "text 0 is a list"),
        (PICTURES[0], "[MASK]", {"top_k": 0}, OptionError, "top_k is 0"),
        (PICTURES[:1], "[MASK]", {}, OptionError, "one picture, not a list of 1"),
        (BAD, "[MASK]", {}, ImageError, "not a picture"),
    ],
)
def test_bad_input_to_fill_is_named(fakes, image, text, options, kind, says):
    model, graph = fakes(FILL)
    with pytest.raises(kind, match=says):
        model.fill(image, text, **options)
    assert not graph.asked


def test_a_word_that_the_tokenizer_lacks_is_refused(fakes):
    words = np.zeros((1, 3, 500))
    words[..., 400] = 9
    model, _ = fakes(FILL, lambda **_: {"logits": words})
    with pytest.raises(BundleError, match="no token with the id 400"):
        model.fill(PICTURES[0], "[MASK]")


# --- bundles that do not do -----------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [ASK, COMPARE])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (None, "has no 'id2label', the words of the model's answers"),
        ({}, "has no 'id2label'"),
        ([], "has no 'id2label'"),
        ({"0": "a", "2": "b"}, "None for 1; valid: a text for each id from 0 to 1"),
        ({"1": "a"}, "None for 0"),
        ({"0": "a", "1": 7}, "7 for 1"),
    ],
    ids=str,
)
def test_the_words_of_answers_are_never_guessed(tmp_path, architecture, words, says):
    built = make(tmp_path / "bundle", architecture)
    edit_json(built.root / "config.json", id2label=words)
    with pytest.raises(BundleError, match=rf"config\.json.*{says}"):
        built.open()


@pytest.mark.parametrize(
    ("architecture", "shape", "says"),
    [
        (ASK, (1, 10), "N = 11"),
        (ASK, (1, 11, 1), "logits"),
        (MATCH, (1, 2), "logits"),
        (COMPARE, (1, 3), "N = 2"),
        (FILL, (1, 30), "logits"),
        (FILL, (1, 1, 30), "L = 7"),
    ],
)
def test_a_graph_of_other_shapes_is_refused(fakes, architecture, shape, says):
    model, _ = fakes(architecture, lambda **_: {"logits": np.zeros(shape)})
    with pytest.raises(BundleError, match=f"gives other shapes.*{says}"):
        CALLS[SERVING[architecture]](model)


@pytest.mark.parametrize("size", [0, -8, "8", [8, 8]])
def test_a_patch_size_of_no_sense_is_refused(tmp_path, size):
    built = make(tmp_path / "bundle")
    edit_json(built.root / "config.json", patch_size=size)
    with pytest.raises(BundleError, match=r"config\.json: patch_size is"):
        built.open()


def test_very_sure_answers_are_ranked_by_their_logits(fakes):
    """Their scores round to the same number."""
    logits = np.full((1, 11), -5.0)
    logits[0, 3], logits[0, 9] = 18, 25
    model, _ = fakes(ASK, lambda **_: {"logits": logits})
    found = model.ask(PICTURES[0], "7", top_k=2)
    assert found.answers == ("answer 9", "answer 3")
    assert found.scores.tolist() == [1, 1]


@pytest.mark.parametrize("architecture", VILT_TASKS)
def test_numbers_that_are_not_finite_are_refused(fakes, architecture):
    last = {ASK: (11,), MATCH: (1,), COMPARE: (2,)}

    def broken(input_ids, **_):
        shape = last.get(architecture, (input_ids.shape[1], 30))
        return {"logits": np.full((1, *shape), np.nan)}

    model, _ = fakes(architecture, broken)
    with pytest.raises(InferenceError, match=r"picture.*NaN"):
        CALLS[SERVING[architecture]](model)


def test_the_pair_with_bad_numbers_is_named(fakes):
    def graph(**inputs):
        logits = heads(11)(**inputs)["logits"]
        return {"logits": np.where(inputs["input_ids"][:, 1:2] == 7, np.nan, logits)}

    model, _ = fakes(ASK, graph)
    word = model.tokenizer.token(7)
    with pytest.raises(InferenceError, match=r"picture 0, text 1: .*NaN"):
        model.ask(PICTURES[:3], ["cat", word])


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("config.json", {"architectures": ["ViltModel"]}, "architectures"),
        ("config.json", {"patch_size": None}, "no 'patch_size'"),
        ("config.json", {"patch_size": 5}, "size_divisor is 8; valid: a multiple of .*5"),
        ("preprocessor_config.json", {"size_divisor": 4}, "size_divisor is 4"),
        ("preprocessor_config.json", {"do_pad": False}, "do_pad"),
        ("tokenizer_config.json", {"pad_token": None}, "pad_token"),
    ],
)
def test_settings_that_cannot_be_followed_are_named(tmp_path, file, changes, says):
    built = make(tmp_path / "bundle")
    edit_json(built.root / file, **changes)
    with pytest.raises(BundleError, match=says):
        built.open()


def test_values_are_refused_since_there_are_none(tmp_path):
    built = make(tmp_path / "bundle")
    with pytest.raises(OptionError, match="given: logit_scale"):
        vilt.Model(
            open_bundle(built.root), {"model": built.graph}, info={}, values={"logit_scale": 1.0}
        )


# --- threads --------------------------------------------------------------------------------------


def test_eight_threads_give_what_one_gives(fakes):
    model, _ = fakes()
    serial = [model.ask(image, QUESTIONS) for image in PICTURES]
    held = {name: id(value) for name, value in vars(model).items()}
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(model.ask, [PICTURES[n % 7]] * 2, QUESTIONS) for n in range(40)]
        for n, job in enumerate(jobs):
            for row in job.result():
                for found, expected in zip(row, serial[n % 7], strict=True):
                    same(found, expected)
    assert {name: id(value) for name, value in vars(model).items()} == held


# --- whole bundles against transformers -----------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`exported(architecture)`: a tiny checkpoint's bundle, loaded, and transformers' model."""
    transformers = pytest.importorskip("transformers")
    from vlrt_export import pipeline, reference

    def made(architecture):
        root = write_vilt_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", architecture)
        out = tmp_path_factory.mktemp("bundles") / "tiny"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "missing", lambda: ["torch"])  # proved in tests/export
            pipeline.export(str(root), out, precisions=["fp32"], say=lambda line: None)
        theirs = getattr(transformers, architecture).from_pretrained(root).eval()
        processor = transformers.ViltImageProcessorPil.from_pretrained(root)
        tokenizer = transformers.BertTokenizer.from_pretrained(root)

        def logits(images, text):
            import torch

            inputs = {
                **processor(images, return_tensors="pt"),
                **tokenizer(text, return_tensors="pt"),
            }
            if len(images) > 1:
                inputs |= {name: inputs[name][None] for name in ("pixel_values", "pixel_mask")}
            with torch.inference_mode():
                return theirs(**inputs).logits[0].numpy()

        return vlrt.load(out, precision="fp32", device="cpu", threads=1), logits

    return made


@pytest.mark.torch
def test_answers_are_those_of_transformers(exported):
    model, logits = exported(ASK)
    assert model.info["task"] == "visual-question-answering"
    for image, row in zip(PICTURES, model.ask(PICTURES, QUESTIONS, top_k=11), strict=True):
        for question, answers in zip(QUESTIONS, row, strict=True):
            scores = 1 / (1 + np.exp(-logits([image], question).astype(np.float64)))
            places = [int(word.removeprefix("answer ")) for word in answers.answers]
            assert sorted(places) == list(range(11))
            assert answers.scores == pytest.approx(scores[places], abs=VILT_SCORE_ABS["fp32"])


@pytest.mark.torch
def test_matches_are_those_of_transformers(exported):
    model, logits = exported(MATCH)
    found = model.match(PICTURES, QUESTIONS)
    expected = [[logits([image], text)[0] for text in QUESTIONS] for image in PICTURES]
    assert found.logits == pytest.approx(np.array(expected), abs=VILT_ABS["fp32"])


@pytest.mark.torch
def test_comparisons_are_those_of_transformers(exported):
    model, logits = exported(COMPARE)
    for left, right in pairwise(PICTURES):
        found = model.compare(left, right, QUESTIONS[1])
        expected = logits([left, right], QUESTIONS[1])
        assert found.logits == pytest.approx(expected, abs=VILT_ABS["fp32"])


@pytest.mark.torch
def test_gaps_are_filled_as_by_transformers(exported):
    model, logits = exported(FILL)
    for image in PICTURES:
        expected = logits([image], GAPS)[[2, 5]].astype(np.float64)
        expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
        for answers, scores in zip(model.fill(image, GAPS, top_k=999), expected, strict=True):
            assert len(answers) == len(scores)
            ordered = np.sort(scores)[::-1]
            assert answers.scores == pytest.approx(ordered, abs=VILT_SCORE_ABS["fp32"])
            best = model.tokenizer.token(int(scores.argmax()))
            assert answers.best[0] == best
