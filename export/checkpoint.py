"""A Hugging Face checkpoint, local or from the hub, read without running any of it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import ExportError, ExtraMissingError
from vlrt.files import file_sha256

_WANTED = ["*.json", "*.txt", "*.safetensors"]
_OLDER_WEIGHTS = ["pytorch_model*.bin"]
_IMAGE_SETTINGS = "preprocessor_config.json"


class _Stated(dict[str, Any]):
    """A configuration of which only what it states is known."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(
            (key, _Stated(value) if isinstance(value, dict) else value)
            for key, value in values.items()
        )

    def __missing__(self, key: str) -> Any:
        raise ExportError(
            f"config.json has no {key!r}; transformers knows what that means, and is not "
            'installed: pip install "vlrt[export]"'
        )


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        name: what the caller asked for.
        root: the directory that holds it.
        revision: its commit on the hub, or None for a local directory.
    """

    name: str
    root: Path
    revision: str | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`, with what it leaves unsaid filled in by transformers where installed."""
        raw = self.json("config.json")
        if find_spec("transformers") is None:
            return _Stated(raw)
        from transformers import AutoConfig

        return dict(AutoConfig.from_pretrained(self.root).to_dict())

    @property
    def model_type(self) -> str:
        """The `model_type` of `config.json`."""
        model_type = self.json("config.json").get("model_type")
        if not isinstance(model_type, str):
            raise ExportError(f"{self.root}/config.json has no model_type")
        return model_type

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the checkpoint.

        Raises:
            ExportError: it is missing or is not a JSON object.
        """
        try:
            content = json.loads((self.root / name).read_bytes())
        except FileNotFoundError:
            raise ExportError(f"{self.name} has no {name}") from None
        except ValueError as error:
            raise ExportError(f"{self.root / name} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ExportError(f"{self.root / name} is not a JSON object")
        return content

    @cached_property
    def weight_files(self) -> list[Path]:
        """The files that hold the weights: safetensors if there are any, else PyTorch's.

        Raises:
            ExportError: there are none, or a shard is missing.
        """
        for name in ("model.safetensors", "pytorch_model.bin"):
            if (self.root / name).is_file():
                return [self.root / name]
            if (self.root / f"{name}.index.json").is_file():
                weight_map = self.json(f"{name}.index.json").get("weight_map")
                if not isinstance(weight_map, dict) or not weight_map:
                    raise ExportError(f"{self.name}: {name}.index.json has no weight_map")
                shards = sorted({str(shard) for shard in weight_map.values()})
                for shard in shards:
                    if Path(shard).name != shard or not (self.root / shard).is_file():
                        raise ExportError(f"{self.name}: {name}.index.json names {shard!r}, "
                                          "which is not there")  # fmt: skip
                return [self.root / shard for shard in shards]
        raise ExportError(
            f"{self.name} has no weights: neither model.safetensors nor pytorch_model.bin"
        )

    @cached_property
    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Every tensor by name, as NumPy arrays (bfloat16 widened to float32)."""
        tensors: dict[str, NDArray[Any]] = {}
        for path in self.weight_files:
            read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
            tensors |= read(path)
        return tensors

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor, in fp32.

        Raises:
            ExportError: it is missing, or holds NaN or infinity.
        """
        if name not in self.tensors:
            raise ExportError(f"the checkpoint has no tensor {name!r}, which this model type needs")
        array = np.asarray(self.tensors[name]).astype(np.float32)
        if name not in self._finite:
            wrong = array.size - int(np.isfinite(array).sum())
            if wrong:
                raise ExportError(
                    f"the checkpoint's tensor {name!r} holds NaN or infinity: {wrong} of its "
                    f"{array.size} numbers"
                )
            self._finite.add(name)
        return array

    @cached_property
    def _finite(self) -> set[str]:
        """The tensors that were looked through: each is read for every graph that is built."""
        return set()

    @cached_property
    def weights_sha256(self) -> str:
        """One digest over all weight files: the checkpoint's fingerprint."""
        return file_sha256(*self.weight_files)

    def image_settings(self) -> dict[str, Any]:
        """The image processor's settings, where transformers 5 or an older one puts them.

        Raises:
            ExportError: there are none.
        """
        if (self.root / _IMAGE_SETTINGS).is_file():
            return self.json(_IMAGE_SETTINGS)
        settings = self.json("processor_config.json").get("image_processor")
        if not isinstance(settings, dict):
            raise ExportError(f"{self.name} has no image processor settings")
        return settings

    def write_settings(self, target: Path) -> None:
        """Write the bundle's settings files: config, preprocessor and tokenizer.

        They are copied as they stand. What a checkpoint keeps elsewhere (transformers 5 puts image
        settings into processor_config.json; old ones have vocab and merges but no tokenizer.json)
        is converted.

        Raises:
            ExportError: the checkpoint has no image processor settings or no tokenizer.
        """
        shutil.copyfile(self.root / "config.json", target / "config.json")
        if (self.root / _IMAGE_SETTINGS).is_file():
            shutil.copyfile(self.root / _IMAGE_SETTINGS, target / _IMAGE_SETTINGS)
        else:
            content = json.dumps(self.image_settings(), indent=2)
            (target / _IMAGE_SETTINGS).write_text(content)
        if all((self.root / f"tokenizer{part}.json").is_file() for part in ("", "_config")):
            for part in ("", "_config"):
                shutil.copyfile(
                    self.root / f"tokenizer{part}.json", target / f"tokenizer{part}.json"
                )
            return
        if find_spec("transformers") is None:
            raise ExtraMissingError("a checkpoint without tokenizer.json", "export", "transformers")
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(self.root).save_pretrained(target)


def open_checkpoint(source: str, revision: str | None = None) -> Checkpoint:
    """A local directory, or a repository on the hub, which is downloaded to the hub's cache.

    Raises:
        ExportError: there is neither.
    """
    if Path(source).is_dir():
        if revision is not None:
            raise ExportError(f"{source} is a directory; --revision is for the hub only")
        return Checkpoint(source, Path(source))
    import huggingface_hub

    def fetch(patterns: list[str]) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                source, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]
            )
        )

    try:
        root = fetch(_WANTED)
        # Many repositories hold the weights in both forms; one is enough.
        if not any(root.glob("*.safetensors")):
            root = fetch(_OLDER_WEIGHTS)
    except Exception as error:  # its transport's own, of other types in each of its versions
        raise ExportError(
            f"{source!r} is neither a directory here nor a repository to be had: {error}"
        ) from error
    return Checkpoint(source, root, revision=root.name)


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError

    try:
        return _read_open_safetensors(path)
    except (SafetensorError, OSError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error


def _read_open_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    import ml_dtypes  # noqa: F401  comes with onnx; gives NumPy the bfloat16 that safetensors needs
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {name: _plain(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _read_torch(path: Path) -> dict[str, NDArray[Any]]:
    if find_spec("torch") is None:
        raise ExtraMissingError(f"reading {path.name}", "export", "torch")
    import torch

    try:
        # weights_only: a checkpoint is data, and a pickle in it is never run.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ExportError(f"{path} cannot be read safely: {error}") from error
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor)
    }
