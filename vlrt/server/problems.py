"""Errors as clients see them: RFC 9457's documents, one status for each kind of error.

What a client cannot mend is told as "internal error" with an id; the log has the id with the
traceback. So neither paths nor code of the server ever reach a client.
"""

import json
import logging
import math
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from vlrt.errors import (
    AccessError,
    AddressError,
    ImageError,
    LimitError,
    NotServedError,
    OptionError,
    OverloadError,
    RequestError,
    SlowBodyError,
    TextError,
    VlrtError,
)

MEDIA_TYPE = "application/problem+json"
OPENAI_PATHS = ("/v1/embeddings", "/v1/models")  # in the shape of OpenAI's API
# Where a request's error is noted in its scope, for `vlrt.server.metrics`.
NOTED = "vlrt.error"

_LOG = logging.getLogger("vlrt.server")
_MOST_TOLD = 5  # of the mistakes in one request

# The first that an error is an instance of, so what derives from another comes before it.
_STATUSES: tuple[tuple[type[VlrtError], int], ...] = (
    (SlowBodyError, 408),
    (NotServedError, 404),
    (LimitError, 413),
    (RequestError, 400),
    (AddressError, 403),
    (AccessError, 401),
    (OverloadError, 503),
    (OptionError, 422),
    (TextError, 422),
    (ImageError, 422),
)


def status_of(error: BaseException) -> int:
    """The HTTP status that an error is answered with."""
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, RequestValidationError):
        broken = any(one["type"] == "json_invalid" for one in error.errors())
        return 400 if broken else 422
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def problem(error: BaseException, scope: Scope) -> Response:
    """The answer that tells a client of an error. One that is the server's own fault is logged.

    Args:
        error: whatever was raised.
        scope: the request's; what the error is called is noted in it.
    """
    status = status_of(error)
    name = _name(error, status)
    scope[NOTED] = name
    document: dict[str, Any] = {
        "type": f"urn:vlrt:error:{name}",
        "title": _title(error, status),
        "status": status,
        "detail": _detail(error, scope),
        "error": name,
    }
    if status == 500:
        number = secrets.token_hex(8)
        document["detail"] = f"internal error; the server's log has it under {number}"
        document["id"] = number
        request = (scope.get("method"), scope.get("path"))
        _LOG.error("internal error %s at %s %r", number, *request, exc_info=error)
    if isinstance(error, OverloadError):
        document["retry_after"] = error.retry_after
    # Some clients show this field alone, each in a form of its own.
    if _is_below(scope, "/v2"):
        document["error"] = f"{name}: {document['detail']}"
    elif any(_is_below(scope, path) for path in OPENAI_PATHS):
        document["error"] = {
            "message": document["detail"], "type": name, "code": name, "param": None,
        }  # fmt: skip
    return Response(
        json.dumps(document).encode(),  # as ASCII, since texts may hold lone surrogates
        status,
        headers={"Cache-Control": "no-store", **_headers(error, status)},
        media_type=MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Have an application answer with problems, whatever of this is raised.

    All else is for `vlrt.server.guards.LastResort`, which stands outside of the application.
    """

    async def answered(request: Request, error: Exception) -> Response:
        return problem(error, request.scope)

    for kind in (VlrtError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answered)


def _is_below(scope: Scope, top: str) -> bool:
    path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
    return path == top or path.startswith(f"{top}/")


def _name(error: BaseException, status: int) -> str:
    if isinstance(error, VlrtError):
        return type(error).__name__
    if isinstance(error, RequestValidationError):
        return RequestError.__name__
    if isinstance(error, HTTPException):
        return "".join(filter(str.isalnum, _phrase(status).title()))
    return "InternalError"


def _title(error: BaseException, status: int) -> str:
    """What kind of error it is, the same each time: the first line of its description."""
    if isinstance(error, VlrtError) and type(error).__doc__:
        return str(type(error).__doc__).splitlines()[0].rstrip(".")
    return _phrase(status)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def _detail(error: BaseException, scope: Scope) -> str:
    if isinstance(error, RequestValidationError):
        told = [_told(one) for one in error.errors()[:_MOST_TOLD]]
        more = len(error.errors()) - _MOST_TOLD
        return "; ".join(told + ([f"and {more} more"] if more > 0 else []))
    if isinstance(error, HTTPException):
        # What Starlette itself raises only repeats the status.
        if error.detail not in ("", _phrase(error.status_code)):
            return str(error.detail)
        asked = f"{scope.get('method', '')} {scope.get('path', '')!r:.200}"
        valid = (error.headers or {}).get("Allow")
        return {
            404: f"there is nothing at {asked}",
            405: f"{asked} is no way to ask; valid: {valid}",
        }.get(error.status_code, f"{asked}: {_phrase(error.status_code)}")
    return str(error)


def _told(mistake: Mapping[str, Any]) -> str:
    """A mistake that FastAPI found: the field, what is wrong, and what was given if it is short."""
    where = ".".join(str(part) for part in mistake["loc"])[:120]
    given = mistake.get("input")
    shown = f" (it is {given!r:.60})" if isinstance(given, str | int | float) else ""
    return f"{where!r}: {mistake['msg']}{shown}"


def _headers(error: BaseException, status: int) -> dict[str, str]:
    if isinstance(error, HTTPException):
        return dict(error.headers or {})
    if isinstance(error, OverloadError):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    return {"WWW-Authenticate": 'Bearer realm="vlrt"'} if status == 401 else {}
