"""The tasks over HTTP, on a real server: the library's results bit for bit, and errors that say."""

import asyncio
import base64
import gzip
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the server extra")

from pictures import ELONGATED_WH, FILES, encoded, picture

import vlrt
from vlrt.errors import ImageError
from vlrt.results import Detections
from vlrt.server import tasks
from vlrt.server.models import Served

httpx = pytest.importorskip("httpx", reason="the tests' client")
CLIP, OWL, VILT = "clip-demo", "owlvit-demo", "vilt-demo"
LABELS = ["a red circle", "a blue square", "a green star", "a yellow heart"]
QUESTIONS = ["what color is the circle?", "how many shapes are there?"]
PROBLEM = "application/problem+json"


def in_json(data):
    return base64.b64encode(data).decode()


def assert_same(given, expected):
    """JSON from a server and the library's: the same, and numbers as float32 bit for bit."""
    if isinstance(expected, float):
        assert isinstance(given, float)
        assert np.float32(given).tobytes() == np.float32(expected).tobytes()
    elif isinstance(expected, dict):
        assert list(given) == list(expected)
        for key, value in expected.items():
            assert_same(given[key], value)
    elif isinstance(expected, list):
        assert len(given) == len(expected)
        for one, other in zip(given, expected, strict=True):
            assert_same(one, other)
    else:
        assert given == expected
        assert type(given) is type(expected)


def _named(problem):
    """The error's name; where OpenAI's clients ask, it is within an object."""
    error = problem["error"]
    return error["type"] if isinstance(error, dict) else error


def assert_problem(response, status, error, *words):
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith(PROBLEM)
    problem = response.json()
    assert problem["status"] == status
    assert _named(problem) == error, problem
    for word in words:
        assert word in problem["detail"]


def classified(library, data, top=None, **options):
    found = library[CLIP].classify(data, LABELS, **options).to_dict()
    return {"labels": found["labels"][:top]}


