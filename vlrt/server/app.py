"""The server, put together."""

from fastapi import FastAPI

from vlrt.hardware import available_cpus
from vlrt.server import embeddings, guards, health, leaving, pages, problems, v1, v2
from vlrt.server.batching import Scheduler
from vlrt.server.context import Context
from vlrt.server.describing import describe
from vlrt.server.jobs import Jobs
from vlrt.server.labels import LabelCache
from vlrt.server.metrics import Metrics
from vlrt.server.models import load_all
from vlrt.server.settings import Settings

__all__ = ["Context", "build", "create_app"]


_FETCHES = 16  # pictures that are fetched at the same time, or a few more


def build(settings: Settings) -> Context:
    """Load the models, and start what runs them. None of them is warm yet.

    Who builds it ends it, by `jobs.close()` and `scheduler.close()`.

    Raises:
        VlrtError: a model cannot be loaded (see `vlrt.load`).
    """
    metrics = Metrics()
    scheduler = Scheduler(
        lanes=settings.lanes,
        max_delay_s=settings.max_delay_ms / 1000,
        batching=settings.batching,
        observe=metrics.observe_run,
    )
    catalogue = load_all(settings.models, scheduler)
    jobs, fetches = (
        Jobs(
            scheduler,
            slots=slots,
            queue_length=settings.queue_length,
            deadline_s=settings.deadline_s,
            finished=metrics.observe_job,
        )
        for slots in (settings.work_threads or available_cpus(), _FETCHES)
    )
    labels = LabelCache(jobs, int(settings.label_cache_mib * 2**20))
    scheduler.start()
    return Context(settings, catalogue, scheduler, jobs, fetches, labels, metrics)


def create_app(context: Context) -> FastAPI:
    """The ASGI application: every route, behind its guards."""
    # The pages that FastAPI has for its descriptions load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, redirect_slashes=False)
    for routes in (v1, embeddings, v2, health):
        app.include_router(routes.router(context))
    if context.settings.page:
        app.include_router(pages.router(context))
    describe(app, with_keys=bool(context.settings.api_keys))
    problems.install(app)
    leaving.install(app)
    guards.install(app, context)
    return app
