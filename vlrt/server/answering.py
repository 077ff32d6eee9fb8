"""Answers out of the JSON that jobs give, and how long they took."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import Response

from vlrt.server.jobs import Done
from vlrt.server.tickets import STAGES


def rendered(value: Any) -> str:
    """JSON, as short as it gets. Floats come back as they were; NaN and infinities are refused."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def answered(
    head: Mapping[str, Any],
    name: str,
    listed: Iterable[str],
    done: Sequence[Done[Any]],
    began: float,
) -> Response:
    """An answer with what some jobs found.

    Args:
        head: its other fields.
        name: of the field that is a list.
        listed: what that holds, each as JSON.
        done: the jobs, at least one.
        began: when the request did, by `time.perf_counter`.
    """
    content = f"{rendered(head)[:-1]},{rendered(name)}:[{','.join(listed)}]}}"
    timing = server_timing([one.seconds for one in done], time.perf_counter() - began)
    return Response(
        content.encode(), media_type="application/json", headers={"Server-Timing": timing}
    )


def server_timing(jobs: Sequence[Mapping[str, float]], total: float) -> str:
    """The header that tells where the time went: of each stage the longest over the jobs, in ms."""
    stages = {stage: max(job.get(stage, 0.0) for job in jobs) for stage in STAGES}
    return ", ".join(
        f"{stage};dur={seconds * 1000:.2f}" for stage, seconds in {**stages, "total": total}.items()
    )
