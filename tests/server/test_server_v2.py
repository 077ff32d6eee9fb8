"""The Open Inference Protocol, asked by its own clients: NVIDIA's for Triton, and plain JSON."""

import asyncio
import gzip
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the server extra")
pytest.importorskip("tritonclient.http", reason="the client of the tests")

import tritonclient.http as triton

import vlrt
from vlrt import demo
from vlrt.errors import InferenceError, LimitError, OptionError, RequestError
from vlrt.server.models import Served
from vlrt.server.tensors import datatype
from vlrt.server.v2_infer import Graph, graphs_of, infer
from vlrt.session import Tensor

HEADER = "Inference-Header-Content-Length"
NAMES = {
    "clip-demo.vision_model": ("clip", "vision_model"),
    "clip-demo.text_model": ("clip", "text_model"),
    "owlvit-demo.vision_model": ("owlvit", "vision_model"),
    "owlvit-demo.text_model": ("owlvit", "text_model"),
    "vilt-demo": ("vilt", "model"),
}
VISION, TEXT, VILT = "clip-demo.vision_model", "clip-demo.text_model", "vilt-demo"


@pytest.fixture(scope="module")
def sessions():
    """The graphs by themselves, as the library runs them."""
    found = {}
    for family in ("clip", "owlvit", "vilt"):

        def kept(component, session, family=family):
            found[family, component] = session
            return session

        vlrt.load(demo.bundle(family), wrap=kept)
    return {name: found[key] for name, key in NAMES.items()}


@pytest.fixture(scope="module")
def ask(server):
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as one:
        yield one


@pytest.fixture
def tensors():
    """Inputs of each graph: numbers that it could get, of some rows."""

    def made(name, rows):
        numbers = np.random.default_rng(rows)
        pixels = lambda *size: numbers.standard_normal((rows, 3, *size)).astype(np.float32)
        ids = lambda: numbers.integers(1, 20, (rows, 7))
        return {
            VISION: lambda: {"pixel_values": pixels(64, 64)},
            TEXT: lambda: {"input_ids": ids()},
            "owlvit-demo.vision_model": lambda: {"pixel_values": pixels(128, 128)},
            "owlvit-demo.text_model": lambda: {"input_ids": ids()},
            VILT: lambda: {
                "input_ids": ids(),
                "attention_mask": np.ones((rows, 7), np.int64),
                "token_type_ids": np.zeros((rows, 7), np.int64),
                "pixel_values": pixels(64, 96),
                "pixel_mask": np.ones((rows, 64, 96), np.int64),
            },
        }[name]()

    return made


def given(arrays, *, binary=True):
    """Inputs as the client takes them."""
    found = []
    for name, array in arrays.items():
        one = triton.InferInput(name, list(array.shape), datatype(array.dtype))
        found.append(one.set_data_from_numpy(array, binary_data=binary))
    return found


def plain(arrays, *, nested=False, **more):
    """A request in JSON alone."""
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype(array.dtype),
            "data": array.tolist() if nested else array.ravel().tolist(),
        }
        for name, array in arrays.items()
    ]
    return {"inputs": inputs, **more}


def same(result, expected):
    """Whether a client's result has all that is expected, bit for bit."""
    found = {name: result.as_numpy(name) for name in expected}
    return [one["name"] for one in result.get_response()["outputs"]] == list(expected) and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in expected.items()
    )


def test_the_server_is_live_and_ready_and_says_what_it_is(ask):
    assert ask.is_server_live()
    assert ask.is_server_ready()
    assert ask.get_server_metadata() == {
        "name": "vlrt",
        "version": vlrt.__version__,
        "extensions": ["binary_tensor_data"],
    }


def test_every_graph_is_listed_ready_and_described(ask, sessions):
    index = ask.get_model_repository_index()
    assert [one["name"] for one in index] == list(NAMES)
    assert {(one["version"], one["state"], one["reason"]) for one in index} == {("1", "READY", "")}
    for name, session in sessions.items():
        assert ask.is_model_ready(name)
        assert ask.is_model_ready(name, "1")
        described = ask.get_model_metadata(name)
        assert described == ask.get_model_metadata(name, "1")
        assert described["name"] == name
        assert described["versions"] == ["1"]
        assert described["platform"] == "onnxruntime_onnx"
        for side, declared in ("inputs", session.inputs), ("outputs", session.outputs):
            assert described[side] == [
                {
                    "name": tensor,
                    "datatype": datatype(dtype),
                    "shape": [-1 if size is None else size for size in shape],
                }
                for tensor, (dtype, shape) in declared.items()
            ]


