"""`vlrt bench compare A.json B.json`: what changed between two results, and whether it is noise."""

import argparse
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlrt.errors import OptionError

from . import document, stats
from .compare_entries import ENTRIES
from .report import markdown
from .stats import Estimate

Document = dict[str, Any]
# What a comparison says of a change. Of what only has a value on each side, the value is all.
SAME, NOISY, FEW, BARE = "no change beyond noise", "too noisy", "too few rounds", "no interval"
_WORDS = {"faster": "faster", "slower": "slower", "level": SAME, "too noisy": NOISY}
_SIZES = {"faster": "less", "slower": "more", "level": SAME, "too noisy": NOISY}
_NO_NOISE = Estimate(1.0, 1.0, 1.0)
# What differs by less is no change where no contender told its own noise: of times and memory, two
# runs of the same on one machine differ by a few per cent.
FLOOR = 0.05
_FLOOR = Estimate(1.0, 1 / (1 + FLOOR), 1 + FLOOR)
_NORMALISED = ("latency", "footprint")  # kinds whose contenders took turns with a base


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
    and `only_b`, what is in one alone; `floor`, what is taken for noise where none was measured, or
    None. A row: `work` and `contender` in words, the values `a` and `b` in `unit`, and `change` and
    `normalised`, each with its verdict, or None: of times and sizes A's median over B's, of rates
    (`more_is_better`) B's over A's, more than 1 is better; of accuracy B less A.

    Args:
        a, b: results of the same kind and model.
        force: compare models of different names, too.

    Raises:
        OptionError: the kinds, or the names of the models, differ.
    """
    kind = a["kind"]
    if kind != b["kind"]:
        raise OptionError(f"A is a result of {kind!r} and B of {b['kind']!r}; valid: the same kind")
    if kind not in ENTRIES:
        raise OptionError(f"results of {kind!r} cannot be compared; valid: {', '.join(ENTRIES)}")
    names = [(one.get("model") or {}).get("name") for one in (a, b)]
    if names[0] != names[1] and not force:
        raise OptionError(
            f"A is of the model {names[0]!r} and B of {names[1]!r}; valid: the same one, or --force"
        )
    ours, theirs = (dict(ENTRIES[kind](one["body"])) for one in (a, b))
    base = a["body"].get("base")
    base = base if base == b["body"].get("base") and kind in _NORMALISED else None
    same_items = _dataset(a) is not None and _dataset(a) == _dataset(b)
    both = [key for key in ours if key in theirs]
    rows = [
        {
            "work": key[0],
            "contender": key[1],
            "unit": ours[key]["unit"],
            "more_is_better": ours[key].get("more_is_better", False),
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
        for key in both
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
            "floor": FLOOR if any(_unknown_noise(kind, ours[k], theirs[k]) for k in both) else None,
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


def _dataset(one: Document) -> tuple[Any, ...] | None:
    """What was counted on, wherever it lies; None where that is not known."""
    found = one["body"].get("dataset") or {}
    known = tuple(found.get(key) for key in ("format", "sha256", "items"))
    return None if None in known else known


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
        better, worse = (b, a) if kind == "latency" else (a, b)  # of sizes, less is better
        estimate = quotient(_estimate(better["to_base"]), _estimate(worse["to_base"]))
        verdict = words[stats.verdict(estimate, noise)]
        normalised = {**estimate.as_dict(), "verdict": verdict}
    return {"change": change, "normalised": normalised}


def _unknown_noise(kind: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether the floor decides of a row."""
    enough = min(len(one.get("rounds", ())) for one in (a, b)) >= stats.LEAST_ROUNDS
    return kind != "accuracy" and enough and not (a.get("noise") or b.get("noise"))


def _times_change(
    a: dict[str, Any], b: dict[str, Any], noise: Estimate, words: Mapping[str, str]
) -> dict[str, Any]:
    least = min(len(a["rounds"]), len(b["rounds"]))
    if least < stats.LEAST_ROUNDS:
        over, under = (b, a) if a.get("more_is_better") else (a, b)
        value = over["value"] / under["value"] if under["value"] else None
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
        shared = a["pictures"] or b["pictures"]
        estimate = stats.mean_difference(b["items"], a["items"], shared)
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
    """The noise that either side measured, whichever is more; the floor where neither did."""
    known: Sequence[Mapping[str, Any]] = [one for one in noises if one]
    if not known:
        return _FLOOR
    return Estimate(1.0, min(one["low"] for one in known), max(one["high"] for one in known))
