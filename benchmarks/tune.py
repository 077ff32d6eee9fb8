"""`vlrt bench tune`: the fastest variant, threads and provider for a bundle on this machine.

Every candidate is a process of its own, pinned like all others, in which a bundle runs through the
public API. First each has a turn alone, and must give what others in its precision gave. The
fastest then meet the default, which is what `vlrt.load` takes untuned: all are loaded, and take
turns in rounds. The default has two turns a round; how they differ is noise. Only what is faster
than the default beyond that is taken in its place, and written where `precision="auto"` reads it
(`vlrt.tuned`).
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlrt import tuned
from vlrt.bundle import MANIFEST, Bundle, open_bundle
from vlrt.cli_options import count
from vlrt.errors import BenchmarkError, OptionError
from vlrt.files import file_sha256
from vlrt.hardware import available_cpus
from vlrt.kernels import int8_kernels
from vlrt.load import decide, import_family
from vlrt.session import engine, place
from vlrt.tuned import Setup

from . import document
from .journal import Journal, beside
from .stats import LEAST_ROUNDS, Estimate, summary
from .subject import Subject
from .tune_measure import FINALISTS, TOO_NOISY, WARM_UP_S, Found, Work, measure
from .tune_setups import candidates, name_of, parts_of

AIMS = ("latency", "throughput")


def add(verbs: "argparse._SubParsersAction[Any]") -> None:
    """Add the verb."""
    text = "find the fastest variant, threads and provider here, for precision='auto' to take"
    parser = verbs.add_parser("tune", help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("bundle", help="a directory, or owner/name on the hub")
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument(
        "--precision", nargs="+", metavar="P", help="candidates (default: all the bundle holds)"
    )
    parser.add_argument(
        "--threads", nargs="+", type=count, metavar="N",
        help="candidates (default: 1, half the CPUs, all)",
    )  # fmt: skip
    parser.add_argument(
        "--provider", nargs="+", metavar="NAME",
        help="candidates (default: the CPU's, CUDA's and OpenVINO's, where they are there)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=count, default=1, metavar="N", help="pictures of a request (default: 1)"
    )
    parser.add_argument(
        "--aim", choices=AIMS, default="latency",
        help="for one request at a time, or for as many at once as there are CPUs (default: "
        "%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=_rounds, default=5, metavar="N", help="of the finals (default: 5)"
    )
    parser.add_argument(
        "--turn", type=_seconds, default=0.5, metavar="S", help="seconds in a turn (default: 0.5)"
    )
    parser.add_argument("--dry-run", action="store_true", help="measure, and leave auto as it is")
    parser.add_argument("--forget", action="store_true", help="remove what tuning found before")
    document.add_options(parser, "tune")


def _rounds(text: str) -> int:
    number = count(text)
    if number < LEAST_ROUNDS:
        raise argparse.ArgumentTypeError(f"{number} is too few; valid: {LEAST_ROUNDS} or more")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, at most 60")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Tune a bundle, or forget that it was tuned.

    Raises:
        BenchmarkError: candidates disagree, one failed, or the machine is too noisy.
        OptionError: an option does not fit the bundle, or a file cannot be written.
    """
    bundle = open_bundle(options.bundle, revision=options.revision)
    path = _own_file(bundle) if options.forget or not options.dry_run else None
    if options.forget:
        gone = tuned.forget(bundle)
        print(f"removed {gone}" if gone else f"{bundle.name} was not tuned on this machine")
        return 0
    setups, notes = candidates(bundle, options)
    work = Work(
        _subject(bundle, setups),
        setups,
        options.batch,
        available_cpus() if options.aim == "throughput" else 1,
        options.rounds,
        options.turn,
    )
    output = document.output_path(options, "tune", work.subject.name)
    result = document.begin(
        "tune", options, subject=work.subject, threads=available_cpus(),
        settings={**work.facts(), "aim": options.aim},
    )  # fmt: skip
    plan = {
        **work.facts(),
        "bundle": _identity(bundle, result),
        "conditions": _conditions()._asdict(),
    }
    with Journal(beside(output), plan, fresh=options.fresh) as journal:
        found = measure(work, journal)
        written = None
        if path is not None and found.verdict != TOO_NOISY:
            _write(bundle, path, work, found, result)
            written = str(path)
        result["notes"] += notes + _unsteady(found)
        result["fairness"] += _fairness(work)
        result["body"] = body(work, found, written)
        _, text, *_ = document.write(result, output)
        journal.done()
    print(text.read_text(encoding="utf-8"))
    print("\n".join(_closing(bundle, work, found, written)))
    if found.verdict == TOO_NOISY:
        raise BenchmarkError(
            f"this machine is too noisy for a verdict on {name_of(setups[found.challenger])}: the "
            f"default against itself is {_words(found.noise)}; nothing was written. Try again when "
            "it does nothing else, or with more --rounds or a longer --turn"
        )
    return 0


