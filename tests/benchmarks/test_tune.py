"""Tuning: what the candidates are, who wins, and what is written for `auto` to read."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("psutil", reason="benchmarks need the extra bench")
pytest.importorskip("scipy", reason="intervals are scipy's")

import vlrt
from vlrt import demo, hardware, tuned
from vlrt.bundle import open_bundle
from vlrt.errors import BenchmarkError, OptionError, ProviderError
from vlrt.session import CPU, CUDA
from vlrt.tuned import Setup
from vlrt_benchmarks import tune, tune_candidate, tune_measure, tune_setups
from vlrt_benchmarks.journal import Journal
from vlrt_benchmarks.request import LABELS, QUESTION
from vlrt_benchmarks.stats import Estimate
from vlrt_benchmarks.tune_measure import Found, Work, check_same, judge
from vlrt_benchmarks.tune_setups import candidates, name_of

CPUS = hardware.available_cpus()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where tuning is kept, empty; results go to another."""
    monkeypatch.setenv(tuned.VARIABLE, str(tmp_path / "tuned"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tuned"


def options(*arguments):
    parser = argparse.ArgumentParser()
    tune.add(parser.add_subparsers())
    return parser.parse_args(["tune", *map(str, arguments)])


# --- candidates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {(p, n) for p in ("fp32", "fp16", "int8") for n in (1, CPUS // 2 or 1, CPUS)}),
        (["--precision", "fp32"], {("fp32", n) for n in (1, CPUS // 2 or 1, CPUS)}),
        (["--threads", "1", "1"], {("fp32", 1), ("fp16", 1), ("int8", 1)}),
        (["--threads", "1", "--precision", "int8", "--provider", CPU], {("int8", 1)}),
    ],
)
def test_candidates_are_what_the_bundle_holds_and_the_default(tiny_bundle, arguments, expected):
    bundle = open_bundle(tiny_bundle)
    untuned = vlrt.load(tiny_bundle).info
    default = (untuned["precision"], CPUS)
    setups, notes = candidates(bundle, options(tiny_bundle, *arguments))
    found = [(setup.precision, setup.threads) for setup in setups if setup.provider == CPU]
    assert found[0] == default
    assert len(found) == len(set(found))
    assert set(found) == expected | {default}
    assert setups[0].provider == untuned["provider"]
    assert not any(CPU in note for note in notes)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["--precision", "int4w", "fp32"], OptionError, r"no precision \['int4w'\]; it has: fp32"),
        (
            ["--threads", CPUS + 1],
            OptionError,
            rf"--threads has \[{CPUS + 1}\]; valid: 1 to {CPUS}",
        ),
        (["--provider", "NoSuch"], ProviderError, "no 'NoSuch'; it has: .*CPUExecutionProvider"),
    ],
)
def test_candidates_that_cannot_be_are_refused(tiny_bundle, arguments, error, says):
    with pytest.raises(error, match=says):
        candidates(open_bundle(tiny_bundle), options(tiny_bundle, *arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--threads", "0"], ["--batch", "0"], ["--rounds", "2"], ["--turn", "0"],
        ["--turn", "nan"], ["--turn", "soon"], ["--aim", "memory"], ["--precision"],
    ],
)  # fmt: skip
def test_wrong_usage_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        options(*(["bundle", *arguments] if arguments else []))
    assert "error: " in capsys.readouterr().err


