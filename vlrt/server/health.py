"""Whether the server lives, whether it takes requests, and what it counts."""

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from vlrt.errors import OverloadError
from vlrt.server.describing import problems

if TYPE_CHECKING:
    from vlrt.server.context import Context

_ASK_AGAIN_S = 1.0  # who asks for health asks again anyway


def check_ready(context: "Context") -> None:
    """Return if the server takes requests.

    Raises:
        OverloadError: it is ending, or a worker of its is being replaced.
    """
    if context.state.draining:
        raise OverloadError("the server is ending; it takes no more requests", _ASK_AGAIN_S)
    if not context.scheduler.healthy():
        raise OverloadError("a worker has ended and is not replaced yet", _ASK_AGAIN_S)


def router(context: "Context") -> APIRouter:
    """`GET /health/live`, `GET /health/ready` and `GET /metrics`, which tells of all of it."""
    for served in context.catalogue:
        context.metrics.watch(
            served.name,
            served.info,
            in_flight=context.jobs.in_flight,
            depth=context.scheduler.depth,
        )
    context.metrics.watch_labels(context.labels)
    routes = APIRouter(tags=["health"])

    # All three are asked in the event loop: that it answers is what they tell.
    @routes.get("/health/live", summary="Does the process answer?")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "live"})

    @routes.get("/health/ready", summary="Does it take requests?", responses=problems(503))
    async def ready() -> JSONResponse:
        check_ready(context)
        return JSONResponse({"status": "ready"})

    for path, asked in (("/health/live", live), ("/health/ready", ready)):
        # As some load balancers ask. Starlette leaves the body out.
        routes.add_api_route(path, asked, methods=["HEAD"], include_in_schema=False)

    @routes.get(
        "/metrics",
        summary="What was counted, for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        content, content_type = context.metrics.render()
        return Response(content, headers={"Content-Type": content_type})

    return routes
