"""What the server counts, for Prometheus. Every label takes one of few values, never a client's."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlrt.server.problems import NOTED

_SECONDS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_ELSEWHERE = "other"  # the path of what no route is for
_LEFT = "left"  # the status of what no answer was begun for: its client left


class Ran(Protocol):
    """One run of a graph; `vlrt.server.batching.Ran` is one."""

    @property
    def model(self) -> str: ...  # noqa: D102  what they are is said there
    @property
    def component(self) -> str: ...  # noqa: D102
    @property
    def requests(self) -> int: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def error(self) -> bool: ...  # noqa: D102


class LabelCounts(Protocol):
    """How a cache of labels does; `vlrt.server.labels.LabelCache` is one."""

    hits: int
    misses: int
    bytes: int


class Rendered(NamedTuple):
    """All metrics as text, and what kind of text it is."""

    content: bytes
    content_type: str


class Metrics:
    """Counters of one server, apart from all others in this process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "vlrt_requests", "Requests answered", ["path", "status"], registry=registry
        )
        self._errors = Counter(
            "vlrt_errors", "Requests answered with an error, by its name", ["error"],
            registry=registry,
        )  # fmt: skip
        self._request_seconds = Histogram(
            "vlrt_request_seconds", "From a request's head to the end of its answer", ["path"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._abandoned = Counter(
            "vlrt_abandoned", "Requests whose client left before the answer", registry=registry
        )
        self._in_flight = Gauge(
            "vlrt_in_flight", "Jobs taken on and not ended", ["model"], registry=registry
        )
        self._depth = Gauge(
            "vlrt_queue_depth", "Rows that wait for a graph", ["model"], registry=registry
        )
        graph = ["model", "component"]
        self._rows = Histogram(
            "vlrt_batch_rows", "Rows of a run of a graph", graph, buckets=_ROWS, registry=registry
        )
        self._batch_requests = Histogram(
            "vlrt_batch_requests", "Jobs that share a run of a graph", graph,
            buckets=_ROWS, registry=registry,
        )  # fmt: skip
        self._run_seconds = Histogram(
            "vlrt_run_seconds", "Run time of a graph", graph, buckets=_SECONDS, registry=registry
        )
        self._run_errors = Counter(
            "vlrt_run_errors", "Runs of a graph that failed", graph, registry=registry
        )
        self._stages = Histogram(
            "vlrt_stage_seconds", "Where the time of a job went", ["model", "stage"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._labels = _Labels()
        registry.register(self._labels)
        self._info = Gauge(
            "vlrt_model_info", "1 for each model that is served",
            ["model", "task", "precision", "provider"], registry=registry,
        )  # fmt: skip

    def watch(
        self,
        model: str,
        info: Mapping[str, Any],
        *,
        in_flight: Callable[[str], int],
        depth: Callable[[str], int],
    ) -> None:
        """Tell of a model from now on.

        Args:
            model: its name.
            info: of which `task`, `precision` and `provider` are told.
            in_flight, depth: asked with the model's name whenever the metrics are.
        """
        told = [str(info[key]) for key in ("task", "precision", "provider")]
        self._info.labels(model, *told).set(1)
        self._in_flight.labels(model).set_function(lambda: in_flight(model))
        self._depth.labels(model).set_function(lambda: depth(model))

    def watch_labels(self, counts: LabelCounts) -> None:
        """Tell of a cache of labels from now on."""
        self._labels.counts = counts

    def observe_run(self, ran: Ran) -> None:
        """Count a run of a graph."""
        graph = (ran.model, ran.component)
        self._rows.labels(*graph).observe(ran.rows)
        self._batch_requests.labels(*graph).observe(ran.requests)
        self._run_seconds.labels(*graph).observe(ran.seconds)
        if ran.error:
            self._run_errors.labels(*graph).inc()

    def observe_job(self, model: str, seconds: Mapping[str, float]) -> None:
        """Count a job, with the seconds of each of its stages."""
        for stage, value in seconds.items():
            self._stages.labels(model, stage).observe(value)

    def observe_request(
        self, path: str, status: int | None, seconds: float, error: str | None
    ) -> None:
        """Count a request.

        Args:
            path: of its route, with the names of parameters where requests have their values.
            status: of its answer; None if it got none, because its client left.
            seconds: that it took.
            error: the name of what it was answered with, if that is an error.
        """
        self._requests.labels(path, _LEFT if status is None else str(status)).inc()
        self._request_seconds.labels(path).observe(seconds)
        if status is None:
            self.abandoned()
        if error is not None:
            self._errors.labels(error).inc()

    def abandoned(self) -> None:
        """Count a request whose client left before it had its answer."""
        self._abandoned.inc()

    def render(self) -> Rendered:
        """All that was counted until now."""
        return Rendered(generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4)


class _Labels(Collector):
    """Reads a cache's own counts, if there is one, when it is asked."""

    counts: LabelCounts | None = None

    def collect(self) -> Iterator[Metric]:
        counts, name = self.counts, "vlrt_label_cache"
        if counts is None:
            return
        yield CounterMetricFamily(f"{name}_hits", "Label sets that were there", counts.hits)
        yield CounterMetricFamily(f"{name}_misses", "Label sets that were made", counts.misses)
        yield GaugeMetricFamily(f"{name}_bytes", "Size of the sets that are kept", counts.bytes)


class Measured:
    """Counts every request, whatever becomes of it. Plain ASGI.

    Args:
        app: behind it.
        metrics: where to count.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status: int | None = None

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            path = getattr(scope.get("route"), "path", _ELSEWHERE)
            seconds = time.perf_counter() - began
            self._metrics.observe_request(path, status, seconds, scope.get(NOTED))