def test_a_provider_that_does_not_start_is_left_out_unless_it_was_named(tiny_bundle, monkeypatch):
    from types import SimpleNamespace

    def start(placement):
        if placement.provider == CUDA:
            raise ProviderError("no GPU")

    def place_on(provider):
        return SimpleNamespace(provider=provider, kind="cuda" if provider == CUDA else "cpu")

    fake = SimpleNamespace(get_available_providers=lambda: [CUDA, CPU])
    monkeypatch.setattr(tune_setups, "engine", lambda: fake)
    monkeypatch.setattr(tune_setups, "start", start)
    monkeypatch.setattr(tune_setups, "place_on", place_on)
    monkeypatch.setattr(tune_setups, "place", lambda: place_on(CPU))
    setups, notes = candidates(open_bundle(tiny_bundle), options(tiny_bundle))
    assert {setup.provider for setup in setups} == {CPU}
    assert notes == [f"Left out, {CUDA}: no GPU."]
    with pytest.raises(ProviderError, match="no GPU"):
        candidates(open_bundle(tiny_bundle), options(tiny_bundle, "--provider", CUDA, CPU))
    # Nor is what `auto` takes left out in silence.
    monkeypatch.setattr(tune_setups, "place", lambda: place_on(CUDA))
    with pytest.raises(ProviderError, match="no GPU"):
        candidates(open_bundle(tiny_bundle), options(tiny_bundle))


# --- what they do ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "callers"), [(1, 1), (3, 1), (1, 2), (5, 2)])
@pytest.mark.parametrize(
    ("family", "method", "columns"), [("clip", "classify", 4), ("owlvit", "detect", 10),
                                      ("vilt", "ask", 5)],
)  # fmt: skip
def test_a_candidate_gives_scores_of_every_picture(family, method, columns, batch, callers):
    job = {
        "bundle": str(demo.bundle(family)), "precision": "int8", "threads_inside": 1,
        "provider": CPU, "method": method, "labels": list(LABELS), "question": QUESTION,
        "batch": batch, "callers": callers,
    }  # fmt: skip
    stage = tune_candidate.load(job)[tune_candidate.STAGE]
    result = stage.run()
    scores = stage.outputs(result)["scores"]
    assert scores.shape == (batch, columns)
    assert 0 <= scores.min() <= scores.max() <= 1
    assert (len(result) == callers) if callers > 1 or batch == 1 != callers else True
    alone = tune_candidate.load({**job, "batch": 1, "callers": 1})[tune_candidate.STAGE]
    assert np.abs(alone.outputs(alone.run())["scores"] - scores[:1]).max() < 2e-2


@pytest.mark.parametrize(
    ("precision", "ours", "theirs", "same"),
    [
        ("fp32", [[0.5]], [[0.5]], True),
        ("fp32", [[0.5, 0.1]], [[0.5, 0.1005]], True),
        ("fp32", [[0.5, 0.1]], [[0.5, 0.11]], False),
        ("int8", [[0.5, 0.1]], [[0.5, 0.11]], True),
        ("int8", [[0.5, 0.1]], [[0.5, 0.15]], False),
        ("int8", [[0.5, float("nan")]], [[0.5, 0.1]], False),
        ("int8", [[0.5]], [[0.5, 0.1]], False),
    ],
)
def test_candidates_of_one_precision_give_the_same(precision, ours, theirs, same):
    setup = Setup(precision, 1, CPU)
    like = {"name": "another", "scores": theirs}
    if same:
        check_same(setup, ours, like)
        return
    with pytest.raises(BenchmarkError, match=rf"{precision} with 1 thread on CPU .* than another"):
        check_same(setup, ours, like)


# --- who wins -------------------------------------------------------------------------------------


def rounds(*medians, again=None, number=5):
    """Rounds in which contenders take these seconds, a little more or less."""
    taken = [
        {
            "samples": {str(at): [m * (1 + 0.01 * r), m] for at, m in enumerate(medians)},
            "sentinel": [(again or medians[0]) * (1 + 0.01 * r)] * 2,
        }
        for r in range(number)
    ]
    return json.loads(json.dumps(taken))