@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "json in"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("name", NAMES)
def test_results_are_bit_for_bit_those_of_the_graph(
    ask, sessions, tensors, name, binary_in, binary_out
):
    arrays = tensors(name, 2)
    expected = sessions[name].run(arrays)
    outputs = [triton.InferRequestedOutput(one, binary_data=binary_out) for one in expected]
    result = ask.infer(
        name, given(arrays, binary=binary_in), outputs=outputs, request_id="é 1", model_version="1"
    )
    assert same(result, expected)
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (name, "1", "é 1")
    assert all(("data" in one) != binary_out for one in answer["outputs"])


def test_without_outputs_named_all_come(ask, sessions, tensors):
    name = "owlvit-demo.vision_model"
    arrays = tensors(name, 1)
    assert same(ask.infer(name, given(arrays)), sessions[name].run(arrays))


def test_outputs_come_in_the_order_and_form_asked_for(ask, sessions, tensors):
    name = "owlvit-demo.vision_model"
    arrays = tensors(name, 1)
    run = sessions[name].run(arrays)
    outputs = [
        triton.InferRequestedOutput("pred_boxes", binary_data=False),
        triton.InferRequestedOutput("logit_shift", binary_data=True),
    ]
    result = ask.infer(name, given(arrays), outputs=outputs)
    assert same(result, {one: run[one] for one in ("pred_boxes", "logit_shift")})
    boxes, shift = result.get_response()["outputs"]
    assert "data" in boxes
    assert shift["parameters"] == {"binary_data_size": run["logit_shift"].nbytes}


def test_inputs_may_come_in_any_order_and_some_as_binary_data(ask, sessions, tensors):
    arrays = dict(reversed(tensors(VILT, 1).items()))
    mixed = [
        *given({name: array for name, array in arrays.items() if "mask" in name}, binary=False),
        *given({name: array for name, array in arrays.items() if "mask" not in name}),
    ]
    assert same(ask.infer(VILT, mixed), sessions[VILT].run(arrays))


def test_the_asynchronous_client_is_served_at_once(server, sessions, tensors):
    from tritonclient.http import aio

    rows = [1, 2, 3, 4]

    async def asked():
        async with aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            requests = (client.infer(VISION, given(tensors(VISION, n))) for n in rows)
            return await asyncio.gather(*requests)

    for n, result in zip(rows, asyncio.run(asked()), strict=True):
        assert same(result, sessions[VISION].run(tensors(VISION, n)))


@pytest.mark.parametrize("nested", [False, True])
def test_plain_json_is_answered_in_plain_json(client, sessions, tensors, nested):
    arrays = tensors(TEXT, 3)
    answer = client.post(f"/v2/models/{TEXT}/infer", json=plain(arrays, nested=nested))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert HEADER not in answer.headers
    assert "run;dur=" in answer.headers["server-timing"]
    (array,) = sessions[TEXT].run(arrays).values()
    assert answer.json() == {
        "model_name": TEXT,
        "model_version": "1",
        "outputs": [
            {
                "name": "text_embeds",
                "shape": list(array.shape),
                "datatype": "FP32",
                "data": array.ravel().tolist(),
            }
        ],
    }


@pytest.mark.parametrize("field", ["id", "outputs", "parameters"])
def test_null_is_the_same_as_left_out(client, tensors, field):
    asked = plain(tensors(TEXT, 1))
    path = f"/v2/models/{TEXT}/infer"
    left_out = client.post(path, json=asked).json()
    assert client.post(path, json={**asked, field: None}).json() == left_out


@pytest.mark.parametrize("wanted", [True, False])
def test_one_output_may_differ_from_the_others(client, tensors, wanted):
    asked = {
        **plain(tensors("owlvit-demo.vision_model", 1)),
        "parameters": {"binary_data_output": not wanted},
        "outputs": [
            {"name": "pred_boxes"},
            {"name": "logit_scale", "parameters": {"binary_data": wanted}},
            {"name": "logit_shift", "parameters": {}},
        ],
    }
    answer = client.post("/v2/models/owlvit-demo.vision_model/infer", json=asked)
    assert answer.headers["content-type"] == "application/octet-stream"
    outputs = json.loads(answer.content[: int(answer.headers[HEADER])])["outputs"]
    assert ["data" not in one for one in outputs] == [not wanted, wanted, not wanted]


