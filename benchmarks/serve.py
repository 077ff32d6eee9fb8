"""`vlrt bench serve`: how a server of models bears many clients, too many, and a long time.

A real `vlrt serve` is asked over its port by one process of clients. Four sections, each by itself
or with others: throughput with batching against batching off; latency at half of the capacity; four
times the capacity, where every request must be answered or refused in order; and a long mixture of
good and bad requests, in which memory must not grow.
"""

import argparse
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlrt.bundle import open_bundle
from vlrt.cli_options import count
from vlrt.errors import BenchmarkError, OptionError
from vlrt.files import file_sha256
from vlrt.hardware import available_cpus
from vlrt.load import components_of, import_family

from . import document, serve_soak, serve_steps, stats
from .journal import Journal, beside
from .load import positive
from .machine import identity
from .request import LABELS, METHODS, QUESTION
from .serve_process import clients, sigterm_unwinds
from .serve_requests import BODIES, MIDDLE_WH, PICTURES, Served, jpeg, keep, mixed, plain
from .subject import Subject

SECTIONS = ("compare_batching", "half_load", "overload", "soak")
_WARM_UP_S = 3.0
# Of fewer requests the 99th percentile is the slowest or nearly so.
_FEW = 100


def add(verbs: Any) -> None:
    """Add the verb's parser."""
    text = "a server under many clients: batching, latency, overload, and a long time"
    parser: argparse.ArgumentParser = verbs.add_parser("serve", help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument(
        "models", nargs="+", metavar="[NAME=]BUNDLE", help="directories of bundles to serve"
    )
    sections = parser.add_argument_group("what to measure, one or more")
    sections.add_argument(
        "--compare-batching", action="store_true",
        help="closed loops with batching and with --no-batching, in turns",
    )  # fmt: skip
    sections.add_argument(
        "--half-load", action="store_true", help="Poisson arrivals at half of the capacity"
    )
    sections.add_argument(
        "--overload", action="store_true", help="Poisson arrivals at four times the capacity"
    )
    sections.add_argument(
        "--soak", action="store_true", help="mixed requests, good and bad, for a long time"
    )
    document.add_options(parser, "serve")
    parser.add_argument(
        "--clients", type=count, nargs="+", default=[1, 8, 64], metavar="N",
        help="of --compare-batching (default: 1 8 64)",
    )  # fmt: skip
    parser.add_argument(
        "--busy", type=count, default=16, metavar="N",
        help="clients of the closed loop that measures a capacity (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=count, default=stats.ENOUGH_ROUNDS,
        help="of --compare-batching and --half-load (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=positive, default=10.0, help="of each step (default: %(default)g)"
    )
    parser.add_argument(
        "--soak-seconds", type=positive, default=600.0, metavar="SECONDS",
        help="of the soak (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--body", choices=BODIES, default=BODIES[0],
        help="how pictures are sent, but in the soak, which sends both (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", type=Path, nargs="+", metavar="FILE",
        help="to ask about, but in the soak (default: drawn scenes of 640x480)",
    )  # fmt: skip
    parser.add_argument(
        "--labels", nargs="+", default=list(LABELS), metavar="LABEL",
        help="to classify or find (default: four coloured shapes)",
    )  # fmt: skip
    parser.add_argument(
        "--server-flags", default="", metavar="FLAGS",
        help='further flags of vlrt serve, such as "--threads 1 --lanes 2"',
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Measure, write the result and print it.

    Raises:
        VlrtError: see `vlrt.errors`.
    """
    sections = [name for name in SECTIONS if getattr(options, name)]
    _check(options, sections)
    subjects = {name: subject(path) for name, path in _named(options.models).items()}
    models = [Served(name, _method(one)) for name, one in subjects.items()]
    title = ", ".join(subjects)
    path = document.output_path(options, "serve", "-".join(subjects))
    pictures = _pictures(options)
    settings = _settings(options, sections, models)
    found = document.begin(
        "serve", options, subject=None, threads=available_cpus(), settings=settings
    )
    found["title"] = options.title or title
    found["model"] = _facts(title, subjects)
    found["fairness"] = _fairness()
    asked = plain(models, pictures, body=options.body, labels=options.labels)
    requests = [*asked, *(mixed(models) if options.soak else ())]
    with sigterm_unwinds(), tempfile.TemporaryDirectory(prefix="vlrt-serve-") as folder:
        keep(requests, Path(folder))
        sent = sorted(Path(folder).iterdir())
        plan = {"model": found["model"], "requests_sha256": file_sha256(*sent), **settings,
                **identity()}  # fmt: skip
        with (
            Journal(beside(path), plan, fresh=options.fresh) as journal,
            clients(Path(folder)) as generator,
        ):
            bench = serve_steps.Bench(
                bundles={name: one.bundle for name, one in subjects.items()},
                flags=shlex.split(options.server_flags),
                generator=generator,
                requests=requests,
                plain=range(len(asked)),
                journal=journal,
                seconds=settings["seconds"],
                rounds=options.rounds,
                clients=settings["clients"],
                busy=options.busy,
                warm_up_s=min(_WARM_UP_S, settings["seconds"]),
            )
            found["body"] = measure(bench, sections, settings["soak_seconds"])
            found["notes"] += notes(found["body"], options.rounds)
            written = document.write(found, path)
            journal.done()
    print(written[1].read_text(encoding="utf-8"))
    return 0


def measure(
    bench: serve_steps.Bench, sections: list[str], soak_seconds: float
) -> dict[str, dict[str, Any]]:
    """The sections that are asked for, by name."""
    make = {
        "compare_batching": lambda: serve_steps.comparison(bench),
        "half_load": lambda: serve_steps.half_load(bench),
        "overload": lambda: serve_steps.overload(bench),
        "soak": lambda: serve_soak.soak(bench, soak_seconds),
    }
    return {name: make[name]() for name in sections}


def subject(path: Path) -> Subject:
    """A bundle's facts.

    Raises:
        BundleError: it is none, or a broken one.
    """
    bundle = open_bundle(path)
    family = str(bundle.config.need("model_type"))
    module = import_family(family)
    held = bundle.held(components_of(module, bundle))
    task = str(module.task(bundle.config))
    return Subject(path.resolve().name, family, task, bundle.root, None, False, tuple(held))


def _check(options: argparse.Namespace, sections: list[str]) -> None:
    if not sections:
        valid = ", ".join(f"--{name.replace('_', '-')}" for name in SECTIONS)
        raise OptionError(f"nothing is asked for; valid: one or more of {valid}")
    if options.compare_batching and options.rounds < stats.LEAST_ROUNDS:
        raise OptionError(
            f"--rounds is {options.rounds}; valid with --compare-batching: {stats.LEAST_ROUNDS} "
            "or more, for an interval"
        )


def _named(models: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in models:
        name, _, path = text.rpartition("=")
        name = name or Path(path).resolve().name
        if name in found:
            raise OptionError(f"two bundles are named {name!r}; valid: NAME=BUNDLE, each its own")
        found[name] = Path(path)
    return found


def _method(one: Subject) -> str:
    if one.task not in METHODS:
        raise BenchmarkError(
            f"{one.name} is for {one.task!r}, which is not measured here; valid: "
            f"{', '.join(METHODS)}"
        )
    return METHODS[one.task]


def _pictures(options: argparse.Namespace) -> list[bytes]:
    if options.pictures is None:
        return [jpeg(MIDDLE_WH, seed) for seed in range(PICTURES)]
    from vlrt import load_image

    for path in options.pictures:
        load_image(path)
    return [path.read_bytes() for path in options.pictures]


def _facts(title: str, subjects: Mapping[str, Subject]) -> dict[str, Any]:
    if len(subjects) == 1:
        ((name, one),) = subjects.items()
        return {**one.facts(), "name": name}
    return {"name": title, "seeded": False, **{name: one.facts() for name, one in subjects.items()}}


def _settings(
    options: argparse.Namespace, sections: list[str], models: list[Served]
) -> dict[str, Any]:
    width, height = MIDDLE_WH
    drawn = f"{PICTURES} drawn scenes with grain, {width}x{height}, JPEG"
    return {
        "sections": sections,
        "clients": sorted(set(options.clients)),
        "busy": options.busy,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "soak_seconds": options.soak_seconds,
        "body": options.body,
        "pictures": [str(path) for path in options.pictures] if options.pictures else drawn,
        "asked": {one.name: one.method for one in models},
        "labels": list(options.labels),
        "question": QUESTION,
        "server_flags": options.server_flags,
        "shares_of_capacity": {
            "half_load": serve_steps.HALF,
            "overload": serve_steps.OVERLOAD,
            "soak": serve_soak.SHARE,
        },
    }


def _fairness() -> list[str]:
    return [
        "The server is `vlrt serve` as anyone starts it, asked over its port on this machine.",
        "All clients are one process; how much of a processor it took from the server is said.",
        (
            "Requests are made before. A good answer that differs from an earlier one to the same "
            "request, with batching or without, is counted as a failure."
        ),
        (
            "Servers that are compared take turns, in another order every round; the other is "
            "idle, and its queue holds all clients."
        ),
        "In open loops a latency counts from when a request was due, whatever came before it.",
        (
            "Whatever is no answer is counted by name: refused and lost connections, and silence "
            "of a minute."
        ),
    ]


def notes(body: Mapping[str, Any], rounds: int) -> list[str]:
    """What a reader should know of a result."""
    found = stats.few(rounds) if "compare_batching" in body else []
    for name in ("half_load", "overload"):
        section = body.get(name)
        if section is None:
            continue
        said = name.replace("_", " ")
        if section["too_noisy"]:
            found.append(
                f"Too noisy: of {said}, the capacity was {section['capacity_per_s']:.3g} a second "
                f"before and {section['again_per_s']:.3g} after."
            )
        if section["summary"]["runs"] < _FEW:
            found.append(
                f"Of {said}, less than {_FEW} good answers: their 99th percentile is nearly the "
                "slowest of all. A longer --seconds gives more."
            )
    found += [
        f"The server of {name.replace('_', ' ')} ended with exit code {section['exit_code']} after "
        "SIGTERM, not with 0."
        for name, section in body.items()
        if section.get("exit_code")
    ]
    return found