@pytest.mark.parametrize(
    ("alone", "finalists", "taken", "chosen", "challenger", "verdict"),
    [
        ([[1.0]], [0], [], 0, 0, "level"),
        ([[1.0], [2.0]], [0, 1], rounds(1.0, 0.5), 1, 1, "faster"),
        ([[1.0], [2.0]], [0, 1], rounds(1.0, 2.0), 0, 1, "slower"),
        ([[1.0], [2.0]], [0, 1], rounds(1.0, 1.0), 0, 1, "level"),
        ([[1.0], [9.0], [2.0], [3.0]], [0, 2, 3], rounds(1.0, 0.8, 0.5), 3, 3, "faster"),
        # What one gains is no more than the default gains on itself.
        ([[1.0], [2.0]], [0, 1], rounds(1.0, 0.8, again=0.7), 0, 1, "too noisy"),
        ([[1.0], [2.0]], [0, 1], rounds(1.0, 0.95, again=0.9), 0, 1, "too noisy"),
        # Of one that is slower, noise does not matter.
        ([[1.0], [2.0]], [0, 1], rounds(1.0, 1.2, again=0.7), 0, 1, "no faster"),
    ],
)
def test_only_what_is_faster_beyond_noise_is_taken(
    alone, finalists, taken, chosen, challenger, verdict
):
    found = judge(alone, finalists, taken)
    assert (found.chosen, found.challenger, found.verdict) == (chosen, challenger, verdict)
    assert len(found.samples) == len(alone)
    for number, one in enumerate(alone):
        in_finals = bool(taken) and number in finalists
        assert len(found.samples[number]) == (len(taken) if in_finals else 1)
        assert in_finals or found.samples[number] == [one]


SECONDS = st.lists(st.floats(1e-3, 1), min_size=1, max_size=3)
ROUND = st.fixed_dictionaries(
    {"samples": st.fixed_dictionaries(dict.fromkeys("abc", SECONDS)), "sentinel": SECONDS}
)


@settings(max_examples=15)  # each draws rounds again two thousand times
@given(st.lists(ROUND, min_size=3, max_size=4))
def test_whatever_was_measured_the_default_stays_unless_another_is_faster(taken):
    found = judge([[1.0]] * 3, [0, 1, 2], taken)
    assert found.challenger in (1, 2)
    assert found.chosen == (found.challenger if found.verdict == "faster" else 0)
    if found.verdict == "faster":
        assert found.gain.low > max(found.noise.high, 1 / found.noise.low) >= 1


def work(bundle, *setups):
    return Work(tune._subject(open_bundle(bundle), setups), setups, 1, 1, 3, 0.01)


INT8, FP32 = Setup("int8", CPUS, CPU), Setup("fp32", 1, CPU)


def test_candidates_run_and_a_run_that_was_cut_off_goes_on(tiny_bundle, tmp_path, monkeypatch):
    """Each in a process; then again from what is kept, without any."""
    monkeypatch.setattr(tune_measure, "WARM_UP_S", 0.1)
    told = work(tiny_bundle, INT8, FP32)
    with Journal(tmp_path / "journal", {}) as journal:
        found = tune_measure.measure(told, journal)
    assert [len(rounds) for rounds in found.samples] == [3, 3]
    assert all(s > 0 for rounds in found.samples for taken in rounds for s in taken)
    assert len(found.again) == 3
    for name in ("waiting", "all_waiting"):
        monkeypatch.setattr(tune_measure, name, None)
    with Journal(tmp_path / "journal", {}) as journal:
        assert tune_measure.measure(told, journal) == found


def test_who_was_not_steady_is_named_once(tiny_bundle, tmp_path):
    """By what was kept of the turns alone and of the finals."""
    other = FP32._replace(threads=CPUS + 1)
    told = work(tiny_bundle, INT8, FP32, other)
    taken = {"samples": {name_of(s): [0.01] for s in told.setups}, "sentinel": [0.01]}
    with Journal(tmp_path / "journal", {}) as journal:
        for setup, stable in zip(told.setups, (True, True, False), strict=True):
            one = {"name": name_of(setup), "scores": [[0.5]], "seconds": [0.01], "stable": stable}
            journal.keep(f"alone: {name_of(setup)}", lambda one=one: one)
        for number, unsteady in enumerate(([], [name_of(INT8)], [name_of(other)])):
            kept = {**taken, "unsteady": unsteady}
            journal.keep(f"round {number}", lambda kept=kept: kept)
        found = tune_measure.measure(told, journal)
    assert found.unsteady == [name_of(INT8), name_of(other)]


