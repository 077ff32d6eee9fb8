"""`vlrt bench latency`: how fast each stage is, and the whole, against PyTorch and others."""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from vlrt.errors import BenchmarkError, OptionError

from . import agreement, document, latency_rows, machine
from .journal import Journal, beside
from .latency_options import FIRST_BASE, add_options, check_numbers, make_plan
from .peers import Entry, engines, entered, kind, ours
from .plan import Plan, make_arrays
from .subject import Subject, resolve
from .turns import Process, all_waiting, one_round


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `latency` to the verbs of `vlrt bench`."""
    parser = verbs.add_parser(
        "latency",
        help="how fast is it, stage by stage and end to end, against other engines",
        description="Measure every variant of a model and other engines that run the same one: "
        "each in a process of its own, taking turns, after their results were compared.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure and report.

    Raises:
        OptionError: options that contradict each other, the model or the machine.
        BenchmarkError: contenders disagree, or one failed.
    """
    chosen = chosen_engines(options.against)  # before anything takes time
    check_numbers(options)
    conditions = machine.conditions(options.threads)  # before an export or the like is a load
    subject = resolve(options)
    plan = make_plan(options, subject)
    contenders, skipped = find_contenders(chosen, options, subject, plan)
    contenders = only(options.only, contenders)
    base = choose_base(options.base, list(contenders))
    path = document.output_path(options, "latency", subject.name)
    told = {
        "plan": plan.facts(),
        "model": subject.facts(),
        "contenders": [entry.name for entry in contenders],
        "base": base,
        # One result is of one commit, one set of versions and one processor.
        "commit": conditions["commit"],
        "versions": conditions["versions"],
        "processor": conditions["machine"]["processor"],
    }
    with Journal(beside(path), told, fresh=options.fresh) as journal:
        begin = partial(
            document.begin,
            "latency",
            options,
            subject=subject,
            threads=plan.threads,
            settings=plan.facts() | {"base": base},
            conditions=conditions,
        )
        found = journal.keep("begin", begin)
        try:
            measure(journal, contenders, subject, plan, base, options)
        except BaseException:
            if not latency_rows.is_begun(journal, plan):
                journal.done()  # of nothing that is lost: the next run may have another plan
            raise
        failed = latency_rows.failed(journal, plan)
        contenders = {one: of for one, of in contenders.items() if one.name not in failed}
        found["skipped"] = skipped | failed
        found["fairness"] = latency_rows.fairness(plan)
        if options.together:
            found["fairness"].append(latency_rows.TOGETHER)
        # Not part of the plan: who follows the advice to allow it goes on with what was measured.
        allowed = options.allow_mismatch or latency_rows.has_mismatch(journal, plan)
        found["settings"]["allow_mismatch"] = allowed
        found["notes"] += latency_rows.notes(
            journal, plan, subject, contenders, found["conditions"]["machine"]
        )
        found["body"] = latency_rows.body(journal, list(contenders), plan, base)
        written = document.write(found, path)
        journal.done()
    print(written[1].read_text(encoding="utf-8"))
    print(f"written: {', '.join(str(one) for one in written)}", file=sys.stderr)
    return 0


def chosen_engines(names: Sequence[str] | None) -> dict[str, ModuleType]:
    """The engines by these names, or all.

    Raises:
        OptionError: one is not known.
    """
    known = engines()
    for name in names or ():
        if name not in known:
            raise OptionError(
                f"--against {name}: there is no such engine; valid: {', '.join(known)}"
            )
    return {name: known[name] for name in dict.fromkeys(known if names is None else names)}


def find_contenders(
    chosen: Mapping[str, ModuleType], options: argparse.Namespace, subject: Subject, plan: Plan
) -> tuple[dict[Entry, ModuleType], dict[str, str]]:
    """Our variants and those of other engines that can run here; and how to get the rest."""
    found: dict[Entry, ModuleType] = {}
    skipped: dict[str, str] = {}
    for name, module in {"vlrt": ours, **chosen}.items():
        lacking = [need for need in module.NEEDS if find_spec(need) is None]
        missing = getattr(module, "missing", lambda _: None)(options)
        if lacking:
            skipped[name] = module.INSTALL
        elif missing:
            skipped[name] = missing
        elif getattr(module, "NEEDS_CHECKPOINT", False) and subject.checkpoint is None:
            skipped[name] = "name the checkpoint that the bundle was made of: --checkpoint DIR"
        else:
            entries = [
                entry
                for entry in entered(module, subject, plan)
                if set(entry.stages) & set(plan.stages)
            ]
            found |= dict.fromkeys(entries, module)
            refused: dict[str, str] = getattr(module, "refused", lambda *_: {})(subject, plan)
            skipped |= refused
            if not entries and not refused:
                skipped[name] = f"it has none of the stages measured here of {subject.family}"
    return found, skipped


def only(
    names: Sequence[str] | None, contenders: Mapping[Entry, ModuleType]
) -> dict[Entry, ModuleType]:
    """The contenders of these names, or all.

    Raises:
        OptionError: one of them is not here.
    """
    known = [entry.name for entry in contenders]
    for name in names or ():
        if name not in known:
            raise OptionError(f"--only {name}: contenders here: {', '.join(known)}")
    return {e: module for e, module in contenders.items() if names is None or e.name in names}


