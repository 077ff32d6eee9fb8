"""What MODEL on the command line may be."""

import argparse
import os
import shutil
import subprocess
import sys

import pytest
from hub_server import HubServer

from vlrt.errors import BundleNotFoundError, OptionError
from vlrt_benchmarks import subject


def resolved(tmp_path, *arguments):
    parser = argparse.ArgumentParser()
    subject.add_options(parser)
    return subject.resolve(parser.parse_args([*arguments, "--cache", str(tmp_path / "cache")]))


def test_a_bundle_is_taken_as_it_is(tiny_bundle, tmp_path):
    found = resolved(tmp_path, str(tiny_bundle))
    assert (found.family, found.task) == ("clip", "zero-shot-image-classification")
    assert found.bundle == tiny_bundle
    assert found.checkpoint is None
    assert found.precisions == ("fp32", "fp16", "int8")
    facts = found.facts()
    assert facts["files"]["config.json"] == facts["files"]["config.json"].lower()
    assert facts["variant_bytes"]["fp32"] > facts["variant_bytes"]["int8"] > 0
    assert facts["checkpoint_bytes"] is None


def test_some_precisions_keep_the_bundles_order(tiny_bundle, tmp_path):
    assert resolved(
        tmp_path, str(tiny_bundle), "--precision", "int8", "fp32"
    ).precisions == ("fp32", "int8")  # fmt: skip


def test_a_checkpoint_that_the_bundle_was_made_of_stands_beside_it(
    tiny_bundle, tiny_checkpoint, tmp_path
):
    found = resolved(tmp_path, str(tiny_bundle), "--checkpoint", str(tiny_checkpoint))
    assert found.checkpoint == tiny_checkpoint
    assert found.facts()["checkpoint_bytes"] == (
        (tiny_checkpoint / "model.safetensors").stat().st_size
    )


def test_a_checkpoint_is_exported_once(tiny_checkpoint, tmp_path, capsys):
    pytest.importorskip("onnx", reason="a bundle is made with the extra export")
    first = resolved(tmp_path, str(tiny_checkpoint), "--precision", "fp32")
    assert first.checkpoint == tiny_checkpoint
    assert first.bundle.is_relative_to(tmp_path / "cache")
    assert "exporting" in capsys.readouterr().err
    again = resolved(tmp_path, str(tiny_checkpoint), "--precision", "fp32")
    assert again == first
    assert "exporting" not in capsys.readouterr().err


def test_what_is_wrong_is_named(tiny_bundle, tiny_checkpoint, tmp_path):
    bundle, checkpoint = str(tiny_bundle), str(tiny_checkpoint)
    bare = tmp_path / "bare"
    shutil.copytree(tiny_checkpoint, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, other)
    with (other / "model.safetensors").open("ab") as file:
        file.write(b" ")
    for arguments, message in [
        ([bundle, "--precision", "int4w"], "has no precision .'int4w'.; it has: fp32, fp16, int8"),
        ([checkpoint, "--checkpoint", checkpoint], "is a checkpoint itself"),
        ([bundle, "--checkpoint", str(bare)], "has no weights"),
        ([bundle, "--checkpoint", str(other)], "was not made of .*other: other weights"),
        ([checkpoint, "--seeded"], "has weights; leave --seeded out"),
        ([str(tmp_path), "--seeded"], "has no config.json"),
    ]:
        with pytest.raises(OptionError, match=message):
            resolved(tmp_path, *arguments)
    with pytest.raises(BundleNotFoundError, match=r"holds no ONNX graphs"):
        resolved(tmp_path, str(bare))
    with pytest.raises(BundleNotFoundError, match="there is no directory"):
        resolved(tmp_path, bundle, "--checkpoint", str(tmp_path / "nowhere"))


SHOW = """
import argparse, sys
from vlrt_benchmarks import subject
parser = argparse.ArgumentParser()
subject.add_options(parser)
found = subject.resolve(parser.parse_args(sys.argv[1:]))
print(found.name, found.bundle.is_dir(), found.checkpoint is not None, *found.precisions)
"""


@pytest.mark.parametrize("kind", ["bundle", "checkpoint"])
def test_the_hub_has_both(kind, tiny_bundle, tiny_checkpoint, tmp_path):
    pytest.importorskip("onnx", reason="a bundle is made with the extra export")
    folder = {"bundle": tiny_bundle, "checkpoint": tiny_checkpoint}[kind]
    with HubServer() as hub:
        hub.add("someone/tiny", folder)
        done = subprocess.run(
            [sys.executable, "-c", SHOW, "someone/tiny", "--precision", "fp32",
             "--cache", str(tmp_path / "cache")],
            env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"),
                 "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"tiny True {kind == 'checkpoint'} fp32"
