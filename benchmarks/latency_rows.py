"""What a comparison of latencies found: the journal's values as the body of a result."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .agreement import precision_class
from .journal import Journal
from .peers import Entry, kind
from .plan import Plan
from .stats import summary, times_as_fast, verdict
from .subject import Subject
from .worker import STEADY

# The load of each CPU from which on a machine is said to be busy with something else.
_QUIET = 0.5
TOGETHER = "Contenders loaded and warmed up at the same time: loading times say nothing here."


def round_key(batch: int, row: str, number: int) -> str:
    """Where the journal keeps what one round of a row took."""
    return f"batch {batch}, {row}, round {number + 1}"


def agreement_key(batch: int) -> str:
    """Where it keeps how the results of a batch compare."""
    return f"batch {batch}, agreement"


def contenders_key(batch: int) -> str:
    """Where it keeps what the contenders of a batch said of themselves."""
    return f"batch {batch}, contenders"


def empty_key(batch: int) -> str:
    """Where it keeps whether there was nothing to detect."""
    return f"batch {batch}, nothing found"


def failed_key(batch: int) -> str:
    """Where it keeps which contenders were left out of a batch, and why."""
    return f"batch {batch}, failed"


def failed(journal: Journal, plan: Plan) -> dict[str, str]:
    """Why contenders were left out, of those that took part in no batch."""
    said: dict[str, str] = {}
    for batch in plan.batches:
        said |= _held(journal, failed_key(batch))
    told = [_held(journal, contenders_key(batch)) for batch in plan.batches]
    return {name: why for name, why in said.items() if not any(name in one for one in told)}


def load_key(batch: int, number: int) -> str:
    """Where it keeps the machine's load when a round began."""
    return f"batch {batch}, load before round {number + 1}"


def is_begun(journal: Journal, plan: Plan) -> bool:
    """Whether anything was measured at all."""
    return any(
        journal.held(round_key(batch, row, number))
        for batch in plan.batches
        for row in plan.rows(batch)
        for number in range(plan.rounds)
    )


def is_complete(journal: Journal, plan: Plan, batch: int) -> bool:
    """Whether a batch was measured to its end."""
    rounds = range(plan.rounds)
    return all(journal.held(round_key(batch, r, n)) for r in plan.rows(batch) for n in rounds)


def has_mismatch(journal: Journal, plan: Plan) -> bool:
    """Whether contenders were measured whose results are not those of the reference."""
    rows = [row for batch in plan.batches for row in _held(journal, agreement_key(batch))]
    return any(not row["same"] and row["needed"] is not None for row in rows)


def fairness(plan: Plan) -> list[str]:
    """The conditions that the code keeps, for the reader."""
    pinned = (
        f"pinned to the same {len(plan.cpus)} CPUs"
        if plan.cpus
        else "not pinned, for this system pins nothing"
    )
    told = [
        f"Each contender is a process of its own with {plan.threads} threads, {pinned}.",
        (
            "All are given the same files, texts and batches; towers, and what follows them, start "
            "from the same arrays."
        ),
        (
            f"They take turns of about {plan.turn_s:g} s, {plan.rounds} rounds of them, while the "
            "others wait; the rounds go through them in different orders."
        ),
        "A turn begins with a run that is not counted. Garbage collection is off.",
        (
            "Loading, compiling and warming up are not counted. Warming up lasts until the medians "
            f"of two stretches of runs are within {STEADY:.0%} of each other, or "
            f"{plan.warm_up_s:g} s."
        ),
        (
            "Before a batch was timed, all its results were compared: pixels of vlrt and PyTorch "
            "bit for bit, embeddings by cosine, logits and scores by their largest difference, as "
            "exact as the precision is."
        ),
        "Names tell the precision; those of one precision class are compared with each other too.",
        (
            "A ratio is one of medians over all runs; its 95 % interval comes from drawing whole "
            "rounds again. In each round one contender has a second turn: how far its two are "
            "apart is noise, and what lies within it is no verdict."
        ),
    ]
    if plan.device == "cuda":
        told += [
            (
                "On the GPU, a run of a tower starts and ends in the host's memory: its inputs are "
                "copied there, and its outputs back, before the clock stops."
            ),
            (
                "Of detectors, the embeddings of a picture's places stay on the GPU, where the "
                "head takes them, for all alike; all else comes back."
            ),
            (
                "All upload pictures as levels, uint8 [B, H, W, 3] at the model's size, and "
                "normalise them on the GPU: vlrt's graphs for CUDA do, and so are PyTorch's towers "
                "wrapped here, which is better for PyTorch than the float32 of its processors. A "
                "graph of vlrt's that has no form for CUDA uploads float32."
            ),
            (
                "vlrt starts from pinned memory, where its processors write, and so do "
                "torch-compile (default mode) and torch-cuda-graph, which also end in pinned "
                "memory; torch copies from and to pageable memory, as most people's code does."
            ),
        ]
    return told