# A request without its picture, and what the library says of a picture.
TASKS = {
    "classify": (
        "classify",
        {"labels": LABELS},
        classified,
    ),
    "classify, the best two, with templates": (
        "classify",
        {"labels": LABELS, "templates": ["a photo of {}", "{}, drawn"], "top_k": 2},
        lambda library, data: classified(
            library, data, 2, templates=["a photo of {}", "{}, drawn"]
        ),
    ),
    "classify, with templates of each label": (
        "classify",
        {"labels": LABELS, "templates": {label: ["{}"] for label in LABELS}},
        classified,
    ),
    "detect": (
        "detect",
        {"labels": LABELS},
        lambda library, data: library[OWL].detect(data, LABELS).to_dict(),
    ),
    "detect, with options": (
        "detect",
        {
            "labels": LABELS,
            "threshold": 0.05,
            "iou_threshold": 0.4,
            "class_agnostic": True,
            "multi_label": True,
            "top_k": 7,
        },
        lambda library, data: (
            library[OWL]
            .detect(
                data,
                LABELS,
                threshold=0.05,
                iou_threshold=0.4,
                class_agnostic=True,
                multi_label=True,
                top_k=7,
            )
            .to_dict()
        ),
    ),
    "detect, a threshold a label": (
        "detect",
        {"labels": LABELS, "threshold": [0.1, 0.2, 0, 1], "soft_nms": 0.5},
        lambda library, data: (
            library[OWL].detect(data, LABELS, threshold=[0.1, 0.2, 0, 1], soft_nms=0.5).to_dict()
        ),
    ),
    "detect, thresholds by label": (
        "detect",
        {"labels": LABELS, "threshold": dict.fromkeys(LABELS, 0.01)},
        lambda library, data: library[OWL].detect(data, LABELS, threshold=0.01).to_dict(),
    ),
    "ask": (
        "ask",
        {"question": QUESTIONS[0]},
        lambda library, data: [library[VILT].ask(data, QUESTIONS[0]).to_dict()],
    ),
    "ask twice": (
        "ask",
        {"questions": QUESTIONS, "top_k": 2},
        lambda library, data: [
            one.to_dict() for one in library[VILT].ask(data, QUESTIONS, top_k=2)
        ],
    ),
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_a_task_gives_what_the_library_gives(name, form, client, library, scenes):
    task, body, expected = TASKS[name]
    pictures = [scenes[0].read_bytes(), scenes[-1].read_bytes()]
    for some in (pictures[:1], pictures):
        if form:
            response = client.post(f"/v1/{task}", files=in_form(body, some))
        else:
            several = [in_json(one) for one in some]
            shown = {"image": several[0]} if len(some) == 1 else {"images": several}
            response = client.post(f"/v1/{task}", json={**body, **shown})
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["model"] == {"classify": CLIP, "detect": OWL, "ask": VILT}[task]
        assert_same(answer["results"], [expected(library, one) for one in some])


def in_form(body, pictures):
    """A request as a form: lists of texts repeated, the rest as JSON."""
    fields = [("image", ("picture.jpg", one, "image/jpeg")) for one in pictures]
    for name, value in body.items():
        texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
        fields += [
            (name, (None, one if isinstance(one, str) else json.dumps(one)))
            for one in (value if texts and len(value) > 1 else [value])
        ]
    return fields


@pytest.mark.parametrize("number", [1, 2])
def test_a_picture_has_several_forms_in_json(number, client, library, scenes):
    data = scenes[0].read_bytes()
    text = in_json(data)
    for one in (text, f"data:image/jpeg;base64,{text}", {"url": f"data:;base64,{text}"}):
        shown = {"image": one} if number == 1 else {"images": [one] * number}
        response = client.post("/v1/classify", json={"labels": LABELS, **shown})
        assert_same(response.json()["results"], [classified(library, data)] * number)


@pytest.mark.parametrize("kind", FILES)
def test_pictures_of_every_kind(kind, client, library):
    data = FILES[kind]()
    answer = client.post("/v1/classify", files=in_form({"labels": LABELS}, [data])).json()
    assert_same(answer["results"], [classified(library, data)])


@pytest.mark.parametrize("size_wh", ELONGATED_WH)
def test_pictures_of_every_shape(size_wh, client, library):
    """What the library refuses is the picture's fault, and is told; nothing is the server's."""
    data = encoded(picture(size_wh=size_wh))
    for task, body in GOOD.items():
        response = client.post(f"/v1/{task}", files=in_form(body, [data]))
        try:
            if task == "classify":
                expected = classified(library, data)
            elif task == "detect":
                expected = library[OWL].detect(data, LABELS).to_dict()
            else:
                expected = [library[VILT].ask(data, "what?").to_dict()]
        except ImageError as error:
            assert_problem(response, 422, "ImageError", str(error))
        else:
            assert_same(response.json()["results"], [expected])


def test_an_example_is_found(client, library, scenes):
    owl, (searched, other) = library[OWL], (scenes[0].read_bytes(), scenes[-1].read_bytes())
    box = [10.0, 20.5, 90, 110]
    requests = [
        # the examples in a request, and as the library has them
        ([{"image": in_json(other)}], [other], ["example 0"], [None]),
        (
            [{"image": in_json(other), "name": "thing"}, {"image": in_json(searched), "box": box}],
            [other, searched],
            ["thing", "example 1"],
            [None, box],
        ),
        ([{"box": box, "name": "here"}], [searched], ["here"], [box]),
        ([{"box": box}, {"image": in_json(other)}], [searched, other], None, [box, None]),
    ]
    for examples, pictures, names, boxes in requests:
        labels = owl.encode_examples(pictures, names=names, boxes=boxes)
        for options in ({}, {"threshold": 0.2, "iou_threshold": None, "top_k": 3}):
            body = {"image": in_json(searched), "examples": examples, **options}
            response = client.post("/v1/detect", json=body)
            assert response.status_code == 200, response.text
            expected = owl.detect_like(searched, labels, **options).to_dict()
            assert expected["detections"]
            assert_same(response.json()["results"], [expected])


def test_examples_come_by_form_too(client, library, scenes):
    owl, searched = library[OWL], scenes[0].read_bytes()
    box = [10, 20, 90, 110]
    expected = owl.detect_like(searched, owl.encode_examples([searched], boxes=[box])).to_dict()
    for text in (json.dumps({"box": box}), json.dumps([{"box": box}])):
        fields = [("image", ("a.jpg", searched)), ("examples", (None, text))]
        assert_same(client.post("/v1/detect", files=fields).json()["results"], [expected])


def test_many_at_once_get_what_each_would_alone(server, library, scenes):
    """32 requests of mixed tasks and pictures, which run in batches with each other."""
    wanted = []
    for number in range(32):
        name = list(TASKS)[number % len(TASKS)]
        task, body, expected = TASKS[name]
        data = scenes[number % len(scenes)].read_bytes()
        wanted.append((task, {**body, "image": in_json(data)}, expected(library, data)))

    async def ask():
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            posts = (client.post(f"/v1/{task}", json=body) for task, body, _ in wanted)
            return await asyncio.gather(*posts)

    for response, (_, _, expected) in zip(asyncio.run(ask()), wanted, strict=True):
        assert response.status_code == 200, response.text
        assert_same(response.json()["results"], [expected])


def test_a_poisoned_picture_fails_alone(server, library, scenes):
    data = [scenes[number % len(scenes)].read_bytes() for number in range(32)]
    data[13] = data[13][: len(data[13]) // 2]

    async def ask():
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            bodies = ({"labels": LABELS, "image": in_json(one)} for one in data)
            posts = (client.post("/v1/classify", json=body) for body in bodies)
            return await asyncio.gather(*posts)

    for number, response in enumerate(asyncio.run(ask())):
        if number == 13:
            assert_problem(response, 422, "ImageError", "truncated")
        else:
            assert response.status_code == 200, response.text
            assert_same(response.json()["results"], [classified(library, data[number])])


def test_a_poisoned_picture_among_several_is_named(client, scenes):
    good = scenes[0].read_bytes()
    for bad in (good[: len(good) // 2], b"no picture at all"):
        body = {"labels": LABELS, "images": [in_json(one) for one in (good, good, bad)]}
        assert_problem(client.post("/v1/classify", json=body), 422, "ImageError", "picture 2: ")


def test_a_poisoned_example_is_named(client, scenes):
    good = scenes[0].read_bytes()
    for bad in (good[: len(good) // 2], b"no picture at all"):
        examples = [{"box": [0, 0, 50, 50]}, {"image": in_json(good)}, {"image": in_json(bad)}]
        body = {"image": in_json(good), "examples": examples}
        assert_problem(client.post("/v1/detect", json=body), 422, "ImageError", "example 2: ")
        body["examples"] = examples[1:]
        assert_problem(client.post("/v1/detect", json=body), 422, "ImageError", "example 1: ")


def test_a_picture_that_is_its_own_example_is_seen_once(serve, client_of, scenes):
    server = serve()
    session = server.context.catalogue.get(OWL).graphs["vision_model"].session
    run, rows = session.run, []

    def counted(inputs):
        rows.append(len(inputs["pixel_values"]))
        return run(inputs)

    session.run = counted
    body = {"image": in_json(scenes[0].read_bytes()), "examples": [{"box": [10, 20, 90, 110]}]}
    assert client_of(server).post("/v1/detect", json=body).status_code == 200
    assert rows == [1]


def test_stages_are_told(client, scenes):
    body = {"labels": LABELS, "image": in_json(scenes[0].read_bytes())}
    header = client.post("/v1/classify", json=body).headers["server-timing"]
    stages = dict(one.split(";dur=") for one in header.split(", "))
    assert list(stages) == ["wait", "prepare", "queue", "run", "finish", "total"]
    assert all(float(milliseconds) >= 0 for milliseconds in stages.values())
    assert float(stages["run"]) > 0
    assert float(stages["total"]) >= float(stages["run"])


def test_models_are_listed(client, library):
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == [CLIP, OWL, VILT]
    methods = {one["id"]: one["methods"] for one in listed["data"]}
    assert methods == {CLIP: ["classify", "embeddings"], OWL: ["detect"], VILT: ["ask"]}
    for one in listed["data"]:
        assert client.get(f"/v1/models/{one['id']}").json() == one
        assert one["object"] == "model"
        assert one["precision"] == library[one["id"]].info["precision"]
    assert_problem(client.get("/v1/models/dog"), 404, "NotServedError", "'dog'", CLIP)


@pytest.fixture(scope="module")
def matcher(tmp_path_factory):
    """The bundle of a tiny ViLT that matches pictures and texts."""
    pytest.importorskip("safetensors", reason="checkpoints are written by safetensors")
    pytest.importorskip("onnx", reason="bundles are written by onnx")
    from checkpoints import write_vilt_checkpoint

    from vlrt_export import pipeline, reference

    root = tmp_path_factory.mktemp("matcher")
    checkpoint = write_vilt_checkpoint(root / "checkpoint", "ViltForImageAndTextRetrieval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "missing", lambda: ["torch"])
        pipeline.export(str(checkpoint), root / "bundle", say=lambda line: None)
    return root / "bundle"


def test_pictures_and_texts_are_matched(matcher, serve, client_of):
    client = client_of(serve(models=[{"name": "tiny", "source": str(matcher)}]))
    model = vlrt.load(matcher)
    assert client.get("/v1/models/tiny").json()["methods"] == ["match"]
    pictures = [encoded(picture()), encoded(picture(size_wh=(200, 100), seed=1))]
    shown = [in_json(one) for one in pictures]
    texts = ["a b", "b c d", "a"]
    requests = [
        ({"image": shown[0], "text": texts[0]}, pictures[:1], texts[:1]),
        ({"images": shown, "texts": texts}, pictures, texts),
    ]
    for body, some, asked in requests:
        response = client.post("/v1/match", json=body)
        assert response.status_code == 200, response.text
        expected = [model.match(one, asked).to_dict()["images"][0] for one in some]
        assert_same(response.json()["results"], expected)
    fields = [("image", ("a", pictures[0])), ("texts", (None, json.dumps(texts)))]
    expected = model.match(pictures[0], texts).to_dict()["images"]
    assert_same(client.post("/v1/match", files=fields).json()["results"], expected)
    long = {"image": shown[0], "text": "a " * 100}
    assert_problem(client.post("/v1/match", json=long), 422, "TextError", "tokens")
    assert client.post("/v1/match", json={**long, "truncate": True}).status_code == 200


def test_a_detector_of_one_graph_gets_its_labels_as_they_are(serve, client_of):
    """As foreign bundles have it: labels go with each picture, and there is nothing by example."""
    given = []

    def detect(data, labels, **options):
        given.append((labels, options))
        boxes = np.array([[1, 2, 3, 4]], np.float32)
        return Detections(tuple(labels), boxes, np.ones(1, np.float32), np.zeros(1, int), (37, 61))

    server = serve()
    info = {"task": "zero-shot-object-detection"}
    model = SimpleNamespace(info=info, methods=("detect",), detect=detect)
    server.context.catalogue._served["one"] = Served("one", model, frozenset({"detect"}), {})
    client = client_of(server)
    body = {"model": "one", "image": in_json(encoded(picture()))}
    for options in ({}, {"truncate": True, "templates": ["a {}"], "threshold": 0.5}):
        answer = client.post("/v1/detect", json={**body, "labels": ["dog"], **options}).json()
        assert answer["results"][0]["detections"][0]["label"] == "dog"
        assert given.pop() == (["dog"], options)
    assert_problem(
        client.post("/v1/detect", json={**body, "examples": [{}]}),
        404,
        "NotServedError",
        "by labels alone",
    )


@pytest.mark.parametrize("name", ["%ED%A0%80", "%00", "%FF", "a%2Fb", "%F0%9F%98%80", "x" * 2000])
def test_a_model_of_any_name_is_not_found(name, client):
    response = client.get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.headers["content-type"].startswith(PROBLEM)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_tasks_are_posted(method, client):
    response = client.request(method, "/v1/classify")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


GOOD = {"classify": {"labels": LABELS}, "detect": {"labels": LABELS}, "ask": {"question": "what?"}}

# A task, what is changed about a good request, the error (422) and words of it.
FIELDS = [
    ("classify", {"labels": None}, "OptionError", ["'labels'", "list"]),
    ("classify", {"labels": "dog"}, "OptionError", ["'labels'", "'dog'"]),
    ("classify", {"labels": []}, "OptionError", ["'labels' is an empty list"]),
    ("classify", {"labels": ["dog", 5]}, "OptionError", ["'labels.1'", "5"]),
    ("classify", {"labels": ["dog", ""]}, "OptionError", ["'labels.1' is an empty text"]),
    ("classify", {"labels": ["dog", "  "]}, "LabelError", ["label 1 is empty"]),
    ("classify", {"labels": ["dog", "cat", "dog"]}, "LabelError", ["label 2", "twice"]),
    ("classify", {"labels": ["word " * 200]}, "TextError", ["tokens"]),
    ("classify", {"labels": ..., "image": ...}, "OptionError", ["'labels' is missing"]),
    ("classify", {"image": ...}, "OptionError", ["none is given", "image and images"]),
    ("classify", {"images": ["aGk="]}, "OptionError", ["both image and images"]),
    ("classify", {"image": None}, "OptionError", ["'image' must not be null"]),
    ("classify", {"image": ..., "images": []}, "OptionError", ["'images' is an empty list"]),
    ("classify", {"image": ..., "images": "aGk="}, "OptionError", ["'images'", "list"]),
    ("classify", {"image": ..., "images": [5]}, "OptionError", ["'images.0'", "data: URL"]),
    ("classify", {"image": 5}, "OptionError", ["'image'", "base64", "5"]),
    ("classify", {"image": {"url": "data:,", "x": 1}}, "OptionError", ["'image'"]),
    ("classify", {"image": {"file": "a"}}, "OptionError", ["'image'"]),
    ("classify", {"image": ""}, "ImageError", []),
    ("classify", {"image": "not base64!"}, "ImageError", ["base64"]),
    ("classify", {"image": "aGk="}, "ImageError", []),
    ("classify", {"image": "data:image/png;base64,"}, "ImageError", []),
    ("classify", {"model": None}, "OptionError", ["'model' must not be null"]),
    ("classify", {"model": 5}, "OptionError", ["'model'"]),
    ("classify", {"top_k": 0}, "OptionError", ["'top_k'", "1"]),
    ("classify", {"top_k": 1.5}, "OptionError", ["'top_k'", "1.5"]),
    ("classify", {"top_k": "3"}, "OptionError", ["'top_k'", "'3'"]),
    ("classify", {"top_k": True}, "OptionError", ["'top_k'", "True"]),
    ("classify", {"truncate": 1}, "OptionError", ["'truncate'"]),
    ("classify", {"truncate": "true"}, "OptionError", ["'truncate'"]),
    ("classify", {"templates": "a {}"}, "OptionError", ["'templates'"]),
    ("classify", {"templates": []}, "OptionError", ["'templates' is an empty list"]),
    ("classify", {"templates": ["a photo"]}, "TextError", ["exactly one {}"]),
    ("classify", {"templates": {"dog": ["{}"]}}, "OptionError", ["templates", "dog"]),
    ("classify", {"templates": {LABELS[0]: "{}"}}, "OptionError", ["'templates."]),
    ("classify", {"threshold": 0.5}, "OptionError", ["'threshold' is no field", "labels"]),
    ("classify", {"": 1}, "OptionError", ["'' is no field"]),
    ("detect", {"threshold": -0.1}, "OptionError", ["'threshold'", "-0.1"]),
    ("detect", {"threshold": 1.1}, "OptionError", ["'threshold'", "0 to 1"]),
    ("detect", {"threshold": True}, "OptionError", ["'threshold'", "True"]),
    ("detect", {"threshold": None}, "OptionError", ["'threshold' must not be null"]),
    ("detect", {"threshold": "0.1"}, "OptionError", ["'threshold'"]),
    ("detect", {"threshold": [0.1]}, "OptionError", ["1 numbers for 4 labels"]),
    ("detect", {"threshold": [0.1, "a", 0, 0]}, "OptionError", ["'threshold'"]),
    ("detect", {"threshold": []}, "OptionError", ["0 numbers for 4 labels"]),
    ("detect", {"threshold": {"dog": 0.1}}, "OptionError", ["threshold", "dog"]),
    ("detect", {"threshold": {LABELS[0]: 2}}, "OptionError", ["'threshold'"]),
    ("detect", {"iou_threshold": 2}, "OptionError", ["'iou_threshold'", "2"]),
    ("detect", {"iou_threshold": "a"}, "OptionError", ["'iou_threshold'"]),
    ("detect", {"soft_nms": 0}, "OptionError", ["'soft_nms'", "0"]),
    ("detect", {"soft_nms": 0.5, "iou_threshold": 0.5}, "OptionError", ["one of them"]),
    ("detect", {"class_agnostic": True}, "OptionError", ["no effect"]),
    ("detect", {"class_agnostic": 1}, "OptionError", ["'class_agnostic'"]),
    ("detect", {"multi_label": "no"}, "OptionError", ["'multi_label'"]),
    ("detect", {"top_k": -1}, "OptionError", ["'top_k'"]),
    ("detect", {"labels": ...}, "OptionError", ["none is given", "labels and examples"]),
    ("detect", {"examples": [{}]}, "OptionError", ["both labels and examples"]),
    ("detect", {"labels": ..., "examples": []}, "OptionError", ["'examples' is an empty list"]),
    ("detect", {"labels": ..., "examples": {}}, "OptionError", ["'examples'", "list"]),
    ("detect", {"labels": ..., "examples": [5]}, "OptionError", ["'examples.0'", "object"]),
    ("detect", {"labels": ..., "examples": [{"x": 5}]}, "OptionError", ["'examples.0.x'"]),
    ("detect", {"labels": ..., "examples": [{"name": ""}]}, "OptionError", ["empty text"]),
    ("detect", {"labels": ..., "examples": [{"name": " "}]}, "LabelError", ["empty"]),
    ("detect", {"labels": ..., "examples": [{"image": "aGk="}]}, "ImageError", []),
    ("detect", {"labels": ..., "examples": [{"box": [1, 2, 3]}]}, "OptionError", ["box"]),
    ("detect", {"labels": ..., "examples": [{"box": [1, 2, 3, "4"]}]}, "OptionError", ["box.3"]),
    ("detect", {"labels": ..., "examples": [{"box": [9, 9, 1, 1]}]}, "OptionError", ["box is"]),
    (
        "detect",
        {"labels": ..., "examples": [{"box": [1e4, 1e4, 2e4, 2e4]}]},
        "OptionError",
        ["box is [10000.0", "not outside"],
    ),
    (
        "detect",
        {"labels": ..., "examples": [{"box": [0, 0, 10**30, 10**30]}]},
        "OptionError",
        ["box is"],
    ),
    (
        "detect",
        {"labels": ..., "examples": [{}], "multi_label": True},
        "OptionError",
        ["multi_label cannot be had with examples"],
    ),
    (
        "detect",
        {"labels": ..., "examples": [{}], "threshold": [0.1]},
        "OptionError",
        ["threshold is [0.1]"],
    ),
    ("ask", {"question": ...}, "OptionError", ["question and questions"]),
    ("ask", {"questions": ["why?"]}, "OptionError", ["both question and questions"]),
    ("ask", {"question": ["why?"]}, "OptionError", ["'question'"]),
    ("ask", {"question": ""}, "OptionError", ["'question' is an empty text"]),
    ("ask", {"question": " "}, "TextError", ["empty"]),
    ("ask", {"question": ..., "questions": []}, "OptionError", ["'questions' is an empty list"]),
    ("ask", {"question": ..., "questions": ["a", 5]}, "OptionError", ["'questions.1'"]),
    ("ask", {"question": "what " * 100}, "TextError", ["tokens"]),
    ("ask", {"top_k": None}, "OptionError", ["'top_k'"]),
]


@pytest.mark.parametrize(
    ("task", "changed", "error", "words"),
    FIELDS,
    ids=[f"{task} {json.dumps(changed, default=repr)[:60]}" for task, changed, *_ in FIELDS],
)
def test_a_field_that_is_wrong_is_named(task, changed, error, words, client, scenes):
    body = {**GOOD[task], "image": in_json(scenes[0].read_bytes()), **changed}
    body = {name: value for name, value in body.items() if value is not ...}
    assert_problem(client.post(f"/v1/{task}", json=body), 422, error, *words)


IMAGE = b'"image": "' + base64.b64encode(encoded(picture())) + b'"'


@pytest.mark.parametrize(
    ("body", "status", "error", "words"),
    [
        (b"", 400, "RequestError", ["not JSON"]),
        (b"{", 400, "RequestError", ["not JSON"]),
        (b"[]", 422, "OptionError", ["the request must be an object"]),
        (b"null", 422, "OptionError", ["the request must be an object"]),
        (b"5", 422, "OptionError", ["the request must be an object"]),
        (b'{"labels": ["\xff"]}', 400, "RequestError", ["utf-8"]),
        ('{"labels": ["dog"]}'.encode("utf-16"), 400, "RequestError", ["not JSON"]),
        (b"[" * 100_000, 400, "RequestError", ["not JSON"]),
        (b'{"top_k": ' + b"9" * 5000 + b"}", 400, "RequestError", ["not JSON"]),
        (b'{"labels": ["dog"], "labels": ["cat"]}', 400, "RequestError", ["'labels' twice"]),
        (b'{"labels": ["dog"], "top_k": NaN, %b}' % IMAGE, 400, "RequestError", ["NaN"]),
        (b'{"labels": ["dog"], "top_k": -Infinity, %b}' % IMAGE, 400, "RequestError", ["Infini"]),
        (b'{"labels": ["dog"], "top_k": 1e999, %b}' % IMAGE, 422, "OptionError", ["'top_k'"]),
        (b'{"labels": ["\\ud800"], %b}' % IMAGE, 422, "TextError", ["lone surrogate"]),
        (b'{"\\udfff": 5, %b}' % IMAGE, 422, "TextError", ["lone surrogate"]),
    ],
)
def test_a_body_that_is_no_json_is_refused(body, status, error, words, client):
    response = client.post(
        "/v1/classify", content=body, headers={"Content-Type": "application/json"}
    )
    assert_problem(response, status, error, *words)


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1" + "0" * 400])
@pytest.mark.parametrize("field", ["threshold", "iou_threshold", "soft_nms", "box"])
def test_a_number_without_end_is_refused(field, value, client, scenes):
    rest = f'"labels": ["dog"], "{field}": {value}'
    if field == "box":
        rest = f'"examples": [{{"box": [0, 0, 9, {value}]}}]'
    body = f'{{"image": "{in_json(scenes[0].read_bytes())}", {rest}}}'
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/detect", content=body, headers=headers)
    assert_problem(response, 422, "OptionError", field)


def test_a_surrogate_pair_is_a_character(client, scenes):
    body = json.dumps({"labels": ["\U0001f600", "dog"], "image": in_json(scenes[0].read_bytes())})
    assert "\\ud83d" in body
    response = client.post(
        "/v1/classify", content=body, headers={"Content-Type": "application/json"}
    )
    assert {one["label"] for one in response.json()["results"][0]["labels"]} == {
        "\U0001f600",
        "dog",
    }


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "é"]
)
def test_another_content_type_is_refused(kind, client):
    headers = {} if kind is None else {"Content-Type": kind.encode("latin-1")}
    response = client.post("/v1/classify", content=b"{}", headers=headers)
    assert response.status_code == 415
    assert response.headers["content-type"].startswith(PROBLEM)
    assert "application/json" in response.json()["detail"]


PART = b'--x\r\nContent-Disposition: form-data; name="labels"\r\n\r\ndog\r\n'
FILE = (
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    + encoded(picture())
    + b"\r\n"
)


@pytest.mark.parametrize(
    ("kind", "body", "status", "error", "words"),
    [
        ("multipart/form-data", PART + b"--x--", 400, "RequestError", ["no boundary"]),
        ("multipart/form-data; boundary=", PART, 400, "RequestError", ["no boundary"]),
        ("multipart/form-data; boundary=y", PART + b"--x--", 400, "RequestError", []),
        ("multipart/form-data; boundary=x", b"", 400, "RequestError", ["closing boundary"]),
        ("multipart/form-data; boundary=x", b"hello", 400, "RequestError", []),
        ("multipart/form-data; boundary=x", PART, 400, "RequestError", ["closing boundary"]),
        (
            "multipart/form-data; boundary=x",
            PART.replace(b"; name", b"; nom") + b"--x--",
            400,
            "RequestError",
            ["name"],
        ),
        (
            "multipart/form-data; boundary=x",
            PART.replace(b"dog", b"\xff") + b"--x--",
            400,
            "RequestError",
            ["'labels' is not UTF-8"],
        ),
        (
            "multipart/form-data; boundary=x",
            PART.replace(b"labels", b"\xff") + b"--x--",
            400,
            "RequestError",
            ["UTF-8"],
        ),
        (
            "multipart/form-data; boundary=x",
            PART.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + b"--x--",
            400,
            "RequestError",
            ["base64"],
        ),
        ("multipart/form-data; boundary=" + "x" * 300, PART, 400, "RequestError", []),
        ("multipart/form-data; boundary=x", PART + b"--x--", 422, "OptionError", ["image"]),
        ("multipart/form-data; boundary=x", FILE + b"--x--", 422, "OptionError", ["labels"]),
    ],
)
def test_a_body_that_is_no_form_is_refused(kind, body, status, error, words, client):
    response = client.post("/v1/classify", content=body, headers={"Content-Type": kind})
    assert_problem(response, status, error, *words)


@pytest.mark.parametrize(
    ("task", "fields", "status", "error", "words"),
    [
        ("classify", [("top_k", "two")], 400, "RequestError", ["'top_k'", "'two'", "JSON"]),
        ("classify", [("top_k", "1"), ("top_k", "2")], 400, "RequestError", ["2 times"]),
        ("classify", [("truncate", "yes")], 400, "RequestError", ["'truncate'"]),
        ("classify", [("truncate", "1")], 422, "OptionError", ["'truncate'"]),
        ("classify", [("dog", "5")], 422, "OptionError", ["'dog' is no field"]),
        ("classify", [("images", "aGk=")], 400, "RequestError", ["named 'image'"]),
        ("classify", [("image", "aGk=")], 422, "ImageError", ["picture 1"]),
        ("classify", [("model", CLIP), ("model", CLIP)], 400, "RequestError", ["2 times"]),
        ("detect", [("threshold", "NaN")], 400, "RequestError", ["NaN"]),
        ("detect", [("threshold", "0.1"), ("threshold", "x")], 400, "RequestError", ["'x'"]),
        ("detect", [("examples", "{}")], 422, "OptionError", ["both labels and examples"]),
    ],
)
def test_a_field_of_a_form_that_is_wrong_is_named(task, fields, status, error, words, client):
    good = [("labels", (None, "dog")), ("image", ("a.png", encoded(picture())))]
    files = [*good, *((name, (None, text)) for name, text in fields)]
    assert_problem(client.post(f"/v1/{task}", files=files), status, error, *words)


def test_a_file_of_another_field_is_refused(client):
    files = [("labels", ("a.txt", b"dog")), ("image", ("a.png", encoded(picture())))]
    assert_problem(client.post("/v1/classify", files=files), 400, "RequestError", "'labels'")


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (['["a", "b"]'], ["a", "b"]),
        (["a"], ["a"]),
        (['["a"]', "b"], ['["a"]', "b"]),
        (["a, b"], ["a, b"]),
        (["{}"], ["{}"]),
    ],
)
def test_a_list_is_repeated_in_a_form_or_is_json(texts, labels, client):
    files = [("labels", (None, text)) for text in texts]
    files += [("image", ("a.png", encoded(picture())))]
    answer = client.post("/v1/classify", files=files).json()
    assert sorted(one["label"] for one in answer["results"][0]["labels"]) == sorted(labels)


@pytest.mark.parametrize("text", ["{}", '["{}"]', '{"dog": ["{}"]}'])
def test_templates_of_a_form_are_texts_a_list_or_an_object(text, client, library):
    data = encoded(picture())
    files = [("labels", (None, "dog")), ("image", ("a", data)), ("templates", (None, text))]
    answer = client.post("/v1/classify", files=files).json()
    expected = library[CLIP].classify(data, ["dog"], templates=["{}"]).to_dict()
    assert_same(answer["results"], [expected])


@pytest.mark.parametrize(
    ("task", "model", "words"),
    [
        ("classify", "dog", ["'dog'", CLIP]),
        ("classify", "", [CLIP]),
        ("classify", OWL, ["zero-shot-object-detection", CLIP]),
        ("detect", VILT, [OWL]),
        ("ask", CLIP, [VILT]),
        ("match", VILT, ["does not serve match"]),
        ("match", None, ["no model of this server serves match"]),
    ],
)
def test_a_model_that_does_not_serve_it_is_not_found(task, model, words, client):
    body = {**GOOD.get(task, {"text": "a dog"}), "image": in_json(encoded(picture()))}
    if model is not None:
        body["model"] = model
    assert_problem(client.post(f"/v1/{task}", json=body), 404, "NotServedError", *words)


def test_limits_hold(serve, client_of):
    server = serve(
        max_images=2, max_labels=3, max_prompts=4, max_text_chars=10, max_megapixels=0.01
    )
    client, image = client_of(server), in_json(encoded(picture()))
    small = {"labels": ["a"], "image": image}
    requests = [
        ("classify", {"labels": ["a"], "images": [image] * 3}, "max_images"),
        ("classify", {**small, "labels": ["a", "b", "c", "d"]}, "max_labels"),
        ("classify", {**small, "labels": ["a", "b", "c"], "templates": ["{}", "{}."]}, "max_prom"),
        ("classify", {**small, "templates": {"a": ["{}"] * 5}}, "max_prompts"),
        ("classify", {**small, "labels": ["a" * 11]}, "max_text_chars"),
        ("classify", {**small, "templates": ["{}" + "a" * 9]}, "max_text_chars"),
        ("classify", {**small, "templates": {"a" * 11: ["{}"]}}, "max_text_chars"),
        ("detect", {"image": image, "examples": [{"name": "a" * 11}]}, "max_text_chars"),
        ("detect", {"image": image, "examples": [{"image": image}] * 2}, "max_images"),
        ("detect", {"image": image, "examples": [{"box": [0, 0, 9, 9]}] * 3}, "max_images"),
        ("ask", {"image": image, "questions": ["a"] * 4}, "max_labels"),
        ("ask", {"image": image, "question": "a" * 11}, "max_text_chars"),
        ("match", {"image": image, "texts": ["a"] * 4}, "max_labels"),
        ("match", {"image": image, "text": "a" * 11}, "max_text_chars"),
        ("classify", {**small, "image": in_json(encoded(picture(size_wh=(200, 100))))}, ""),
    ]
    for task, body, limit in requests:
        assert_problem(client.post(f"/v1/{task}", json=body), 413, "LimitError", limit)
    several = {"labels": ["a"], "images": [image, in_json(encoded(picture(size_wh=(200, 100))))]}
    response = client.post("/v1/classify", json=several)
    assert_problem(response, 413, "LimitError", "picture 1: ")
    assert client.post("/v1/classify", json=small).status_code == 200
    parts = [("labels", (None, "a"))] * 33
    assert_problem(client.post("/v1/classify", files=parts), 413, "LimitError", "32 parts")


def test_what_is_found_is_bounded_too(client, monkeypatch, scenes):
    """A few requests for every box under each of a thousand labels would fill the memory."""
    monkeypatch.setattr(tasks, "MOST_FOUND", 7)
    image = in_json(scenes[0].read_bytes())
    boxes = {"image": image, "labels": LABELS, "multi_label": True, "threshold": 0}
    example = {"image": image, "examples": [{}], "threshold": 0, "iou_threshold": None}
    for task, body in [("detect", boxes), ("detect", example)]:
        told = ("objects were found", "tells 7 of a picture", "higher threshold, or top_k")
        assert_problem(client.post(f"/v1/{task}", json=body), 413, "LimitError", *told)
        assert client.post(f"/v1/{task}", json={**body, "top_k": 7}).status_code == 200
    body = {"images": [image] * 2, "questions": QUESTIONS}
    response = client.post("/v1/ask", json={**body, "top_k": 4})
    assert_problem(response, 413, "LimitError", "picture 0: 8 answers to 2 questions", "top_k")
    assert client.post("/v1/ask", json={**body, "top_k": 3}).status_code == 200


@pytest.mark.parametrize("task", ["classify", "embeddings"])
def test_a_compressed_body_is_refused(task, client, scenes):
    """Nothing bounds what it unfolds to."""
    content = gzip.compress(json.dumps({"labels": LABELS, "image": ""}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = client.post(f"/v1/{task}", content=content, headers=headers)
    assert_problem(response, 415, "UnsupportedMediaType", "'gzip'; valid: identity")


def test_addresses_are_not_fetched_unless_they_are_listed(client):
    for one in ("https://example.org/a.jpg", {"url": "http://127.0.0.1/a.jpg"}):
        response = client.post("/v1/classify", json={"labels": ["a"], "image": one})
        assert_problem(response, 403, "AddressError")


def test_a_client_that_leaves_takes_its_work_along(serve, client_of):
    """Jobs behind a graph that is busy are never run once their client has gone."""
    server = serve(lanes=1, work_threads=2)
    graph = server.context.catalogue.get(CLIP).graphs["vision_model"]
    began, goes_on, rows = threading.Event(), threading.Event(), []
    session = graph.session
    run = session.run

    def slow(inputs):
        rows.append(len(inputs["pixel_values"]))
        began.set()
        assert goes_on.wait(60)
        return run(inputs)

    jobs = server.context.jobs
    body = json.dumps({"labels": ["a"], "image": in_json(encoded(picture()))}).encode()
    client = client_of(server)
    assert client.post("/v1/classify", content=body, headers=JSON).status_code == 200  # labels
    session.run = slow
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/classify", content=body, headers=JSON)
        assert began.wait(60)
        leaving = [raw_post(server.url, "/v1/classify", body) for _ in range(5)]
        server.until(lambda: jobs.in_flight(CLIP) == 6)
        for one in leaving:
            one.close()
        server.until(lambda: jobs.in_flight(CLIP) == 1)
        goes_on.set()
        assert first.result().status_code == 200
    server.until(lambda: jobs.in_flight(CLIP) == 0)
    assert rows == [1]
    counted = client.get("/metrics").text
    assert "vlrt_abandoned_total 5.0" in counted
    assert 'vlrt_requests_total{path="/v1/classify",status="left"} 5.0' in counted
    assert client.post("/v1/classify", content=body, headers=JSON).status_code == 200


JSON = {"Content-Type": "application/json"}


def raw_post(url, path, body, missing=0):
    """Send a request on a connection of one's own, to be left whenever one likes."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body) + missing}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm(server, client, caplog):
    raw_post(server.url, "/v1/classify", b'{"labels": [', missing=100).close()
    body = {"labels": ["a"], "image": in_json(encoded(picture()))}
    assert client.post("/v1/classify", json=body).status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
