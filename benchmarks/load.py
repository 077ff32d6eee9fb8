"""`vlrt bench load`: how much a model that many clients share can be asked, and how long they wait.

Each contender is a process in which clients, threads, share one model. First closed loops: so many
clients, each of which asks again as soon as it has its answer. The best throughput of these is the
capacity. Then open loops: requests that come by a Poisson process at shares of the capacity,
whether others were answered or not, to as many workers as the best closed loop had clients. Their
latency counts from when they were due, so that waiting is seen.
"""

import argparse
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlrt.cli_options import count
from vlrt.files import file_sha256
from vlrt.hardware import available_cpus

from . import document, request, subject
from .contender import AGAINST, checked_against, enter
from .journal import Journal, beside
from .load_steps import KEPT_UP, LIMIT, measure
from .machine import identity, pinned

BASE = "torch-fp32"
_WARM_UP_S = 2.0
# Of fewer requests the 99th percentile is the slowest or nearly so.
_FEW = 100


def positive(text: str) -> float:
    """Read a number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def add(verbs: Any) -> None:
    """Add the verb's parser."""
    text = "throughput of clients that share a model, and latency against offered load"
    parser: argparse.ArgumentParser = verbs.add_parser("load", help=text, description=text)
    parser.set_defaults(run=run)
    subject.add_options(
        parser,
        precision="variants to measure, or auto, the one taken on this CPU (default: auto)",
    )
    document.add_options(parser, "load")
    request.add_options(parser)
    parser.add_argument(
        "--against", nargs="*", default=[], metavar="ENGINE",
        help=f"also measure: {', '.join(AGAINST)} (default: vlrt alone)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=count, default=available_cpus(),
        help="of the model's operators (default: all CPUs, %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--clients", type=count, nargs="+", default=[1, 2, 4, 8], metavar="N",
        help="of the closed loops; 1 is always measured (default: 1 2 4 8)",
    )  # fmt: skip
    parser.add_argument(
        "--offered", type=positive, nargs="+", metavar="SHARE",
        default=[0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25],
        help="of the capacity, in the open loops (default: 0.25 0.5 0.75 0.9 1 1.1 1.25)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=positive, default=10.0, help="of each step (default: %(default)g)"
    )
    parser.add_argument(
        "--batch-size", type=count, default=1, help="pictures in a request (default: %(default)s)"
    )
    parser.add_argument(
        "--spinning", choices=("on", "off"), default="off",
        help="whether vlrt's idle threads spin (default: off, as for a server)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Measure, write the result and print it.

    Raises:
        VlrtError: see `vlrt.errors`.
    """
    checked_against(options.against)
    measured = request.subject_of(options)
    path = document.output_path(options, "load", measured.name)
    with tempfile.TemporaryDirectory(prefix="vlrt-load-") as folder:
        asked = request.request(options, Path(folder))
        settings = {
            **asked.facts(request.method(measured)),
            "clients": sorted({1, *options.clients}),
            "offered": sorted(set(options.offered)),
            "seconds": options.seconds,
            "batch_size": options.batch_size,
            "spinning": options.spinning,
            "limit_in_lone_medians": LIMIT,
            "kept_up_share": KEPT_UP,
        }
        found = document.begin(
            "load", options, subject=measured, threads=options.threads, settings=settings
        )
        contenders, found["skipped"] = enter(measured, options.against, BASE)
        found["fairness"] = _fairness(options)
        job = {
            **asked.job(),
            "method": request.method(measured),
            "batch_size": options.batch_size,
            "threads": options.threads,
            "spinning": options.spinning == "on",
            "cpus": pinned(options.threads),
            "clients": max(settings["clients"]),
            "warm_up_s": min(_WARM_UP_S, options.seconds),
        }
        names = [one.name for one in contenders]
        plan = {
            "model": found["model"],
            "contenders": names,
            "threads": options.threads,
            "picture_sha256": file_sha256(asked.picture),
            **settings,
            **identity(),
        }
        with Journal(beside(path), plan, fresh=options.fresh) as journal:
            found["body"] = {"contenders": measure(contenders, job, settings, journal)}
            found["notes"] += _notes(found["body"], options)
            written = document.write(found, path)
            journal.done()
    print(written[1].read_text(encoding="utf-8"))
    return 0


def _fairness(options: argparse.Namespace) -> list[str]:
    return [
        "Every contender is a process of its own; they take turns, one step each.",
        "Clients are threads of that process and share one model; garbage collection is off.",
        f"A process and its clients are pinned to {options.threads} processors.",
        f"A model of vlrt has {options.threads} threads in all; of torch as many for each client.",
        f"Spinning of idle threads is {options.spinning} for vlrt, and OpenMP's default for torch.",
        "All are asked the same about the same picture, from the file on; results are compared.",
        "Labels are encoded before, as a server would.",
        "In open loops the gaps between requests are the same for all, in units of their mean.",
    ]


def _notes(body: Mapping[str, Any], options: argparse.Namespace) -> list[str]:
    contenders = body["contenders"].items()
    notes = [
        "The capacity is the best throughput of the closed loops.",
        "Open loops have as many workers as that one had clients.",
        "Their latency counts from when a request was due, whether a worker was free or not.",
        (
            f"A load was kept up with if {KEPT_UP:.0%} of what arrived was answered by the end of "
            f"the window, or within {LIMIT} medians of a lone client's latency after it."
        ),
        (
            "What waits is answered for as long as the window once more, and the rest is not: "
            "where a load was not kept up with, clients saw worse than the percentiles."
        ),
        (
            "The knee is the highest load that was kept up with, at a 99th percentile below "
            f"{LIMIT} medians of a lone client's latency."
        ),
    ]
    if options.batch_size > 1:
        notes.append(f"A request is of {options.batch_size} pictures; numbers are of requests.")
    notes += [
        f"Too noisy for a knee: {name} answered {own['capacity_per_s']:.3g} requests a second in "
        f"the closed loop before the open ones, and {own['again_per_s']:.3g} after them."
        for name, own in contenders
        if own["too_noisy"]
    ]
    few = [name for name, own in contenders if any(one["completed"] < _FEW for one in own["open"])]
    if few:
        notes.append(
            f"Some open loops of {', '.join(few)} answered less than {_FEW} requests: their 99th "
            "percentile is nearly the slowest of all. A longer --seconds gives more."
        )
    return notes
