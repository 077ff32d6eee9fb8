"""What the rows of `serve_clients.py` and samples of memory say: counts, percentiles, slopes."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlrt.errors import BenchmarkError, ExtraMissingError

from .serve_http import LEFT
from .serve_requests import Request
from .stats import Estimate

Rows = Sequence[Sequence[Any]]
OK, BUSY = 200, 503
# Memory is flat if it surely grows by less than this share an hour; and also if growth is not seen
# and the interval says that more than the second share would have been.
_SMALL, _SEEN = 0.01, 0.10
_HOUR_S = 3600.0


def percentiles(latencies_s: Sequence[float]) -> dict[str, float]:
    """Percentiles of latencies.

    Returns:
        `p50_ms`, `p95_ms`, `p99_ms`, `max_ms` and `runs`; `runs` alone, 0, if there are none.
    """
    if not len(latencies_s):
        return {"runs": 0}
    p50, p95, p99, most = np.percentile(np.asarray(latencies_s, float), (50, 95, 99, 100)) * 1e3
    return {
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "max_ms": float(most),
        "runs": len(latencies_s),
    }


def counted(rows: Rows, requests: Sequence[Request]) -> dict[str, Any]:
    """What came of all requests, each counted once.

    Returns:
        `asked`; `answers`, status -> how many of the requests that were answered as they should
        be, or with 503; `left`, clients that went away on purpose; `failures`, what else came ->
        how many. An answer of another status than a request's own is a failure too.
    """
    answers: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    left = 0
    for at, outcome, *_ in rows:
        request = requests[at]
        if outcome == LEFT:
            left += 1
        elif isinstance(outcome, str):
            failures[outcome] += 1
        elif outcome in (request.expected, BUSY):
            answers[str(outcome)] += 1
        else:
            failures[f"{outcome} to {request.name}"] += 1
    return {
        "asked": len(rows),
        "answers": dict(sorted(answers.items())),
        "left": left,
        "failures": dict(failures.most_common()),
    }


def latencies(rows: Rows, status: int = OK) -> list[float]:
    """Seconds that each answer of a status took, in the order in which they came."""
    return [row[3] for row in rows if row[1] == status]


def per_second(rows: Rows, requests: Sequence[Request], seconds: float) -> float:
    """Right answers a second that came while the window was open; a refusal is none."""
    came = (row[2] + row[3] for row in rows if row[1] == requests[row[0]].expected)
    return sum(1 for at in came if 0 <= at <= seconds) / seconds


def lateness_ms(rows: Rows) -> float:
    """How long after they were due requests were sent, the 99th percentile."""
    return float(np.percentile([row[4] for row in rows], 99) * 1e3) if rows else 0.0


def retry_after(rows: Rows) -> dict[str, Any]:
    """What 503s say of when to come again.

    Returns:
        `missing`, how many say nothing that is a whole number of seconds; `least_s` and `most_s`,
        None where none says anything.
    """
    said = [row[5] for row in rows if row[1] == BUSY]
    seconds = [int(one) for one in said if one is not None and one.isascii() and one.isdigit()]
    return {
        "missing": len(said) - len(seconds),
        "least_s": min(seconds, default=None),
        "most_s": max(seconds, default=None),
    }


def throughput(rows: Rows, requests: Sequence[Request], seconds: float, step: str) -> float:
    """`per_second` of a closed loop, which is above 0.

    Args:
        rows: of all requests.
        requests: that rows name.
        seconds: the window.
        step: for the message.

    Raises:
        BenchmarkError: no right answer came in the window.
    """
    rate = per_second(rows, requests, seconds)
    if not rate:
        came = dict(Counter(str(row[1]) for row in rows))
        raise BenchmarkError(
            f"{step}: no right answer came in {seconds:g} s; in all there came {came}; take a "
            "longer --seconds if these are right"
        )
    return rate


# --- memory ---------------------------------------------------------------------------------------


def floor(samples: Sequence[tuple[float, float]], block_s: float) -> NDArray[np.float64]:
    """The least memory of each block of time: what stays, not what a large picture took meanwhile.

    Args:
        samples: (seconds, MiB), in order.
        block_s: length of a block.

    Returns:
        float64 [blocks, 2]: when the sample was taken, and the MiB.
    """
    lowest: dict[int, tuple[float, float]] = {}
    for at, mib in samples:
        block = math.floor(at / block_s)
        if block not in lowest or mib < lowest[block][1]:
            lowest[block] = (at, mib)
    return np.array([lowest[block] for block in sorted(lowest)], float).reshape(-1, 2)


def slope(times: ArrayLike, values: ArrayLike) -> Estimate:
    """The slope of a straight line through samples, with its 95 % interval.

    The interval is that of least squares, for as many independent samples as there are once
    neighbours that are alike are counted for less (autocorrelation of first order; Bayley and
    Hammersley 1946). Of fewer than four samples it is all numbers.

    Args:
        times, values: of the samples, in order of time.

    Raises:
        BenchmarkError: there are fewer than two times.
        ExtraMissingError: scipy is not installed.
    """
    try:
        from scipy.stats import t as student
    except ModuleNotFoundError as error:
        raise ExtraMissingError("an interval", "bench", error.name or "scipy") from error
    at, value = np.asarray(times, float), np.asarray(values, float)
    if len(np.unique(at)) < 2:
        raise BenchmarkError("a slope needs samples of two times at least")
    offsets = at - at.mean()
    spread = float((offsets**2).sum())
    found = float((offsets * (value - value.mean())).sum() / spread)
    if len(at) < 4:
        return Estimate(found, -math.inf, math.inf)
    rest = value - value.mean() - found * offsets
    power = float((rest**2).sum())
    alike = float((rest[1:] * rest[:-1]).sum()) / power if power > 0 else 0.0
    alike = min(max(alike, 0.0), 0.95)
    worth = max(3.0, len(at) * (1 - alike) / (1 + alike))
    variance = power / (len(at) - 2) / spread * len(at) / worth
    half = float(student.ppf(0.975, worth - 2)) * math.sqrt(variance)
    return Estimate(found, found - half, found + half)


def growth(samples: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Whether memory grows, by the second half of its samples.

    The half is cut into thirty blocks, the least of each of which counts.

    Args:
        samples: (seconds, MiB), in order.

    Returns:
        `mib_per_hour`, the slope with its interval; `begin_mib`, what the line begins at;
        `verdict`: "flat", "grows" or "too noisy".
    """
    start = samples[0][0]
    middle = (start + samples[-1][0]) / 2
    half = [one for one in samples if one[0] >= middle]
    block = max((half[-1][0] - half[0][0]) / 30, 1e-9)
    lowest = floor([(at - half[0][0], mib) for at, mib in half], block)
    found = slope(lowest[:, 0], lowest[:, 1])
    hourly = Estimate(*(one * _HOUR_S for one in (found.value, found.low, found.high)))
    begin = float(lowest[:, 1].mean() - found.value * lowest[:, 0].mean())
    return {
        "mib_per_hour": hourly.as_dict(),
        "begin_mib": begin,
        "verdict": verdict(hourly, begin),
    }


def verdict(hourly: Estimate, begin: float) -> str:
    """Whether memory is flat, in a word.

    Args:
        hourly: growth an hour.
        begin: what it grows from, in the same unit.

    Returns:
        "flat" where it surely grows by less than 1 % an hour, or where no growth is seen and 10 %
        an hour would have been; "grows" where it surely grows, and not surely by so little; else
        "too noisy".
    """
    if hourly.high < _SMALL * begin:
        return "flat"
    if hourly.low > 0:
        return "grows"
    return "flat" if hourly.high < _SEEN * begin else "too noisy"
