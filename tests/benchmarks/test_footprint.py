"""Cold starts take turns, do the same work, and go on; what is made of their samples."""

import argparse
import json
from pathlib import Path

import pytest
from PIL import Image

from vlrt import demo
from vlrt.errors import BenchmarkError, ImageError, OptionError
from vlrt_benchmarks import cold_start, cold_starts, environments, footprint, request
from vlrt_benchmarks.contender import Contender, box_differences, difference, enter
from vlrt_benchmarks.journal import Journal
from vlrt_benchmarks.subject import Subject

CHECKPOINTS = Path(__file__).parents[1] / "data"
BASE = Contender("transformers", "torch", "fp32", Path("checkpoint"))
CONTENDERS = [BASE, Contender("vlrt-int8", "vlrt", "int8", Path("bundle"))]


def found(*scores, names="abcdef", box=None):
    rows = [{"name": name, "score": score} for name, score in zip(names, scores, strict=False)]
    return [row | {"box": box} for row in rows] if box else rows


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "base", "apart"),
    [
        ([], [], 0),
        (found(0.9), found(0.9), 0),
        (found(0.85, 0.15), found(0.9, 0.1), 0.05),
        (found(0.5, 0.45, names="ba"), found(0.5, 0.48, names="ab"), 0.05),
        (found(0.9, 0.9, names="ab"), found(0.9, 0.9, names="ba"), 0),
        (found(0.9, box=[0, 0, 0.5, 0.52]), found(0.9, box=[0, 0, 0.5, 0.5]), 0.02),
    ],
)
def test_how_far_results_are_apart(ours, base, apart):
    assert difference(ours, base, tolerance=0.1) == pytest.approx(apart)


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ([], "0 results are not the 2"),
        (found(0.9), "1 results are not the 2"),
        (found(0.7, 0.1, box=[0, 0, 1, 1]), "differ by 0.2"),
        (found(float("nan"), 0.1, box=[0, 0, 1, 1]), "differ by nan"),
        (found(0.9, 0.1, names="ba", box=[0, 0, 1, 1]), "differ by 0.8"),
        (found(0.9, 0.1, names="ac", box=[0, 0, 1, 1]), r"names are \['a', 'c'\]"),
        (found(0.9, 0.1, box=[0, 0, 1, 0.8]), "differ by 0.2"),
    ],
)
def test_other_results_are_an_error(ours, message):
    with pytest.raises(BenchmarkError, match=message):
        difference(ours, found(0.9, 0.1, box=[0, 0, 1, 1]), tolerance=0.1)


def objects(*rows):
    """Name, score and left side of each; a result of ten at the most."""
    return [{"name": n, "score": s, "box": [x, 0, x + 0.1, 0.1]} for n, s, x in rows]


FILL = [("c", 0.01, 0.5)] * 8  # with two others, a result that is cut off


@pytest.mark.parametrize(
    ("ours", "base", "apart", "boxes"),
    [
        ([], [], 0, 0),
        # Which of two is first is chance; each name has its own box.
        ([("b", 0.8, 0.3), ("a", 0.78, 0)], [("a", 0.8, 0), ("b", 0.78, 0.3)], 0.02, 2),
        ([("a", 0.8, 0.3), ("a", 0.78, 0)], [("a", 0.8, 0), ("a", 0.78, 0.34)], 0.04, 1),
        # Of what lies beyond the end nothing is known.
        ([("a", 0.9, 0), ("b", 0.02, 0), *FILL], [("a", 0.9, 0.05), ("d", 0.02, 0), *FILL], 0.05,
         1),
        ([("a", 0.1, 0), ("b", 0.1, 0), *FILL], [("a", 0.1, 0.5), ("b", 0.1, 0.5), *FILL], 0, 0),
    ],
)  # fmt: skip
def test_objects_are_compared_by_name(ours, base, apart, boxes):
    found = objects(*ours), objects(*base)
    assert difference(*found, tolerance=0.1) == pytest.approx(apart)
    assert len(box_differences(*found, tolerance=0.1)) == boxes


