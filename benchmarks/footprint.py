"""`vlrt bench footprint`: cold start, memory and size of vlrt against transformers.

Cold start: a new process imports its library, loads a model from local disk, answers one request
about one picture, and prints the result. All contenders are asked the same, use as many threads and
are pinned to the same processors; transformers runs the checkpoint in fp32 with its default
attention, vlrt variants of the bundle. They take turns, a process each a round, after a round that
is not counted: it warms the page cache, and its results must be those of transformers.

Measured from outside: seconds from starting the process to reading its result. From inside: the
seconds of each phase (vlrt imports ONNX Runtime while loading, so compare their sum), CPU seconds,
and resident memory (VmRSS after the first request and after further ones, and its peak VmHWM).
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from vlrt.cli_options import count
from vlrt.errors import BenchmarkError, OptionError
from vlrt.files import file_sha256
from vlrt.hardware import available_cpus

from . import document, request, stats, subject
from .cold_starts import Sample, results, take_turns
from .contender import AGAINST, Contender, checked_against, differences, enter
from .environments import NOT_COUNTED, check_sources, measure_environments
from .journal import Journal, beside
from .machine import identity, pinned

BASE = "transformers"
# A ratio whose interval's ends are so many times apart is none to quote.
_WIDE = 1.25
_STATUS = Path("/proc/self/status")
# What a sample holds -> what a table calls it, and the unit.
MEASURES = {
    "total_s": ("cold start", "s"),
    "import_s": ("import", "s"),
    "load_s": ("load", "s"),
    "first_request_s": ("first request", "s"),
    "cpu_s": ("CPU time to the first result", "s"),
    "peak_mib": ("peak memory", "MiB"),
    "first_mib": ("memory after the first request", "MiB"),
    "steady_mib": ("steady memory", "MiB"),
}


def add(verbs: Any) -> None:
    """Add the verb's parser."""
    text = "cold start, memory and size, against PyTorch with transformers"
    parser: argparse.ArgumentParser = verbs.add_parser("footprint", help=text, description=text)
    parser.set_defaults(run=run)
    subject.add_options(
        parser,
        precision="variants to measure, or auto, the one taken on this CPU (default: auto, and "
        "fp32 where there is one)",
    )
    document.add_options(parser, "footprint")
    request.add_options(parser)
    parser.add_argument(
        "--against", nargs="*", default=list(AGAINST), metavar="ENGINE",
        help=f"what to compare with: {', '.join(AGAINST)} (the default), or nothing",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=count, default=5, help="processes of each contender (default: %(default)s)"
    )
    parser.add_argument(
        "--requests", type=count, default=20,
        help="after the first one, before steady memory is read (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=count, default=available_cpus(), help="default: all CPUs, %(default)s"
    )
    parser.add_argument(
        "--environments", action="store_true",
        help="also install both in fresh environments, and weigh these (minutes, and a network)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Measure, write the result and print it.

    Raises:
        VlrtError: see `vlrt.errors`.
    """
    _check(options)
    measured = request.subject_of(options, "fp32")
    path = document.output_path(options, "footprint", measured.name)
    with tempfile.TemporaryDirectory(prefix="vlrt-footprint-") as folder:
        asked = request.request(options, Path(folder))
        settings = {
            **asked.facts(request.method(measured)),
            "rounds": options.rounds,
            "requests": options.requests,
        }
        found = document.begin(
            "footprint", options, subject=measured, threads=options.threads, settings=settings
        )
        contenders, found["skipped"] = enter(measured, options.against, BASE)
        found["fairness"] = _fairness(options.threads)
        names = [one.name for one in contenders]
        plan = {
            "model": found["model"],
            "contenders": names,
            "threads": options.threads,
            "picture_sha256": file_sha256(asked.picture),
            **settings,
            **identity(),
        }
        job = {
            **asked.job(),
            "family": measured.family,
            "threads": options.threads,
            "cpus": pinned(options.threads),
            "more": options.requests,
        }
        with Journal(beside(path), plan, fresh=options.fresh) as journal:
            rounds = take_turns(contenders, job, options.rounds, journal)
            environments = (
                journal.keep("environments", measure_environments) if options.environments else None
            )
            sizes = model_sizes(found["model"], contenders)
            found["body"] = body(contenders, rounds, sizes, environments)
            found["notes"] += _notes(found["body"])
            written = document.write(found, path)
            journal.done()
    print(written[1].read_text(encoding="utf-8"))
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.rounds < stats.LEAST_ROUNDS:
        raise OptionError(f"--rounds is {options.rounds}; valid: {stats.LEAST_ROUNDS} or more")
    checked_against(options.against)
    if options.environments:
        check_sources()
    if not _STATUS.is_file():
        raise BenchmarkError(f"memory is read from {_STATUS}, which this system lacks; use Linux")


def body(
    contenders: Sequence[Contender],
    rounds: Sequence[Mapping[str, Sample]],
    sizes: Mapping[str, float],
    environments: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The body of a result.

    Args:
        contenders: the base first.
        rounds: the samples of each, by round.
        sizes: bytes of their models.
        environments: as `measure_environments` gives them, or None.
    """
    base, names = contenders[0].name, [one.name for one in contenders]
    rows = [
        row(measure, unit, {name: [one[name][key] for one in rounds] for name in names}, base)
        for key, (measure, unit) in MEASURES.items()
    ]
    megabytes = {name: [size / 1e6] for name, size in sizes.items()}
    rows.append(row("model", "MB", megabytes, base))
    if environments is not None:
        kinds = {one.name: BASE if one.kind == "torch" else "vlrt" for one in contenders}
        weights = {name: [environments[kind]["bytes"] / 1e6] for name, kind in kinds.items()}
        rows.append(row("installed environment", "MB", weights, base))
    apart = [differences(contenders, results(one)) for one in rounds]
    return {
        "base": base,
        "agreement": max(apart, key=lambda one: sum(d["difference"] for d in one.values())),
        "rows": rows,
        "environments": environments,
    }


def row(
    measure: str, unit: str, samples: Mapping[str, Sequence[float]], base: str
) -> dict[str, Any]:
    """One measure of all contenders, and its ratio to the base's: below 1 is less.

    Args:
        measure, unit: for the reader.
        samples: of each contender, one a round; or one alone, of what does not vary.
        base: the contender that the others are held against.
    """
    ratios = {}
    for name, values in samples.items():
        if name == base:
            continue
        if len(values) == 1:
            exact = values[0] / samples[base][0]
            found = stats.Estimate(exact, exact, exact)
        else:
            found = stats.times_as_fast([[v] for v in samples[base]], [[v] for v in values])
        ratios[name] = found.as_dict()
    return {
        "measure": measure,
        "unit": unit,
        "samples": {name: list(values) for name, values in samples.items()},
        "medians": {name: median(values) for name, values in samples.items()},
        "ratio": ratios,
    }


def model_sizes(model: Mapping[str, Any], contenders: Sequence[Contender]) -> dict[str, float]:
    """Bytes of the weights that each contender reads: of a variant's graphs, or of a checkpoint."""
    return {
        one.name: model["checkpoint_bytes"]
        if one.kind == "torch"
        else model["variant_bytes"][one.precision]
        for one in contenders
    }


def _fairness(threads: int) -> list[str]:
    return [
        "Every contender is a process of its own; they take turns, one each a round.",
        "A round before the first is not counted: it warms the page cache.",
        f"All use {threads} threads and are pinned to the same processors.",
        "All are asked the same about the same JPEG; results are compared in every round.",
        "transformers is used as by a lean program: three classes by name, and no pipeline.",
        "Its model is in fp32 with its default attention, its image processor the one on PIL.",
        "Models are on a local disk, and the hub is not asked.",
    ]


def _notes(made: Mapping[str, Any]) -> list[str]:
    notes = [
        "vlrt imports ONNX Runtime while it loads: compare the sum of import and load.",
        "Peak memory is of the whole process; steady memory is after the further requests.",
        "The model's size is that of its weights: a variant's graphs, or a checkpoint's files.",
    ]
    if made["environments"] is not None:
        notes.append(f"Of installed environments {' and '.join(NOT_COUNTED)} are not counted.")
    notes += [
        f"Scores of each name, and boxes that could be compared ({one['boxes']}), of {name} are at "
        f"most {one['difference']:.2g} from those of {made['base']}; allowed are "
        f"{one['allowed']:g}."
        for name, one in made["agreement"].items()
    ]
    wide = [
        f"{row['measure']} of {name}"
        for row in made["rows"]
        for name, ratio in row["ratio"].items()
        if ratio["high"] > _WIDE * ratio["low"]
    ]
    if wide:
        notes.append(
            f"Too noisy, or too few rounds, to quote: {'; '.join(wide)}. On an idle machine, more "
            "--rounds give a narrower interval."
        )
    return notes
