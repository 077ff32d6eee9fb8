"""How latency is shown: ratios to the base, distributions, stages, scaling with batch."""

from collections.abc import Iterable
from typing import Any

from .. import latency_plots as plots
from ..wording import (
    ABSENT,
    Figure,
    Highlight,
    Table,
    base_of,
    by_base,
    in_order,
    is_ours,
    number,
    ratio,
    ratio_interval,
    spoken,
)

END = "end to end"
READY = "end to end, labels ready"
# What is quoted of a result: the first of these stages that it has.
_QUOTED = (END, READY, "encode image and text", "encode image")
_LARGE = (END, READY, "encode image", "encode image and text", "preprocess")
_NOISY = "too noisy"
_WHOLE = {"clip": "from file to scores", "siglip": "from file to scores",
          "owlvit": "from file to boxes", "owlv2": "from file to boxes",
          "vilt": "from file and question to answer"}  # fmt: skip


def headline(document: dict[str, Any]) -> str:
    """How many times as fast as the base the fastest variant is, in the stage that says most."""
    body = document["body"]
    row = quoted_row(body)
    if row is None:
        return ""
    name = _fastest(row)
    found = row["ratios"][name]
    where = f"{_said(document, row)}, batch {row['batch']}"
    if found.get("verdict") == _NOISY:
        return f"This machine was too noisy to say how fast {spoken(name)} is, {where}"
    low, high = ratio(found["low"]), ratio(found["high"])
    return (
        f"{spoken(name)} answers {ratio(found['value'])} times as fast as "
        f"{spoken(body['base'])}, {where} [{low}-{high}]"
    )


def highlights(document: dict[str, Any]) -> list[Highlight]:
    """Of each whole or main stage, the fastest variant's ratio to the base."""
    body = document["body"]
    found = []
    for stage in _LARGE:
        for row in body.get("rows", ()):
            if row["stage"] != stage or row["batch"] != _first_batch(body):
                continue
            if not _rated(row, body):
                continue
            name = _fastest(row)
            estimate = row["ratios"][name]
            limits = f"{ratio(estimate['low'])} to {ratio(estimate['high'])}"
            if estimate.get("verdict") == _NOISY:
                limits += ", too noisy for a verdict"
            says = f"as fast as {spoken(body['base'])}: {spoken(name)}, {row['stage']}"
            found.append(Highlight(f"{ratio(estimate['value'])} times", says, limits))
    return found


def tables(document: dict[str, Any]) -> list[Table]:
    """Ratios, times of every stage, agreement of outputs, and the contenders."""
    body = document["body"]
    if not body.get("rows") and not body.get("contenders"):
        return []
    return [
        *_ratios(body),
        *_same_class(body),
        *_times(body),
        *_agreement(body.get("agreement", ())),
        _contenders(body.get("contenders", {})),
    ]


def figures(document: dict[str, Any]) -> list[Figure]:
    """Drawings of what there is."""
    body = document["body"]
    if not body.get("rows"):
        return []
    return [
        *plots.ratio_bars(body),
        *plots.distributions(body, (quoted_stage(body), "encode image", "encode image and text")),
        *plots.breakdown(body),
        *plots.by_batch(body, (quoted_stage(body), "encode image", "encode image and text")),
    ]


def quoted_row(body: dict[str, Any]) -> dict[str, Any] | None:
    """The row whose ratio stands for the whole result: one item, the whole way."""
    for stage in _QUOTED:
        rows = [r for r in body.get("rows", ()) if r["stage"] == stage and _rated(r, body)]
        if rows:
            found: dict[str, Any] = min(rows, key=lambda row: (row["batch"], bool(row["detail"])))
            return found
    return None


def quoted_stage(body: dict[str, Any]) -> str:
    """The stage of `quoted_row`, or the first there is."""
    row = quoted_row(body)
    return str((row or body["rows"][0])["stage"])