def choose_base(asked: str | None, contenders: Sequence[Entry]) -> str:
    """Whom the others are compared with.

    Raises:
        OptionError: there is no contender of that name.
    """
    names = [entry.name for entry in contenders]
    if asked is not None and asked not in names:
        raise OptionError(f"--base is {asked!r}; contenders here: {', '.join(names)}")
    return asked or (FIRST_BASE if FIRST_BASE in names else names[0])


def measure(
    journal: Journal,
    contenders: Mapping[Entry, ModuleType],
    subject: Subject,
    plan: Plan,
    base: str,
    options: argparse.Namespace,
) -> None:
    """Measure what the journal does not hold yet, a batch after the other."""
    remaining = [b for b in plan.batches if not latency_rows.is_complete(journal, plan, b)]
    prepared: dict[str, Mapping[str, Any]] = {}
    for entry, module in contenders.items() if remaining else ():
        prepare = getattr(module, "prepare", None)
        if prepare is not None:
            print(f"{entry.name}: preparing", file=sys.stderr)
            prepared[entry.name] = prepare(entry, subject, plan, options.cache)
    for batch in remaining:
        rows = plan.rows(batch)
        stages = {e.name: [r for r in rows if kind(r) in e.stages] for e in contenders}
        taking_part = [entry for entry in contenders if stages[entry.name]]
        with tempfile.TemporaryDirectory(prefix="vlrt-bench-") as scratch:
            arrays = Path(scratch, "arrays.npz")
            make_arrays(subject, plan, batch, arrays)
            jobs = {
                entry.name: make_job(entry, subject, plan, batch, arrays)
                | dict(prepared.get(entry.name, {}))
                for entry in taking_part
            }
            failed: dict[str, str] | None = {} if options.leave_out_failed else None
            with all_waiting(
                taking_part,
                stages,
                jobs,
                f"batch {batch}",
                failed=failed,
                together=options.together,
            ) as processes:
                if not processes:
                    whys = "\n".join((failed or {}).values())
                    raise BenchmarkError(f"no contender runs here:\n{whys}")
                left_out = dict(failed or {})
                journal.keep(latency_rows.failed_key(batch), partial(dict, left_out))
                _compare(journal, processes, subject, plan, batch, base, options.allow_mismatch)
                _take_turns(journal, processes, plan, batch)


def make_job(
    entry: Entry, subject: Subject, plan: Plan, batch: int, arrays: Path
) -> dict[str, Any]:
    """What a contender is told of a batch (see `peers`)."""
    return {
        "threads": plan.threads,
        "cpus": list(plan.cpus),
        "device": plan.device,
        "family": subject.family,
        "bundle": str(subject.bundle),
        "checkpoint": None if subject.checkpoint is None else str(subject.checkpoint),
        "precision": entry.precision,
        "batch": batch,
        "pictures": plan.paths(batch),
        "labels": list(plan.labels),
        "question": plan.question,
        "threshold": plan.threshold,
        "iou_threshold": plan.iou_threshold,
        "arrays": str(arrays),
        "warm_up_s": plan.warm_up_s,
        **entry.job,
    }


def _compare(
    journal: Journal,
    processes: Mapping[str, Process],
    subject: Subject,
    plan: Plan,
    batch: int,
    base: str,
    allow: bool,
) -> None:
    """Compare all results, in a run that goes on as well: its processes are others."""
    rows: list[dict[str, Any]] = []
    empty = False
    for row in plan.rows(batch):
        present = {n: p for n, p in processes.items() if row in p.stages}
        entries = [process.entry for process in present.values()]
        first = present[base].entry if base in present else entries[0]
        reference = agreement.reference_of(kind(row), entries, first)
        for name, process in present.items():
            if reference is None or name == reference.name:
                continue
            expected = present[reference.name].result(row)
            compared = agreement.compare(
                process.entry, reference, subject.family, kind(row), process.result(row), expected
            )
            rows += [{"stage": row, "batch": batch, **one} for one in compared]
            empty |= agreement.is_empty(expected, plan.threshold)
    agreement.check(rows, allow=allow)
    journal.keep(latency_rows.agreement_key(batch), lambda: rows)
    journal.keep(latency_rows.empty_key(batch), lambda: empty)
    told = {name: process.told for name, process in processes.items()}
    journal.keep(latency_rows.contenders_key(batch), lambda: told)


def _take_turns(journal: Journal, processes: Mapping[str, Process], plan: Plan, batch: int) -> None:
    """All rounds; a round goes through all rows, so that those of a row lie apart in time."""
    for number in range(plan.rounds):
        print(f"batch {batch}: round {number + 1} of {plan.rounds}", file=sys.stderr)
        journal.keep(latency_rows.load_key(batch, number), _load)
        for row in plan.rows(batch):
            sentinel = next(n for n, process in processes.items() if row in process.stages)
            take = partial(one_round, processes, row, plan.turn_s, number, sentinel)
            journal.keep(latency_rows.round_key(batch, row, number), take)


def _load() -> float:
    """What the machine had to do in the last minute: processes that ran or waited to run."""
    import psutil

    load: float = psutil.getloadavg()[0]
    return round(load, 2)
