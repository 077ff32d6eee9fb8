"""Bundles and checkpoints from the hub: a real huggingface_hub client against a local server.

The client reads its settings when it is imported, so every load is a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import edit_json
from hub_server import HubServer

from vlrt import errors
from vlrt.bundle import MANIFEST, SETTINGS_FILES

pytest.importorskip("huggingface_hub")

LOAD = """
import json, sys

import vlrt

source, options = json.loads(sys.argv[1])
try:
    model = vlrt.load(source, device="cpu", **options)
    said = {"info": model.info, "embeds": model.encode_texts(["a red cat"]).tolist()}
except Exception as error:
    said = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(said))
"""
SETTINGS = {MANIFEST, *SETTINGS_FILES}


@pytest.fixture
def hub(tiny_bundle):
    with HubServer() as server:
        server.commit = server.add("org/tiny-clip", tiny_bundle)
        yield server


@pytest.fixture
def run(tmp_path):
    """Run Python with a hub cache of this test's own."""

    def call(url, *arguments, **environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        settings = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return subprocess.run(
            [sys.executable, *arguments], env=clean | settings | environment, cwd=tmp_path,
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    return call


@pytest.fixture
def load(run):
    """`vlrt.load` in a new process; what it said, as a dict."""

    def call(url, source="org/tiny-clip", environment=None, **options):
        done = run(url, "-c", LOAD, json.dumps([source, options]), **(environment or {}))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


def assert_error(said, kind, *words):
    assert issubclass(getattr(errors, said["error"]), getattr(errors, kind)), said
    for word in words:
        assert word in said["message"]


# --- what is downloaded ---------------------------------------------------------------------------


def test_only_settings_and_the_chosen_precision_are_downloaded_pinned(hub, load, tiny_bundle, tiny):
    said = load(hub.url, precision="int8")
    assert said["info"]["revision"] == hub.commit
    assert said["info"]["precision"] == "int8"
    graphs = {"onnx/vision_model_int8.onnx", "onnx/text_model_int8.onnx"}
    assert set(hub.files_sent()) == SETTINGS | graphs
    assert len(hub.files_sent()) == len(SETTINGS | graphs)
    resolved = [path for _, path in hub.log if "/resolve/" in path]
    assert all(f"/resolve/{hub.commit}/" in path for path in resolved)
    assert np.abs(np.array(said["embeds"]) - tiny.encode_texts(["a red cat"])).max() < 0.1


def test_auto_downloads_one_precision(hub, load):
    said = load(hub.url)
    assert len(hub.files_sent()) == len(SETTINGS) + 2
    assert said["info"]["precision"] in ("fp32", "fp16", "int8")


def test_a_second_load_downloads_nothing(hub, load):
    first = load(hub.url, precision="fp32")
    hub.log.clear()
    assert load(hub.url, precision="fp32") == first
    assert hub.files_sent() == []
    assert load(hub.url, precision="int8")["info"]["precision"] == "int8"
    assert len(hub.files_sent()) == 2


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, load, own_bundle):
    (own_bundle / "onnx" / "vision_model_int8.onnx").write_bytes(b"x")  # not what the manifest says
    broken = hub.add("org/tiny-clip", own_bundle, "v2", "experiment")
    for revision in ("v2", "experiment", broken):
        said = load(hub.url, precision="int8", revision=revision)
        assert_error(said, "IntegrityError", "vision_model_int8.onnx")
    assert load(hub.url, precision="int8", revision="main")["info"]["revision"] == hub.commit
    assert load(hub.url, precision="fp32", revision=broken)["info"]["revision"] == broken


def test_a_branch_that_moves_is_followed(hub, load, own_bundle):
    assert load(hub.url, precision="fp32")["info"]["revision"] == hub.commit
    moved = hub.add("org/tiny-clip", own_bundle, "main")
    assert moved != hub.commit
    assert load(hub.url, precision="fp32")["info"]["revision"] == moved


def test_a_foreign_repository_with_external_data(hub, load, foreign_bundle):
    onnx = pytest.importorskip("onnx")
    for name in ("vision_model", "text_model"):
        path = foreign_bundle / "onnx" / f"{name}.onnx"
        graph = onnx.load(path)
        path.unlink()
        onnx.save_model(
            graph,
            path,
            save_as_external_data=True,
            location=f"{name}.onnx_data",
            size_threshold=256,  # ONNX Runtime reads shapes from the graph itself alone
        )
    (foreign_bundle / "onnx" / "model_quantized.onnx").write_bytes(b"a monolith")
    hub.add("Xenova/tiny-clip", foreign_bundle)
    exact = load(hub.url, "Xenova/tiny-clip", precision="fp32")
    graphs = {f"onnx/{n}_model.onnx{s}" for n in ("vision", "text") for s in ("", "_data")}
    assert set(hub.files_sent()) == set(SETTINGS_FILES) | graphs
    assert exact["embeds"] == load(hub.url, precision="fp32")["embeds"]
    hub.log.clear()
    quantized = load(hub.url, "Xenova/tiny-clip", precision="quantized")
    assert set(hub.files_sent()) == {f"onnx/{n}_model_quantized.onnx" for n in ("vision", "text")}
    assert quantized["embeds"] == load(hub.url, precision="int8")["embeds"]


# --- offline --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "environment"),
    [({"offline": True}, {}), ({}, {"HF_HUB_OFFLINE": "1"})],
    ids=["argument", "variable"],
)
def test_offline_works_from_the_cache_alone(hub, load, options, environment):
    online = load(hub.url, precision="int8")
    hub.log.clear()
    offline = load(hub.url, precision="int8", environment=environment, **options)
    assert offline["embeds"] == online["embeds"]
    assert offline["info"]["revision"] == hub.commit
    assert hub.log == []
    said = load(hub.url, precision="fp32", environment=environment, **options)
    assert_error(said, "BundleNotFoundError", "onnx/vision_model.onnx")
    assert hub.log == []


