"""`vlrt bench compare A.json B.json`: what changed between two results, and whether it is noise."""

import argparse
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlrt.errors import OptionError

from . import document, stats
from .report import markdown
from .stats import Estimate
from .wording import work

Document = dict[str, Any]
# What a comparison says of a change. Of what only has a value on each side, the value is all.
SAME, NOISY, FEW, BARE = "no change beyond noise", "too noisy", "too few rounds", "no interval"
_WORDS = {"faster": "faster", "slower": "slower", "level": SAME, "too noisy": NOISY}
_SIZES = {"faster": "less", "slower": "more", "level": SAME, "too noisy": NOISY}
_NO_NOISE = Estimate(1.0, 1.0, 1.0)
_BLOCKS = 10  # that a closed loop's latencies are cut into, in the place of rounds


def add(verbs: Any) -> None:
    """The verb."""
    parser = verbs.add_parser(
        "compare",
        help="say what changed between two results, and whether it is noise",
        description="Compare two results of one kind and one model: B against A.",
    )
    parser.add_argument("a", type=Path, metavar="A.json", help="the result before")
    parser.add_argument("b", type=Path, metavar="B.json", help="the result after")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.json",
        help="write the comparison there, with .md and .html beside it",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="compare results of models of different names, too"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare, print and, if asked, write."""
    path = None if options.output is None else document.output_path(options, "compare", "")
    before, after = document.read(options.a), document.read(options.b)
    found = compare(before, after, force=options.force)
    named = ["vlrt", "bench", "compare", str(options.a), str(options.b)]
    found["command"] = shlex.join(named + ["--force"] * options.force)
    if path is not None:
        document.write(found, path)
    print(markdown(found))
    return 0


def compare(a: Document, b: Document, *, force: bool = False) -> Document:
    """A result of kind "compare": B against A.

    Its body: `of`, the kind compared; `a` and `b`, what each is; `differs`, the conditions that are
    not the same; `base`, the contender that changes are normalised by, or None; `rows`; `only_a`
    and `only_b`, what is in one alone. A row: `work` and `contender` in words, the values `a` and
    `b` in `unit`, and `change` and `normalised`, each with its verdict, or None: of times and sizes
    A's median over B's, more than 1 is better; of accuracy B less A.

    Args:
        a, b: results of the same kind and model.
        force: compare models of different names, too.

    Raises:
        OptionError: the kinds, or the names of the models, differ.
    """
    kind = a["kind"]
    if kind != b["kind"]:
        raise OptionError(f"A is a result of {kind!r} and B of {b['kind']!r}; valid: the same kind")
    if kind not in _ENTRIES:
        raise OptionError(f"results of {kind!r} cannot be compared; valid: {', '.join(_ENTRIES)}")
    names = [(one.get("model") or {}).get("name") for one in (a, b)]
    if names[0] != names[1] and not force:
        raise OptionError(
            f"A is of the model {names[0]!r} and B of {names[1]!r}; valid: the same one, or --force"
        )
    ours, theirs = (dict(_ENTRIES[kind](one["body"])) for one in (a, b))
    base = a["body"].get("base")
    base = base if base == b["body"].get("base") and kind == "latency" else None
    same_items = _dataset(a) is not None and _dataset(a) == _dataset(b)
    rows = [
        {
            "work": key[0],
            "contender": key[1],
            "unit": ours[key]["unit"],
            "a": ours[key]["value"],
            "b": theirs[key]["value"],
            **_change(
                kind,
                ours[key],
                theirs[key],
                normalise=base not in (None, key[1]),
                same_items=same_items,
            ),
        }
        for key in ours
        if key in theirs
    ]
    return {
        "format": document.FORMAT,
        "kind": "compare",
        "title": " and ".join(dict.fromkeys(str(name) for name in names if name)) or kind,
        "command": "vlrt bench compare A.json B.json",
        "conditions": {},
        "model": None,
        "settings": {"force": force},
        "fairness": [],
        "skipped": {},
        "notes": [],
        "body": {
            "of": kind,
            "a": _identity(a),
            "b": _identity(b),
            "differs": list(differences(a, b)),
            "base": base,
            "rows": rows,
            "only_a": [" · ".join(key) for key in ours if key not in theirs],
            "only_b": [" · ".join(key) for key in theirs if key not in ours],
        },
    }


def differences(a: Document, b: Document) -> Iterator[dict[str, str]]:
    """The conditions, settings and facts of the model that are not the same: what, a and b."""
    flat = [dict(_flat(_conditions(one), "")) for one in (a, b)]
    for what in dict.fromkeys([*flat[0], *flat[1]]):
        values = [one.get(what, "-") for one in flat]
        if values[0] != values[1]:
            yield {"what": what, "a": values[0], "b": values[1]}


def _conditions(one: Document) -> dict[str, Any]:
    """What a difference may come from: not when it was, nor how busy the machine was just then."""
    known = {key: value for key, value in one["conditions"].items() if key != "date"}
    machine = {k: v for k, v in known.get("machine", {}).items() if k != "load_average"}
    return {
        **known,
        "machine": machine,
        "settings": one["settings"],
        "model": one.get("model") or {},
        "dataset": one["body"].get("dataset") or {},
        "base": one["body"].get("base"),
    }


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(one, f"{name}, {key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value)) or "none"
    elif value is not None:
        yield name, str(value)


def _identity(one: Document) -> dict[str, Any]:
    known = one["conditions"]
    return {
        "title": one["title"],
        "date": known.get("date"),
        "commit": known.get("commit"),
        "processor": known.get("machine", {}).get("processor"),
        "load_average": known.get("machine", {}).get("load_average"),
        "command": one.get("command"),
    }


def _dataset(one: Document) -> Any:
    return one["body"].get("dataset")


# --- what can be compared: (work, contender) -> its value, unit and samples -----------------------

_Entries = Iterator[tuple[tuple[str, str], dict[str, Any]]]


def _of_latency(body: Mapping[str, Any]) -> _Entries:
    for row in body.get("rows", ()):
        for name, rounds in row["samples"].items():
            yield (
                (work(row), name),
                {
                    "value": row["summary"][name]["p50_ms"],
                    "unit": "ms",
                    "rounds": rounds,
                    "to_base": row["ratios"].get(name),
                    "noise": row.get("noise"),
                },
            )


def _of_accuracy(body: Mapping[str, Any]) -> _Entries:
    for row in body.get("rows", ()):
        items = body.get("items", {}).get(row["contender"], {}).get(row["measure"])
        whole = row["group"] == "all"
        yield (
            (row["measure"] if whole else f"{row['measure']} of {row['group']}", row["contender"]),
            {**row, "unit": "points", "items": items if whole else None},
        )


def _of_footprint(body: Mapping[str, Any]) -> _Entries:
    for row in body.get("rows", ()):
        for name, samples in row["samples"].items():
            rounds = [[float(one)] for one in samples]
            value = row["medians"][name]
            yield (
                (row["measure"], name),
                {"value": value, "unit": row["unit"], "rounds": rounds, "exact": len(rounds) == 1},
            )


def _of_load(body: Mapping[str, Any]) -> _Entries:
    for name, found in body.get("contenders", {}).items():
        for what in ("capacity", "knee"):
            value = found[f"{what}_per_s"]
            if value is not None:
                yield (what, name), {"value": value, "unit": "a second", "rounds": []}
        for one in found["closed"]:
            taken = one["latencies_s"]
            size = math.ceil(len(taken) / _BLOCKS) or 1
            yield (
                (f"closed loop, {one['clients']} clients", name),
                {
                    "value": one["summary"].get("p50_ms"),
                    "unit": "ms",
                    "rounds": [taken[at : at + size] for at in range(0, len(taken), size)],
                },
            )


def _of_tune(body: Mapping[str, Any]) -> _Entries:
    from .views.tune import name_of

    for one in body.get("candidates", ()):
        yield (
            ("tuning", name_of(one)),
            {"value": one["summary"]["p50_ms"], "unit": "ms", "rounds": one["samples"]},
        )


_ENTRIES = {
    "latency": _of_latency,
    "accuracy": _of_accuracy,
    "footprint": _of_footprint,
    "load": _of_load,
    "tune": _of_tune,
}


# --- how much it changed --------------------------------------------------------------------------


def _change(
    kind: str, a: dict[str, Any], b: dict[str, Any], *, normalise: bool, same_items: bool
) -> dict[str, Any]:
    if kind == "accuracy":
        return {"change": _accuracy_change(a, b, same_items=same_items), "normalised": None}
    words = _SIZES if kind == "footprint" else _WORDS
    noise = _wider(a.get("noise"), b.get("noise"))
    change = _times_change(a, b, noise, words)
    normalised = None
    if normalise and a.get("to_base") and b.get("to_base"):
        estimate = quotient(_estimate(b["to_base"]), _estimate(a["to_base"]))
        verdict = words[stats.verdict(estimate, noise)]
        normalised = {**estimate.as_dict(), "verdict": verdict}
    return {"change": change, "normalised": normalised}


def _times_change(
    a: dict[str, Any], b: dict[str, Any], noise: Estimate, words: Mapping[str, str]
) -> dict[str, Any]:
    least = min(len(a["rounds"]), len(b["rounds"]))
    if least < stats.LEAST_ROUNDS:
        value = a["value"] / b["value"] if b["value"] else None
        bare = {"value": value, "low": None, "high": None}
        if value is None or not (a.get("exact") and b.get("exact")):
            return {**bare, "verdict": FEW if least else BARE}
        exact = Estimate(value, value, value)
        return {**bare, "verdict": words[stats.verdict(exact, _NO_NOISE)]}
    estimate = stats.times_as_fast(b["rounds"], a["rounds"], paired=False)
    return {**estimate.as_dict(), "verdict": words[stats.verdict(estimate, noise)]}


def _accuracy_change(a: dict[str, Any], b: dict[str, Any], *, same_items: bool) -> dict[str, Any]:
    paired = same_items and a["items"] and b["items"] and len(a["items"]) == len(b["items"])
    if paired:
        estimate = stats.mean_difference(b["items"], a["items"])
        low, high = estimate.low, estimate.high
    elif None in (a["low"], b["low"]):
        value = b["value"] - a["value"]
        return {"value": value, "low": None, "high": None, "paired": False, "verdict": BARE}
    else:
        low, high = _moved(_estimate(a), _estimate(b))
    verdict = "higher" if low > 0 else "lower" if high < 0 else SAME
    value = b["value"] - a["value"]
    return {"value": value, "low": low, "high": high, "paired": bool(paired), "verdict": verdict}


def quotient(over: Estimate, under: Estimate) -> Estimate:
    """One ratio by another that has nothing to do with it; of their logarithms, as `_moved`."""
    logs = [Estimate(*(math.log(x) for x in (e.value, e.low, e.high))) for e in (under, over)]
    low, high = _moved(*logs)
    return Estimate(over.value / under.value, math.exp(low), math.exp(high))


def _moved(a: Estimate, b: Estimate) -> tuple[float, float]:
    """The interval of b less a, which are independent, from the interval of each.

    By the method of variance estimates recovery (Zou and Donner 2008).
    """
    value = b.value - a.value
    down = math.hypot(b.value - b.low, a.high - a.value)
    up = math.hypot(b.high - b.value, a.value - a.low)
    return value - down, value + up


def _estimate(found: Mapping[str, Any]) -> Estimate:
    return Estimate(found["value"], found["low"], found["high"])


def _wider(*noises: Mapping[str, Any] | None) -> Estimate:
    known: Sequence[Mapping[str, Any]] = [one for one in noises if one]
    if not known:
        return _NO_NOISE
    return Estimate(1.0, min(one["low"] for one in known), max(one["high"] for one in known))
