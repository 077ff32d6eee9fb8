"""Every block of the README runs as it stands, and its numbers are the measured ones.

A folder stands in for the hub: what the README exports are the demonstration checkpoints, and tiny
seeded ones for the kinds of ViLT that have none. The two install commands are not run here, but by
`.ci/run` and by this very test run.
"""

import json
import re
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from checkpoints import write_vilt_checkpoint

from vlrt import demo

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = [text for kind, text in BLOCKS if kind == "sh" and not text.startswith("pip install")]
EXPORT = [text for text in SHELL if text.startswith("vlrt export")]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
INSTALL = [text for kind, text in BLOCKS if kind == "sh" and text.startswith("pip install")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as the README's reader has it, after the README's own export commands."""
    pytest.importorskip("transformers", reason="the README's export is proved against PyTorch")
    root = tmp_path_factory.mktemp("readme")
    for name, stored in {
        "clip-shapes": "openai/clip-vit-base-patch32",
        "owlvit-shapes": "google/owlvit-base-patch32",
        "vilt-shapes": "dandelin/vilt-b32-finetuned-vqa",
    }.items():
        shutil.copytree(ROOT / "tests/data" / name, root / stored)
    for name, architecture in {
        "vilt-b32-finetuned-coco": "ViltForImageAndTextRetrieval",
        "vilt-b32-finetuned-nlvr2": "ViltForImagesAndTextClassification",
        "vilt-b32-mlm": "ViltForMaskedLM",
    }.items():
        write_vilt_checkpoint(root / "dandelin" / name, architecture)
    (root / "questions.txt").write_text("what colour is the ring?\nis there a star?\n")
    (root / "captions.txt").write_text("a red ring\na blue star\n")
    (root / "photos").mkdir()
    for name, picture in {
        "photo.jpg": "shape-1.jpg",
        "photos/second.jpg": "shape-2.jpg",
        "street.jpg": "scene-1.jpg",
        "shelf.jpg": "scene-2.jpg",
        "product.jpg": "shape-3.jpg",
    }.items():
        shutil.copy(demo.ROOT / "pictures" / picture, root / name)
    for text in EXPORT:
        run(text, root)
    return root


def run(text, root):
    vlrt = Path(sys.executable).with_name("vlrt")
    script = re.sub(r"^vlrt ", f"{vlrt} ", text, flags=re.MULTILINE)
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_is_of_a_kind_that_is_known():
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "text"}


def test_the_first_two_commands_install_and_run():
    assert INSTALL == ['pip install ".[cpu]" && vlrt demo\n', 'pip install ".[dev]" && pytest\n']


@pytest.mark.torch
@pytest.mark.parametrize("text", [text for text in SHELL if text not in EXPORT])
def test_shell_blocks_run(text, workplace):
    run(text, workplace)


@pytest.mark.torch
@pytest.mark.parametrize("text", PYTHON)
def test_python_blocks_run(text, workplace):
    run(f"{sys.executable} -W error - <<'PYTHON'\n{text}PYTHON\n", workplace)


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


@pytest.mark.parametrize(
    ("row", "file", "measure"),
    [
        ("demo model, start to answer", "footprint-demo", "process start to result, s"),
        ("demo model, peak memory", "footprint-demo", "peak memory, MiB"),
        ("CLIP B/32, start to answer", "footprint-clip-b32", "process start to result, s"),
        ("CLIP B/32, peak memory", "footprint-clip-b32", "peak memory, MiB"),
        ("installed environment, without pip", "footprint-clip-b32", "installed size, MB"),
    ],
)
def test_the_numbers_are_those_that_were_measured(row, file, measure):
    cells = next(line for line in README.splitlines() if line.startswith(f"| {row} |")).split("|")
    quoted = [cell.strip().strip("*").partition(" ")[0] for cell in cells[2:5]]
    measured = json.loads((ROOT / f"benchmarks/results/{file}.json").read_text())["comparison"]
    line = next(line for line in measured if line["measure"] == measure)
    for text, key in zip(quoted, ("vlrt", "transformers", "ratio"), strict=True):
        decimals = len(text.partition(".")[2])
        assert abs(float(text) - line[key]) <= 0.5001 * 10**-decimals, (row, key)


@pytest.mark.parametrize(
    ("file", "measures"), [("demo-accuracy", ["pair"]), ("demo-accuracy-owlvit", ["mAP50", "mAP"])]
)
def test_the_accuracies_are_those_that_were_measured(file, measures):
    measured = json.loads((ROOT / f"benchmarks/results/{file}.json").read_text())["accuracy"]
    for name, table in measured.items():
        row = name.replace("torch", "PyTorch")
        cells = [
            f"{table[group][measure] * 100:.1f} %"
            for measure in measures
            for group in ("seen", "held_out")
        ]
        assert f"| {row} | {' | '.join(cells)} |" in README


def test_the_answers_are_those_that_were_measured():
    file = ROOT / "benchmarks/results/demo-accuracy-vilt.json"
    for name, table in json.loads(file.read_text())["accuracy"].items():
        cells = [f"{share * 100:.1f} %" for share in table["answers"].values()]
        assert f"| {name.replace('torch', 'PyTorch')} | {' | '.join(cells)} |" in README


def test_the_demos_answers_reach_what_was_asked_for():
    file = ROOT / "benchmarks/results/demo-accuracy-vilt.json"
    accuracy = json.loads(file.read_text())["accuracy"]
    assert accuracy["torch fp32"]["answers"]["all"] >= 0.85
    assert accuracy["vlrt fp32"]["answers"]["all"] >= 0.85
    assert accuracy["language only"]["answers"]["all"] <= 0.35


def test_the_times_of_answers_are_those_that_were_measured():
    measured = json.loads((ROOT / "benchmarks/results/questions-vilt-b32.json").read_text())
    for job, medians in measured["medians"].items():
        pairs = [("vlrt fp32", "model fp32"), ("vlrt int8", "model fp32"),
                 ("vlrt int8", "model bf16"), ("vlrt int8", "loop fp32")]  # fmt: skip
        ratios = [f"{medians[ours] / medians[theirs]:.2g}" for ours, theirs in pairs]
        assert f"| {job} | {' | '.join(ratios)} |" in README


def test_the_times_of_detection_are_those_that_were_measured():
    measured = json.loads((ROOT / "benchmarks/results/detection-owlvit-b32.json").read_text())
    for job, medians in measured["medians"].items():
        pairs = [("vlrt fp32", "model fp32"), ("vlrt int8", "model fp32"),
                 ("vlrt int8", "model bf16"), ("vlrt int8", "pipeline fp32")]  # fmt: skip
        ratios = [f"{medians[ours] / medians[theirs]:.2g}" for ours, theirs in pairs]
        assert f"| {job} | {' | '.join(ratios)} |" in README


def cells_under(header):
    """The cells of the README's table that has this header, row by row."""
    lines = README.splitlines()
    start = lines.index(f"| {' | '.join(header)} |") + 2
    table = takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in table]


