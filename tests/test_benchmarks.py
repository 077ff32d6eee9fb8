"""What benchmarks make of what they measured, and that what they compare is the same work."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("psutil", reason="the benchmarks need the extra bench")

from vlrt_benchmarks.engine_report import ratio, row_table, times_table, verdict_table, verdicts
from vlrt_benchmarks.engine_turns import lowest_cosine
from vlrt_benchmarks.engine_work import RATIOS
from vlrt_benchmarks.preprocessing import BASE, compare

ROW = "CLIP image, batch 1"
ROUNDS = st.lists(st.floats(1e-4, 10), min_size=1, max_size=4)


def found(*rounds, same=True):
    return {"seconds": list(rounds), "cosine": 1.0, "same": same}


# --- ratios ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "rows"),
    [
        ({}, []),
        ({ROW: {"torch fp32": found([1.0])}}, []),
        ({ROW: {"vlrt int8": found([1.0])}}, [[ROW, "-"]]),
        ({ROW: {"vlrt int8": found([1.0, 2.0], [3.0]), "torch fp32": found([5.0], [5.0, 6.0])}},
         [[ROW, "2.50"]]),
    ],
)  # fmt: skip
def test_a_table_of_times_has_the_rows_that_have_ours(results, rows):
    header = ["vlrt int8, times as fast as", "torch fp32"]
    assert times_table(results, "vlrt int8", ["torch fp32"]) == [header, *rows]


@given(st.lists(st.tuples(ROUNDS, ROUNDS), min_size=1, max_size=3))
def test_a_ratio_is_the_inverse_of_the_other_way_round(rounds):
    ours, theirs = zip(*rounds, strict=True)
    row = {"a": found(*ours), "b": found(*theirs)}
    there, back = ratio(row, "a", "b"), ratio(row, "b", "a")
    assert there[0] * back[0] == pytest.approx(1)
    assert there[1] * back[2] == pytest.approx(1)
    assert there[1] <= there[2]


def test_what_was_not_measured_is_said_and_not_left_out():
    table = list(verdicts({}))
    assert [(one["work"], one["ours"], one["theirs"]) for one in table] == [
        (wanted.work, wanted.ours, wanted.theirs) for wanted in RATIOS
    ]
    assert all(one["ratio"] is None and one["met"] is None for one in table)
    assert verdict_table(table).count("not measured") == len(RATIOS)


def test_verdicts_are_of_the_ratio_and_name_another_result():
    row = {"vlrt int8": found([1.0]), "torch fp32": found([5.0]),
           "torch.compile bf16": found([0.5], same=False)}  # fmt: skip
    by_peer = {one["theirs"]: one for one in verdicts({ROW: row}) if one["ratio"] is not None}
    assert by_peer.keys() == {"torch fp32", "torch.compile bf16"}
    assert by_peer["torch fp32"]["met"] is True
    assert by_peer["torch.compile bf16"]["met"] is False
    lines = verdict_table(list(by_peer.values())).splitlines()[2:]
    assert "not the same" not in lines[0]
    assert "(whose result is not the same) | 1 | 0.50 [0.50-0.50] | NO |" in lines[1]
    assert "(not the same result)" in row_table(row, 1)


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "lowest"),
    [
        ({}, {}, 1.0),
        ([[1, 0]], [[2, 0]], 1.0),
        ([[1, 0], [0, 3]], [[1, 0], [0, -1]], -1.0),
        ([[[1, 0], [0, 0]]], [[[0, 0], [0, 1]]], 0.0),
    ],
)
def test_the_lowest_cosine_is_that_of_the_worst_sample(ours, theirs, lowest):
    named = [{} if given == {} else {"a": np.array(given, np.float32)} for given in (ours, theirs)]
    assert lowest_cosine(*named) == pytest.approx(lowest)


def test_no_number_is_no_agreement():
    made = {"a": np.array([[1, np.nan]], np.float32), "b": np.ones((1, 2), np.float32)}
    assert not lowest_cosine(made, {name: np.ones((1, 2)) for name in made}) >= -1


def outputs(root, **arrays):
    folders = {}
    for number, (name, array) in enumerate(arrays.items()):
        folders[name] = root / str(number)
        folders[name].mkdir()
        np.save(folders[name] / "work.npy", array)
    return folders


def test_another_that_is_not_exact_is_reported(tmp_path):
    pixels = np.zeros(4, np.float32)
    names = {BASE: pixels, "hf-processors-rs": pixels + np.float32([0, 0, 0, 0.5]),
             "vlrt, Pillow": pixels, "vlrt, fast": pixels + 1}  # fmt: skip
    differences = compare(outputs(tmp_path, **names), ["work"])
    assert differences == {
        "hf-processors-rs": {"largest_difference": 0.5, "largest_mean_difference": 0.125},
        "vlrt, Pillow": {"largest_difference": 0, "largest_mean_difference": 0},
        "vlrt, fast": {"largest_difference": 1, "largest_mean_difference": 1},
    }


@pytest.mark.parametrize("wrong", [1e-7, np.nan])
def test_ours_that_is_not_exact_ends_the_benchmark(tmp_path, wrong):
    made = outputs(
        tmp_path,
        **{BASE: np.zeros(2, np.float32), "vlrt, Pillow": np.array([0, wrong], np.float32)},
    )
    with pytest.raises(SystemExit, match="vlrt, Pillow differs"):
        compare(made, ["work"])


@pytest.mark.parametrize("other", [np.zeros(3, np.float32), np.zeros(2)])
def test_other_shapes_and_types_end_the_benchmark(tmp_path, other):
    names = {BASE: np.zeros(2, np.float32), "hf-processors-rs": other}
    with pytest.raises(SystemExit, match=r"hf-processors-rs, work: .* for float32 \(2,\)"):
        compare(outputs(tmp_path, **names), ["work"])


# --- what is kept ---------------------------------------------------------------------------------


@pytest.mark.torch
def test_a_fingerprint_is_of_names_types_shapes_and_numbers():
    pytest.importorskip("transformers")
    from vlrt_benchmarks.engine_made import arrays_sha256

    a, b = np.arange(4, dtype=np.int32), np.ones((2, 2), np.float32)
    others = [
        {},
        {"a": a},
        {"a": b, "b": a},
        {"a": a.astype(np.uint32), "b": b},
        {"a": a.reshape(2, 2), "b": b},
        {"a": a + 1, "b": b},
        {"a": a, "b": b},
    ]
    assert len({arrays_sha256(one) for one in others}) == len(others)
    assert arrays_sha256({"b": b, "a": a}) == arrays_sha256({"a": a, "b": b})


# --- attention ------------------------------------------------------------------------------------


def test_attention_of_nothing_asked_is_the_mean():
    from vlrt_benchmarks.attention_once import exact

    value = np.random.default_rng(0).standard_normal((1, 5, 6)).astype(np.float32)
    mixed = exact(np.zeros_like(value), value, value, heads=2)
    np.testing.assert_allclose(mixed, np.broadcast_to(value.mean(axis=1), (1, 5, 6)), atol=1e-6)


@pytest.mark.parametrize(
    ("contender", "largest"),
    [
        ("Attention", 1e-5),
        ("MultiHeadAttention", 1e-5),
        ("plain", 1e-5),
        ("int8, shares of 1/255", 0.05),
        ("int8, rows by their largest", 0.05),
    ],
)
@pytest.mark.parametrize("tokens", [1, 7])
def test_every_kind_of_attention_computes_it(  # within what int8 rounds off
    tmp_path, monkeypatch, capsys, contender, largest, tokens
):
    pytest.importorskip("onnx")
    from vlrt_benchmarks import attention, attention_once

    inputs = attention.values(tokens, spread=1.0)
    np.savez(tmp_path / "inputs.npz", **inputs)
    peaks = {name: float(np.abs(array).max()) for name, array in inputs.items()}
    attention.write_graph(contender, peaks, tmp_path / "graph.onnx")
    job = {"graph": str(tmp_path / "graph.onnx"), "inputs": str(tmp_path / "inputs.npz"),
           "heads": attention.HEADS, "threads": 1, "repeats": 1}  # fmt: skip
    monkeypatch.setattr("sys.argv", ["attention_once.py", contender, json.dumps(job)])
    attention_once.main()
    error, taken = map(json.loads, capsys.readouterr().out.splitlines())
    assert error <= largest
    assert len(taken["seconds"]) == 1
