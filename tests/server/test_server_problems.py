"""Errors as clients see them: one status for each kind, RFC 9457's document, nothing told of us."""

import asyncio
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlrt import errors

pytest.importorskip("fastapi", reason="the server is built on it")
httpx = pytest.importorskip("httpx", reason="the tests' client")

from fastapi import FastAPI, HTTPException  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from vlrt.server import problems  # noqa: E402
from vlrt.server.guards import LastResort  # noqa: E402

SECRET = "/srv/models/secret/model.onnx"
STATUSES = {
    "RequestError": 400,
    "LimitError": 413,
    "SlowBodyError": 408,
    "NotServedError": 404,
    "AccessError": 401,
    "AddressError": 403,
    "OverloadError": 503,
    "DeadlineError": 503,
    "OptionError": 422,
    "ImageError": 422,
    "TextError": 422,
    "LabelError": 422,
}
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.VlrtError)
}


def made(name):
    """An error of each class, whatever its constructor takes."""
    kind = KINDS[name]
    if issubclass(kind, errors.OverloadError):
        return kind(f"no room for {SECRET}", 2.4)
    if kind is errors.EngineMissingError:
        return kind()
    if kind is errors.ExtraMissingError:
        return kind("it", "server", SECRET)
    return kind(f"wrong: {SECRET}")


class Asked(BaseModel):
    number: int
    word: str = ""


def application():
    app = FastAPI()
    problems.install(app)
    app.add_middleware(LastResort)

    @app.get("/raise/{name}")
    async def raised(name: str):
        raise made(name) if name in KINDS else KeyError(SECRET)

    @app.get("/v2/models/{name}")
    async def v2(name: str):
        raise made(name)

    @app.get("/http/{status}")
    async def http(status: int, detail: str | None = None):
        raise HTTPException(status, detail)

    @app.post("/typed")
    async def typed(asked: Asked):
        return asked

    @app.get("/broken")
    async def broken():
        return {"value": float("nan"), "at": object()}

    return app


def ask(method, path, **given):
    async def asked():
        transport = httpx.ASGITransport(application())  # whatever gets through is raised here
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **given)

    return asyncio.run(asked())


def document(answer):
    """The problem of an answer, which has all that each problem has."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert found["status"] == answer.status_code
    assert found["title"]
    assert found["detail"]
    return found


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_error_of_the_library_has_its_status_and_its_name(name):
    answer = ask("GET", f"/raise/{name}")
    found = document(answer)
    assert answer.status_code == STATUSES.get(name, 500)
    assert found["error"] == name
    assert found["type"] == f"urn:vlrt:error:{name}"
    assert found["title"] == KINDS[name].__doc__.splitlines()[0].rstrip(".")
    if answer.status_code < 500:
        assert found["detail"] == str(made(name))


@pytest.mark.parametrize("name", ["KeyError", *sorted(set(KINDS) - set(STATUSES))])
def test_what_is_our_own_fault_is_told_by_an_id_and_logged_with_the_traceback(name, caplog):
    with caplog.at_level(logging.ERROR, "vlrt.server"):
        answer = ask("GET", f"/raise/{name}")
    found = document(answer)
    assert found["status"] == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert found["id"] in found["detail"]
    (record,) = caplog.records
    assert found["id"] in record.getMessage()
    assert "Traceback" in caplog.text
    assert "in raised" in caplog.text
    assert found["error"] == ("InternalError" if name == "KeyError" else name)


def test_ids_differ():
    assert len({document(ask("GET", "/raise/BundleError"))["id"] for _ in range(3)}) == 3


@pytest.mark.parametrize("name", ["OverloadError", "DeadlineError"])
def test_overload_says_when_to_come_back(name):
    answer = ask("GET", f"/raise/{name}")
    assert answer.headers["retry-after"] == "3"
    assert document(answer)["retry_after"] == 2.4


@pytest.mark.parametrize("name", sorted(STATUSES))
def test_only_who_lacks_a_key_is_told_how_to_give_one(name):
    answer = ask("GET", f"/raise/{name}")
    assert ("www-authenticate" in answer.headers) == (name == "AccessError")


@pytest.mark.parametrize(
    ("method", "path", "status", "error", "told"),
    [
        ("GET", "/nowhere/%0A", 404, "NotFound", "there is nothing at GET '/nowhere/\\n'"),
        ("PUT", "/typed", 405, "MethodNotAllowed", "valid: POST"),
        ("GET", "/http/415?detail=only+JSON", 415, "UnsupportedMediaType", "only JSON"),
        ("GET", "/http/404?detail=no+file", 404, "NotFound", "no file"),
        ("GET", "/http/418", 418, "IMATeapot", "/http/418"),
        ("GET", "/http/599", 599, "Status599", "Status 599"),
    ],
)
def test_what_the_framework_refuses_is_a_problem_too(method, path, status, error, told):
    answer = ask(method, path)
    found = document(answer)
    assert (answer.status_code, found["error"]) == (status, error)
    assert told in found["detail"]
    assert found["type"] == f"urn:vlrt:error:{error}"
    if status == 405:
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "JSON"),
        (b'{"word": "x"}', 422, "'body.number': Field required"),
        (b'{"number": "many"}', 422, "(it is 'many')"),
        (b"[]", 422, "'body'"),
    ],
)
def test_a_body_that_does_not_fit_is_told_by_its_fields(body, status, told):
    answer = ask("POST", "/typed", content=body, headers={"content-type": "application/json"})
    found = document(answer)
    assert (answer.status_code, found["error"]) == (status, "RequestError")
    assert told in found["detail"]


def test_what_was_given_is_not_told_at_length():
    answer = ask("POST", "/typed", json={"number": "x" * 10_000})
    assert len(document(answer)["detail"]) < 300


def test_an_answer_that_cannot_be_written_is_our_own_fault(caplog):
    found = document(ask("GET", "/broken"))
    assert found["error"] == "InternalError"
    assert found["id"] in caplog.text


def test_clients_of_the_inference_protocol_find_the_text_in_error():
    found = document(ask("GET", "/v2/models/NotServedError"))
    assert found["error"] == f"NotServedError: {found['detail']}"
    assert found["type"] == "urn:vlrt:error:NotServedError"
    elsewhere = problems.problem(errors.RequestError("x"), {"path": "/v20"})
    assert json.loads(elsewhere.body)["error"] == "RequestError"


@pytest.mark.parametrize("path", problems.OPENAI_PATHS)
def test_clients_of_openai_find_theirs(path):
    answer = problems.problem(errors.TextError("too long"), {"path": path})
    assert json.loads(answer.body)["error"] == {
        "message": "too long", "type": "TextError", "code": "TextError", "param": None,
    }  # fmt: skip


@given(st.text(st.characters(codec=None, categories=None), min_size=1))
def test_any_text_can_be_told(text):
    scope = {"type": "http", "path": text, "method": "GET"}
    answer = problems.problem(errors.TextError(text), scope)
    assert json.loads(answer.body)["detail"] == text
    assert answer.body.isascii()
    assert scope[problems.NOTED] == "TextError"
