"""The README's block for GPUs, on a machine that pretends to have one."""

import re
import shutil
from pathlib import Path

import pytest
from machine import Machine

from vlrt import demo

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run_block(text, folder):
    """Run a block of the README in a folder; what it prints goes nowhere."""
    import contextlib
    import io
    import os

    os.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(text, "README.md", "exec"), {})
    return said.getvalue().splitlines()


@pytest.mark.torch
def test_the_block_for_gpus_runs(on_cuda, tmp_path):
    pytest.importorskip("onnx", reason="bundles are written by onnx")
    from vlrt_export import pipeline, reference

    (block,) = [
        text
        for text in re.findall(r"^```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
        if 'device="cuda"' in text
    ]
    for name, stored in {"clip-b32": "clip-shapes", "owl-b32": "owlvit-shapes"}.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "missing", lambda: ["torch"])  # other tests prove
            checkpoint, out = str(ROOT / "tests/data" / stored), tmp_path / name
            pipeline.export(checkpoint, out, precisions=["fp16"], say=lambda line: None)
    for name in ("street.jpg", "photo.jpg"):
        shutil.copy(demo.ROOT / "pictures" / "scene-1.jpg", tmp_path / name)
    printed = on_cuda(run_block, block, str(tmp_path), machine=Machine()).value
    assert len(printed) == 4
    assert "CUDAExecutionProvider" in printed[-1]
    assert "CPUExecutionProvider" not in printed[-1]
