"""MODEL on the command line: a bundle, and the checkpoint that it was made of, if it is at hand."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlrt.bundle import MANIFEST, Bundle, open_bundle
from vlrt.errors import BundleNotFoundError, OptionError
from vlrt.files import file_sha256
from vlrt.hub import resolve as resolve_on_hub
from vlrt.load import components_of, import_family

_ALL = "variants to measure (default: all of a bundle's, or fp32, fp16 and int8 of a checkpoint)"


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        name: for titles and file names.
        family: its `model_type`.
        task: as the hub names it.
        bundle: its directory.
        checkpoint: the same in PyTorch, or None where it is not at hand.
        seeded: weights from a seed: speed and memory are real, quality is chance.
        precisions: those to measure, of the bundle's, in its order.
        notes: what happened on the way here that a reader should know.
    """

    name: str
    family: str
    task: str
    bundle: Path
    checkpoint: Path | None
    seeded: bool
    precisions: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """For a result: what it is, the sizes, and the sha256 of the bundle's files."""
        bundle = open_bundle(self.bundle)
        weights = [] if self.checkpoint is None else _weight_files(self.checkpoint)
        return {
            "name": self.name,
            "family": self.family,
            "task": self.task,
            "seeded": self.seeded,
            "precisions": list(self.precisions),
            "files": _digests(bundle),
            "variant_bytes": {p: _variant_bytes(bundle, p) for p in self.precisions},
            "checkpoint_bytes": sum(path.stat().st_size for path in weights) or None,
        }


def add_options(parser: argparse.ArgumentParser, *, precision: str = _ALL) -> None:
    """MODEL, and where what belongs to it is.

    Args:
        parser: of a verb.
        precision: help of --precision, where a verb reads it otherwise.
    """
    parser.add_argument(
        "model", help="a bundle, a checkpoint to make one of, or owner/name on the hub"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR",
        help="what the bundle was made of, for PyTorch and others (default: as the bundle says, if "
        "that is on the hub)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", nargs="+", metavar="P", help=precision
    )  # fmt: skip
    parser.add_argument(
        "--seeded", action="store_true",
        help="MODEL is a snapshot without weights; take some from a seed, which measures speed and "
        "memory, and no quality",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", default=Path(tempfile.gettempdir(), "vlrt-benchmarks"),
        help="where to keep what is made of MODEL (default: %(default)s)",
    )  # fmt: skip


def resolve(options: argparse.Namespace) -> Subject:
    """What the command line names; a checkpoint is exported first, unless that was done before.

    Raises:
        OptionError: the options contradict each other, or the bundle lacks a precision.
        BundleError, ExportError: MODEL is neither a bundle nor a checkpoint, or a broken one.
    """
    if options.seeded:
        return _of_seeded(options)
    root = Path(options.model)
    if root.is_dir():
        is_bundle = (root / MANIFEST).is_file() or not _weight_files(root)
    else:
        is_bundle = _hub_has_bundle(options.model)
    if not is_bundle:
        if options.checkpoint is not None:
            raise OptionError(f"{options.model} is a checkpoint itself; leave --checkpoint out")
        return _of_checkpoint(options, options.model, _name(options.model))
    return _of_bundle(options)


def _of_bundle(options: argparse.Namespace) -> Subject:
    bundle = open_bundle(Path(options.model))
    found = _subject(options, bundle, _name(options.model), _checkpoint_of(bundle, options))
    for precision in found.precisions:  # of a repository on the hub only the settings are here yet
        bundle.fetch(_components(bundle), precision)
    return found


def _checkpoint_of(bundle: Bundle, options: argparse.Namespace) -> Path | None:
    """What a bundle was made of: as given, or from the hub."""
    made_of = bundle.stated("source", "weights_sha256")
    repository, given = bundle.stated("source", "repository"), options.checkpoint
    if given is None and repository is None:
        return None
    from vlrt_export.checkpoint import Checkpoint, open_checkpoint

    if given is None:
        revision = bundle.stated("source", "revision")
        return open_checkpoint(str(repository), str(revision) if revision else None).root
    if not _weight_files(given):
        raise OptionError(f"--checkpoint {given} has no weights; valid: a checkpoint's folder")
    if made_of is not None and Checkpoint(str(given), given).weights_sha256 != made_of:
        raise OptionError(f"{bundle.name} was not made of --checkpoint {given}: other weights")
    return Path(given)