def test_a_candidate_that_fails_says_why(tiny_bundle, tmp_path):
    told = work(tiny_bundle, INT8)
    told = replace(told, setups=(INT8._replace(provider="NoSuch"),))
    with (
        Journal(tmp_path / "journal", {}) as journal,
        pytest.raises(BenchmarkError, match=r"int8 with .* on NoSuch ended .*\n(.*\n)*.*'NoSuch'"),
    ):
        tune_measure.measure(told, journal)


# --- what is written ------------------------------------------------------------------------------


def outcome(verdict="faster", gain=1.5, number=2):
    """As if that had been measured."""
    taken = [[0.01, 0.011]] * 3
    gain = Estimate(gain, gain * 0.95, gain * 1.05)
    noise = Estimate(1.0, 0.98, 1.02)
    challenger = number - 1
    return Found([taken] * number, range(number), challenger, gain, noise, verdict, taken)


def run(bundle, monkeypatch, found, *arguments):
    monkeypatch.setattr(tune, "measure", lambda told, journal: found)
    monkeypatch.setattr(tune, "candidates", lambda *_: ((INT8, FP32), ["A note."]))
    return tune.run(options(bundle, *arguments))


@pytest.mark.parametrize(
    ("verdict", "gain", "said"),
    [
        ("faster", 1.5, "fp32 with 1 thread, 1.50 times as fast as the default"),
        ("level", 1.01, f"the default, {INT8}, is as fast as any"),
        ("slower", 0.5, f"the default, {INT8}, is as fast as any"),
        ("no faster", 0.9, f"the default, {INT8}, is as fast as any"),
    ],
)
def test_what_was_found_is_what_auto_takes(
    tiny_bundle, tmp_path, monkeypatch, capsys, verdict, gain, said
):
    assert run(tiny_bundle, monkeypatch, outcome(verdict, gain), "-o", "x.json") == 0
    told = capsys.readouterr().out
    path = tuned.path_of(open_bundle(tiny_bundle))
    assert f"Written to {path}" in told
    assert f"{gain:.2f} [" in told
    assert vlrt.load(tiny_bundle, device="cpu").info["precision_reason"].endswith(said)
    result = json.loads((tmp_path / "x.json").read_text())
    body = result["body"]
    assert result["notes"] == ["A note."]
    assert body["written"] == str(path)
    assert (body["default"], body["chosen"]) == (0, 1 if verdict == "faster" else 0)
    assert [row["precision"] for row in body["candidates"]] == ["int8", "fp32"]
    assert not (tmp_path / "x.partial").exists()
    held = json.loads(path.read_text())
    assert held["chosen"].items() <= body["candidates"][body["chosen"]].items()
    assert held["fastest_against_default"]["verdict"] == verdict


def test_nothing_is_written_where_the_machine_is_too_noisy(tiny_bundle, monkeypatch, tmp_path):
    with pytest.raises(BenchmarkError, match=r"too noisy .* default against itself is 1\.00 \["):
        run(tiny_bundle, monkeypatch, outcome("too noisy"), "-o", "x.json")
    assert tuned.find(open_bundle(tiny_bundle)) is None
    body = json.loads((tmp_path / "x.json").read_text())["body"]
    assert (body["written"], body["settled"]) == (None, False)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], None),
        (["int8 on A"], "int8 on A."),
        (["int8 on A", "fp32 on B"], "int8 on A, fp32 on B."),
    ],
)
def test_a_result_names_who_was_not_steady(tiny_bundle, monkeypatch, tmp_path, names, said):
    found = replace(outcome(), unsteady=names)
    assert run(tiny_bundle, monkeypatch, found, "-o", "x.json") == 0
    note = f"Not steady after 5 s of warm-up, in a turn alone or the finals: {said}"
    notes = json.loads((tmp_path / "x.json").read_text())["notes"]
    assert notes == (["A note.", note] if said else ["A note."])


