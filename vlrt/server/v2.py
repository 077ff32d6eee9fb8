"""The Open Inference Protocol, version 2, with its extension for binary data: raw tensors.

Its "model" is one graph: `NAME.COMPONENT`, or `NAME` where a model has only one.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Request, Response

from vlrt import __version__
from vlrt.errors import NotServedError, OverloadError
from vlrt.server import v2_schemas as schemas
from vlrt.server.answering import server_timing
from vlrt.server.context import Context
from vlrt.server.describing import problems
from vlrt.server.health import check_ready
from vlrt.server.leaving import unless_gone
from vlrt.server.reading import body_of, check_plain
from vlrt.server.tensors import datatype
from vlrt.server.v2_infer import VERSION, Graph, graphs_of, infer, read
from vlrt.session import Tensor

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"


def router(context: Context) -> APIRouter:
    """Everything below `/v2`."""
    routes = APIRouter(tags=["Open Inference Protocol"])
    graphs = graphs_of(context.catalogue)

    async def current(model: str) -> Graph:
        if model not in graphs:
            raise NotServedError(f"there is no graph {model!r:.80}; valid: {', '.join(graphs)}")
        return graphs[model]

    async def versioned(model: str, version: str) -> Graph:
        graph = await current(model)
        if version != VERSION:
            raise NotServedError(f"{model} has no version {version!r:.40}; valid: {VERSION}")
        return graph

    _add_server(routes, context, graphs)
    _add_models(routes, context, "/v2/models/{model}", current)
    _add_models(routes, context, "/v2/models/{model}/versions/{version}", versioned)
    return routes


def _add_server(routes: APIRouter, context: Context, graphs: Mapping[str, Graph]) -> None:
    """Add what is asked of the server as a whole."""

    @routes.get("/v2", summary="What is the server?", responses=problems(401))
    async def server_metadata() -> schemas.ServerMetadata:
        return schemas.ServerMetadata(
            name="vlrt", version=__version__, extensions=["binary_tensor_data"]
        )

    @routes.get("/v2/health/live", summary="Does the process answer?")
    async def server_live() -> schemas.ServerLive:
        return schemas.ServerLive(live=True)

    @routes.get("/v2/health/ready", summary="Does it take requests?", responses=problems(503))
    async def server_ready() -> schemas.ServerReady:
        check_ready(context)
        return schemas.ServerReady(ready=True)

    @routes.post(
        "/v2/repository/index",
        summary="Which graphs are there?",
        responses=problems(400, 401, 413, 422),
        openapi_extra=schemas.body(schemas.IndexRequest, required=False),
    )
    async def repository_index(request: Request) -> list[schemas.Indexed]:
        body = await body_of(request)
        asked = read(schemas.IndexRequest, body) if body else schemas.IndexRequest()
        state: Literal["READY", "UNAVAILABLE"] = "READY"
        reason = ""
        try:
            check_ready(context)
        except OverloadError as error:
            state, reason = "UNAVAILABLE", str(error)
        return [
            schemas.Indexed(name=name, version=VERSION, state=state, reason=reason)
            for name in graphs
            if state == "READY" or not asked.ready
        ]


def _add_models(
    routes: APIRouter, context: Context, path: str, find: Callable[..., Awaitable[Graph]]
) -> None:
    """Add what is asked of a graph, which `find` finds by the parameters of the path."""
    Found = Annotated[Graph, Depends(find)]  # noqa: N806, a type

    @routes.get(path, summary="What does a graph take and give?", responses=problems(401, 404))
    async def model_metadata(graph: Found) -> schemas.ModelMetadata:
        return schemas.ModelMetadata(
            name=graph.name,
            versions=[VERSION],
            platform="onnxruntime_onnx",
            inputs=_metadata(graph.runner.inputs),
            outputs=_metadata(graph.runner.outputs),
        )

    @routes.get(
        f"{path}/ready", summary="Does it take requests?", responses=problems(401, 404, 503)
    )
    async def model_ready(graph: Found) -> schemas.ModelReady:
        check_ready(context)
        return schemas.ModelReady(name=graph.name, ready=True)

    @routes.post(
        f"{path}/infer",
        summary="Run a graph on tensors",
        response_model=schemas.InferAnswer,
        responses={
            200: {"content": {BINARY: {}}},
            **problems(400, 401, 404, 413, 415, 422, 500, 503),
        },
        openapi_extra=schemas.body(schemas.InferRequest, BINARY),
    )
    async def model_infer(
        graph: Found,
        request: Request,
        header_length: Annotated[
            str | None,
            Header(alias=HEADER_LENGTH, description="bytes of the JSON, if others follow it"),
        ] = None,
    ) -> Response:
        began = time.perf_counter()
        check_plain(request)
        work = partial(infer, graph, await body_of(request), header_length)
        done = await unless_gone(
            request, context.jobs.run(graph.model, work), context.settings.deadline_s
        )
        timing = server_timing([done.seconds], time.perf_counter() - began)
        head, tensors = done.value
        headers = {"Server-Timing": timing}
        if not tensors:
            return Response(head, headers=headers, media_type="application/json")
        headers[HEADER_LENGTH] = str(len(head))
        return Response(b"".join((head, *tensors)), headers=headers, media_type=BINARY)


def _metadata(tensors: Mapping[str, Tensor]) -> list[schemas.TensorMetadata]:
    return [
        schemas.TensorMetadata(
            name=name,
            datatype=datatype(tensor.dtype),
            shape=[-1 if size is None else size for size in tensor.shape],
        )
        for name, tensor in tensors.items()
    ]
