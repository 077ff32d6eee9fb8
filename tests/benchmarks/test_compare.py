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
    with_another_base,
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
    after["body"]["dataset"]["source"] = "another"  # the same pictures elsewhere
    assert compare(before, after)["body"]["rows"] == paired["body"]["rows"]
    after["body"]["dataset"]["sha256"] = "4" * 64
    apart = compare(before, after)
    row = next(r for r in apart["body"]["rows"] if (r["work"], r["contender"]) == ("top-1", name))
    assert not row["change"]["paired"]
    assert row["change"]["low"] < -0.1 < row["change"]["high"]
    assert {"what": "dataset, source", "a": "drawn scenes", "b": "another"} in apart["body"][
        "differs"
    ]


@pytest.mark.parametrize(
    ("change", "whole", "group"),
    [
        (lambda body: None, True, True),
        (lambda body: body.pop("positions"), True, False),  # a result of before
        (lambda body: body["dataset"].pop("sha256"), False, False),
        (lambda body: body["dataset"].update(format="coco"), False, False),
    ],
)
def test_groups_are_paired_by_their_items(change, whole, group):
    made = accuracy()
    change(made["body"])
    rows = {(r["work"], r["contender"]): r for r in compare(made, made)["body"]["rows"]}
    assert rows["top-1", "vlrt-int8"]["change"]["paired"] is whole
    assert rows["top-1 of never seen", "vlrt-int8"]["change"]["paired"] is group


def test_items_of_one_picture_are_compared_together():
    before, after = accuracy(items=40), accuracy(items=40)
    items = after["body"]["items"]["vlrt-int8"]
    items["top-1"] = [1 - one for one in items["top-1"][:8]] + items["top-1"][8:]
    shared = {"top-1": [i // 8 for i in range(40)]}

    def width(pictures):
        for one in (before, after):
            one["body"]["pictures"] = pictures
        rows = compare(before, after)["body"]["rows"]
        (row,) = (r for r in rows if (r["work"], r["contender"]) == ("top-1", "vlrt-int8"))
        return row["change"]["high"] - row["change"]["low"]

    assert width({}) != width(shared)


def test_rates_are_better_where_they_are_more():
    before, after = load(), load()
    for found in after["body"]["contenders"].values():
        for key in ("capacity_per_s", "knee_per_s"):
            found[key] *= 2
    found = compare(before, after)
    rates = [row for row in found["body"]["rows"] if row["work"] in ("capacity", "knee")]
    assert [row["change"]["value"] for row in rates] == [2] * 4
    assert all(row["more_is_better"] for row in rates)
    assert "of rates B's over A's" in markdown(found)
    assert "of rates" not in markdown(compare(tune(), tune()))


@pytest.mark.parametrize(("by", "word"), [(1.03, "no change beyond noise"), (1.2, "slower")])
def test_what_is_within_the_floor_is_no_change_where_no_noise_is_known(by, word):
    before, after = tune(), tune()
    for made, seconds in ((before, 1.0), (after, by)):  # no spread: the floor alone decides
        for one in made["body"]["candidates"]:
            one["samples"] = [[seconds] * 3] * 4
    found = compare(before, after)
    assert {row["change"]["verdict"] for row in found["body"]["rows"]} == {word}
    assert found["body"]["floor"] == 0.05
    assert "less than 5% counts as none" in markdown(found)
    assert compare(small_latency(), small_latency())["body"]["floor"] is None


def test_a_busier_machine_cancels_in_footprints_but_not_in_bytes():
    before, after = footprint(), footprint()
    for row in after["body"]["rows"]:
        if row["unit"] != "MB":
            row["samples"] = {n: [2 * x for x in one] for n, one in row["samples"].items()}
            row["medians"] = {n: 2 * one for n, one in row["medians"].items()}
    found = compare(before, after)
    assert found["body"]["base"] == "transformers"
    ours = [row for row in found["body"]["rows"] if row["contender"] == "vlrt-int8"]
    for row in ours:
        exact = row["unit"] == "MB"
        assert row["change"]["verdict"] == ("no change beyond noise" if exact else "more")
        assert (row["normalised"] is None) == exact
        if row["normalised"]:
            assert row["normalised"]["value"] == pytest.approx(1)
            assert row["normalised"]["verdict"] == "no change beyond noise"
    assert "as far as that can be" in view_of("compare").headline(found)
    # Half as much, where the base stays: less, and by as much.
    halved = footprint()
    for row in halved["body"]["rows"]:
        for key in ("value", "low", "high"):
            row["ratio"]["vlrt-int8"][key] /= 2
    rows = compare(footprint(), halved)["body"]["rows"]
    normalised = [
        r["normalised"] for r in rows if r["contender"] == "vlrt-int8" and r["normalised"]
    ]
    assert {round(one["value"], 9) for one in normalised} == {2}
    assert {one["verdict"] for one in normalised} == {"less"}


def test_a_ratio_to_another_base_normalises_nothing():
    made = with_another_base()
    rows = compare(made, made)["body"]["rows"]
    found = {r["work"]: r["normalised"] for r in rows if r["contender"] == "vlrt-int8"}
    assert found["preprocess, batch 1"] is None
    assert found["decode, batch 1"] is not None


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