ARRAY = np.arange(1, 8).reshape(1, 7)
ASKED = plain({"input_ids": ARRAY})


def with_input(**changed):
    (one,) = ASKED["inputs"]
    kept = {key: value for key, value in {**one, **changed}.items() if value is not ...}
    return {"inputs": [kept]}


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ([], 422, "OptionError: the request must be an object"),
        ({}, 422, "'inputs' is missing"),
        ({"inputs": []}, 422, "'inputs' is an empty list"),
        ({**ASKED, "priority": 1}, 422, "'priority' is no field"),
        ({**ASKED, "parameters": {"timeout": 5}}, 422, "'parameters.timeout' is no field"),
        ({**ASKED, "parameters": {"binary_data_output": 1}}, 422, "parameters.binary_data_output"),
        ({**ASKED, "id": 7}, 422, "'id'"),
        ({**ASKED, "outputs": [{"name": "it"}]}, 400, r"outputs are \['it'\]; valid: \['text_emb"),
        ({**ASKED, "outputs": [{"name": "text_embeds"}] * 2}, 400, "each at most once"),
        (
            {**ASKED, "outputs": [{"name": "it", "parameters": {"classification": 3}}]},
            422,
            "'outputs.0.parameters.classification' is no field",
        ),
        ({"inputs": ASKED["inputs"] * 2}, 400, r"inputs are .*; valid: \['input_ids'\], each once"),
        (with_input(name="it"), 400, r"inputs are \['it'\]; valid: \['input_ids'\], each once"),
        (with_input(data=...), 400, "input 'input_ids': give either data or binary_data_size"),
        (with_input(parameters={"binary_data_size": 56}), 400, "give either data or binary"),
        (
            with_input(parameters={"shared_memory_region": "it"}),
            422,
            "'inputs.0.parameters.shared_memory_region' is no field",
        ),
        (
            with_input(data=..., parameters={"binary_data_size": 56}),
            400,
            "0 bytes follow the JSON, but the inputs' binary_data_size says 56",
        ),
        (
            with_input(data=..., parameters={"binary_data_size": -56}),
            400,
            "binary_data_size is -56; valid: 0 or more",
        ),
        (with_input(datatype="INT32"), 400, "'input_ids' is 'INT32'; valid: INT64"),
        (with_input(datatype="BYTES"), 400, "'input_ids' is 'BYTES'; valid: INT64"),
        (with_input(shape=[7]), 400, r"is of shape \[7\]; valid: \[-1, -1\]"),
        (with_input(shape=[-1, 7]), 400, r"is of shape \[-1, 7\]"),
        (with_input(shape=[2**70, 0]), 400, r"is of shape \[1180591620717411303424, 0\]"),
        (with_input(shape=[1, 7.0]), 422, r"'inputs.0.shape.1'"),
        (with_input(shape=[1, True]), 422, r"'inputs.0.shape.1'"),
        (with_input(shape=[1, 6]), 400, "valid: one list of 6 numbers"),
        (with_input(shape=[1, 1025]), 413, "axis 1 is 1025 long; valid: up to 1024"),
        (with_input(shape=[10**9, 7]), 413, r"1000000000 rows \(axis 0\) in a request; clip-demo"),
        (with_input(data="AAAA"), 422, "'inputs.0.data'"),
        (with_input(data=[1, 2, 3, 4, 5, 6, 7.5]), 400, "position 6 is 7.5; valid: whole numbers"),
        (with_input(data=[1, 2, 3, 4, 5, 6, 2**63]), 400, "position 6 is 9223372036854775808"),
        # What only ONNX Runtime finds: ids that are no tokens, and more than there are places for.
        (with_input(data=[10**9] * 7), 400, "RequestError: ONNX Runtime refused"),
        (with_input(shape=[1, 1000], data=[1] * 1000), 400, "RequestError: ONNX Runtime refused"),
    ],
)
def test_what_is_not_right_is_refused_in_words(client, asked, status, words):
    answer = client.post(f"/v2/models/{TEXT}/infer", json=asked)
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert re.search(words, problem["error"])


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b"", {}, 400, "the body is not JSON"),
        (b"{", {}, 400, "the body is not JSON"),
        (b"\xff", {}, 400, "the body is not JSON"),
        (b"[" * 100_000, {}, 400, "the body is not JSON"),
        (b'{"inputs": [' + b"[]," * 100_000 + b"0]}", {}, 413, "100000 brackets"),
        (b'{"inputs": [' + b"{}," * 1000 + b"0]}", {}, 413, "1000 objects, the most"),
        (b'{"inputs": [' + b"0," * 2_500_001 + b"0]}", {}, 413, "may come as binary data too"),
        (b'{"id": NaN}', {}, 400, "NaN is no number"),
        (b'{"id": "1", "id": "2"}', {}, 400, "twice"),
        (b"{}", {HEADER: "3"}, 400, f"{HEADER} is '3'; valid: the length of the JSON"),
        (b"{}", {HEADER: "-1"}, 400, f"{HEADER} is '-1'; valid"),
        (b"{}", {HEADER: "two"}, 400, f"{HEADER} is 'two'; valid"),
        (b"{}", {HEADER: "0"}, 400, "the body is not JSON"),
        (
            json.dumps(ASKED).encode() + b"12345678",
            {HEADER: str(len(json.dumps(ASKED)))},
            400,
            "8 bytes follow the JSON, but the inputs' binary_data_size says 0",
        ),
        (
            gzip.compress(json.dumps(ASKED).encode(), mtime=0),
            {"Content-Encoding": "gzip"},
            415,
            "Content-Encoding is 'gzip'; valid: identity",
        ),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(client, content, headers, status, words):
    answer = client.post(f"/v2/models/{TEXT}/infer", content=content, headers=headers)
    assert answer.status_code == status
    assert words in answer.json()["error"]