def body(work: Work, found: Found, written: str | None) -> dict[str, Any]:
    """What a result says of it."""
    rows = [
        {
            **setup._asdict(),
            "spinning": True,
            "in": "finals" if found.again and number in found.finalists else "a turn alone",
            "samples": found.samples[number],
            "summary": summary(found.samples[number], work.batch * work.callers),
        }
        for number, setup in enumerate(work.setups)
    ]
    return {
        "candidates": rows,
        "default": 0,
        "chosen": found.chosen,
        "challenger": found.challenger,
        "gain": found.gain.as_dict(),
        "noise": found.noise.as_dict(),
        "sentinel": found.again,
        "verdict": found.verdict,
        "settled": found.verdict != TOO_NOISY,
        "written": written,
    }


def _fairness(work: Work) -> list[str]:
    several = work.callers > 1
    made = f"{work.callers} requests at once, made by as many threads" if several else "one request"
    scenes = "a drawn scene" if work.batch == 1 else f"{work.batch} drawn scenes"
    return [
        f"A run is {made}: from {scenes} in memory to results, with labels encoded before.",
        "Every candidate is a process of its own, pinned to the same CPUs.",
        "Idle threads spin, as vlrt.load lets them by default.",
        "Candidates of one precision give the same scores, which is checked before they are timed.",
        f"Each has one turn alone; then the {FINALISTS} fastest and the default take turns.",
        "The default has two turns in each round, which tells how much is mere noise.",
        "Garbage collection is off inside a turn.",
    ]


def _unsteady(found: Found) -> list[str]:
    """What is to be said of candidates that did not warm up in time."""
    if not found.unsteady:
        return []
    names = ", ".join(found.unsteady)
    return [f"Not steady after {WARM_UP_S:g} s of warm-up, in a turn alone or the finals: {names}."]


def _write(bundle: Bundle, path: Path, work: Work, found: Found, result: document.Document) -> None:
    """Write what was found where loads read it."""
    tuning = tuned.Tuning(
        path,
        str(result["conditions"]["date"])[:10],
        _conditions(),
        chosen=work.setups[found.chosen],
        default=work.setups[0],
        gain=found.gain.value if found.chosen else 1.0,
        aim=result["settings"]["aim"],
    )
    medians = {
        name_of(setup): summary(found.samples[number])["p50_ms"]
        for number, setup in enumerate(work.setups)
    }
    tuned.write(
        bundle,
        tuning,
        command=result["command"],
        batch=work.batch,
        rounds=work.rounds,
        median_ms=medians,
        fastest_against_default={**found.gain.as_dict(), "verdict": found.verdict},
    )


def _closing(bundle: Bundle, work: Work, found: Found, written: str | None) -> Iterator[str]:
    """The last lines: what was gained, and what `auto` takes from now on."""
    default = name_of(work.setups[0])
    other = f"{name_of(work.setups[found.challenger])} is {_words(found.gain)} times as fast"
    if found.chosen:
        yield f"{other} as the default, {default}."
    elif found.challenger:
        yield f"The default stays, {default}; of the others, {other} ({found.verdict})."
    else:
        yield f"The default is the only candidate: {default}."
    if written is None:
        yield "Nothing was written."
    else:
        plan = decide(bundle, parts_of(bundle), place(), int8_kernels())
        yield f"Written to {written}"
        yield f"vlrt.load now takes {plan.choice.precision} ({plan.choice.reason})"


def _words(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}-{estimate.high:.2f}]"


def _own_file(bundle: Bundle) -> Path:
    """Where the choice goes.

    Raises:
        OptionError: there is no place for it.
    """
    path = tuned.path_of(bundle)
    if path is not None:
        return path
    if bundle.manifest is None:
        raise OptionError(
            f"{bundle.name} is a foreign bundle, whose variants nobody has checked: auto must not "
            "take one for its speed. Tune a bundle that vlrt exported, or choose a precision "
            "yourself"
        )
    raise OptionError(f"this system tells of no home folder to write to; set {tuned.VARIABLE}")


def _identity(bundle: Bundle, result: document.Document) -> Any:
    """What tells a bundle from others: its manifest's sha256, or those of its files."""
    if bundle.manifest is not None:
        return file_sha256(bundle.root / MANIFEST)
    return result["model"]["files"]


def _subject(bundle: Bundle, setups: Sequence[Setup]) -> Subject:
    family = str(bundle.config.need("model_type"))
    name = bundle.root.resolve().name if bundle.origin is None else bundle.name.rpartition("/")[2]
    used = {setup.precision for setup in setups}
    return Subject(
        name,
        family,
        str(import_family(family).task(bundle.config)),
        bundle.root,
        None,
        seeded=False,
        precisions=tuple(p for p in bundle.precisions if p in used),
    )


def _conditions() -> tuned.Conditions:
    return tuned.conditions(int8_kernels(), engine().__version__)
