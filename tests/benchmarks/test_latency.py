"""`vlrt bench latency`, with an engine that is made up, and once with PyTorch."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import fake_engine
import numpy as np
import pytest

pytest.importorskip("psutil", reason="the benchmarks need the extra bench")
pytest.importorskip("scipy", reason="the benchmarks need the extra bench")

import vlrt
from vlrt_benchmarks import latency, latency_options, latency_rows, peers, report, turns
from vlrt_benchmarks.__main__ import main, parser
from vlrt_benchmarks.journal import Journal
from vlrt_benchmarks.peers import Entry, engines
from vlrt_benchmarks.plan import drawn_pictures
from vlrt_benchmarks.request import LABELS
from vlrt_benchmarks.subject import Subject

BUNDLES = Path(vlrt.__file__).parent / "demo" / "bundles"
CHECKPOINTS = Path(__file__).parents[1] / "data"
QUICK = ("--rounds", "3", "--turn", "0.01", "--batch", "1", "--size", "64x48", "--threads", "1")


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(turns, "PAUSE_S", 0)
    monkeypatch.setattr(latency_options, "WARM_UP_S", 0.2)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "html", lambda found: "")  # which takes longer than all the rest


@pytest.fixture
def fake(monkeypatch):
    """An engine beside the real ones, whose contenders are `fake.entries_`."""
    module = ModuleType("fake_engine")
    module.NEEDS, module.INSTALL = (), "pip install fake"
    module.entries_ = [fake_engine.entry()]
    module.entries = lambda subject, plan: module.entries_
    monkeypatch.setattr(latency, "engines", lambda: {"fake": module, **engines()})
    return module


def bench(*more, family="clip"):
    arguments = ["latency", str(BUNDLES / family), "--cache", "cache", "-o", "found.json", *QUICK]
    return main([*arguments, *more])


def result():
    return json.loads(Path("found.json").read_text())


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--against", "tensorrt"], "--against tensorrt: there is no such engine; valid: "),
        (["--rounds", "2"], "--rounds is 2; valid: 3 or more"),
        (["--turn", "0"], "--turn is 0 seconds; valid: 0.01 to 60"),
        (["--turn", "nan"], "--turn is nan seconds; valid"),
        (["--threads", "4096"], "--threads is 4096; valid: up to"),
        (["--size", "1920"], "--size is '1920'; valid: WIDTHxHEIGHT"),
        (["--size", "1x1"], "--size is '1x1'"),
        (["--stages", "suppress"], "clip has no stage 'suppress'; valid: 'decode', "),
        (["--labels", "cat", "cat"], "label 1 is there twice: 'cat'"),
        (["--labels", " "], "label 0 is empty"),
        (["--base", "torch-fp64"], "--base is 'torch-fp64'; contenders here: vlrt-int8"),
        (["--precision", "fp64"], "no precision"),
        (["--only", "vlrt-int8", "tensorrt"], "--only tensorrt: contenders here: vlrt-int8"),
        (["--stages", "decode", "--sizes", "2"], "--sizes 2 adds rows to 'encode image'"),
        (["--pictures", "absent.jpg"], "absent.jpg"),
        (["-o", "found.txt"], "valid: a name that ends in .json"),
        (["--tokens", "4000"], "--tokens is 4000; valid: 3 to 32"),
    ],
)
def test_wrong_options_are_named_with_the_valid_ones(capfd, options, says):
    assert bench("--against", *options) == 1
    assert says in capfd.readouterr().err
    assert not Path("found.json").exists()


@pytest.mark.parametrize(
    "options", [["--batch", "0"], ["--batch"], ["--device", "tpu"], ["--tokens", "-3"]]
)
def test_wrong_usage_ends_with_2(options):
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(["latency", "MODEL", *options])


def test_every_engine_is_one_by_the_protocol():
    known = engines()
    assert {"torch", "torch-compile", "pipeline"} <= set(known)
    for module in known.values():
        assert isinstance(module.NEEDS, tuple)
        assert module.INSTALL
        assert callable(module.entries)
        assert callable(module.load)


# --- who takes part -------------------------------------------------------------------------------


def contenders(module, **changes):
    options = parser().parse_args(["latency", "MODEL", *QUICK])
    clip = BUNDLES / "clip"
    checkpoint = changes.get("checkpoint")
    subject = Subject("clip", "clip", "x", clip, checkpoint, False, ("int8",))
    plan = latency.make_plan(options, subject)
    return latency.find_contenders({"fake": module}, options, subject, plan)


def test_our_variants_come_first(fake):
    found, skipped = contenders(fake)
    assert [entry.name for entry in found] == ["vlrt-int8", "vlrt-int8-fast", "fake-fp32"]
    assert skipped == {}


def test_what_is_not_installed_is_skipped_and_said_how_to_get(fake):
    fake.NEEDS = ("no_such_package",)
    found, skipped = contenders(fake)
    assert [entry.engine for entry in found] == ["vlrt", "vlrt"]
    assert skipped == {"fake": "pip install fake"}


def test_what_an_engine_says_is_missing_is_told(fake):
    fake.missing = lambda options: "name its Python"
    assert contenders(fake)[1] == {"fake": "name its Python"}


def test_without_a_checkpoint_who_needs_one_is_skipped(fake):
    fake.NEEDS_CHECKPOINT = True
    assert "--checkpoint" in contenders(fake)[1]["fake"]
    assert contenders(fake, checkpoint=Path("x"))[1] == {}


def test_who_has_none_of_the_stages_is_skipped(fake):
    fake.entries_ = [Entry("fake-fp32", "fake", "fp32", ("suppress",))]
    assert "none of the stages" in contenders(fake)[1]["fake"]


def test_what_an_engine_refuses_is_told(fake):
    fake.refused = lambda subject, plan: {"fake-int8": f"not of {subject.family}"}
    found, skipped = contenders(fake)
    assert "fake-fp32" in [entry.name for entry in found]
    assert skipped == {"fake-int8": "not of clip"}


# --- the whole ------------------------------------------------------------------------------------

STAGES = ("--stages", "post-process", "end to end")


def test_against_nobody_variants_are_measured_alone(capfd):
    assert bench("--against", family="owlvit") == 0
    found = result()
    body = found["body"]
    assert body["base"] == "vlrt-int8"
    assert set(body["contenders"]) == {"vlrt-int8", "vlrt-int8-fast"}
    assert [row["stage"] for row in body["rows"]] == list(peers.STAGES["owlvit"])
    for row in body["rows"]:
        assert all(len(rounds) == 3 for rounds in row["samples"].values())
        assert len(row["sentinel"]) == 3
        assert set(row["summary"]) == set(row["samples"])
        assert row["noise"]["low"] <= row["noise"]["value"] <= row["noise"]["high"]
    assert not Path("found.partial").exists()
    assert not any("says little" in note for note in found["notes"])  # of things that are found
    assert "owlvit" in capfd.readouterr().out
    assert Path("found.md").is_file()


def test_another_engine_is_compared_and_measured(fake):
    scores = one_answer()
    fake.entries_ = [fake_engine.entry(scores=scores), fake_engine.entry("slow", scores=scores)]
    assert bench("--against", "fake", "--base", "fake-fp32", *STAGES) == 0
    body = result()["body"]
    assert body["base"] == "fake-fp32"
    for row in body["rows"]:
        assert {"vlrt-int8", "slow"} <= set(row["ratios"])
        assert "fake-fp32" not in row["ratios"]
        assert row["ratios"]["slow"]["verdict"] in ("faster", "slower", "level", "too noisy")
        assert row["items"] == 1
    assert all(row["same"] for row in body["agreement"] if row["needed"] is not None)
    assert {"contender": "slow", "stage": "end to end", "batch": 1, "reference": "fake-fp32",
            "output": "scores", "measure": "largest difference", "value": 0.0, "needed": 1e-3,
            "same": True} in body["agreement"]  # fmt: skip
    assert body["contenders"]["slow"]["engine"] == "fake"


def one_answer():
    """Scores of the one drawn picture, as the demo model gives them."""
    drawn_pictures(Path("cache/pictures"), 1, (64, 48))
    clip = vlrt.load(str(BUNDLES / "clip"), device="cpu", threads=1)
    labels = list(LABELS)
    return [clip.classify("cache/pictures/drawn-64x48-0.jpg", labels).scores.tolist()]


def test_a_mismatch_is_an_error_before_anything_is_timed_unless_it_is_allowed(fake, capfd):
    off = (np.array(one_answer()) + 0.5).tolist()
    fake.entries_ = [fake_engine.entry(scores=off)]
    assert bench("--against", "fake", *STAGES) == 1
    said = capfd.readouterr().err
    assert "fake-fp32, end to end, batch 1: the largest difference of scores with those of" in said
    assert "is 0.5; needed: 0.25 or less" in said
    # Nothing was measured, so that nothing stands in the way of another plan.
    assert not Path("found.partial").exists()
    assert bench("--against", "fake", *STAGES, "--allow-mismatch") == 0
    found = result()
    wrong = [row for row in found["body"]["agreement"] if row["contender"] == "fake-fp32"]
    assert [row["same"] for row in wrong] == [False, False]
    assert any("--allow-mismatch" in note for note in found["notes"])


def test_a_contender_that_dies_is_named_with_its_last_words(fake, capfd):
    fake.entries_ = [fake_engine.entry(dies="loading")]
    assert bench("--against", "fake", *STAGES) == 1
    said = capfd.readouterr().err
    assert "fake-fp32 ended with exit code 1 while loading" in said
    assert "no such kernel" in said


def test_a_run_that_is_cut_off_goes_on_where_it_was(monkeypatch, capfd):
    take, rounds = latency.one_round, []

    def interrupted(*arguments):
        rounds.append(arguments[1])
        if len(rounds) == 4:
            raise KeyboardInterrupt
        return take(*arguments)

    monkeypatch.setattr(latency, "one_round", interrupted)
    assert bench("--against", *STAGES) == 130
    assert "the same command goes on from here" in capfd.readouterr().err
    lines = Path("found.partial").read_text().splitlines()
    kept = {line["key"]: line["value"] for line in map(json.loads, lines[1:])}
    assert sum(", round" in key for key in kept) == 3
    monkeypatch.setattr(latency, "one_round", take)
    # With the option that an error may have asked for: it is none of the plan's.
    assert bench("--against", *STAGES, "--allow-mismatch") == 0
    assert result()["settings"]["allow_mismatch"] is True
    for row in result()["body"]["rows"]:
        first = kept[f"batch 1, {row['stage']}, round 1"]["samples"]
        assert {name: rounds[0] for name, rounds in row["samples"].items()} == first
        assert all(len(rounds) == 3 for rounds in row["samples"].values())


def test_a_run_that_is_complete_needs_no_contender(monkeypatch):
    def no_report(found, path):
        raise KeyboardInterrupt

    write = latency.document.write
    monkeypatch.setattr(latency.document, "write", no_report)
    assert bench("--against", *STAGES) == 130
    monkeypatch.setattr(latency.document, "write", write)
    monkeypatch.setattr(latency, "all_waiting", None)
    assert bench("--against", *STAGES) == 0


def test_another_plan_does_not_go_on_with_it(monkeypatch, capfd):
    monkeypatch.setattr(latency.document, "write", None)
    with pytest.raises(TypeError):
        bench("--against", *STAGES)
    assert bench("--against", *STAGES, "--turn", "0.02") == 1
    assert "--fresh" in capfd.readouterr().err
    versions = latency.machine.versions() | {"onnxruntime": "0.1"}
    monkeypatch.setattr(latency.machine, "versions", lambda: versions)
    assert bench("--against", *STAGES) == 1
    assert "versions was" in capfd.readouterr().err


def test_conditions_are_asked_before_anything_is_made(monkeypatch):
    def asked(threads):
        raise KeyboardInterrupt

    monkeypatch.setattr(latency.machine, "conditions", asked)
    monkeypatch.setattr(latency, "resolve", None)
    assert bench("--against") == 130


@pytest.mark.parametrize(
    ("family", "batches", "engine", "said"),
    [
        ("vilt", ("1", "2"), "pipeline", True),
        ("vilt", ("1",), "pipeline", False),
        ("vilt", ("1", "2"), "torch", False),
        ("clip", ("1", "2"), "pipeline", False),
    ],
)
def test_that_the_pipeline_takes_one_after_the_other_is_noted(
    tmp_path, family, batches, engine, said
):
    options = parser().parse_args(["latency", "MODEL", *QUICK, "--batch", *batches])
    task = "visual-question-answering" if family == "vilt" else "x"
    subject = Subject(family, family, task, BUNDLES / family, None, False, ("fp32",))
    plan = latency.make_plan(options, subject)
    with Journal(tmp_path / "found.partial", {}) as journal:
        for batch in plan.batches:
            journal.keep(latency_rows.agreement_key(batch), list)
            journal.keep(latency_rows.empty_key(batch), bool)
            for number in range(plan.rounds):
                journal.keep(latency_rows.load_key(batch, number), float)
        contenders = [Entry(f"{engine}-fp32", engine, "fp32", ("end to end",))]
        idle = {"load_average": [0], "cores": 2}
        told = latency_rows.notes(journal, plan, subject, contenders, idle)
    assert any("one picture with its question after the other" in one for one in told) is said


@pytest.mark.parametrize(("load", "said"), [(0.5, False), (2.0, False), (2.01, True)])
def test_a_load_that_is_not_the_contenders_is_noted(monkeypatch, load, said):
    loads = iter([0.1, load, 0.1])
    monkeypatch.setattr(latency, "_load", lambda: next(loads))
    assert bench("--against", "--stages", "post-process") == 0
    assert any("something else was at work" in note for note in result()["notes"]) is said


def test_pictures_of_the_user_are_taken(tmp_path):
    own = drawn_pictures(tmp_path / "mine", 1, (80, 60))[0]
    shutil.copy(own, "mine.jpg")
    stages = ("--stages", "encode text", "decode and preprocess", "--tokens", "7")
    more = ("--against", "--pictures", "mine.jpg", "--batch", "2", *stages)
    assert bench(*more) == 0
    found = result()
    rows = [(row["stage"], row["detail"], row["items"]) for row in found["body"]["rows"]]
    assert rows == [
        ("decode and preprocess", "", 2),
        ("encode text", "", len(LABELS)),
        ("encode text", "7 tokens", 2),
    ]
    assert any("larger batches repeat them" in note for note in found["notes"])
    assert found["settings"]["pictures"][0][0] == "mine.jpg"


@pytest.mark.torch
def test_pytorch_gives_the_same_and_is_the_base(capfd):
    pytest.importorskip("transformers")
    stages = ("preprocess", "encode text", "end to end", "end to end, labels ready")
    more = ("--against", "torch", "--checkpoint", str(CHECKPOINTS / "clip-shapes"))
    assert bench(*more, "--stages", *stages) == 0
    body = result()["body"]
    assert body["base"] == "torch-fp32"
    assert set(body["contenders"]) == {"vlrt-int8", "vlrt-int8-fast", "torch-fp32", "torch-bf16"}
    pixels = [row for row in body["agreement"] if row["output"] == "pixel_values"]
    assert [row["value"] for row in pixels] == [0, 0]
    assert {row["contender"] for row in body["agreement"] if row["stage"] == "end to end"} == {
        "vlrt-int8", "vlrt-int8-fast", "torch-bf16",
    }  # fmt: skip
    assert "torch" in capfd.readouterr().out


# --- for a GPU, though not on one -----------------------------------------------------------------


def test_further_sizes_are_measured_in_the_same_processes():
    sizes = ("--stages", "encode image", "--sizes", "2", "3", "--together")
    assert bench("--against", "--only", "vlrt-int8", *sizes) == 0
    found = result()
    rows = {(row["stage"], row["detail"]): row for row in found["body"]["rows"]}
    assert [detail for _, detail in rows] == ["", "2 pictures", "3 pictures"]
    assert [row["items"] for row in rows.values()] == [1, 2, 3]
    assert latency_rows.TOGETHER in found["fairness"]
    assert list(found["body"]["contenders"]) == ["vlrt-int8"]


def test_a_contender_that_does_not_load_is_left_out_and_told_of(fake):
    fake.entries_ = [fake_engine.entry("fake-fp32", dies="loading")]
    stages = ("--stages", "post-process")
    assert bench("--against", "fake", *stages) == 1
    assert not Path("found.json").exists()
    assert bench("--against", "fake", *stages, "--leave-out-failed") == 0
    found = result()
    assert "no such kernel" in found["skipped"]["fake-fp32"]
    assert list(found["body"]["contenders"]) == ["vlrt-int8"]
