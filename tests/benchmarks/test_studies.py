"""The studies: that they compare the same work, and what they make of what they measured."""

import json
import sys

import numpy as np
import pytest

from vlrt_benchmarks.studies import common

# --- a process of a contender ---------------------------------------------------------------------


def program(tmp_path, text):
    path = tmp_path / "once.py"
    path.write_text(text)
    return path


def test_a_process_gets_its_job_and_gives_scores_and_what_it_took(tmp_path):
    path = program(
        tmp_path,
        "import json, sys\nprint([1.5])\n"
        "print(json.dumps({'seconds': [], 'who': sys.argv[1], 'job': json.loads(sys.argv[2])}))\n",
    )
    found = common.run_once("exact", {"threads": 2}, path)
    assert found == {"scores": [1.5], "seconds": [], "who": "exact", "job": {"threads": 2}}


def test_a_process_that_fails_is_quoted(tmp_path):
    path = program(tmp_path, "import sys\nsys.exit('no such operator')\n")
    with pytest.raises(SystemExit, match=r"(?s)^exact failed:.*no such operator"):
        common.run_once("exact", {}, path)


# --- a result -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "python -m benchmarks.studies.attention"),
        (["--rounds", "2"], "python -m benchmarks.studies.attention --rounds 2"),
        (["--json", "a b"], "python -m benchmarks.studies.attention --json 'a b'"),
    ],
)
def test_a_result_says_its_command(tmp_path, monkeypatch, arguments, command):
    monkeypatch.setattr(sys, "argv", ["attention.py", *arguments])
    common.write_json(None, "attention", {})
    common.write_json(tmp_path / "found.json", "attention", {"errors": {}})
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == {"study": "attention", "command": command, "errors": {}}


@pytest.mark.parametrize("wrong", ["0", "-1", "x", ""])
def test_rounds_are_counted(capsys, wrong):
    with pytest.raises(SystemExit):
        common.study_parser("A study.", rounds=3).parse_args([f"--rounds={wrong}"])
    assert "is not a whole number of 1 or more" in capsys.readouterr().err


# --- session options ------------------------------------------------------------------------------


@pytest.mark.torch
def test_settings_are_compared_with_our_own():
    pytest.importorskip("transformers")
    from vlrt_benchmarks.studies.session_options import OWN, rows

    def taken(load_s, *seconds):
        return {"seconds": {"1": seconds}, "load_s": load_s, "peak_mib": 30.2, "steady_mib": 20.9}

    samples = {
        OWN: [taken(0.5, 0.1, 0.1), taken(0.7, 0.1)],
        "arena off": [taken(0.25, 0.3, 0.2, 0.1)],
    }
    assert rows(samples, ["1"]) == [
        [OWN, "100.0", "1.00", "0.60", "30", "21"],
        ["arena off", "200.0", "2.00", "0.25", "30", "21"],
    ]


@pytest.mark.torch
def test_neighbours_are_compared_with_those_that_have_no_requests_beside_them():
    pytest.importorskip("transformers")
    from vlrt_benchmarks.studies.session_options import serving_rows

    samples = {
        "no requests": [{"neighbours": [50.0, 50.0], "seconds": []}],
        "spinning on": [{"neighbours": [30.0, 34.0], "seconds": [0.01, 0.02, 0.06]}],
    }
    assert serving_rows(samples) == [["no requests", "1.00", ""], ["spinning on", "0.64", "20.0"]]


# --- decode="fast" --------------------------------------------------------------------------------


def picture(cosine, *, reduced, ratio=0.5):
    return {"reduced": reduced, "cosine": cosine, "largest_score_difference": 1 - cosine,
            "ratio": ratio}  # fmt: skip


@pytest.mark.parametrize("rows", [[], [picture(1.0, reduced=False)]])
def test_where_no_picture_was_reduced_there_is_nothing_to_say(rows):
    from vlrt_benchmarks.studies.fast_decode import summarise

    assert summarise(rows) is None


def test_only_pictures_that_were_reduced_are_counted():
    from vlrt_benchmarks.studies.fast_decode import summarise

    rows = [
        picture(0.5, reduced=True, ratio=0.25),
        picture(0.75, reduced=True),
        picture(0, reduced=False),
    ]
    assert summarise(rows) == {
        "pictures_reduced": 2,
        "cosine_min": 0.5,
        "cosine_mean": 0.625,
        "largest_score_difference": 0.5,
        "ratio_median": 0.375,
    }


# --- attention ------------------------------------------------------------------------------------


def test_attention_of_nothing_asked_is_the_mean():
    from vlrt_benchmarks.studies.attention_once import exact

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
    from vlrt_benchmarks.studies import attention, attention_once

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