@pytest.mark.parametrize("length", [0, 55, 57, 64])
def test_binary_data_of_another_length_is_refused(client, length):
    head = json.dumps(with_input(data=..., parameters={"binary_data_size": length})).encode()
    answer = client.post(
        f"/v2/models/{TEXT}/infer",
        content=head + bytes(length),
        headers={HEADER: str(len(head))},
    )
    assert answer.status_code == 400
    assert f"is {length} bytes long; valid: 56, for INT64 of shape [1, 7]" in answer.json()["error"]


def test_inputs_of_different_rows_are_refused(client, tensors):
    arrays = {**tensors(VILT, 2), "pixel_values": tensors(VILT, 1)["pixel_values"]}
    answer = client.post(f"/v2/models/{VILT}/infer", json=plain(arrays))
    assert answer.status_code == 400
    assert "different numbers of rows (axis 0): {'input_ids': 2" in answer.json()["error"]


def test_the_client_shows_what_is_wrong(ask, tensors):
    arrays = tensors(TEXT, 1)
    wrong = {"input_ids": arrays["input_ids"].astype(np.int32)}
    with pytest.raises(triton.InferenceServerException, match=r"RequestError: .*; valid: INT64"):
        ask.infer(TEXT, given(wrong))
    for name, version in ("clip-demo", ""), ("clip-demo", "1"):
        with pytest.raises(
            triton.InferenceServerException, match=f"no graph 'clip-demo'; valid: {VISION}, {TEXT}"
        ):
            ask.infer(name, given(arrays), model_version=version)
        assert not ask.is_model_ready(name, version)
    with pytest.raises(triton.InferenceServerException, match="has no version '2'; valid: 1"):
        ask.get_model_metadata(TEXT, "2")
    assert not ask.is_model_ready(TEXT, "2")
    with pytest.raises(triton.InferenceServerException, match="415"):
        ask.infer(TEXT, given(arrays), request_compression_algorithm="gzip")


def runner_of(run):
    """A graph from token ids to scores, however it comes to them."""
    return SimpleNamespace(
        inputs={"input_ids": Tensor(np.dtype(np.int64), (None, None))},
        outputs={"scores": Tensor(np.dtype(np.float32), (None,))},
        run=run,
        max_batch=1,
    )