@pytest.mark.parametrize(
    ("ours", "apart"),
    [
        ([("b", 0.9, 0), ("a", 0.7, 0.3), *FILL], "0.3000"),  # names swapped
        ([("a", 0.9, 0), ("a", 0.7, 0.3), *FILL], "0.6900"),  # a name that is not there
        ([("a", 0.9, 0), ("b", 0.7, 0.6), *FILL], "0.3000"),  # the second object elsewhere
    ],
)
def test_objects_under_other_names_or_elsewhere_are_an_error(ours, apart):
    base = objects(("a", 0.9, 0), ("b", 0.7, 0.3), *FILL)
    assert difference(base, base, tolerance=0.1) == 0
    with pytest.raises(BenchmarkError, match=f"differ by {apart}"):
        difference(objects(*ours), base, tolerance=0.1)


@pytest.mark.torch
def test_a_turned_picture_with_alpha_is_the_same_to_both(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    drawn = argparse.Namespace(picture=None, labels=request.LABELS, question=request.QUESTION)
    scene = Image.open(request.request(drawn, tmp_path).picture)
    clear = Image.new("L", scene.size, 255)
    clear.paste(0, (0, 0, scene.width // 2, scene.height))  # white to who sees alpha
    scene.putalpha(clear)
    turned = Image.Exif()
    turned[0x0112] = 6
    scene.save(tmp_path / "turned.png", exif=turned)
    job = {"picture": str(tmp_path / "turned.png"), "labels": list(request.LABELS),
           "family": "clip", "threads": torch.get_num_threads(), "precision": "int8"}  # fmt: skip
    theirs = job | {"model": str(CHECKPOINTS / "clip-shapes")}
    base = cold_start.load_torch(theirs, lambda _: None)()
    ours = cold_start.load_vlrt(job | {"model": str(demo.bundle("clip"))}, lambda _: None)()
    assert difference(ours, base, tolerance=0.1) > 0
    Image.open(job["picture"]).convert("RGB").save(tmp_path / "other.png")
    other = cold_start.load_torch(theirs | {"picture": str(tmp_path / "other.png")}, print)()
    with pytest.raises(BenchmarkError, match="differ by"):
        difference(other, base, tolerance=1e-3)


@pytest.mark.torch
@pytest.mark.parametrize("family", ["clip", "owlvit", "vilt"])
def test_both_kinds_of_contenders_answer_alike(family, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = argparse.Namespace(picture=None, labels=request.LABELS, question=request.QUESTION)
    job = {**request.request(options, tmp_path).job(), "family": family}
    job["threads"] = torch.get_num_threads()  # which this sets for the whole process
    theirs = job | {"model": str(CHECKPOINTS / f"{family}-shapes")}
    ours = job | {"model": str(demo.bundle(family)), "precision": "int8"}
    passed = []
    base = cold_start.load_torch(theirs, passed.append)()
    assert base
    assert difference(cold_start.load_vlrt(ours, passed.append)(), base, tolerance=0.1) > 0
    assert passed == ["import", "load"] * 2


# --- turns ----------------------------------------------------------------------------------------


class Processes:
    """What stands for processes, which are cut off after so many."""

    def __init__(self, monkeypatch, scores=(0.9, 0.85), cut_off_after=None):
        self.scores = dict(zip(CONTENDERS, scores, strict=True))
        self.started, self.left = [], cut_off_after
        monkeypatch.setattr(cold_starts, "run_once", self.run_once)

    def run_once(self, contender, job):
        if self.left == len(self.started):
            raise KeyboardInterrupt
        self.started.append((contender.name, job["more"]))
        return {"result": found(self.scores[contender]), "total_s": float(len(self.started))}


def turns(path, rounds=3):
    with Journal(path, {}) as journal:
        return cold_starts.take_turns(CONTENDERS, {"more": 20}, rounds, journal)


def test_contenders_take_turns_after_a_round_that_is_not_counted(tmp_path, monkeypatch):
    processes = Processes(monkeypatch)
    samples = turns(tmp_path / "run.partial")
    base, ours = "transformers", "vlrt-int8"
    assert processes.started[:2] == [(base, 0), (ours, 0)]
    counted = [base, ours, ours, base, base, ours]  # none always comes first
    assert processes.started[2:] == [(name, 20) for name in counted]
    assert [one[base]["total_s"] for one in samples] == [3, 6, 7]
    assert [one[ours]["total_s"] for one in samples] == [4, 5, 8]


@pytest.mark.parametrize("cut_off_after", [0, 2, 5, 7])
def test_an_interrupted_run_loses_nothing(tmp_path, monkeypatch, cut_off_after):
    Processes(monkeypatch, cut_off_after=cut_off_after)
    path = tmp_path / "run.partial"
    with pytest.raises(KeyboardInterrupt):
        turns(path)
    with Journal(path, {}) as journal:
        kept = sum(journal.held(f"round {n}: {c.name}") for n in range(3) for c in CONTENDERS)
    assert kept == max(0, cut_off_after - len(CONTENDERS))
    rest = Processes(monkeypatch)
    expected = turns(path)
    assert len(rest.started) == len(CONTENDERS) + 3 * len(CONTENDERS) - kept
    again = Processes(monkeypatch)
    assert turns(path) == expected
    assert again.started == []


def test_other_results_end_the_benchmark_before_anything_is_counted(tmp_path, monkeypatch):
    processes = Processes(monkeypatch, scores=(0.9, 0.7))
    with pytest.raises(BenchmarkError, match="vlrt-int8 does not do what transformers does"):
        turns(tmp_path / "run.partial")
    assert [more for _, more in processes.started] == [0, 0]


def test_a_contender_that_fails_says_why(tmp_path):
    job = {"family": "clip", "threads": 1, "cpus": [], "more": 0}
    with pytest.raises(BenchmarkError, match=r"(?s)vlrt-fp32 failed .*nowhere"):
        cold_starts.run_once(Contender("vlrt-fp32", "vlrt", "fp32", tmp_path / "nowhere"), job)


# --- the result -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "ratios"),
    [
        ({"base": [2.0]}, {}),
        ({"base": [2.0], "a": [1.0], "b": [6.0]}, {"a": 0.5, "b": 3}),
        ({"base": [2.0, 2, 2], "a": [1.0, 1, 1]}, {"a": 0.5}),
        ({"base": [1.0, 2, 9], "a": [0.5, 4, 1]}, {"a": 0.5}),
    ],
)
def test_a_row_has_what_is_less_below_1(samples, ratios):
    row = footprint.row("cold start", "s", samples, "base")
    assert {name: one["value"] for name, one in row["ratio"].items()} == pytest.approx(ratios)
    for one in row["ratio"].values():
        assert one["low"] <= one["value"] <= one["high"]
    assert row["samples"] == samples


@pytest.mark.parametrize(
    ("ratios", "told"),
    [
        ({}, ""),
        ({"vlrt-int8": {"value": 0.1, "low": 0.09, "high": 0.11}}, ""),
        ({"vlrt-int8": {"value": 0.1, "low": 0.05, "high": 0.11}}, "load of vlrt-int8."),
    ],
)
def test_a_ratio_that_is_noise_is_called_so(ratios, told):
    rows = [{"measure": "load", "ratio": ratios}]
    notes = footprint._notes({"base": "a", "agreement": {}, "environments": None, "rows": rows})
    (line,) = [note for note in notes if note.startswith("Too noisy")] or [""]
    assert told in line
    assert bool(line) == bool(told)


def subject(tmp_path, checkpoint):
    return Subject("clip", "clip", "zero-shot-image-classification", tmp_path, checkpoint, False,
                   ("fp32", "int8"))  # fmt: skip


@pytest.mark.parametrize(
    ("against", "checkpoint", "names", "skipped"),
    [
        ([], None, ["vlrt-fp32", "vlrt-int8"], {}),
        ([], Path("checkpoint"), ["vlrt-fp32", "vlrt-int8"], {}),
        (["torch"], None, ["vlrt-fp32", "vlrt-int8"], {"transformers": "--checkpoint DIR"}),
    ],
)
def test_who_cannot_run_is_listed(tmp_path, monkeypatch, against, checkpoint, names, skipped):
    monkeypatch.setattr("vlrt_benchmarks.contender.find_spec", lambda name: name)
    contenders, left_out = enter(subject(tmp_path, checkpoint), against, "transformers")
    assert [one.name for one in contenders] == names
    assert left_out.keys() == skipped.keys()
    assert all(skipped[name] in why for name, why in left_out.items())


def test_what_is_not_installed_is_listed_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("vlrt_benchmarks.contender.find_spec", lambda name: None)
    contenders, skipped = enter(subject(tmp_path, tmp_path), ["torch"], "transformers")
    assert skipped == {"transformers": 'pip install "vlrt[export]"'}
    monkeypatch.setattr("vlrt_benchmarks.contender.find_spec", lambda name: name)
    assert enter(subject(tmp_path, tmp_path), ["torch"], "transformers")[0][1:] == contenders


# --- environments ---------------------------------------------------------------------------------


def test_an_environment_weighs_what_pip_installed_and_not_pip(tmp_path, monkeypatch):
    def run(*command):
        root = Path(command[-1]) if "venv" in command else None
        if root is None:
            return
        site = root / "lib" / "python3" / "site-packages"
        for name, size in {"heavy": 5000, "pip": 7000}.items():
            info = site / f"{name}-1.0.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            (info / "RECORD").write_text(f"{name}.py,,\n")
            (site / f"{name}.py").write_bytes(b"#" * size)

    monkeypatch.setattr(environments, "_run", run)
    weighed = environments._measure(tmp_path / "venv", ["heavy"])
    assert weighed["packages"] == {"heavy": 5000}
    everything = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert weighed["bytes"] == everything - 7000
    assert weighed["versions"] == {"heavy": "1.0", "pip": "1.0"}


def test_an_installation_that_fails_says_why():
    with pytest.raises(BenchmarkError, match=r"(?s)-c .*failed:\nno network"):
        environments._run(environments.sys.executable, "-c", "raise SystemExit('no network')")


# --- the command ----------------------------------------------------------------------------------


def options(*arguments):
    parser = argparse.ArgumentParser()
    footprint.add(parser.add_subparsers())
    return parser.parse_args(["footprint", str(demo.bundle("clip")), *arguments])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--rounds", "2"], OptionError, "--rounds is 2; valid: 3 or more"),
        (["--against", "jax"], OptionError, "--against is 'jax'; valid: torch"),
        (["--precision", "auto", "int8"], OptionError, "'auto int8'; valid: auto alone"),
        (["--precision", "fp32"], OptionError, "it has: int8"),
        (["--picture", __file__], ImageError, "not a picture"),
        (["-o", "result.txt"], OptionError, "ends in .json"),
    ],
)
def test_wrong_options_are_named(arguments, error, message):
    given = options(*arguments)
    with pytest.raises(error, match=message):
        footprint.run(given)


def test_variants_are_those_of_auto_and_a_note_says_so():
    found = request.subject_of(options("--precision", "auto"), "fp32")
    assert found.precisions == ("int8",)
    assert found.notes[-1] == "Variants: int8 is what precision auto takes here."
    assert request.subject_of(options("--precision", "int8")).notes == ()


def test_environments_need_a_checkout_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    given = options("--environments")
    with pytest.raises(BenchmarkError, match="is no checkout of vlrt"):
        footprint.run(given)


def test_a_run_of_other_versions_does_not_go_on(monkeypatch, tmp_path):
    monkeypatch.setattr(footprint, "take_turns", cut_off)
    given = options("--against", "-o", str(tmp_path / "footprint.json"))
    with pytest.raises(KeyboardInterrupt):
        footprint.run(given)
    monkeypatch.setattr(footprint, "identity", lambda: {"versions": {"onnxruntime": "0"}})
    with pytest.raises(BenchmarkError, match=r"another plan.*versions was"):
        footprint.run(given)


def cut_off(contenders, job, rounds, journal):
    journal.keep("round 0: vlrt-int8", dict)
    raise KeyboardInterrupt


def test_a_system_without_proc_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(footprint, "_STATUS", tmp_path / "status")
    given = options()
    with pytest.raises(BenchmarkError, match="this system lacks; use Linux"):
        footprint.run(given)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_a_demo_bundle_is_measured(tmp_path, capsys):
    out = tmp_path / "footprint.json"
    given = options("--against", "--rounds", "3", "--requests", "1", "--threads", "1",
                    "-o", str(out))  # fmt: skip
    assert footprint.run(given) == 0
    body = json.loads(out.read_text())["body"]
    rows = {row["measure"]: row for row in body["rows"]}
    assert list(rows) == [*(name for name, _ in footprint.MEASURES.values()), "model"]
    samples = {name: row["samples"]["vlrt-int8"] for name, row in rows.items()}
    assert all(len(values) == 3 for name, values in samples.items() if name != "model")
    for start, *phases in zip(
        *(samples[name] for name in ("cold start", "import", "load", "first request")), strict=True
    ):
        assert 0 < sum(phases) < start
    for peak, steady in zip(samples["peak memory"], samples["steady memory"], strict=True):
        assert peak >= steady > 10
    held = sum(path.stat().st_size for path in (demo.bundle("clip") / "onnx").iterdir())
    assert samples["model"] == [held / 1e6]
    assert capsys.readouterr().out == out.with_suffix(".md").read_text() + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "footprint.html", "footprint.json", "footprint.md",
    ]  # fmt: skip
