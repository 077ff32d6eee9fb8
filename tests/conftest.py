"""What the tests share: a tiny checkpoint, its bundle, and pictures."""

import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from hypothesis import HealthCheck, settings
from pictures import FILES

import vlrt

DATA = Path(__file__).parents[2] / "shared" / "data"

# The machine may be busy, so no test asserts a time; examples repeat from run to run.
settings.register_profile(
    "vlrt",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("vlrt")


def pytest_report_header() -> list[str]:
    """Versions and providers."""
    from importlib.metadata import PackageNotFoundError, version

    from vlrt.session import engine

    def of(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"no {name}"

    names = ("numpy", "pillow", "tokenizers", "onnx", "torch", "transformers", "huggingface_hub")
    ort = engine()
    return [
        f"vlrt {vlrt.__version__} at {Path(vlrt.__file__).parent}, {platform.machine()}",
        f"onnxruntime {ort.__version__}: {', '.join(ort.get_available_providers())}",
        ", ".join(map(of, names)),
    ]


@pytest.fixture(scope="session", autouse=True)
def _untuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No bundle is tuned, whatever the developer's own folder holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLRT_TUNED_DIR", str(tmp_path_factory.mktemp("tuned")))
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The data folder beside the checkout."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there; it stands beside a checkout in the project's CI only")
    return DATA


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP checkpoint whose eos_token_id is the tokenizer's."""
    pytest.importorskip("safetensors", reason="checkpoints are written by safetensors")
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-clip")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint in fp32, fp16 and int8; not to be written to (see `own_bundle`)."""
    pytest.importorskip("onnx", reason="bundles are written by onnx")
    from vlrt_export import pipeline, reference

    out = tmp_path_factory.mktemp("bundles") / "tiny-clip"
    with pytest.MonkeyPatch.context() as patch:
        # Most tests need a bundle and no proof of it; test_clip_parity.py and test_export.py prove.
        patch.setattr(reference, "missing", lambda: ["torch"])
        pipeline.export(str(tiny_checkpoint), out, say=lambda line: None)
    return out


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle, to break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def foreign_bundle(own_bundle: Path) -> Path:
    """A bundle as the hub's converters leave it: no manifest, int8 under `_quantized`."""
    (own_bundle / "vlrt.json").unlink()
    for path in (own_bundle / "onnx").glob("*_int8.onnx"):
        path.rename(path.with_name(path.name.replace("_int8", "_quantized")))
    return own_bundle


@pytest.fixture(scope="session")
def tiny(tiny_bundle: Path) -> Any:
    """The tiny bundle loaded in fp32."""
    return vlrt.load(tiny_bundle, precision="fp32", device="cpu")


@pytest.fixture(scope="session")
def picture_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of every kind in `pictures.FILES`."""
    root = tmp_path_factory.mktemp("pictures")
    paths = {name: root / name.replace(";", " ") for name in FILES}
    for name, path in paths.items():
        path.write_bytes(FILES[name]())
    return paths


@pytest.fixture
def rng() -> Iterator[np.random.Generator]:
    """Numbers that are the same in every run."""
    return np.random.default_rng(0)
