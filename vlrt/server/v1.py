"""vlrt's own tasks over HTTP, a route a task, and the list of models in OpenAI's shape."""

import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response

from vlrt.server import answers, tasks
from vlrt.server.answering import answered
from vlrt.server.context import Context
from vlrt.server.describing import body, problems
from vlrt.server.jobs import Done
from vlrt.server.leaving import unless_gone
from vlrt.server.models import Served
from vlrt.server.reading import FORM, JSON, read
from vlrt.server.schemas import AskRequest, ClassifyRequest, DetectRequest, MatchRequest

A = TypeVar("A", ClassifyRequest, DetectRequest, AskRequest, MatchRequest)

_PROBLEMS = problems(400, 401, 403, 404, 408, 413, 415, 422, 500, 503)


def router(context: Context) -> APIRouter:
    """`POST /v1/classify`, `/v1/detect`, `/v1/ask`, `/v1/match`; `GET /v1/models` and one of it."""
    routes = APIRouter(prefix="/v1")

    def task(
        name: str,
        asked: type[A],
        answer: type[Any],
        work: Callable[[Context, Served, A], Coroutine[Any, Any, list[Done[str]]]],
    ) -> None:
        """Add the route of a task: read, find the model, work, answer."""

        async def route(request: Request) -> Response:
            began = time.perf_counter()
            given = await read(request, asked, context.settings, media_types=(JSON, FORM))
            served = context.catalogue.choose(name, given.model)
            done = await unless_gone(
                request, work(context, served, given), context.settings.deadline_s
            )
            results = (one.value for one in done)
            return answered({"model": served.name}, "results", results, done, began)

        routes.add_api_route(
            f"/{name}",
            route,
            methods=["POST"],
            operation_id=name,
            tags=["tasks"],
            summary=(asked.__doc__ or "").partition("\n")[0],
            response_model=answer,
            responses=_PROBLEMS,
            openapi_extra=body(asked, JSON, FORM),
        )

    task("classify", ClassifyRequest, answers.ClassifyAnswer, tasks.classify)
    task("detect", DetectRequest, answers.DetectAnswer, tasks.detect)
    task("ask", AskRequest, answers.AskAnswer, tasks.ask)
    task("match", MatchRequest, answers.MatchAnswer, tasks.match)

    cards = {served.name: _card(served, int(time.time())) for served in context.catalogue}

    @routes.get(
        "/models",
        operation_id="list_models",
        tags=["models"],
        summary="What is served?",
        response_model=answers.ModelList,
        responses=problems(401, 500),
    )
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": list(cards.values())}

    @routes.get(
        "/models/{name}",
        operation_id="retrieve_model",
        tags=["models"],
        summary="What is one of them?",
        response_model=answers.ModelCard,
        responses=problems(401, 404, 500),
    )
    async def retrieve_model(name: str) -> dict[str, Any]:
        return cards[context.catalogue.get(name).name]

    return routes


def _card(served: Served, created: int) -> dict[str, Any]:
    """A model as `GET /v1/models` shows it; paths of this machine are not told."""
    info = served.info
    told = ("task", "family", "precision", "precision_reason", "provider", "threads", "decode")
    return {
        "id": served.name,
        "object": "model",
        "created": created,
        "owned_by": "vlrt",
        "methods": sorted(served.tasks),
        **{name: info[name] for name in told},
    }
