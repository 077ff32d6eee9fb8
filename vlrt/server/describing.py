"""The description of the API, OpenAPI 3.1: what FastAPI does not find out by itself."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from vlrt import __version__
from vlrt.server.guards import OPEN_PATHS
from vlrt.server.problems import MEDIA_TYPE
from vlrt.server.reading import FORM, JSON
from vlrt.server.schemas import (
    AskRequest,
    ClassifyRequest,
    DetectRequest,
    EmbeddingsRequest,
    MatchRequest,
    Strict,
)

_FASTAPI_ERROR = "Validation Error"  # what FastAPI says of parameters by itself
_SCHEMAS = "#/components/schemas/"
_REQUESTS: tuple[type[Strict], ...] = (
    ClassifyRequest,
    DetectRequest,
    AskRequest,
    MatchRequest,
    EmbeddingsRequest,
)
_WHY = {
    400: "The body is not what its Content-Type says, or several models could be meant",
    401: "A key is needed, and is missing or wrong",
    403: "An address that this server does not fetch from",
    404: "There is no such model, or it does not serve this",
    408: "The body did not arrive in time",
    413: "Beyond a limit of this server",
    415: "A Content-Type that is not taken",
    422: "A field, a text or a picture that cannot be used",
    500: "An error of the server's own",
    503: "More than the server takes on now, or in time; or it is not ready",
}
_HEADERS = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}},
    503: {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}},
}
_PROBLEM_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong, as RFC 9457 writes it.",
    "properties": {
        "type": {"type": "string", "description": "urn:vlrt:error: and the error's name"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "names what is wrong and what is valid"},
        "error": {
            "type": ["string", "object"],
            "description": "the error's name; for clients of OpenAI's API, an object as it has it",
        },
        "retry_after": {"type": "number", "description": "seconds"},
        "id": {"type": "string", "description": "under which the server's log has more"},
    },
    "required": ["type", "title", "status", "detail", "error"],
}
_PICTURE_PARTS = {
    "type": "array",
    "items": {"type": "string", "format": "binary"},
    "minItems": 1,
    "description": "pictures, each a file; or text as in JSON",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its `responses`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}}
    return {
        status: {
            "description": _WHY.get(status, HTTPStatus(status).phrase),
            "content": content,
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in statuses
    }


def body(model: type[Strict], *media_types: str) -> dict[str, Any]:
    """The body of a route that reads it itself, for its `openapi_extra`."""
    names = {JSON: model.__name__, FORM: _form_name(model)}
    content = {kind: {"schema": {"$ref": _SCHEMAS + names[kind]}} for kind in media_types}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, *, with_keys: bool) -> None:
    """Let `/openapi.json` know the requests, the problems and, if it needs any, the keys."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, with_keys=with_keys)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI, *, with_keys: bool) -> dict[str, Any]:
    found: dict[str, Any] = get_openapi(
        title="vlrt",
        version=__version__,
        summary="Zero-shot classification, open-vocabulary detection and visual questions",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=app.routes,
    )
    components = found["components"]
    schemas = components["schemas"]
    schemas.update(request_schemas())
    schemas["Problem"] = _PROBLEM_SCHEMA
    for path, operations in found["paths"].items():
        for operation in operations.values():
            _amend(operation, is_open=_is_open(path), with_keys=with_keys)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if with_keys:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        found["security"] = [{"bearer": []}, {"header": []}]
    return found


def _amend(operation: dict[str, Any], *, is_open: bool, with_keys: bool) -> None:
    """Say what any route may answer, whatever it is for: what the guards do."""
    responses = operation["responses"]
    if _FASTAPI_ERROR in responses.get("422", {}).get("description", ""):
        del responses["422"]  # parameters of paths are texts, which cannot be wrong
    usual = [500] if is_open else [401, 500]
    if "requestBody" in operation:
        usual += [400, 408, 413]
    added = {str(status): told for status, told in problems(*usual).items()}
    operation["responses"] = dict(sorted({**added, **responses}.items()))
    if with_keys and is_open:
        operation["security"] = []


def _is_open(path: str) -> bool:
    return any(path.startswith(one.removesuffix("*")) for one in OPEN_PATHS)


def request_schemas() -> dict[str, Any]:
    """The schemas of all requests, by name, of those that forms may have too."""
    _, described = models_json_schema(
        [(model, "validation") for model in _REQUESTS], ref_template=_SCHEMAS + "{model}"
    )
    found: dict[str, Any] = described["$defs"]
    for model in _REQUESTS:
        if "image" in model.model_fields:
            found[_form_name(model)] = _form(found[model.__name__], _form_name(model))
    return found


def _form_name(model: type[Strict]) -> str:
    return model.__name__.replace("Request", "Form")


def _form(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """A request's schema as a form has it: pictures are parts named `image`."""
    properties = {
        field: _repeated(of) for field, of in schema["properties"].items() if field != "images"
    }
    choices = [
        choice for choice in schema["allOf"] if {"required": ["images"]} not in choice["oneOf"]
    ]
    return {
        **{key: value for key, value in schema.items() if key != "allOf"},
        "title": name,
        "properties": {**properties, "image": _PICTURE_PARTS},
        "required": [*schema.get("required", []), "image"],
        **({"allOf": choices} if choices else {}),
    }


def _repeated(schema: dict[str, Any]) -> dict[str, Any]:
    """A field's schema as a form has it: repeated for a list, once for a list of one, or not there.

    An empty list cannot be told from a field that is left out.
    """
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            rest = {key: of for key, of in schema.items() if key != choice}
            return {**rest, "anyOf": [_repeated(one) for one in schema[choice]]}
    if schema.get("type") != "array":
        return schema
    of_list = ("type", "items", "minItems", "uniqueItems")
    listed = {key: of for key, of in schema.items() if key in of_list and key != "minItems"}
    rest = {key: of for key, of in schema.items() if key not in of_list}
    return {**rest, "anyOf": [listed, schema["items"]]}
