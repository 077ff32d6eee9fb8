"""The parts of `benchmarks/gpu.sh`: settings, records, plans, processes, what they make of it."""

import json
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("psutil", reason="the benchmarks need the extra bench")
pytest.importorskip("scipy", reason="the benchmarks need the extra bench")

from vlrt.errors import BenchmarkError, OptionError
from vlrt_benchmarks.__main__ import parser as bench_parser
from vlrt_benchmarks.gpu import (
    __main__ as command,
)
from vlrt_benchmarks.gpu import (
    child,
    install,
    latency,
    memory,
    parity,
    plan,
    record,
    report,
    tensorrt,
)
from vlrt_benchmarks.gpu.settings import FULL, Settings
from vlrt_benchmarks.peers import BOTH, IMAGE, TEXT

CHECKPOINTS = Path(__file__).parents[1] / "data"


def settings(tmp_path, **changes):
    made = {"device": "cpu", "size": "small", "threads": 1} | changes
    return Settings(out=tmp_path / "out", work=tmp_path / "work", **made)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "tpu"}, "DEVICE is 'tpu'; valid: cuda, cpu"),
        ({"size": "huge"}, "SIZE is 'huge'; valid: full, small"),
        ({"only": ("resnet",)}, "there is no model 'resnet'; valid: clip-b32, "),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path, changes, says):
    with pytest.raises(OptionError) as caught:
        settings(tmp_path, **changes)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("only", "names"),
    [((), ["clip-b32", "clip-l14", "owlvit-b32", "owlvit-b16", "vilt"]), (("vilt",), ["vilt"])],
)
def test_models_are_all_or_those_asked_for(tmp_path, only, names):
    assert list(settings(tmp_path, size="full", only=only).models) == names


@pytest.mark.parametrize("data", [None, "nowhere"])
def test_data_that_are_not_there_are_named(tmp_path, data):
    made = settings(tmp_path, size="full", data=data and tmp_path / data)
    with pytest.raises(OptionError, match=r"clip-vit-base-patch32/config\.json; valid: a folder"):
        made.snapshot(FULL["clip-b32"])


def test_larger_models_differ_in_their_config(tmp_path):
    for model in FULL.values():
        folder = tmp_path / model.snapshot
        folder.mkdir(exist_ok=True)
        config = {"projection_dim": 512, "text_config": {}, "vision_config": {"patch_size": 32}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "vocab.json").write_text("{}")
    made = settings(tmp_path, size="full", data=tmp_path)
    configs = {
        n: json.loads((made.snapshot(m) / "config.json").read_text()) for n, m in FULL.items()
    }
    patches = {name: config["vision_config"]["patch_size"] for name, config in configs.items()}
    assert patches == {
        "clip-b32": 32,
        "clip-l14": 14,
        "owlvit-b32": 32,
        "owlvit-b16": 16,
        "vilt": 32,
    }
    assert configs["clip-l14"]["projection_dim"] == 768
    assert (made.snapshot(FULL["clip-l14"]) / "vocab.json").is_file()


# --- records --------------------------------------------------------------------------------------


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("measure", "status", "why", "found"),
    [
        (dict, "done", "", {}),
        (lambda: {"ms": float("nan")}, "done", "", {"ms": None}),
        (lambda: fail(record.SkippedError("no GPU")), "skipped", "no GPU", None),
        (lambda: fail(BenchmarkError("dead")), "failed", "dead", None),
        (lambda: fail(record.IncompleteError("half", {"a": 1})), "failed", "half", {"a": 1}),
        (lambda: fail(ZeroDivisionError("what?")), "failed", "ZeroDivisionError: what?", None),
    ],
)
def test_a_record_is_written_whatever_comes(tmp_path, measure, status, why, found):
    made = settings(tmp_path)
    assert record.keep(made, "parity", "clip-b32", measure) == status
    told = json.loads((made.out / "parity-clip-b32.json").read_text())
    assert (told["status"], told["found"]) == (status, found)
    assert why in (told["why"] or "")
    assert record.held(made, "parity-clip-b32") == (status == "done")
    assert not record.held(settings(tmp_path, sizes=(4,)), "parity-clip-b32")
    assert record.read_all(made.out).keys() == {"parity-clip-b32"}


@pytest.mark.parametrize(
    ("why", "told"),
    [("", ""), ("a", "a"), ("a\n\n  b \n c\n", "a ... c"), ("x" * 400, "x" * 300)],
)
def test_a_reason_is_told_by_its_first_and_last_line(why, told):
    assert record.short(why) == told


