"""From bodies to requests, without a server: JSON and forms end in the same, or in an error."""

import asyncio
import json
import tracemalloc
from contextlib import suppress

import pytest

pytest.importorskip("fastapi", reason="needs the server extra")

from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from vlrt.errors import LimitError, OptionError, RequestError, TextError
from vlrt.server.fields import Address
from vlrt.server.reading import check_limits, parsed_form, told
from vlrt.server.reading import read as understood
from vlrt.server.schemas import (
    AskRequest,
    ClassifyRequest,
    DetectRequest,
    EmbeddingsRequest,
    MatchRequest,
)
from vlrt.server.settings import Settings
from vlrt.server.strict_json import Bounds, bounds_of, parsed_json

REFUSALS = (LimitError, OptionError, RequestError, TextError)
SETTINGS = Settings(max_images=3, max_labels=20, max_prompts=40, max_text_chars=30)
BOUNDARY = "a-boundary-of-the-tests"
FORM = f"multipart/form-data; boundary={BOUNDARY}"

texts = st.text(min_size=1, max_size=12)
some = st.lists(texts, min_size=1, max_size=4, unique=True)
unit = st.floats(0, 1) | st.integers(0, 1)


def form(fields):
    """A form's body of (name, text) pairs."""
    lines = []
    for name, text in fields:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        lines.append(head.encode() + text.encode() + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def maybe(**fields):
    """Requests with some of these fields."""
    return st.fixed_dictionaries({"image": texts}, optional=fields)


templates = st.lists(texts, min_size=1, max_size=3) | st.dictionaries(
    texts, st.lists(texts, min_size=1, max_size=2), min_size=1, max_size=2
)
REQUESTS = [
    (ClassifyRequest, maybe(labels=some, templates=templates, top_k=st.integers(1))),
    (
        DetectRequest,
        maybe(
            labels=some,
            threshold=unit | st.lists(unit, max_size=3) | st.dictionaries(texts, unit, max_size=3),
            iou_threshold=unit | st.none(),
            class_agnostic=st.booleans(),
            soft_nms=st.floats(1e-6, 1e6) | st.none(),
            top_k=st.integers(1) | st.none(),
            model=texts,
            truncate=st.booleans(),
        ),
    ),
    (
        DetectRequest,
        maybe(
            examples=st.lists(
                st.fixed_dictionaries(
                    {"box": st.lists(st.floats(0, 1e4), min_size=4, max_size=4)},
                    optional={"name": texts},
                ),
                min_size=1,
                max_size=3,
            )
        ),
    ),
    (AskRequest, maybe(question=texts, truncate=st.booleans())),
    (AskRequest, maybe(questions=some, top_k=st.integers(1, 9))),
    (MatchRequest, maybe(texts=some)),
]


def read(model, raw):
    """The request, or why it is refused."""
    from pydantic import ValidationError

    try:
        return model.model_validate(raw)
    except ValidationError as error:
        return told(error, model)


@pytest.mark.parametrize(("model", "requests"), REQUESTS)
@given(data=st.data())
def test_json_and_forms_end_in_the_same(model, requests, data):
    body = data.draw(requests)
    by_json = read(model, parsed_json(json.dumps(body).encode(), bounds_of(SETTINGS)))
    # Lists as JSON in one field, and repeated: of one text alone the second is the first as it is.
    one_field = [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in body.items()
    ]
    assert read(model, parsed_form(form(one_field), FORM, SETTINGS)) == by_json
    repeated = []
    for name, value in body.items():
        if isinstance(value, list) and len(value) > 1:
            repeated += [(name, x if isinstance(x, str) else json.dumps(x)) for x in value]
        else:
            repeated.append((name, value if isinstance(value, str) else json.dumps(value)))
    assert read(model, parsed_form(form(repeated), FORM, SETTINGS)) == by_json


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_whatever_the_bytes_json_is_read_or_refused(body):
    try:
        value = parsed_json(body, bounds_of(SETTINGS))
    except (RequestError, TextError):
        return
    assert json.loads(body) == value


@given(
    st.binary(max_size=200),
    st.sampled_from([FORM, "multipart/form-data", "multipart/form-data; boundary=", f"{FORM}; x"]),
    st.sampled_from([b"", b"--a-boundary-of-the-tests", b"--a-boundary-of-the-tests\r\n"]),
)
def test_whatever_the_bytes_a_form_is_read_or_refused(body, content_type, begins):
    with suppress(*REFUSALS):
        assert isinstance(parsed_form(begins + body, content_type, SETTINGS), dict)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "model", [ClassifyRequest, DetectRequest, AskRequest, MatchRequest, EmbeddingsRequest]
)
@given(data=st.data())
def test_whatever_the_fields_a_request_is_read_or_refused(model, data):
    fields = dict.fromkeys(model.model_fields, junk)
    body = data.draw(st.fixed_dictionaries({}, optional=fields) | junk)
    asked = read(model, body)
    if isinstance(asked, str):
        assert asked
        return
    with suppress(LimitError):
        check_limits(asked, SETTINGS)


def test_pictures_are_here_or_are_to_be_fetched():
    for given_, source in [
        ("aGk=", "aGk="),
        ("data:,", "data:,"),
        ("https://example.org/a", Address("https://example.org/a")),
        ("http://example.org/a", Address("http://example.org/a")),
        ({"url": "https://example.org/a"}, Address("https://example.org/a")),
        ({"url": "file:///etc/passwd"}, Address("file:///etc/passwd")),
        ({"url": "data:,"}, "data:,"),
    ]:
        assert AskRequest(image=given_, question="why?").sources == [source]