def median_ms(document: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """What is quoted, in words, and each contender's median there, in milliseconds."""
    row = quoted_row(document["body"])
    if row is None:
        return "", {}
    return _said(document, row), {name: one["p50_ms"] for name, one in row["summary"].items()}


def contenders_of(body: dict[str, Any]) -> list[str]:
    """In the order of the document; and those of rows that it does not describe."""
    names = dict.fromkeys(body.get("contenders", ()))
    names.update(dict.fromkeys(name for row in body.get("rows", ()) for name in row["summary"]))
    return list(names)


def _said(document: dict[str, Any], row: dict[str, Any]) -> str:
    family = (document.get("model") or {}).get("family", "")
    whole = _WHOLE.get(str(family), "from file to result")
    if row["stage"] == READY:
        return f"{whole}, labels ready"
    return whole if row["stage"] == END else str(row["stage"])


def _rated(row: dict[str, Any], body: dict[str, Any]) -> bool:
    """Whether a variant of vlrt's is compared with the result's base there."""
    to_base = base_of(row, body) == body.get("base", "")
    return to_base and any(is_ours(name) for name in row.get("ratios", ()))


def _fastest(row: dict[str, Any]) -> str:
    """The fastest of ours as they come; of those with more options, if there are no others."""
    ours = {name: one["value"] for name, one in row["ratios"].items() if is_ours(name)}
    plain = [name for name in ours if name.count("-") <= 1]
    fastest: str = max(plain or ours, key=lambda name: float(ours[name]))
    return fastest


def _first_batch(body: dict[str, Any]) -> int:
    return min((int(row["batch"]) for row in body["rows"]), default=1)


def _ratios(body: dict[str, Any]) -> Iterable[Table]:
    """A table a base: what lacks the result's own is compared with another."""
    for base, rows in by_base(body).items():
        there = {name for row in rows for name in row["ratios"]}
        names = [name for name in in_order(contenders_of(body), base) if name in there]
        if not names:
            continue
        cells = [
            [
                *_place(row),
                number(row["summary"].get(base, {}).get("p50_ms")),
                *(_cell(row["ratios"].get(name)) for name in names),
                ratio_interval(row.get("noise")),
            ]
            for row in rows
        ]
        note = "" if base == body.get("base") else f"{body.get('base')} does not do these. "
        yield Table(
            f"Times as fast as {base}",
            ["stage", "batch", f"{base}, median ms", *names, "noise"],
            cells,
            f"{note}The ratio of medians and the interval that holds it with 95 % confidence "
            "(bootstrap over rounds); more than 1 is faster. Noise: a contender against itself, in "
            'turns of its own. "level": no difference beyond that noise; "too noisy": nothing can '
            "be said.",
        )


def _same_class(body: dict[str, Any]) -> Iterable[Table]:
    """Variants of vlrt against those of others that compute as exactly."""
    there = {one["theirs"] for row in body.get("rows", ()) for one in row.get("same_class", ())}
    names = [name for name in in_order(contenders_of(body), body.get("base", "")) if name in there]
    rows = []
    for row in body.get("rows", ()):
        by_ours: dict[str, dict[str, Any]] = {}
        for one in row.get("same_class", ()):
            by_ours.setdefault(one["ours"], {})[one["theirs"]] = one
        rows += [
            [*_place(row), ours, *(_cell(found.get(name)) for name in names)]
            for ours, found in by_ours.items()
        ]
    if rows:
        yield Table(
            "Within one precision class",
            ["stage", "batch", "variant", *(f"to {name}" for name in names)],
            rows,
            "How many times as fast as others of its precision a variant is: 8-bit integers, "
            "16-bit or 32-bit floats. Intervals and words as above.",
        )


def _place(row: dict[str, Any]) -> list[str]:
    """What a row ran, in the first two columns."""
    return [", ".join(filter(None, [row["stage"], row["detail"]])), str(row["batch"])]


def _cell(found: dict[str, Any] | None) -> str:
    """A ratio, and its verdict where the ratio alone would say too much."""
    if found is None:
        return ABSENT
    verdict = found.get("verdict", "")
    return ratio_interval(found) + (f", {verdict}" if verdict in ("level", _NOISY) else "")


def _times(body: dict[str, Any]) -> Iterable[Table]:
    header = ["contender", "batch", "p50 ms", "p90 ms", "p99 ms", "mean ms",
              "items a second", "runs"]  # fmt: skip
    keys = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "per_second")
    for stage in dict.fromkeys(row["stage"] for row in body.get("rows", ())):
        rows = [
            [
                name,
                ", ".join(filter(None, [str(row["batch"]), row["detail"]])),
                *(number(row["summary"][name][key]) for key in keys),
                f"{row['summary'][name]['runs']:.0f}",
            ]
            for row in body["rows"]
            if row["stage"] == stage
            for name in in_order(row["summary"], body.get("base", ""))
        ]
        yield Table(f"Times of {stage}", header, rows, folded=stage != quoted_stage(body))


def _alike(one: dict[str, Any]) -> str:
    """Whether one result is that of the reference; where nothing is asked, it is only told."""
    if one["same"]:
        return "yes"
    return "NO" if one["needed"] is not None else "reported"


def _agreement(found: Iterable[dict[str, Any]]) -> Iterable[Table]:
    rows = [
        [one["contender"], one["stage"], str(one["batch"]), one["output"], one["measure"],
         number(one["value"]) if one["measure"] != "lowest cosine" else _close(one["value"]),
         number(one["needed"]) if one["measure"] != "lowest cosine" else _close(one["needed"]),
         _alike(one)]
        for one in found
    ]  # fmt: skip
    if rows:
        yield Table(
            "Outputs agree",
            ["contender", "stage", "batch", "output", "measure", "found", "needed", "same"],
            rows,
            "Compared with the base's before anything was timed.",
            folded=True,
        )


def _close(cosine: float | None) -> str:
    return ABSENT if cosine is None else f"{cosine:.6f}"


def _contenders(contenders: dict[str, Any]) -> Table:
    rows = [
        [
            name,
            one.get("precision", ABSENT),
            ", ".join(f"{what} {version}" for what, version in one.get("versions", {}).items())
            or ABSENT,
            number(one.get("loading_s")),
            number(one.get("warm_up_s")),
            "yes" if one.get("stable") else "no",
        ]
        for name, one in contenders.items()
    ]
    header = ["contender", "precision", "versions", "loading s", "warm-up s", "stable"]
    note = "Loading, compiling and warming up are no part of any latency; stable: whether the last "
    return Table("Contenders", header, rows, f"{note}warm-up runs were as fast as those before.")