def notes(
    journal: Journal,
    plan: Plan,
    subject: Subject,
    contenders: Iterable[Entry],
    machine: Mapping[str, Any],
) -> list[str]:
    """What a reader should know of this run.

    Args:
        journal: what was found.
        plan: what was measured.
        subject: on what model.
        contenders: who took part.
        machine: as `machine.conditions` gives it, from before the first turn.
    """
    told = [
        (
            "Decoding and preprocessing by themselves take one picture after the other; together, "
            "as in the whole way, vlrt works on several at once, in its threads."
        )
    ]
    load = machine["load_average"][0]
    if load > _QUIET * machine["cores"]:
        told.append(
            f"The machine was busy when this began, with a load of {load:g} on "
            f"{machine['cores']} CPUs: engines suffer from that unequally. Measure again when it "
            "is idle."
        )
    rounds = [(batch, number) for batch in plan.batches for number in range(plan.rounds)]
    highest = max(_held(journal, load_key(*one)) for one in rounds)
    if highest > plan.threads + 1:
        told.append(
            f"While this was measured, the load was up to {highest:g}, though contenders with "
            f"{plan.threads} threads ran one at a time: something else was at work."
        )
    if any(_held(journal, empty_key(batch)) for batch in plan.batches):
        told.append(
            f"No label scored more than {plan.threshold:g} in these pictures: that detections "
            "agree says little."
        )
    if not plan.drawn and len(set(plan.pictures)) < max(plan.batches):
        told.append(f"{len(set(plan.pictures))} pictures were given; larger batches repeat them.")
    if "fp32" not in subject.precisions:
        told.append(
            "The bundle has no fp32 variant: what stages start from was made by "
            f"{subject.precisions[0]}."
        )
    one_by_one = any(entry.engine == "pipeline" for entry in contenders)
    if one_by_one and subject.family == "vilt" and max(plan.batches) > 1:
        told.append(
            "The pipeline puts one picture with its question after the other through the model, "
            "whatever the batch; the other contenders put all through at once."
        )
    if has_mismatch(journal, plan):
        told.append("Contenders whose results differ were measured too, as --allow-mismatch asks.")
    return told


def body(journal: Journal, contenders: Sequence[Entry], plan: Plan, base: str) -> dict[str, Any]:
    """The result's body; everything that it needs is in the journal."""
    told = {batch: _held(journal, contenders_key(batch)) for batch in plan.batches}
    return {
        "base": base,
        "sentinel": contenders[0].name,
        "contenders": {entry.name: _contender(entry, list(told.values())) for entry in contenders},
        "agreement": [row for b in plan.batches for row in _held(journal, agreement_key(b))],
        "rows": [
            _row(journal, contenders, plan, batch, row, base)
            for batch in plan.batches
            for row in plan.rows(batch)
        ],
    }


def _held(journal: Journal, key: str) -> Any:
    def never() -> Any:
        raise AssertionError(f"{key} was not measured")

    return journal.keep(key, never)


def _contender(entry: Entry, told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What one contender said of itself, over all batches that it took part in."""
    own = [batch[entry.name] for batch in told if entry.name in batch]
    stages = [stage for one in own for stage in one["stages"].values()]
    return {
        "engine": entry.engine,
        "precision": entry.precision,
        "versions": own[0]["versions"],
        "loading_s": own[0]["loading_s"],
        "warm_up_s": sum(stage["first_s"] + stage["warm_up_s"] for stage in stages),
        "stable": all(stage["stable"] for stage in stages),
        "unsteady": sorted(
            {name for one in own for name, stage in one["stages"].items() if not stage["stable"]}
        ),
    }


def _row(
    journal: Journal,
    contenders: Sequence[Entry],
    plan: Plan,
    batch: int,
    row: str,
    base: str,
) -> dict[str, Any]:
    rounds = [_held(journal, round_key(batch, row, number)) for number in range(plan.rounds)]
    names = [entry.name for entry in contenders if entry.name in rounds[0]["samples"]]
    samples = {name: [one["samples"][name] for one in rounds] for name in names}
    again = [one["sentinel"] for one in rounds]
    items, stage = plan.items(row, batch), kind(row)
    base = base if base in samples else names[0]
    noise = times_as_fast(samples[names[0]], again)

    def against(ours: str, theirs: str) -> dict[str, Any]:
        ratio = times_as_fast(samples[ours], samples[theirs])
        return ratio.as_dict() | {"verdict": verdict(ratio, noise)}

    precisions = {entry.name: precision_class(entry.precision) for entry in contenders}
    ours = [entry.name for entry in contenders if entry.engine == "vlrt"]
    return {
        "stage": stage,
        "batch": batch,
        "detail": row.removeprefix(stage).removeprefix(", "),
        "items": items,
        "base": base,
        "samples": samples,
        "sentinel": again,
        "summary": {name: summary(taken, items) for name, taken in samples.items()},
        "ratios": {name: against(name, base) for name in names if name != base},
        "same_class": [
            {"ours": mine, "theirs": name, **against(mine, name)}
            for mine in ours
            for name in names
            if mine in samples and name not in ours and precisions[name] == precisions[mine]
        ],
        "noise": noise.as_dict(),
    }