def test_a_file_is_bytes_and_a_field_is_text():
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    body = (
        f'{head}"image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'.encode()
        + b"\x89PNG\r\n\0\xff\r\n"
        + f'{head}"image"\r\n\r\naGk=\r\n--{BOUNDARY}--'.encode()
    )
    assert parsed_form(body, FORM, SETTINGS) == {"images": [b"\x89PNG\r\n\0\xff", "aGk="]}


def test_the_number_of_parts_is_bounded():
    most = 3 + 2 * 20 + 40 + 20
    assert len(parsed_form(form([("labels", "a")] * most), FORM, SETTINGS)["labels"]) == most
    with pytest.raises(LimitError, match=f"more than {most} parts"):
        parsed_form(form([("labels", "a")] * (most + 1)), FORM, SETTINGS)


def test_many_mistakes_are_told_up_to_a_number():
    wrong = dict.fromkeys(("a", "b", "c", "d", "e", "f", "g"), 1)
    message = read(ClassifyRequest, {"image": "a", "labels": ["a"], **wrong})
    assert message.count("is no field") == 5
    assert message.endswith("; and 2 more")


@pytest.mark.parametrize("value", ["1", "{}", "[]", '{"x":1}', '"a"', "null", "1e9"])
@pytest.mark.parametrize("field", ["labels", "images", "templates", "examples", "threshold"])
def test_of_a_list_one_mistake_is_told(field, value):
    """However many there are: a body of megabytes is no more work than to read it once."""
    wide = Bounds(10**6, 10**7, 10**7)
    raw = parsed_json(f'{{"{field}": [{",".join([value] * 20_000)}]}}'.encode(), wide)
    message = read(DetectRequest, raw)
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" + b"0," * 200_000 + b"0]", "commas"),
        (b"[" + b"{}," * 1000 + b"0]", "152 objects"),
        (b"{" + b",".join(b'"%d":0' % n for n in range(1001)) + b"}", "1001 keys"),
        (b'[{"a": {' + b",".join(b'"%d":0' % n for n in range(1001)) + b"}}]", "1001 keys"),
    ],
)
def test_a_small_body_is_no_large_load(body, words):
    with pytest.raises(LimitError, match=words):
        parsed_json(body, bounds_of(SETTINGS))
    with pytest.raises(LimitError, match=words):
        parsed_form(form([("threshold", body.decode())]), FORM, SETTINGS)


def test_the_fields_of_a_form_are_no_larger_a_load_together():
    most = 100 + 4 * 3 + 40
    few = [("examples", json.dumps([{}] * (most // 3)))] * 3
    assert len(parsed_form(form(few), FORM, SETTINGS)["examples"]) == 3
    with pytest.raises(LimitError, match=f"more than {most} objects"):
        parsed_form(form([*few, ("threshold", "{}")] * 2), FORM, SETTINGS)


@pytest.mark.parametrize("text", ["1" * 501, "-" + "1" * 4000, '[{"a":[' + "9" * 4000 + "]}]"])
def test_a_number_of_too_many_digits_is_refused(text):
    """Python takes time by the square of their number for each of them."""
    with pytest.raises(RequestError, match="digits, of which 500 are valid"):
        parsed_json(text.encode(), bounds_of(SETTINGS))
    assert parsed_json(b"1" * 500, bounds_of(SETTINGS)) == int("1" * 500)


@pytest.mark.parametrize(
    "text", [r'"\ud83d"', r'{"\ude00": 1}', r'[0, [{"a": "b\uD83D"}]]', r'"\ude00\ud83d"']
)
def test_a_lone_surrogate_is_found_wherever_it_is(text):
    with pytest.raises(TextError, match="lone surrogate"):
        parsed_json(text.encode(), bounds_of(SETTINGS))


@pytest.mark.parametrize("text", [r'"\ud83d\ude00"', r'"\\ud83d"', r'{"\uD83D\uDE00": [1]}'])
def test_what_is_no_lone_surrogate_is_taken(text):
    assert parsed_json(text.encode(), bounds_of(SETTINGS)) == json.loads(text)


def test_the_body_is_let_go_of_once_it_is_understood():
    """Its picture is kept while it waits for others, and not the text around it as well."""
    body = json.dumps({"image": "A" * 2**22, "labels": ["a"]}).encode()
    messages = [
        {"type": "http.request", "body": body[: 2**21], "more_body": True},
        {"type": "http.request", "body": body[2**21 :], "more_body": False},
    ]

    async def receive():
        return messages.pop(0)

    async def kept():
        scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
        request = Request(scope, receive)
        tracemalloc.start()
        try:
            asked = await understood(request, ClassifyRequest, SETTINGS)
            for _ in range(1000):  # the thread that read it lets go of it in its own time
                size = tracemalloc.get_traced_memory()[0]
                if size < 1.5 * 2**22:
                    break
                await asyncio.sleep(0.005)
            return asked, request, size
        finally:
            tracemalloc.stop()

    asked, _, size = asyncio.run(kept())
    assert len(asked.image) == 2**22
    assert 2**22 <= size < 1.5 * 2**22


def test_long_values_are_told_shortly():
    for value in ("x" * 10**6, list(range(10**5)), {"x" * 10**5: 1}):
        assert len(read(ClassifyRequest, {"image": "a", "labels": value})) < 300
    assert len(read(ClassifyRequest, {"image": "a", "labels": ["a"], "x" * 10**5: 1})) < 300
