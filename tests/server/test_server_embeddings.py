"""Embeddings by OpenAI's own client, on a real server: the library's, bit for bit."""

import base64
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the server extra")
openai = pytest.importorskip("openai", reason="the client that the server speaks to")

MODEL = "clip-demo"
TEXTS = ["a red circle", "a blue square and a green star", "a circle", "two hearts"]


@pytest.fixture
def ai(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def url_of(path):
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def shown(path):
    return {"type": "image_url", "image_url": {"url": url_of(path)}}


def rows(answer):
    """The embeddings of an answer as float32, which takes nothing away: they were float32."""
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    assert {one.object for one in answer.data} == {"embedding"}
    return np.array([one.embedding for one in answer.data], np.float64)


def assert_equal(given, expected):
    assert given.shape == expected.shape
    assert (given == given.astype(np.float32)).all()
    assert given.astype(np.float32).tobytes() == expected.astype(np.float32).tobytes()


@contextmanager
def refused(error, words):
    """Expect an error of the client's, whose problem says this."""
    with pytest.raises(error) as caught:
        yield
    assert re.search(words, caught.value.response.json()["detail"])
    assert re.search(words, caught.value.message)  # what the client shows


# The client asks for base64, and decodes it, unless it is told a format.
@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_texts(options, ai, library):
    answer = ai.embeddings.create(model=MODEL, input=TEXTS, **options)
    assert (answer.object, answer.model) == ("list", MODEL)
    assert_equal(rows(answer), library[MODEL].encode_texts(TEXTS))
    lengths = np.linalg.norm(rows(answer), axis=1)
    assert lengths == pytest.approx(1, abs=1e-6)
    tokens = sum(len(ids) for ids in library[MODEL].tokenizer.ids(TEXTS))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens


def test_one_text(ai, library):
    answer = ai.embeddings.create(model=MODEL, input=TEXTS[0], user="somebody")
    assert_equal(rows(answer), library[MODEL].encode_texts(TEXTS[:1]))


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_pictures_and_texts_keep_their_order(options, ai, library, scenes):
    clip, (first, last) = library[MODEL], (scenes[0], scenes[-1])
    given = [shown(first), TEXTS[0], {"type": "text", "text": TEXTS[1]}, shown(last)]
    answer = ai.embeddings.create(model=MODEL, input=given, **options)
    texts = clip.encode_texts(TEXTS[:2])
    pictures = [clip.encode_images([one]) for one in (first, last)]
    assert_equal(rows(answer), np.concatenate([pictures[0], texts, pictures[1]]))
    tokens = sum(len(ids) for ids in clip.tokenizer.ids(TEXTS[:2]))
    assert answer.usage.prompt_tokens == tokens


def test_pictures_alone_have_no_tokens(ai, scenes):
    answer = ai.embeddings.create(model=MODEL, input=[shown(scenes[0])])
    assert answer.usage.total_tokens == 0


def test_base64_is_of_little_endian_float32(client, library):
    body = {"input": TEXTS[0], "encoding_format": "base64"}
    text = client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    expected = library[MODEL].encode_texts(TEXTS[:1])[0]
    assert base64.b64decode(text, validate=True) == expected.astype("<f4").tobytes()


def test_many_at_once(ai, library, scenes):
    clip = library[MODEL]

    def ask(number):
        scene = scenes[number % len(scenes)]
        text = f"{TEXTS[number % len(TEXTS)]} {'and more ' * (number % 3)}"
        answer = ai.embeddings.create(model=MODEL, input=[text, shown(scene)])
        return rows(answer), np.concatenate(
            [clip.encode_texts([text]), clip.encode_images([scene])]
        )

    with ThreadPoolExecutor(32) as pool:
        for given, expected in pool.map(ask, range(32)):
            assert_equal(given, expected)


def test_its_dimensions_may_be_stated_but_not_changed(ai, library):
    number = library[MODEL].encode_texts(TEXTS).shape[1]
    answer = ai.embeddings.create(model=MODEL, input=TEXTS, dimensions=number)
    assert rows(answer).shape == (len(TEXTS), number)
    with refused(openai.UnprocessableEntityError, f"dimensions is 5; valid: {number}"):
        ai.embeddings.create(model=MODEL, input=TEXTS, dimensions=5)


def test_long_texts_are_cut_only_if_that_is_asked_for(ai, library):
    long = "word " * 200
    with refused(openai.UnprocessableEntityError, "tokens"):
        ai.embeddings.create(model=MODEL, input=long)
    answer = ai.embeddings.create(model=MODEL, input=long, extra_body={"truncate": True})
    clip = library[MODEL]
    assert_equal(rows(answer), clip.encode_texts([long], truncate=True))
    assert answer.usage.prompt_tokens == clip.tokenizer.max_length


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, 2, 3], "'input.0' must be a text.*token ids are not taken"),
        ([[1, 2, 3]], "'input.0' must be a text.*token ids are not taken"),
        ([], "'input' is an empty list"),
        ("", "'input' is an empty text"),
        ("  ", "text 0 is empty"),
        (["a", ""], "'input.1' is an empty text"),
        ([None], "'input.0' must be a text"),
        ([{"type": "text"}], "'input.0.text' is missing"),
        ([{"type": "text", "text": "a", "x": 1}], "'input.0.x' is no field"),
        ([{"type": "video", "text": "a"}], "'input.0' must be a text"),
        ([{"type": "input_image", "image_url": "data:,"}], "'input.0' must be a text"),
        ([{"type": "image_url", "image_url": "data:,"}], "'input.0.image_url' must be an object"),
        (["a", {"type": "image_url", "image_url": {"url": "data:,"}}], "input 1: 'data:'"),
        (["a", {"type": "image_url", "image_url": {"url": "aGk="}}], "input 1: the picture in 2"),
    ],
)
def test_an_input_that_is_wrong_is_named(given, words, ai):
    with refused(openai.UnprocessableEntityError, words):
        ai.embeddings.create(model=MODEL, input=given)


