"""What changed between two results, and whether it is noise."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_documents import (
    MAKERS,
    accuracy,
    around,
    conditions,
    footprint,
    load,
    small_latency,
    tune,
)

from vlrt.errors import OptionError
from vlrt_benchmarks import document as documents
from vlrt_benchmarks.compare import compare, differences, quotient
from vlrt_benchmarks.report import markdown
from vlrt_benchmarks.stats import Estimate
from vlrt_benchmarks.views import view_of


def slowed(document, contenders, by):
    """The same result with every run of some contenders so many times as long."""
    found = copy.deepcopy(document)
    for row in found["body"]["rows"]:
        for name in contenders:
            row["samples"][name] = [[x * by for x in one] for one in row["samples"][name]]
            row["summary"][name]["p50_ms"] *= by
            for other, ratio in row["ratios"].items():
                if other == name or (name == found["body"]["base"]):
                    factor = 1 / by if other == name else 1
                    factor *= by if name == found["body"]["base"] else 1
                    for key in ("value", "low", "high"):
                        ratio[key] *= factor
    return found


def verdicts(found, contender, key="change"):
    rows = [row for row in found["body"]["rows"] if row["contender"] == contender]
    assert rows
    return {row[key]["verdict"] for row in rows}


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "compare"])
def test_nothing_changed_where_nothing_did(kind):
    made = small_latency() if kind == "latency" else MAKERS[kind]()
    found = compare(made, made)
    assert found["body"]["rows"]
    for row in found["body"]["rows"]:
        assert row["change"]["verdict"] in ("no change beyond noise", "no interval")
        assert row["change"]["value"] == (0 if kind == "accuracy" else 1)
    assert [found["body"][key] for key in ("differs", "only_a", "only_b")] == [[], [], []]


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "compare"])
def test_empty_results_can_be_compared(kind):
    found = compare(around(kind, {}), around(kind, {}))
    assert found["body"]["rows"] == []
    assert view_of("compare").headline(found) == ""
    assert markdown(found).startswith("# ")


def test_what_got_slower_is_slower_both_ways():
    before = small_latency()
    found = compare(before, slowed(before, ["vlrt-int8"], 2.0))
    assert verdicts(found, "vlrt-int8") == {"slower"}
    assert verdicts(found, "vlrt-int8", "normalised") == {"slower"}
    assert verdicts(found, "torch-fp32") == {"no change beyond noise"}
    back = compare(slowed(before, ["vlrt-int8"], 2.0), before)
    assert verdicts(back, "vlrt-int8", "normalised") == {"faster"}
    assert "6 faster" not in view_of("compare").headline(found)


def test_a_slower_machine_cancels_in_what_is_normalised():
    before = small_latency()
    found = compare(before, slowed(before, ["vlrt-int8", "torch-fp32"], 1.5))
    assert verdicts(found, "vlrt-int8") == {"slower"}
    assert verdicts(found, "vlrt-int8", "normalised") == {"no change beyond noise"}
    said = view_of("compare").headline(found)
    assert said.endswith("normalised by torch-fp32, which itself is: 7 slower")


def test_without_a_base_in_common_nothing_is_normalised():
    before, after = small_latency(), small_latency()
    after["body"]["base"] = "vlrt-fp32"
    found = compare(before, after)
    assert found["body"]["base"] is None
    assert all(row["normalised"] is None for row in found["body"]["rows"])
    assert "None" not in markdown(found)


def test_a_noisy_machine_gets_no_verdict():
    before = small_latency()
    for row in before["body"]["rows"]:
        row["noise"] = {"value": 1.0, "low": 0.3, "high": 3.0}
    found = compare(before, slowed(before, ["vlrt-int8"], 1.5))
    assert verdicts(found, "vlrt-int8") == {"too noisy"}


def test_too_few_rounds_get_no_interval():
    before = small_latency()
    for row in before["body"]["rows"]:
        row["samples"] = {name: one[:2] for name, one in row["samples"].items()}
    found = compare(before, small_latency(seed=3))
    assert verdicts(found, "vlrt-int8") == {"too few rounds"}
    assert "too few rounds" in markdown(found)


def test_accuracy_is_compared_item_by_item_where_the_items_are_the_same():
    before, after = accuracy(), accuracy()
    name = "vlrt-int8"
    items = after["body"]["items"][name]["top-1"]
    wrong = [index for index, right in enumerate(items) if right][:40]
    for index in wrong:
        items[index] = 0.0
    for row in after["body"]["rows"]:
        if row["contender"] == name and row["measure"] == "top-1":
            row["value"] -= 40 / len(items)
    paired = compare(before, after)
    row = next(r for r in paired["body"]["rows"] if (r["work"], r["contender"]) == ("top-1", name))
    assert row["change"]["paired"]
    assert row["change"]["verdict"] == "lower"
    assert row["change"]["value"] == pytest.approx(-0.1)
    after["body"]["dataset"]["source"] = "another"
    apart = compare(before, after)
    row = next(r for r in apart["body"]["rows"] if (r["work"], r["contender"]) == ("top-1", name))
    assert not row["change"]["paired"]
    assert row["change"]["low"] < -0.1 < row["change"]["high"]
    assert {"what": "dataset, source", "a": "drawn scenes", "b": "another"} in apart["body"][
        "differs"
    ]


def test_sizes_are_less_or_more_even_where_they_are_exact():
    before, after = footprint(), footprint()
    for row in after["body"]["rows"]:
        for name in ("vlrt-int8", "vlrt-fp32"):
            by = 0.5 if name == "vlrt-int8" else 2
            row["samples"][name] = [one * by for one in row["samples"][name]]
            row["medians"][name] *= by
    found = compare(before, after)
    assert verdicts(found, "vlrt-int8") == {"less"}
    assert verdicts(found, "vlrt-fp32") == {"more"}


@given(*[st.tuples(*[st.floats(0.1, 10)] * 3).map(sorted)] * 2)
def test_a_quotient_holds_its_value_and_turns_round(first, second):
    a, b = (Estimate(value, low, high) for low, value, high in (first, second))
    there, back = quotient(a, b), quotient(b, a)
    assert there.low <= there.value * (1 + 1e-9)
    assert there.high >= there.value * (1 - 1e-9)
    assert there.low * back.high == pytest.approx(1)
    assert there.value * back.value == pytest.approx(1)


# --- what differs ---------------------------------------------------------------------------------


def test_conditions_that_differ_are_said_first():
    before, after = small_latency(), small_latency()
    after["conditions"] = {**conditions(4), "date": "2027-01-01", "commit": "f" * 40}
    after["conditions"]["machine"]["processor"] = "another"
    after["model"]["files"]["config.json"] = "2" * 64
    after["settings"]["rounds"] = 9
    found = {one["what"]: (one["a"], one["b"]) for one in differences(before, after)}
    assert found.keys() == {"commit", "machine, processor", "threads", "settings, rounds",
                            "model, files, config.json"}  # fmt: skip
    assert found["threads"] == ("2", "4")
    text = markdown(compare(before, after))
    assert text.index("What differs in their conditions") < text.index("## What changed")


def test_what_is_in_one_alone_is_listed():
    before, after = small_latency(), small_latency()
    after["body"]["rows"] = [r for r in after["body"]["rows"] if r["stage"] != "decode"]
    for row in before["body"]["rows"]:
        del row["samples"]["vlrt-int8"]
    found = compare(before, after)["body"]
    assert found["only_a"] == ["decode, batch 1 · torch-fp32"]
    assert "encode image, batch 1 · vlrt-int8" in found["only_b"]


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (tune, load, "A is a result of 'tune' and B of 'load'"),
        (
            MAKERS["compare"],
            MAKERS["compare"],
            "results of 'compare' cannot be compared; valid: lat",
        ),
    ],
)
def test_other_kinds_are_refused(a, b, said):
    with pytest.raises(OptionError, match=said):
        compare(a(), b(), force=True)


def test_another_model_is_refused_unless_forced():
    before, after = tune(), tune()
    after["model"]["name"] = "other"
    with pytest.raises(OptionError, match=r"of the model 'clip-vit-base-patch32' and B of 'other'"):
        compare(before, after)
    found = compare(before, after, force=True)
    assert found["title"] == "clip-vit-base-patch32 and other"


# --- the verb -------------------------------------------------------------------------------------


def test_the_verb_prints_and_writes(tmp_path, capsys):
    from vlrt_benchmarks.__main__ import main

    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        documents.write(tune(), path)
    out = tmp_path / "c.json"
    assert main(["compare", *map(str, paths), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "no change beyond noise" in printed
    assert documents.read(out)["command"] == f"vlrt bench compare {paths[0]} {paths[1]}"
    assert {path.suffix for path in tmp_path.glob("c.*")} == {".json", ".md", ".html"}
    assert main(["compare", str(paths[0]), str(tmp_path / "none.json")]) == 1
    assert "cannot be read as JSON" in capsys.readouterr().err
    paths[1].write_text(json.dumps({**load(), "kind": "speed"}))
    assert main(["compare", *map(str, paths)]) == 1
