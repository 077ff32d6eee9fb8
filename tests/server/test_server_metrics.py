"""What the server counts: once each, under few names, and readable by Prometheus."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from vlrt.errors import OverloadError, TextError

pytest.importorskip("fastapi", reason="the server is built on it")
pytest.importorskip("prometheus_client", reason="the server counts with it")
httpx = pytest.importorskip("httpx", reason="the tests' client")

from fastapi import APIRouter, FastAPI  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from vlrt.server import health, problems  # noqa: E402
from vlrt.server.guards import LastResort  # noqa: E402
from vlrt.server.metrics import Measured, Metrics  # noqa: E402


@dataclass(frozen=True)
class Ran:
    model: str = "clip"
    component: str = "vision_model"
    requests: int = 3
    rows: int = 12
    seconds: float = 0.25
    error: bool = False


def samples(metrics):
    """Every number that is told, by its name and labels."""
    text = metrics.render().content.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics, name, **labels):
    """One of them."""
    return samples(metrics)[name, frozenset(labels.items())]


def context(**changed):
    """As much of a server's context as these routes need."""
    served = SimpleNamespace(
        name="clip", info={"task": "classify", "precision": "int8", "provider": "CPU", "more": 1}
    )
    return SimpleNamespace(
        **{
            "catalogue": [served],
            "jobs": SimpleNamespace(in_flight={"clip": 4}.__getitem__),
            "scheduler": SimpleNamespace(depth={"clip": 9}.__getitem__, healthy=lambda: True),
            "labels": SimpleNamespace(hits=5, misses=2, bytes=4096),
            "metrics": Metrics(),
            "state": SimpleNamespace(draining=False),
            **changed,
        }
    )


def application(parts):
    app = FastAPI()
    app.include_router(health.router(parts))
    problems.install(app)
    app.add_middleware(LastResort)
    app.add_middleware(Measured, metrics=parts.metrics)
    routes = APIRouter()

    @routes.get("/models/{name}")
    async def model(name: str):
        if name == "text":
            raise TextError(name)
        if name == "broken":
            raise ZeroDivisionError
        return name

    app.include_router(routes)
    return app


def ask(parts, *paths, method="GET"):
    async def asked():
        transport = httpx.ASGITransport(application(parts))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.request(method, path) for path in paths]

    return asyncio.run(asked())


def test_requests_are_counted_by_their_route_and_never_by_what_is_in_it():
    parts = context()
    ask(parts, "/models/a", "/models/b", "/models/text", "/models/broken", "/x/1", "/x/2")
    counted = {
        (labels["path"], labels["status"]): count
        for (name, of), count in samples(parts.metrics).items()
        if name == "vlrt_requests_total"
        for labels in [dict(of)]
    }
    route = "/models/{name}"
    assert counted == {(route, "200"): 2, (route, "422"): 1, (route, "500"): 1, ("other", "404"): 2}
    assert value(parts.metrics, "vlrt_request_seconds_count", path=route) == 4
    assert value(parts.metrics, "vlrt_errors_total", error="TextError") == 1
    assert value(parts.metrics, "vlrt_errors_total", error="InternalError") == 1
    assert value(parts.metrics, "vlrt_errors_total", error="NotFound") == 2
    assert value(parts.metrics, "vlrt_abandoned_total") == 0


def test_a_method_that_a_route_does_not_have_is_counted_under_it():
    parts = context()

    async def asked():
        transport = httpx.ASGITransport(application(parts))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.post("/health/live")

    asyncio.run(asked())
    labels = {"path": "/health/live", "status": "405"}
    assert value(parts.metrics, "vlrt_requests_total", **labels) == 1


def test_a_request_without_an_answer_is_one_whose_client_left():
    metrics = Metrics()

    async def silent(scope, receive, send):
        """A guard that ends since the client did."""

    asyncio.run(Measured(silent, metrics=metrics)({"type": "http"}, None, None))
    assert value(metrics, "vlrt_requests_total", path="other", status="left") == 1
    assert value(metrics, "vlrt_abandoned_total") == 1


def test_a_request_that_is_cancelled_is_counted_too():
    metrics = Metrics()

    async def cancelled(scope, receive, send):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Measured(cancelled, metrics=metrics)({"type": "http"}, None, None))
    assert value(metrics, "vlrt_abandoned_total") == 1


def test_runs_of_graphs_are_counted_with_their_sizes():
    metrics = Metrics()
    metrics.observe_run(Ran())
    metrics.observe_run(Ran(rows=1, requests=1, error=True))
    graph = {"model": "clip", "component": "vision_model"}
    assert value(metrics, "vlrt_batch_rows_count", **graph) == 2
    assert value(metrics, "vlrt_batch_rows_sum", **graph) == 13
    assert value(metrics, "vlrt_batch_requests_sum", **graph) == 4
    assert value(metrics, "vlrt_run_seconds_sum", **graph) == 0.5
    assert value(metrics, "vlrt_run_errors_total", **graph) == 1
    assert value(metrics, "vlrt_batch_rows_bucket", le="1.0", **graph) == 1
    assert value(metrics, "vlrt_batch_rows_bucket", le="16.0", **graph) == 2


def test_jobs_are_counted_by_stage():
    metrics = Metrics()
    metrics.observe_job("clip", {"wait": 0.5, "run": 0.25})
    metrics.observe_job("clip", {"run": 0.25})
    assert value(metrics, "vlrt_stage_seconds_sum", model="clip", stage="run") == 0.5
    assert value(metrics, "vlrt_stage_seconds_count", model="clip", stage="wait") == 1


def test_what_is_going_on_is_asked_for_when_it_is_told():
    parts = context()
    (answer,) = ask(parts, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"process_resident_memory_bytes", "python_info"} <= families
    info = {"task": "classify", "precision": "int8", "provider": "CPU"}
    assert value(parts.metrics, "vlrt_model_info", model="clip", **info) == 1
    assert value(parts.metrics, "vlrt_in_flight", model="clip") == 4
    assert value(parts.metrics, "vlrt_queue_depth", model="clip") == 9
    assert value(parts.metrics, "vlrt_label_cache_hits_total") == 5
    assert value(parts.metrics, "vlrt_label_cache_misses_total") == 2
    assert value(parts.metrics, "vlrt_label_cache_bytes") == 4096
    parts.labels.hits = 6
    assert value(parts.metrics, "vlrt_label_cache_hits_total") == 6


def test_two_servers_count_apart():
    one, other = Metrics(), Metrics()
    one.abandoned()
    assert value(one, "vlrt_abandoned_total") == 1
    assert value(other, "vlrt_abandoned_total") == 0


def test_a_server_that_works_is_live_and_ready():
    live, ready = ask(context(), "/health/live", "/health/ready")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


def test_health_may_be_asked_by_head():
    parts = context()
    for answer in ask(parts, "/health/live", "/health/ready", method="HEAD"):
        assert answer.status_code == 200
    assert value(parts.metrics, "vlrt_requests_total", path="/health/live", status="200") == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"state": SimpleNamespace(draining=True)},
        {"scheduler": SimpleNamespace(depth=lambda _: 0, healthy=lambda: False)},
    ],
    ids=["draining", "a lane is missing"],
)
def test_a_server_that_takes_no_requests_lives_all_the_same(changed):
    parts = context(**changed)
    live, ready = ask(parts, "/health/live", "/health/ready")
    assert live.status_code == 200
    assert ready.status_code == 503
    assert ready.json()["error"] == OverloadError.__name__
    assert int(ready.headers["retry-after"]) >= 1
    with pytest.raises(OverloadError):
        health.check_ready(parts)