def test_the_ratios_of_engines_are_those_that_were_measured():
    pytest.importorskip("psutil", reason="the benchmarks need the extra bench")
    from vlrt_benchmarks.engine_report import README_TABLES, times_table

    measured = json.loads((ROOT / "benchmarks/results/engines.json").read_text())
    for ours, theirs in README_TABLES.items():
        header, *rows = times_table(measured["rows"], ours, theirs)
        assert rows
        assert cells_under(header) == rows


def test_the_demos_detector_reaches_what_it_was_asked_for():
    file = ROOT / "benchmarks/results/demo-accuracy-owlvit.json"
    accuracy = json.loads(file.read_text())["accuracy"]
    for name in ("torch fp32", "vlrt fp32"):
        assert accuracy[name]["seen"]["mAP50"] >= 0.85
        assert accuracy[name]["held_out"]["mAP50"] >= 0.6


def test_the_times_of_preprocessing_are_those_that_were_measured():
    file = ROOT / "benchmarks/results/preprocessing.json"
    medians = json.loads(file.read_text())["by_threads"]["2"]["median_s"]
    rows = {
        f"{family}, {prefix}{size}": medians[f"{family.replace('-', '').lower()} {size}{suffix}"]
        for family in ("CLIP", "OWL-ViT", "ViLT")
        for prefix, size, suffix in (
            ("", "4000x3000", ""),
            ("", "1920x1080", ""),
            ("eight of ", "1920x1080", " x 8"),
        )
    }
    contenders = ("hf-processors-rs", "vlrt, Pillow", "vlrt, simplejpeg", "vlrt, fast")
    for row, taken in rows.items():
        ratios = [f"{taken[name] / taken['transformers']:.2f}" for name in contenders]
        assert f"| {row} | {' | '.join(ratios)} |" in README
