"""A bundle on disk or on the hub, as one frozen description; the only place that knows its format.

A bundle is a directory in the layout of the hub's ONNX repositories:

```
config.json  preprocessor_config.json  tokenizer.json  tokenizer_config.json
onnx/<component><suffix>.onnx (+ .onnx_data)
vlrt.json        the manifest; a foreign repository has none and still loads
```
"""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vlrt.errors import BundleError, BundleNotFoundError, IntegrityError, PrecisionError
from vlrt.files import Settings, file_sha256, inside, read_settings

FORMAT_VERSION = 1
MANIFEST = "vlrt.json"
SETTINGS_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
# vlrt's own file suffixes, and after them the field's (transformers.js `utils/dtypes.js`). Longest
# first, so that `_q4f16` is not read as something else that ends alike.
SUFFIXES = {
    "fp32": "",
    "fp16": "_fp16",
    "int8": "_int8",
    "int8w": "_int8w",
    "int4w": "_int4w",
    "uint8": "_uint8",
    "quantized": "_quantized",
    "q4f16": "_q4f16",
    "q4": "_q4",
    "q2": "_q2",
    "q1": "_q1",
    "bnb4": "_bnb4",
}

# Other forms of a graph, with the same weights, for providers that are not ONNX Runtime's own for
# the CPU: of plain operators alone, for those that know no others; and of the operators that are
# fast on CUDA, which takes pictures as bytes. Their names are keys of a variant in the manifest,
# and stand behind the precision in a file's name.
PORTABLE, FOR_CUDA = "portable", "cuda"
FORMS = (PORTABLE, FOR_CUDA)
# The product of pictures and labels, which is no component: a GPU may take it from NumPy.
SIMILARITY = "onnx/similarity.onnx"


@dataclass(frozen=True)
class Origin:
    """Where on the hub a bundle comes from; files are fetched from there when they are needed."""

    repository: str
    revision: str
    offline: bool


