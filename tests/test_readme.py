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
from itertools import pairwise
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


@pytest.fixture(scope="module")
def tables():
    """README's tables, as `benchmarks/readme.py` makes them of the checkout's results."""
    from vlrt_benchmarks import readme

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readme, "RESULTS", ROOT / "benchmarks" / "results")
        readme.result.cache_clear()
        yield {header: list(rows()) for header, rows in readme.TABLES.items()}


def test_the_numbers_are_those_that_were_measured(tables):
    from vlrt_benchmarks.readme import replaced

    assert tables
    for header, rows in tables.items():
        assert rows
        assert all(len(row) == len(header) for row in rows)
        assert replaced(README, header, rows) == README, header


def test_every_table_of_numbers_is_one_of_them(tables):
    """Who adds a table of numbers by hand is told so."""
    from vlrt_benchmarks.readme import line_of

    lines = README.splitlines()
    ours = {line_of(header).replace("|  |", "| |") for header in tables}
    headers = [a for a, b in pairwise(lines) if a.startswith("|") and re.match(r"^\|[-:|]+\|$", b)]
    numeric = {h for h in headers if "---:" in lines[lines.index(h) + 1]}
    assert numeric == ours


def accuracies(name):
    result = json.loads((ROOT / f"benchmarks/results/accuracy-demo-{name}.json").read_text())
    rows = result["body"]["rows"]
    return {(row["contender"], row["measure"], row["group"]): row["value"] for row in rows}


@pytest.mark.parametrize("contender", ["torch-fp32", "vlrt-fp32", "vlrt-int8"])
def test_the_demos_reach_what_was_asked_of_them(contender):
    assert accuracies("vilt")[contender, "VQA accuracy", "all"] >= 0.85
    assert accuracies("owlvit")[contender, "mAP50", "seen"] >= 0.85
    assert accuracies("owlvit")[contender, "mAP50", "never seen"] >= 0.6


def test_every_result_of_the_harness_has_its_page_and_its_table():
    from vlrt_benchmarks.document import KINDS, read

    results = ROOT / "benchmarks" / "results"
    found = [path for kind in KINDS for path in results.glob(f"{kind}-*.json")]
    assert found
    for path in found:
        assert read(path)["command"].startswith("vlrt bench ")
        for suffix in (".md", ".html"):
            assert path.with_suffix(suffix).is_file(), path