@pytest.mark.parametrize(
    ("options", "environment"),
    [({"offline": True}, {}), ({}, {"HF_HUB_OFFLINE": "1"})],
    ids=["argument", "variable"],
)
def test_offline_with_an_empty_cache_is_a_typed_error(hub, load, options, environment):
    said = load(hub.url, environment=environment, **options)
    assert_error(said, "BundleNotFoundError", "org/tiny-clip", "offline", "cache")
    assert hub.log == []


def test_offline_a_foreign_repository_is_what_the_cache_holds_of_it(hub, load, foreign_bundle):
    hub.add("Xenova/tiny-clip", foreign_bundle)
    online = load(hub.url, "Xenova/tiny-clip", precision="quantized")
    offline = load(hub.url, "Xenova/tiny-clip", offline=True)
    assert offline["info"]["precision"] == "quantized"
    assert offline["embeds"] == online["embeds"]


# --- what is not there ----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["org/other", "other/tiny-clip", "no such name", "a/b/c"])
def test_an_unknown_repository_is_named(hub, load, source):
    assert_error(load(hub.url, source), "BundleNotFoundError", source, "neither a directory here")


@pytest.mark.parametrize("revision", ["no-such-branch", "0" * 40])
def test_an_unknown_revision_is_named(hub, load, revision):
    said = load(hub.url, revision=revision)
    assert_error(said, "BundleNotFoundError", "org/tiny-clip", f"no revision {revision!r}")


def test_a_hub_out_of_reach_is_a_typed_error(load):
    said = load("http://127.0.0.1:9")
    assert_error(said, "BundleNotFoundError", "org/tiny-clip", "hub")


def test_a_repository_without_graphs_is_told_how_to_get_them(hub, load, tiny_checkpoint):
    hub.add("org/checkpoint", tiny_checkpoint)
    said = load(hub.url, "org/checkpoint")
    assert_error(said, "BundleNotFoundError", "vlrt export org/checkpoint")
    assert "model.safetensors" not in hub.files_sent()


def test_a_graph_that_the_manifest_lists_and_the_hub_lacks_is_named(hub, load, own_bundle):
    (own_bundle / "onnx" / "text_model_fp16.onnx").unlink()
    hub.add("org/tiny-clip", own_bundle)
    said = load(hub.url, precision="fp16")
    assert_error(said, "BundleNotFoundError", "onnx/text_model_fp16.onnx")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_settings_that_the_hub_lacks_are_named(hub, load, own_bundle, name):
    (own_bundle / name).unlink()
    hub.add("org/tiny-clip", own_bundle)
    assert_error(load(hub.url, precision="int8"), "BundleNotFoundError", name)


def test_a_manifest_on_the_hub_cannot_leave_the_cache(hub, load, own_bundle):
    manifest = json.loads((own_bundle / MANIFEST).read_text())
    for variant in manifest["components"]["text_model"]["variants"].values():
        variant["files"] = ["../../../outside.onnx"]
    edit_json(own_bundle / MANIFEST, components=manifest["components"])
    hub.add("org/tiny-clip", own_bundle)
    said = load(hub.url, precision="int8")
    assert_error(said, "BundleError", "leaves the bundle")


# --- export ---------------------------------------------------------------------------------------


def export(run, hub, *arguments, **environment):
    return run(
        hub.url, "-m", "vlrt_export", "org/checkpoint", "-o", "out", "--precision", "fp32",
        *arguments, **environment,
    )  # fmt: skip


def test_a_checkpoint_is_exported_from_the_hub(hub, run, tiny_checkpoint, tmp_path):
    """Safetensors are preferred, and nothing but the checkpoint's own files is fetched."""
    pytest.importorskip("onnx")
    root = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    for name in ("pytorch_model.bin", "model.onnx", "flax_model.msgpack", "sub/config.json"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"not wanted")
    commit = hub.add("org/checkpoint", root)
    done = export(run, hub)
    assert done.returncode == 0, done.stderr
    assert set(hub.files_sent()) == {*SETTINGS_FILES, "model.safetensors"}
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["source"]["repository"] == "org/checkpoint"
    assert manifest["source"]["revision"] == commit
    hub.log.clear()
    again = export(run, hub, "--overwrite", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert hub.log == []


@pytest.mark.torch
def test_a_checkpoint_of_older_weights_is_exported_from_the_hub(
    hub, run, tiny_checkpoint, tmp_path
):
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    root = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    torch.save(safetensors.load_file(root / "model.safetensors"), root / "pytorch_model.bin")
    (root / "model.safetensors").unlink()
    hub.add("org/checkpoint", root)
    done = export(run, hub)
    assert done.returncode == 0, done.stderr
    assert set(hub.files_sent()) == {*SETTINGS_FILES, "pytorch_model.bin"}


@pytest.mark.parametrize(
    ("arguments", "says"), [(("--revision", "no-such"), "no-such"), ((), "org/checkpoint")]
)
def test_a_checkpoint_that_the_hub_lacks_is_a_typed_error(
    hub, run, tiny_checkpoint, tmp_path, arguments, says
):
    pytest.importorskip("onnx")
    if arguments:
        hub.add("org/checkpoint", tiny_checkpoint)
    done = export(run, hub, *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    assert not (tmp_path / "out").exists()