@dataclass(frozen=True, eq=False)
class Bundle:
    """One bundle, described.

    Attributes:
        name: what the caller asked for: a path, or a repository on the hub.
        root: the directory that holds (or, from the hub, will hold) its files.
        config, preprocessor, tokenizer: the settings files.
        variants: component -> precision -> its files, the graph first, then its external data.
        forms: form -> the same, of graphs in that form, where the manifest lists such.
        manifest: the content of `vlrt.json`, or None for a foreign repository.
        values: numbers that no graph holds, such as `logit_scale`.
        origin: the place on the hub, or None for a local directory.
    """

    name: str
    root: Path
    config: Settings
    preprocessor: Settings
    tokenizer: Settings
    variants: Mapping[str, Mapping[str, tuple[str, ...]]]
    manifest: Settings | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    origin: Origin | None = None
    forms: Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]] = field(default_factory=dict)

    @property
    def precisions(self) -> list[str]:
        """The precisions that every component has, in the order of `SUFFIXES`."""
        return self.held(tuple(self.variants)) if self.variants else []

    def held(self, components: Sequence[str]) -> list[str]:
        """The precisions that all of some components have, in the order of `SUFFIXES`."""
        return [p for p in SUFFIXES if all(p in self.variants[name] for name in components)]

    def formed(self, form: str, components: Sequence[str] | None = None) -> list[str]:
        """The precisions that some components, or all, have in one of `FORMS`."""
        there = self.forms.get(form, {})
        names = tuple(self.variants) if components is None else components
        return [p for p in SUFFIXES if names and all(p in there.get(name, ()) for name in names)]

    @property
    def fingerprint(self) -> str:
        """Which weights these are: the same for every precision of one checkpoint."""
        if self.manifest is None:
            return self.name if self.origin is None else f"{self.name}@{self.origin.revision}"
        return str(self.manifest.section("source").need("weights_sha256"))

    def stated(self, *keys: str) -> Any:
        """What the manifest states under nested keys; None where it, being older, does not."""
        value: Any = self.manifest
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def stated_of(self, component: str, precision: str, *keys: str) -> Any:
        """What the manifest states of one variant under nested keys; None where it does not."""
        return self.stated("components", component, "variants", precision, *keys)

    def files(self, component: str, precision: str) -> tuple[str, ...]:
        """The files of one variant of one component, the graph first.

        Raises:
            BundleError: there is no such component.
            PrecisionError: the component is not there in this precision.
        """
        if component not in self.variants:
            there = ", ".join(sorted(self.variants)) or "none"
            raise BundleError(
                f"{self.name} has no component {component!r} (onnx/{component}.onnx); "
                f"it has: {there}"
            )
        if precision not in self.variants[component]:
            there = ", ".join(self.variants[component])
            raise PrecisionError(
                f"{self.name} has no {precision} {component}; precisions there: {there}"
            )
        return self.variants[component][precision]

    def fetch(
        self, components: tuple[str, ...], precision: str, *, form: str = ""
    ) -> dict[str, Path]:
        """Make the files of one precision local and check them against the manifest.

        Args:
            components: which.
            precision: which of those that they have.
            form: one of `FORMS`, which all of them must have; or none of them.

        Returns:
            component -> path of its graph.

        Raises:
            BundleNotFoundError: a file is missing.
            IntegrityError: a file is not the one that the manifest describes.
        """
        wanted = {
            component: self.forms[form][component][precision]
            if form
            else self.files(component, precision)
            for component in components
        }
        if self.origin is not None:
            from vlrt import hub

            hub.download(self.origin, [name for names in wanted.values() for name in names])
        for names in wanted.values():
            for name in names:
                self.verify(name)
        return {component: self.root / names[0] for component, names in wanted.items()}

    def fetch_similarity(self) -> Path:
        """Make the graph of similarities local and check it.

        Raises:
            BundleError: there is none, or it is not the one that the manifest describes.
        """
        if self.manifest is None or "similarity" not in self.manifest:
            raise BundleError(
                f"{self.name} has no graph of similarities ({SIMILARITY}): its family has none, or "
                "it is foreign or of an older vlrt; export it again, or load it with "
                "similarity='numpy'"
            )
        (name, *more) = _file_names(self.manifest.section("similarity"))
        if self.origin is not None:
            from vlrt import hub

            hub.download(self.origin, [name, *more])
        self.verify(inside(self.root, name).relative_to(self.root).as_posix())
        return self.root / name

    def verify(self, name: str) -> None:
        """Check one file against the manifest, if there is one.

        Raises:
            BundleNotFoundError: it is missing.
            IntegrityError: its size or its sha256 differs.
        """
        path = inside(self.root, name)
        if not path.is_file():
            raise BundleNotFoundError(f"{self.name} lacks the file {name}")
        if self.manifest is None:
            return
        recorded = self.manifest.section("files").section(name)
        size, sha256 = recorded.need("size"), recorded.need("sha256")
        if path.stat().st_size != size:
            raise IntegrityError(
                f"{self.name}: {name} has {path.stat().st_size} bytes, the manifest says {size}; "
                "it is truncated or was replaced"
            )
        if file_sha256(path) != sha256:
            raise IntegrityError(
                f"{self.name}: {name} is not the file that the manifest describes (sha256 differs)"
            )


def open_bundle(
    source: str | Path, *, revision: str | None = None, offline: bool = False
) -> Bundle:
    """Describe the bundle in a directory, or in a repository on the hub.

    Of a hub repository only the settings files are downloaded here; graphs follow in `fetch`.

    Args:
        source: a directory, or `owner/name` on the hub.
        revision: branch, tag or commit on the hub.
        offline: use only what the hub's cache already holds.

    Raises:
        BundleNotFoundError: there is neither such a directory nor such a repository.
        BundleError: the bundle cannot be understood; the message names the file and the key.
    """
    root, origin = Path(source), None
    listing = None
    if not root.is_dir():
        from vlrt import hub

        root, origin, listing = hub.resolve(str(source), revision, offline=offline)
    elif revision is not None:
        raise BundleError(f"{source} is a directory; revision={revision!r} is for the hub only")
    names = listing if listing is not None else _list_files(root)
    manifest = _read_manifest(root) if MANIFEST in names else None
    if manifest is not None:
        variants = _listed_variants(manifest)
        forms = {form: _listed_variants(manifest, form) for form in FORMS}
        values = _numbers(manifest.section("values"))
    else:
        variants, forms, values = _found_variants(names), {}, {}
    for by_component in (variants, *forms.values()):
        for by_precision in by_component.values():
            for files in by_precision.values():
                for name in files:
                    inside(root, name)
    if not variants:
        raise BundleNotFoundError(
            f"{source} holds no ONNX graphs (onnx/*.onnx); if it is a PyTorch checkpoint, make a "
            f"bundle of it first: vlrt export {source} -o DIRECTORY"
        )
    bundle = Bundle(
        name=str(source),
        root=root,
        config=read_settings(root, "config.json"),
        preprocessor=read_settings(root, "preprocessor_config.json"),
        tokenizer=read_settings(root, "tokenizer_config.json"),
        variants=variants,
        manifest=manifest,
        values=values,
        origin=origin,
        forms=forms,
    )
    for name in SETTINGS_FILES:
        bundle.verify(name)
    return bundle