def test_the_archive_holds_all_that_is_there(tmp_path):
    made = settings(tmp_path)
    for name in ("a", "b"):
        record.write(made, name, {})
        record.archive(made.out, tmp_path / "in" / "all.tar.gz")
    with tarfile.open(tmp_path / "in" / "all.tar.gz") as tar:
        assert tar.getnames() == ["a.json", "b.json"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["all.tar.gz"]


# --- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", plan.PLANS)
@pytest.mark.parametrize("size", ["full", "small"])
def test_every_step_of_a_plan_can_be_run(tmp_path, monkeypatch, name, size):
    for variable in ("OUT", "WORK"):
        monkeypatch.setenv(variable, str(tmp_path))
    steps = [step for group in plan.PLANS[name](settings(tmp_path, size=size)) for step in group]
    pieces = []
    for step in steps:
        options = command.parser().parse_args([*step.arguments, "--size", size])
        made = command.settings_of(options)
        module = command.piece_of(options.piece)
        assert set(options.model) <= set(made.models)
        assert not options.model or module.MODELS
        assert step.limit_s < 600 or options.piece == "soak"
        pieces.append(options.piece)
    assert pieces[0] == "install"
    assert pieces[-1] == "report"
    if name == "all":
        assert list(dict.fromkeys(pieces)) == list(command.PIECES)


def test_a_plan_goes_on_after_a_failure_and_says_what_is_not_done(monkeypatch, tmp_path, capfd):
    ran = []
    groups = [[plan.Step(("install",))], [plan.Step(("parity",)), plan.Step(("report",))]]
    monkeypatch.setitem(plan.PLANS, "quick", lambda made: groups)
    monkeypatch.setattr(
        command, "_group", lambda options, group, left: ran.append(len(group)) or [group[0].title]
    )
    told = ["--out", str(tmp_path), "--work", str(tmp_path)]
    assert command.main(["quick", *told]) == 1
    assert ran == [1, 2]
    groups[1].append(plan.Step(("memory",), 60.0, 0.0))  # which takes no time
    assert command.main(["quick", *told, "--limit", "0"]) == 1
    assert ran == [1, 2, 1]
    lines = capfd.readouterr().out.splitlines()
    assert lines == ["NOT DONE: install, parity", "NOT DONE: install, parity, report, memory"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("model", ["clip-b32", "vilt"])
def test_latency_is_asked_of_vlrt_bench_in_its_own_words(monkeypatch, tmp_path, device, model):
    monkeypatch.setattr(latency, "held", lambda bundle: ("fp32", "fp16"))
    made = settings(tmp_path, device=device, size="full", sizes=(1, 8))
    asked = latency.arguments(made, made.models[model])
    options = bench_parser().parse_args(["latency", *asked])
    assert (options.batch, options.sizes, options.device) == ([1], [8], device)
    assert options.stages == [BOTH if model == "vilt" else IMAGE]
    assert options.base in options.only
    assert ("vlrt-fp16-cuda-graph" in options.only) == (device == "cuda")


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({}, (1, 2)),
        ({"size": "full"}, (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        ({"size": "full", "quick": True}, (1, 8, 64)),
        ({"sizes": (3,)}, (3,)),
    ],
)
def test_sizes_are_powers_of_two_or_those_asked_for(tmp_path, changes, sizes):
    assert latency.sizes_of(settings(tmp_path, **changes)) == sizes


# --- processes ------------------------------------------------------------------------------------


def test_processes_give_results_or_say_why_there_are_none(tmp_path):
    job = {"snapshot": str(tmp_path / "absent"), "root": str(tmp_path), "title": "absent"}
    children = [
        child.Child("tensorrt", "nothing", {"title": "x"}),
        child.Child("checkpoints", "make", job),
    ]
    first, second = child.run_each(children, 60, at_once=2)
    assert "tensorrt.nothing of x ended with exit code 1" in str(first)
    assert "absent" in str(second)
    with pytest.raises(BenchmarkError, match="AttributeError"):
        child.run(children[0], 60)


def test_a_process_that_takes_too_long_is_ended():
    with pytest.raises(BenchmarkError, match="ran past 0 s and was ended"):
        child.run(child.Child("install", "prove", {"device": "cpu"}), 0)


# --- installing -----------------------------------------------------------------------------------


def wheel(folder, name):
    """A wheel with one module."""
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "here = True\n")
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", "")


def test_wheels_and_archives_are_unpacked_side_by_side(tmp_path):
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    site.mkdir()
    wheel(wheels, "one")
    (tmp_path / "two.py").write_text("here = True\n")
    with tarfile.open(wheels / "two.tar.xz", "w:xz") as tar:
        tar.add(tmp_path / "two.py", "two.py")
    made = settings(tmp_path, wheels=wheels)
    for _ in range(2):  # again is the same
        assert install._unpack(made, site) == ["one-1.0-py3-none-any.whl", "two.tar.xz"]
    assert (site / "one.py").is_file()
    assert (site / "two.py").is_file()


@pytest.mark.parametrize("there", [False, True])
def test_the_machines_nvidia_stands_beside_the_packages(monkeypatch, tmp_path, there):
    site, theirs = tmp_path / "site", tmp_path / "machine" / "nvidia"
    site.mkdir()
    theirs.mkdir(parents=True)
    found = SimpleNamespace(submodule_search_locations=[str(theirs)]) if there else None
    monkeypatch.setattr(install, "find_spec", lambda name: found)
    for _ in range(2):
        assert install._link_nvidia(site) == (str(theirs) if there else None)
    assert (site / "nvidia").exists() == there


@pytest.mark.parametrize(
    ("change", "right"),
    [({}, True), ({"ran_on": None}, False), ({"ran_on": "X"}, False), ({"right": False}, False)],
)
def test_an_addition_must_run_where_it_should_and_be_right(monkeypatch, tmp_path, change, right):
    proof = {"wanted": "C", "ran_on": "C", "right": True, "onnxruntime": "1", "providers": ["C"],
             "said": "", "doctor": "fine"}  # fmt: skip
    monkeypatch.setattr(install, "run", lambda asked, limit: proof | change)
    if right:
        assert install.measure(settings(tmp_path), None)["doctor"] == "fine"
        return
    with pytest.raises(record.IncompleteError, match="an addition ran on") as caught:
        install.measure(settings(tmp_path), None)
    assert caught.value.found["doctor"] == "fine"


# --- what is found --------------------------------------------------------------------------------


def clip_outputs(**changes):
    rng = np.random.default_rng(0)
    image, text = (rng.standard_normal((n, 8)).astype(np.float32) for n in (3, 4))
    return {IMAGE: {"image_embeds": image}, TEXT: {"text_embeds": text}} | changes


@pytest.mark.parametrize(
    ("change", "same", "agreement"),
    [
        (lambda embeds: embeds, True, 1),
        (lambda embeds: embeds * 1.0001, True, 1),
        (lambda embeds: -embeds, False, 0),
        (lambda embeds: embeds * np.nan, False, None),
        (lambda embeds: embeds[:, :4], False, None),
    ],
)
def test_a_variant_is_compared_by_numbers_and_by_choices(change, same, agreement):
    expected = clip_outputs()
    found = clip_outputs(**{IMAGE: {"image_embeds": change(expected[IMAGE]["image_embeds"])}})
    told = parity.compared("clip", "fp16", found, expected)
    assert told["same"] is same
    assert told["outputs"]["encode text, text_embeds"]["max_abs"] == 0
    if not np.isnan(found[IMAGE]["image_embeds"]).any():
        assert (told["agreement"], told["choices"]) == (
            agreement,
            3 if agreement is not None else 0,
        )


@pytest.mark.parametrize(
    ("code", "said", "mib"), [(0, "1234\n", 1234.0), (0, "[N/A]\n", None), (9, "", None)]
)
def test_a_gpus_memory_is_what_its_driver_says(monkeypatch, code, said, mib):
    monkeypatch.setattr(memory.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    done = SimpleNamespace(returncode=code, stdout=said, stderr="no driver")
    asked = []
    monkeypatch.setattr(
        memory.subprocess, "run", lambda command, **_: asked.append(command) or done
    )
    assert memory.gpu_mib("cpu") is None
    if mib is None:
        with pytest.raises(BenchmarkError, match="nvidia-smi does not tell of memory"):
            memory.gpu_mib("cuda:1")
    else:
        assert memory.gpu_mib("cuda:1") == mib
    assert asked[0][:3] == ["/usr/bin/nvidia-smi", "-i", "1"]


def test_tensorrt_is_skipped_where_it_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(tensorrt.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    with pytest.raises(record.SkippedError, match="no libnvinfer is found"):
        tensorrt.measure(settings(tmp_path, device="cuda"), "clip-b32")


# --- the report -----------------------------------------------------------------------------------


def told_of(piece, found, model="clip-b32", status="done", why=None, quick=False):
    conditions = {
        "date": "2026-11-29", "commit": "abc", "versions": {"torch": "2.11.0"},
        "machine": {"gpus": [{"name": "H200"}], "processor": "CPU", "cores": 16},
    }  # fmt: skip
    return {"piece": piece, "model": model, "status": status, "why": why, "found": found,
            "conditions": conditions,
            "settings": {"size": "full", "device": "cuda", "quick": quick}}  # fmt: skip


_ESTIMATE = {"value": 2.0, "low": 1.9, "high": 2.1}
_SUMMARY = {"p50_ms": 1.25, "per_second": 800.0}
_OUTPUT = {"measure": "lowest cosine", "max_abs": 0.002, "cosine": 0.99999, "value": 1}
_FOUND = {
    "install": {
        "onnxruntime": "1.31.1", "file": "f", "ran_on": "CUDA", "vlrt": "starts",
        "providers": ["CUDA"], "torch": {"version": "2.11.0"}, "doctor": "all is well",
    },
    "parity": {"variants": {
        "fp16": {"device": "cuda", "outputs": {"a": _OUTPUT}, "agreement": 1.0, "choices": 8,
                 "repeatable": True, "same": True},
        "fp32": {"device": "cuda", "failed": "dead"},
    }},
    "latency": {"fairness": ["They take turns."], "rows": [{
        "pictures": 64, "summary": {"vlrt-fp16": _SUMMARY, "torch-fp16": _SUMMARY},
        "same_class": [
            {"ours": "vlrt-fp16", "theirs": "torch-fp16", "verdict": "faster"} | _ESTIMATE
        ],
    }]},
    "end-to-end": {"rows": [{
        "row": "640x480, batch 64", "summary": {"vlrt": _SUMMARY, "torch": _SUMMARY},
        "ratios": {"torch": _ESTIMATE},
    }]},
    "memory": {"batch": 64, "contenders": {"vlrt": {
        "load": {"gpu_mib": 500.0, "host_mib": 300.0},
        "batch": {"gpu_mib": None, "host_mib": 400.0},
    }}},
    "cold-start": {"rows": [{"measure": "cold start", "unit": "s", "medians": {"vlrt": 1.0},
                             "ratio": {}}]},
    "soak": {"seconds": 600.0, "memory": {"gpu_mib": {
        "mib_per_hour": {"value": 0.1, "low": -1.0, "high": 1.0}, "begin_mib": 900.0,
        "peak": 950.0, "verdict": "flat",
    }}},
    "similarity": {"rows": [{"labels": 1000, "batch": 64, "numpy_ms": 9.0, "device_ms": 3.0,
                             "difference": 0.0}]},
    "tensorrt": {"contenders": {"cuda": {"first_answer_s": 1.0, "best": [1.0], "batch 1, ms": 2.0,
                                         "batch 8, ms": 3.0}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("piece", "line"),
    [
        ("install", "ran an addition on CUDA"),
        ("parity", "| clip-b32 | fp16 | cuda | 0.002 | 0.999990 | 100.0% of 8 | yes | yes |"),
        ("parity", "| clip-b32 | fp32 | cuda | failed | - | - | - | - |"),
        ("latency", "| clip-b32 | 64 | 1.25 | 1.25 |"),
        ("latency", "| clip-b32 | 64 | vlrt-fp16 | torch-fp16 | 2.00 (1.90-2.10) | faster |"),
        ("end-to-end", "| clip-b32 | 640x480, batch 64 | torch | 800 | 2.00 (1.90-2.10) |"),
        ("memory", "| clip-b32 | vlrt | 500 | 300 | - | 400 |"),
        ("cold-start", "| clip-b32 | cold start | s | 1 | - | - |"),
        ("soak", "| clip-b32 | 600 s | gpu_mib | 900 | 950 | 0.1 (-1.0 to 1.0) | flat |"),
        ("similarity", "| clip-b32 | 1000 | 64 | 9 | 3 | 0 |"),
        ("tensorrt", "| clip-b32 | cuda | 1 | 2 | 3 |"),
    ],
)
def test_every_piece_has_its_table(piece, line):
    made = report.markdown({piece: told_of(piece, _FOUND[piece])})
    assert line in made
    assert "H200; CPU, 16 CPUs; torch 2.11.0; commit abc" in made
    assert "A rehearsal" not in made


@pytest.mark.parametrize("quick", [False, True])
def test_a_quick_record_gives_way_to_a_whole_one(quick):
    slower = {"rows": [_FOUND["end-to-end"]["rows"][0] | {"row": "quickly"}]}
    records = {"a-quick": told_of("end-to-end", slower, quick=True)}
    records["a"] = told_of("end-to-end", _FOUND["end-to-end"], quick=quick)
    assert ("quickly" in report.markdown(records)) == quick


def test_what_is_not_done_is_told_with_its_reason(tmp_path):
    records = {"soak": told_of("soak", None, status="failed", why="first\nlast")}
    assert "| soak | failed | first ... last |" in report.markdown(records)
    with pytest.raises(BenchmarkError, match="there are no records"):
        report.measure(settings(tmp_path), None)
    made = settings(tmp_path)
    record.write(made, "soak", records["soak"])
    assert report.measure(made, None)["records"] == 1
    assert json.loads((made.out / "gpu.json").read_text())["records"].keys() == {"soak"}