def test_a_truncated_picture_is_named(client, scenes):
    broken = base64.b64encode(scenes[0].read_bytes()[:2000]).decode()
    url = f"data:image/jpeg;base64,{broken}"
    given = ["a", {"type": "image_url", "image_url": {"url": url}}]
    response = client.post("/v1/embeddings", json={"input": given})
    problem = response.json()
    assert (response.status_code, problem["error"]["type"]) == (422, "ImageError")
    assert problem["detail"].startswith("input 1: ")
    assert "truncated" in problem["detail"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"encoding_format": "int8"}, "'encoding_format'"),
        ({"encoding_format": None}, "'encoding_format'"),
        ({"dimensions": "64"}, "'dimensions'"),
        ({"dimensions": 0}, "'dimensions'"),
        ({"user": 5}, "'user'"),
        ({"truncate": 1}, "'truncate'"),
        ({"dog": 1}, "'dog' is no field"),
        ({"input": ...}, "'input' is missing"),
        ({"input": None}, "'input' must be a text"),
        ({"input": {"type": "text", "text": "a"}}, "'input' must be a text"),
    ],
)
def test_a_field_that_is_wrong_is_named(changed, words, client):
    body = {"model": MODEL, "input": "a", **changed}
    body = {name: value for name, value in body.items() if value is not ...}
    response = client.post("/v1/embeddings", json=body)
    assert (response.status_code, response.json()["error"]["type"]) == (422, "OptionError")
    assert words in response.json()["detail"]


def test_a_model_without_embeddings_is_not_found(ai):
    with refused(openai.NotFoundError, "does not serve embeddings; valid: clip-demo"):
        ai.embeddings.create(model="owlvit-demo", input="a")


def test_a_form_is_not_taken(client):
    response = client.post("/v1/embeddings", files={"input": (None, "a")})
    assert response.status_code == 415
    assert response.json()["detail"].endswith("valid: application/json")


def test_its_list_of_models(ai):
    assert [one.id for one in ai.models.list()] == ["clip-demo", "owlvit-demo", "vilt-demo"]
    assert ai.models.retrieve(MODEL).owned_by == "vlrt"


def test_a_key(serve):
    key = "a key that nobody guesses".replace(" ", "-")
    url = f"{serve(api_keys=[key]).url}/v1"
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as ai:
        assert len(ai.embeddings.create(model=MODEL, input=TEXTS).data) == len(TEXTS)
    with (
        openai.OpenAI(base_url=url, api_key="another", max_retries=0) as ai,
        pytest.raises(openai.AuthenticationError),
    ):
        ai.embeddings.create(model=MODEL, input=TEXTS)


def test_limits_hold(serve, client_of, scenes):
    client = client_of(serve(max_images=1, max_prompts=2, max_text_chars=10))
    requests = [
        (["a", "b", "c"], "max_prompts"),
        (["a", {"type": "text", "text": "b"}, "c"], "max_prompts"),
        ("a" * 11, "max_text_chars"),
        ([{"type": "text", "text": "a" * 11}], "max_text_chars"),
        ([shown(scenes[0]), shown(scenes[1])], "max_images"),
    ]
    for given, words in requests:
        response = client.post("/v1/embeddings", json={"input": given})
        assert (response.status_code, response.json()["error"]["type"]) == (413, "LimitError")
        assert words in response.json()["detail"]
    assert client.post("/v1/embeddings", json={"input": ["a", "b"]}).status_code == 200


def test_overload_is_told_as_openai_s_clients_expect(serve, client_of, scenes):
    """503 with Retry-After, after which they try again by themselves."""
    server = serve(queue_length=1)
    client = client_of(server)
    session = server.context.catalogue.get(MODEL).graphs["vision_model"].session
    run, began, goes_on = session.run, threading.Event(), threading.Event()

    def slow(inputs):
        began.set()
        assert goes_on.wait(60)
        return run(inputs)

    session.run = slow
    body = json.dumps({"input": [shown(scenes[0])]})
    headers = {"Content-Type": "application/json"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/embeddings", content=body, headers=headers)
        assert began.wait(60)
        refused = client.post("/v1/embeddings", content=body, headers=headers)
        goes_on.set()
        assert first.result().status_code == 200
    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "OverloadError"
    assert int(refused.headers["retry-after"]) >= 1