def split_name(stem: str) -> tuple[str, str]:
    """A graph's file stem to (component, precision): `text_model_fp16` is text_model in fp16."""
    for precision, suffix in SUFFIXES.items():
        if suffix and stem.endswith(suffix):
            return stem[: -len(suffix)], precision
    return stem, "fp32"


def graph_file(component: str, precision: str, form: str = "") -> str:
    """The file name of a component's graph in a precision, or of one of its `FORMS`."""
    return f"onnx/{component}{SUFFIXES[precision]}{form and f'_{form}'}.onnx"


def write_manifest(root: Path, content: Mapping[str, Any]) -> None:
    """Write `vlrt.json`: `content`, and size and sha256 of every file that it names or implies.

    Args:
        root: the bundle's directory, its other files already written.
        content: all keys but `format_version` and `files`.
    """
    names = [*SETTINGS_FILES]
    for component in content["components"].values():
        for variant in component["variants"].values():
            names += variant["files"]
            names += [name for form in FORMS for name in variant.get(form, {}).get("files", [])]
    names += content.get("similarity", {}).get("files", [])
    files = {
        name: {"size": (root / name).stat().st_size, "sha256": file_sha256(root / name)}
        for name in dict.fromkeys(names)
    }
    manifest = {"format_version": FORMAT_VERSION, **content, "files": files}
    (root / MANIFEST).write_text(
        json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )


def _list_files(root: Path) -> list[str]:
    return [
        path.relative_to(root).as_posix()
        for path in sorted([*root.glob("*"), *root.glob("onnx/*")])
        if path.is_file()
    ]


def _read_manifest(root: Path) -> Settings:
    manifest = read_settings(root, MANIFEST)
    version = manifest.need("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{manifest.file} has format_version {version!r}; this vlrt reads {FORMAT_VERSION}"
        )
    return manifest


def _listed_variants(manifest: Settings, form: str = "") -> dict[str, dict[str, tuple[str, ...]]]:
    """Component -> precision -> files, of the graphs themselves or of those in a form."""
    components = manifest.section("components")
    variants: dict[str, dict[str, tuple[str, ...]]] = {}
    for component in components:
        listed = components.section(component).section("variants")
        entries = {precision: listed.section(precision) for precision in listed}
        if form:
            entries = {p: e.section(form) for p, e in entries.items() if form in e}
        variants[component] = {p: _file_names(entry) for p, entry in entries.items()}
    return variants


def _file_names(variant: Settings) -> tuple[str, ...]:
    names = variant.need("files")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise BundleError(f"{variant.file}: 'files' is {names!r:.60}, not a list of file names")
    return tuple(names)


def _numbers(settings: Settings) -> dict[str, float]:
    for key, value in settings.items():
        if not isinstance(value, int | float):
            raise BundleError(f"{settings.file}: {key!r} is {value!r:.60}, not a number")
    return {key: float(value) for key, value in settings.items()}


def _found_variants(names: list[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    variants: dict[str, dict[str, tuple[str, ...]]] = {}
    for name in fnmatch.filter(names, "onnx/*.onnx"):
        stem = PurePosixPath(name).stem
        if name == SIMILARITY or stem.endswith(tuple(f"_{form}" for form in FORMS)):
            continue  # of no use without the manifest, which says what it belongs to
        component, precision = split_name(stem)
        data = fnmatch.filter(names, f"{name}_data*")
        variants.setdefault(component, {})[precision] = (name, *data)
    return variants