def _of_checkpoint(
    options: argparse.Namespace, source: str, name: str, *, seeded: bool = False
) -> Subject:
    from vlrt_export.checkpoint import open_checkpoint
    from vlrt_export.pipeline import export
    from vlrt_export.precision import DEFAULT_PRECISIONS
    from vlrt_export.samples import DRAWN

    checkpoint = open_checkpoint(source)
    precisions = options.precision or DEFAULT_PRECISIONS
    out = options.cache / _cache_name(name, checkpoint.weights_sha256, precisions)
    if not (out / MANIFEST).is_file():
        print(f"exporting {name} to {out}", file=sys.stderr)
        export(
            source,
            out,
            precisions=precisions,
            calibrate=[DRAWN],
            say=lambda line: print(line, file=sys.stderr),
        )
    bundle = open_bundle(out)
    refused = bundle.stated("refused")
    notes = [
        f"{precision} was refused by its export: {'; '.join(whys)}"
        for precision, whys in (refused if isinstance(refused, dict) else {}).items()
    ]
    if options.precision and refused:
        options.precision = [p for p in options.precision if p in bundle.precisions]
    return _subject(options, bundle, name, checkpoint.root, seeded=seeded, notes=notes)


def _of_seeded(options: argparse.Namespace) -> Subject:
    snapshot = Path(options.model)
    if not (snapshot / "config.json").is_file():
        raise OptionError(f"--seeded needs a snapshot's folder; {options.model} has no config.json")
    if _weight_files(snapshot):
        raise OptionError(f"{snapshot} has weights; leave --seeded out to measure it as it is")
    from .checkpoints import seeded_checkpoint

    name = _name(options.model)
    checkpoint = seeded_checkpoint(snapshot, options.cache / name)
    return _of_checkpoint(options, str(checkpoint), name, seeded=True)


def _subject(
    options: argparse.Namespace,
    bundle: Bundle,
    name: str,
    checkpoint: Path | None,
    *,
    seeded: bool = False,
    notes: Sequence[str] = (),
) -> Subject:
    family = str(bundle.config.need("model_type"))
    held = bundle.held(_components(bundle))
    unknown = sorted(set(options.precision or ()) - set(held))
    if unknown:
        raise OptionError(f"{bundle.name} has no precision {unknown}; it has: {', '.join(held)}")
    return Subject(
        name,
        family,
        str(import_family(family).task(bundle.config)),
        bundle.root,
        checkpoint,
        seeded,
        tuple(p for p in held if p in (options.precision or held)),
        tuple(notes),
    )


def _components(bundle: Bundle) -> tuple[str, ...]:
    return components_of(import_family(str(bundle.config.need("model_type"))), bundle)


def _cache_name(name: str, weights_sha256: str, precisions: Sequence[str]) -> str:
    """Another one for other weights, other precisions, and another exporter."""
    return f"{name}-{weights_sha256[:8]}-{exporter_sha256()[:8]}-{'-'.join(precisions)}"


def exporter_sha256() -> str:
    """Of the sources that make bundles."""
    import vlrt_export

    return file_sha256(*sorted(Path(str(vlrt_export.__file__)).parent.glob("*.py")))


def _hub_has_bundle(name: str) -> bool:
    """Whether a repository on the hub is a bundle; one that also has weights is a checkpoint.

    Raises:
        BundleNotFoundError: there is no such repository, and no such directory.
    """
    _, _, names = resolve_on_hub(name, None, offline=False)
    weights = any(Path(file).suffix in (".safetensors", ".bin") for file in names)
    return MANIFEST in names or not weights


def _weight_files(root: Path) -> list[Path]:
    """What a checkpoint keeps its weights in; safetensors alone where there are both."""
    if not root.is_dir():
        raise BundleNotFoundError(f"there is no directory {root}")
    return sorted(root.glob("*.safetensors")) or sorted(root.glob("pytorch_model*.bin"))


def _name(model: str) -> str:
    """The last part of a path or a repository's name."""
    return Path(model).resolve().name if Path(model).is_dir() else model.rpartition("/")[2]


def _digests(bundle: Bundle) -> dict[str, str]:
    """sha256 of a bundle's files: the manifest's, which are checked at each load, or of the files.

    What a foreign repository holds and was not downloaded is left out.
    """
    if bundle.manifest is not None:
        return {name: entry["sha256"] for name, entry in bundle.manifest["files"].items()}
    files = sorted(path for path in bundle.root.rglob("*") if path.is_file())
    return {path.relative_to(bundle.root).as_posix(): file_sha256(path) for path in files}


def _variant_bytes(bundle: Bundle, precision: str) -> int:
    """The size of a variant's files: the manifest's, as not all need be here, or of the files."""
    names = {
        name for part in _components(bundle) for name in bundle.variants[part].get(precision, ())
    }
    if bundle.manifest is not None:
        files = bundle.manifest.section("files")
        return sum(int(files.section(name).need("size")) for name in names)
    return sum((bundle.root / name).stat().st_size for name in names)