def test_nan_and_infinities_come_as_binary_data_or_not_at_all():
    scores = np.array([np.nan, np.inf, 1], np.float32)
    graph = Graph("it", "it", runner_of(lambda _inputs: {"scores": scores}))
    asked = {**ASKED, "parameters": {"binary_data_output": True}}
    head, tensors = infer(graph, json.dumps(asked).encode(), None)
    assert tensors == [scores.tobytes()]
    assert json.loads(head)["outputs"][0]["parameters"] == {"binary_data_size": 12}
    with pytest.raises(RequestError, match="output 'scores' holds NaN or an infinity"):
        infer(graph, json.dumps(ASKED).encode(), None)


def test_a_worker_that_ends_is_no_fault_of_the_client():
    def run(_inputs):
        raise InferenceError("the worker ended")

    with pytest.raises(InferenceError, match="the worker ended"):
        infer(Graph("it", "it", runner_of(run)), json.dumps(ASKED).encode(), None)


@pytest.mark.parametrize("rows", [4, 5])
def test_a_request_has_so_many_rows_at_most(rows):
    graph = Graph("it", "it", runner_of(lambda _inputs: {"scores": np.zeros(rows, np.float32)}))
    content = json.dumps(plain({"input_ids": np.ones((rows, 2), np.int64)})).encode()
    if rows == 4:
        assert json.loads(infer(graph, content, None).head)["outputs"][0]["shape"] == [4]
    else:
        with pytest.raises(LimitError, match=r"5 rows \(axis 0\) in a request; it takes 4"):
            infer(graph, content, None)


def test_a_server_that_ends_is_not_ready(serve, tensors):
    one = serve()
    with triton.InferenceServerClient(one.url.removeprefix("http://")) as ask:
        one.context.state.draining = True
        assert ask.is_server_live()
        assert not ask.is_server_ready()
        assert not ask.is_model_ready(TEXT)
        assert {row["state"] for row in ask.get_model_repository_index()} == {"UNAVAILABLE"}


def test_guards_answer_in_words_that_the_client_shows(serve, tensors):
    one = serve(api_keys=["a-secret-of-the-tests"], max_body_mib=0.01)
    key = {"Authorization": "Bearer a-secret-of-the-tests"}
    with triton.InferenceServerClient(one.url.removeprefix("http://")) as ask:
        assert ask.is_server_ready()
        assert not ask.is_model_ready(TEXT)
        with pytest.raises(triton.InferenceServerException, match=r"AccessError: .* is missing"):
            ask.infer(TEXT, given(tensors(TEXT, 1)))
        assert ask.is_model_ready(TEXT, headers=key)
        answer = ask.infer(TEXT, given(tensors(TEXT, 1)), headers=dict(key))
        assert answer.as_numpy("text_embeds").shape == (1, 128)
        with pytest.raises(triton.InferenceServerException, match=r"LimitError: .*max_body_mib"):
            ask.infer(VISION, given(tensors(VISION, 1)), headers=dict(key))


def test_the_index_may_be_of_what_is_ready_alone(client):
    path = "/v2/repository/index"
    everything = client.post(path).json()
    assert [one["name"] for one in everything] == list(NAMES)
    for asked in ({}, {"ready": True}, {"ready": False}):
        assert client.post(path, json=asked).json() == everything
    assert client.post(path, json={"ready": 1}).status_code == 422
    assert client.post(path, content=b"{").status_code == 400


def test_requests_share_the_queue_of_their_graph(serve, sessions, tensors):
    one = serve()
    with triton.InferenceServerClient(one.url.removeprefix("http://")) as ask:
        for rows in (1, 2, 3):
            arrays = tensors(VISION, rows)
            assert same(ask.infer(VISION, given(arrays)), sessions[VISION].run(arrays))
    told = one.context.metrics.render()[0].decode()
    rows = r'^vlrt_batch_rows_sum\{component="vision_model",model="clip-demo"\} 6.0$'
    assert re.search(rows, told, re.MULTILINE)


def test_names_that_two_graphs_would_share_are_refused():
    alone = Served("a.b", None, frozenset(), {"model": None})
    several = Served("a", None, frozenset(), {"b": None, "c": None})
    assert list(graphs_of([several])) == ["a.b", "a.c"]
    with pytest.raises(OptionError, match=r"two graphs would be 'a.b' .* 'a.b' and 'a'"):
        graphs_of([alone, several])
