"""Where a run of `benchmarks/gpu.sh` finds what it needs and leaves what it makes; its models."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlrt.errors import OptionError
from vlrt.files import file_sha256
from vlrt.hardware import available_cpus

from ..machine import ROOT

DEVICES, SIZES = ("cuda", "cpu"), ("full", "small")


@dataclass(frozen=True)
class Model:
    """A model that is measured.

    Attributes:
        name: as the command line and the records call it.
        family: its `model_type`.
        snapshot: the folder that its settings come from, under the data's.
        changes: what is another in its `config.json`, by section; "" is the top.
        int8: whether it is exported in int8 too.
    """

    name: str
    family: str
    snapshot: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    int8: bool = False


_CLIP, _OWL, _VILT = (
    "clip-vit-base-patch32", "owlvit-base-patch32", "vilt-b32-finetuned-vqa",
)  # fmt: skip
_L14_TEXT = {
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768,
}  # fmt: skip
_L14_VISION = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
# As published: openai/clip-vit-large-patch14 and google/owlvit-base-patch16 differ in these alone.
_L14 = {"": {"projection_dim": 768}, "text_config": _L14_TEXT, "vision_config": _L14_VISION}
_B16 = {"vision_config": {"patch_size": 16}}
FULL = {
    model.name: model
    for model in (
        Model("clip-b32", "clip", _CLIP, int8=True),
        Model("clip-l14", "clip", _CLIP, _L14),
        Model("owlvit-b32", "owlvit", _OWL, int8=True),
        Model("owlvit-b16", "owlvit", _OWL, _B16),
        Model("vilt", "vilt", _VILT, int8=True),
    )
}
# Checkpoints of this repository's tests, in the places of full ones.
SMALL = {
    "clip-b32": Model("clip-b32", "clip", "clip-shapes", int8=True),
    "owlvit-b32": Model("owlvit-b32", "owlvit", "owlvit-shapes"),
    "vilt": Model("vilt", "vilt", "vilt-shapes"),
}


@dataclass(frozen=True)
class Settings:
    """A run's.

    Attributes:
        out: takes the records.
        work: what is made on the way and serves again: packages, checkpoints, bundles, caches.
        device: "cuda", or "cpu" for a rehearsal.
        size: "full", or "small" for a rehearsal with the checkpoints of the tests.
        wheels: a folder of what is to be installed, or None.
        data: a folder of snapshots without weights.
        threads: of each process.
        only: of all models, these alone; empty for all.
        sizes: pictures in a run, for the pieces that measure several; empty for a piece's own.
        seconds: of a soak; None for its own.
        limit_s: after which a piece is ended.
        quick: fewer rows and rounds.
    """

    out: Path
    work: Path
    device: str = "cuda"
    size: str = "full"
    wheels: Path | None = None
    data: Path | None = None
    threads: int = field(default_factory=available_cpus)
    only: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    seconds: float | None = None
    limit_s: float = 570.0
    quick: bool = False

    def __post_init__(self) -> None:
        for name, valid in (("device", DEVICES), ("size", SIZES)):
            if getattr(self, name) not in valid:
                raise OptionError(
                    f"{name.upper()} is {getattr(self, name)!r}; valid: {', '.join(valid)}"
                )
        for name in self.only:
            if name not in self._known:
                raise OptionError(f"there is no model {name!r}; valid: {', '.join(self._known)}")

    @property
    def small(self) -> bool:
        """Whether this is a rehearsal."""
        return self.size == "small"

    @property
    def models(self) -> dict[str, Model]:
        """Those to measure, by name."""
        return {name: m for name, m in self._known.items() if not self.only or name in self.only}

    @property
    def _known(self) -> dict[str, Model]:
        return SMALL if self.small else FULL

    @property
    def best(self) -> str:
        """The precision that is measured most: what `vlrt.load` takes there."""
        return "fp16" if self.device == "cuda" else "fp32"

    def facts(self) -> dict[str, Any]:
        """For a record: what decides what is measured."""
        told = asdict(self)
        for name in ("out", "work", "wheels", "data", "limit_s", "only"):
            del told[name]
        return told | {"sizes": list(self.sizes)}

    def snapshot(self, model: Model) -> Path:
        """A folder of a model's settings without weights, made of the data's.

        Raises:
            OptionError: the data are not there.
        """
        given = None if self.data is None else self.data / model.snapshot
        if given is None or not (given / "config.json").is_file():
            raise OptionError(
                f"DATA is {str(self.data)!r}, and has no {model.snapshot}/config.json; valid: a "
                "folder of the snapshots without weights that README names"
            )
        made = self.work / "snapshots" / model.name
        made.mkdir(parents=True, exist_ok=True)
        for path in given.iterdir():
            shutil.copyfile(path, made / path.name)
        config = json.loads((given / "config.json").read_text())
        for section, changes in model.changes.items():
            (config[section] if section else config).update(changes)
        (made / "config.json").write_text(json.dumps(config))
        return made

    def checkpoint(self, model: Model) -> Path:
        """Where a model's checkpoint is, made or not."""
        if self.small:
            return ROOT / "tests" / "data" / model.snapshot
        return self.work / "checkpoints" / model.name / "checkpoint"

    def bundle(self, model: Model, precision: str = "fp16") -> Path:
        """Where a model's bundle is that has a precision, made or not."""
        ending = "-int8" if precision == "int8" else ""
        return self.work / "bundles" / f"{model.name}{ending}"

    def precisions(self, model: Model) -> tuple[str, ...]:
        """Those that a model is exported in."""
        if self.quick:  # exporting takes longest of all
            return ("fp16",) if self.device == "cuda" else ("fp32", "fp16")
        return ("fp32", "fp16", "int8") if model.int8 else ("fp32", "fp16")

    def pictures(self, number: int, size_wh: tuple[int, int] = (640, 480)) -> list[str]:
        """Paths of drawn JPEGs, kept for the next time; again from the first beyond 64."""
        from ..plan import drawn_pictures

        drawn = drawn_pictures(self.work / "pictures", min(number, 64), size_wh)
        return [str(drawn[at % len(drawn)]) for at in range(number)]


def weights_sha256(checkpoint: Path) -> str:
    """Of what a checkpoint holds.

    Raises:
        OptionError: it is not there.
    """
    file = checkpoint / "model.safetensors"
    if not file.is_file():
        raise OptionError(f"there is no {file}; make it: benchmarks/gpu.sh checkpoints")
    return file_sha256(file)