def test_a_dry_run_leaves_auto_as_it_is(tiny_bundle, monkeypatch, capsys):
    assert run(tiny_bundle, monkeypatch, outcome(), "--dry-run") == 0
    assert tuned.find(open_bundle(tiny_bundle)) is None
    assert "Nothing was written." in capsys.readouterr().out


def test_forgetting_removes_it_whatever_it_holds(tiny_bundle, folder, capsys):
    path = tuned.path_of(open_bundle(tiny_bundle))
    assert tune.run(options(tiny_bundle, "--forget")) == 0
    assert "was not tuned on this machine" in capsys.readouterr().out
    folder.mkdir()
    path.write_text("broken")
    assert tune.run(options(tiny_bundle, "--forget")) == 0
    assert capsys.readouterr().out == f"removed {path}\n"
    assert not path.exists()


def test_there_must_be_a_place_for_it(foreign_bundle, tiny_bundle, monkeypatch):
    with pytest.raises(
        OptionError, match=r"is a foreign bundle, whose variants nobody has checked"
    ):
        tune.run(options(foreign_bundle))
    monkeypatch.setattr(tuned, "folder", lambda: None)
    with pytest.raises(OptionError, match="no home folder to write to; set VLRT_TUNED_DIR"):
        tune.run(options(tiny_bundle))


def test_a_dry_run_needs_no_place(foreign_bundle, tiny_bundle, monkeypatch, tmp_path):
    assert run(foreign_bundle, monkeypatch, outcome(), "--dry-run", "-o", "x.json") == 0
    monkeypatch.setattr(tuned, "folder", lambda: None)
    assert run(tiny_bundle, monkeypatch, outcome(), "--dry-run", "-o", "y.json") == 0
    for name in ("x", "y"):
        body = json.loads((tmp_path / f"{name}.json").read_text())["body"]
        assert (body["chosen"], body["written"]) == (1, None)
    with pytest.raises(OptionError, match="no home folder"):
        run(tiny_bundle, monkeypatch, outcome(), "--dry-run", "--forget")


def test_a_dry_run_goes_on_with_its_own_bundle_alone(foreign_bundle, monkeypatch):
    """Which without a manifest its files tell."""

    def cut_off(told, journal):
        journal.keep("alone", lambda: 1)
        raise BenchmarkError("cut off")

    def again():
        tune.run(options(foreign_bundle, "--dry-run", "-o", "x.json"))

    monkeypatch.setattr(tune, "candidates", lambda *_: ((FP32,), []))
    monkeypatch.setattr(tune, "measure", cut_off)
    for _ in range(2):
        with pytest.raises(BenchmarkError, match="cut off"):
            again()
    graph = next((foreign_bundle / "onnx").glob("*.onnx"))
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(BenchmarkError, match="bundle"):
        again()


def test_what_was_not_fetched_has_the_manifests_size(own_bundle):
    """As of a repository on the hub whose portable graphs alone were wanted."""
    told = work(own_bundle, INT8, FP32).subject
    sizes = told.facts()["variant_bytes"]
    graphs = list((own_bundle / "onnx").glob("*_int8.onnx*"))
    assert sizes["int8"] == sum(path.stat().st_size for path in graphs) > 0
    for path in graphs:
        path.unlink()
    assert told.facts()["variant_bytes"] == sizes


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("callers", [1, 2])
def test_throughput_counts_the_pictures_of_all_callers(tiny_bundle, batch, callers):
    told = replace(work(tiny_bundle, INT8, FP32), batch=batch, callers=callers)
    rows = tune.body(told, outcome(), None)["candidates"]
    per_second = batch * callers / np.mean([0.01, 0.011])
    assert [row["summary"]["per_second"] for row in rows] == pytest.approx([per_second] * 2)


def test_names_say_all_that_differs():
    setups = [Setup(p, n, v) for p in ("fp32", "int8") for n in (1, 2) for v in (CPU, CUDA)]
    assert len({name_of(setup) for setup in setups}) == len(setups)
