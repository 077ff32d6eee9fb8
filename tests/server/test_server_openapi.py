"""What the server says of itself: valid OpenAPI 3.1, and true."""

import base64
import re

import pytest

pytest.importorskip("fastapi", reason="needs the server extra")

from pictures import encoded, picture

jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="checks against JSON Schema")
definitions = pytest.importorskip(
    "schemathesis.specs.openapi.definitions", reason="has the schema of OpenAPI 3.1 itself"
)

TASKS = {
    "classify": {"labels": ["a red circle", "a dog"]},
    "detect": {"labels": ["a red circle"], "threshold": 0.01},
    "ask": {"questions": ["what is it?"]},
}
POST_STATUSES = (400, 401, 403, 404, 408, 413, 415, 422, 500, 503)
PROBLEM = "application/problem+json"
IMAGE = base64.b64encode(encoded(picture())).decode()


@pytest.fixture(scope="module")
def described(server):
    httpx = pytest.importorskip("httpx", reason="the tests' client")
    return httpx.get(f"{server.url}/openapi.json").json()


def operations(described):
    return {
        (method, path): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }


def refs(value):
    """Every reference in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from refs(one)
    elif isinstance(value, list):
        for one in value:
            yield from refs(one)


def validator(described, schema):
    """Validates against a schema in the description."""
    return jsonschema_rs.Draft202012Validator({**schema, "components": described["components"]})


def of_name(described, name):
    return validator(described, {"$ref": f"#/components/schemas/{name}"})


def test_it_is_valid(described):
    assert described["openapi"].startswith("3.1.")
    definitions.OPENAPI_31_VALIDATOR.validate(described)
    for name in described["components"]["schemas"]:
        of_name(described, name)  # raises for what is no JSON Schema
    for ref in refs(described):
        place = described
        for key in ref.removeprefix("#/").split("/"):
            place = place[key]


def test_every_route_is_in_it(described):
    graph = ["", "/ready", "/infer"]
    assert set(operations(described)) == {
        *(("post", f"/v1/{task}") for task in ("classify", "detect", "ask", "match")),
        ("post", "/v1/embeddings"),
        ("get", "/v1/models"),
        ("get", "/v1/models/{name}"),
        ("get", "/health/live"),
        ("get", "/health/ready"),
        ("get", "/metrics"),
        ("get", "/v2"),
        ("get", "/v2/health/live"),
        ("get", "/v2/health/ready"),
        ("post", "/v2/repository/index"),
        *(
            ("post" if what == "/infer" else "get", f"/v2/models/{{model}}{version}{what}")
            for version in ("", "/versions/{version}")
            for what in graph
        ),
    }


def test_each_has_a_name_and_says_what_it_is(described):
    names = [operation["operationId"] for operation in operations(described).values()]
    assert len(set(names)) == len(names)
    for operation in operations(described).values():
        assert operation["summary"]
        assert operation["responses"]["200"]["content"]


@pytest.mark.parametrize("task", ["classify", "detect", "ask", "match"])
def test_tasks_take_json_and_forms(task, described):
    content = described["paths"][f"/v1/{task}"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    form = described["components"]["schemas"][f"{task.title()}Form"]
    assert form["properties"]["image"]["items"] == {"type": "string", "format": "binary"}
    assert "images" not in form["properties"]
    assert "image" in form["required"]


def test_problems_are_described(described):
    for (method, path), operation in operations(described).items():
        statuses = {status for status in operation["responses"] if status >= "400"}
        if method == "post" and path.startswith("/v1"):
            assert statuses == {str(status) for status in POST_STATUSES}
        assert "500" in statuses
        assert ("401" in statuses) == ("/health/" not in path)
        if "requestBody" in operation:
            assert {"400", "408", "413"} <= statuses
        for status in statuses:
            content = operation["responses"][status]["content"]
            assert content == {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert "HTTPValidationError" not in described["components"]["schemas"]


def test_answers_are_as_described(described, client):
    for task, body in TASKS.items():
        request = {**body, "image": IMAGE}
        of_name(described, f"{task.title()}Request").validate(request)
        answer = client.post(f"/v1/{task}", json=request).json()
        of_name(described, f"{task.title()}Answer").validate(answer)
        for (method, path), operation in operations(described).items():
            if (method, path) == ("post", f"/v1/{task}"):
                name = operation["responses"]["200"]["content"]["application/json"]["schema"]
                assert name == {"$ref": f"#/components/schemas/{task.title()}Answer"}
    by_example = {"image": IMAGE, "examples": [{"box": [0, 0, 30, 30]}]}
    of_name(described, "DetectRequest").validate(by_example)
    of_name(described, "DetectAnswer").validate(client.post("/v1/detect", json=by_example).json())
    for kind in ("float", "base64"):
        request = {"input": ["a"], "encoding_format": kind}
        of_name(described, "EmbeddingsRequest").validate(request)
        answer = client.post("/v1/embeddings", json=request).json()
        of_name(described, "EmbeddingsAnswer").validate(answer)
    of_name(described, "ModelList").validate(client.get("/v1/models").json())


def test_errors_are_as_described(described, client):
    problem = of_name(described, "Problem")
    answers = [
        client.post("/v1/classify", json={}),
        client.post("/v1/classify", content=b"{", headers={"Content-Type": "application/json"}),
        client.post("/v1/classify", content=b"dog"),
        client.post("/v1/classify", json={"labels": ["a"], "image": IMAGE, "model": "dog"}),
        client.get("/v1/classify"),
        client.get("/v1/nothing"),
        client.get("/v1/models/dog"),
    ]
    assert [one.status_code for one in answers] == [422, 400, 415, 404, 405, 404, 404]
    for one in answers:
        assert one.headers["content-type"] == PROBLEM
        problem.validate(one.json())


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("ClassifyRequest", {"labels": ["a"]}),
        ("ClassifyRequest", {"labels": [], "image": IMAGE}),
        ("ClassifyRequest", {"labels": ["a", "a"], "image": IMAGE}),
        ("ClassifyRequest", {"labels": ["a"], "image": IMAGE, "images": [IMAGE]}),
        ("ClassifyRequest", {"labels": ["a"], "image": None}),
        ("ClassifyRequest", {"labels": ["a"], "image": IMAGE, "top_k": 0}),
        ("ClassifyRequest", {"labels": ["a"], "image": IMAGE, "dog": 0}),
        ("ClassifyRequest", {"labels": ["a"], "image": IMAGE, "templates": {"a": []}}),
        ("DetectRequest", {"image": IMAGE}),
        ("DetectRequest", {"image": IMAGE, "labels": ["a"], "examples": [{}]}),
        ("DetectRequest", {"image": IMAGE, "labels": ["a"], "threshold": 2}),
        ("DetectRequest", {"image": IMAGE, "labels": ["a"], "threshold": {"a": "b"}}),
        ("DetectRequest", {"image": IMAGE, "examples": [{"box": [1, 2, 3]}]}),
        ("AskRequest", {"image": IMAGE, "question": "a", "questions": ["a"]}),
        ("EmbeddingsRequest", {"input": [1, 2]}),
        ("EmbeddingsRequest", {"input": [{"type": "text"}]}),
    ],
)
def test_what_the_schema_refuses_the_server_refuses_too(name, body, described, client):
    assert not of_name(described, name).is_valid(body)
    path = f"/v1/{re.sub('Request', '', name).lower()}"
    assert client.post(path, json=body).status_code == 422


def test_keys_are_described_where_there_are_some(serve, client_of, described):
    assert "security" not in described
    assert "securitySchemes" not in described["components"]
    key = "a-key-that-nobody-guesses"
    client = client_of(serve(api_keys=[key]))
    assert client.get("/openapi.json").status_code == 401
    found = client.get("/openapi.json", headers={"X-API-Key": key}).json()
    definitions.OPENAPI_31_VALIDATOR.validate(found)
    schemes = found["components"]["securitySchemes"]
    assert [list(one) for one in found["security"]] == [[name] for name in schemes]
    for path in ("/health/live", "/health/ready", "/v2/health/live"):
        assert found["paths"][path]["get"]["security"] == []


def test_no_page_of_it_loads_anything_from_elsewhere(client):
    for path in ("/docs", "/redoc"):
        assert client.get(path).status_code == 404
