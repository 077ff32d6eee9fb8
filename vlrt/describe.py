"""A bundle in words, for `vlrt info`."""

from collections.abc import Iterator, Mapping

import numpy as np

from vlrt import hardware
from vlrt.bundle import FOR_CUDA, PORTABLE, Bundle
from vlrt.errors import VlrtError
from vlrt.files import Settings
from vlrt.kernels import int8_kernels
from vlrt.load import components_of, decide, import_family
from vlrt.session import place

Parity = Mapping[str, Mapping[str, float]]
_FORMS = {FOR_CUDA: "for CUDA", PORTABLE: "portable"}


def describe(bundle: Bundle) -> Iterator[str]:
    """Lines: what it is, how it was proved, each variant, and what `auto` takes here."""
    yield f"bundle      {bundle.name}"
    yield f"family      {bundle.config.need('model_type')}"
    yield f"precisions  {', '.join(bundle.precisions) or 'none that all components share'}"
    for form, what in _FORMS.items():
        if made := bundle.formed(form):
            yield f"{what:<11} {', '.join(made)}"
    if bundle.manifest is None:
        yield "manifest    none: a foreign bundle; its files and its quality are not checked"
    else:
        yield from _proof(bundle.manifest)
        yield from _recipes(bundle)
    for name, value in bundle.values.items():
        yield f"{name:<11} {value:g}"
    try:
        placement = place()
        family = import_family(str(bundle.config["model_type"]))
        components = components_of(family, bundle)
        kernels = int8_kernels()
        yield f"int8 here   {kernels}: {hardware.MEANINGS[kernels]}"
        plan = decide(bundle, components, placement, kernels)
        provider, choice = plan.placement.provider, plan.choice
        yield f"here        {provider}, {choice.precision} ({choice.reason})"
        yield f"threads     {plan.threads}"
        if plan.tuning is not None:
            yield f"tuned       by vlrt bench tune, in {plan.tuning.path}"
        elif bundle.manifest is not None:
            yield "tuned       not on this machine; vlrt bench tune finds what is fastest here"
        if components != family.COMPONENTS:
            yield f"note        {family.FOREIGN_NOTE}"
    except VlrtError as error:  # no engine, no such family, a component missing: told, not fatal
        yield f"here        {error}"
    yield from _variants(bundle)


def lowest_cosine(parity: Parity) -> str:
    """The lowest cosine with the reference over the embeddings among a variant's outputs.

    Args:
        parity: output -> its numbers, as a manifest holds them.

    Returns:
        In words, with six decimals; a dash where there are no embeddings.
    """
    found = [numbers["min_cosine"] for numbers in parity.values() if "min_cosine" in numbers]
    return f"{np.min(found):.6f}" if found else "-"


def largest_error(parity: Parity) -> float:
    """The largest difference from the reference over a variant's outputs, as the graph gives them.

    Args:
        parity: output -> its numbers, as a manifest holds them.
    """
    return float(np.max([numbers["max_abs_error"] for numbers in parity.values()]))


def _proof(manifest: Settings) -> Iterator[str]:
    source, verified = manifest.section("source"), manifest.section("verified")
    origin = source.get("repository") or source.get("directory")
    revision = f" at {source['revision']}" if source.get("revision") else ""
    yield f"task        {manifest.need('task')}"
    yield f"made from   {origin}{revision}, by vlrt {manifest.need('vlrt_version')}"
    yield f"compared to {verified.need('against')}"
    machine = verified.section("machine")
    kernels = machine.get("int8_kernels", "unknown")
    yield f"made on     {machine.need('processor')}, int8 kernels {kernels}"
    quality = manifest.section("quality")
    for precision in quality:
        yield from _quality(precision, quality.section(precision))
    for precision, whys in manifest.section("refused").items():
        yield f"{precision:<11} was refused: {'; '.join(whys)}"


def _quality(precision: str, counted: Settings) -> Iterator[str]:
    if counted.need("agreement") is not None:
        share, of = f"{counted['agreement']:.1%}", f"{counted['compared']} {counted['of']}"
        yield f"{precision:<11} {share} of {of}"
    if counted.get("accuracy") is not None:
        accuracy = counted.section("accuracy")
        ours, theirs = accuracy.need("variant"), accuracy.need("reference")
        yield f"{precision:<11} {accuracy.need('of')}: {ours:.1%}, PyTorch {theirs:.1%}"


def _recipes(bundle: Bundle) -> Iterator[str]:
    """How each precision was made, a line for all components that were made alike."""
    made: dict[str, list[str]] = {}
    for component, by_precision in bundle.variants.items():
        for precision in by_precision:
            line = (
                f"{precision:<11} {_recipe(bundle.stated_of(component, precision, 'recipe') or {})}"
            )
            made.setdefault(line, []).append(component)
    for line, components in made.items():
        apart = len(components) < len(bundle.variants)
        yield line + (f" ({', '.join(components)})" if apart else "")


def _recipe(recipe: Mapping[str, object]) -> str:
    """One recipe in words; older manifests hold only the method and what is left in fp32."""
    kept = recipe.get("layers_kept_fp32")
    count = len(kept) if isinstance(kept, list) else 0
    bits = recipe.get("weight_bits")
    parts = [
        f"{bits}-bit weights" if isinstance(bits, int) and bits <= 8 else "",
        f"{recipe['scales']} scales" if recipe.get("scales") else "",
        f"{count} {'layer' if count == 1 else 'layers'} left in fp32" if count else "",
    ]
    return "; ".join(filter(None, [str(recipe.get("method", "recipe not stated")), *parts]))


def _variants(bundle: Bundle) -> Iterator[str]:
    yield f"{'component':<14} {'precision':<10} {'MB':>8} {'cosine':>9} {'max error':>10} {'ms':>8}"
    for component, by_precision in bundle.variants.items():
        for precision, files in by_precision.items():
            row = f"{component:<14} {precision:<10} "
            if bundle.manifest is None:
                yield row + ", ".join(files)
                continue
            entry = bundle.manifest["components"][component]["variants"][precision]
            size = sum(bundle.manifest["files"][file]["size"] for file in files)
            parity, speed = entry["parity"], entry["speed"]
            yield row + (
                f"{size / 1e6:8.1f} {lowest_cosine(parity):>9} {largest_error(parity):10.1e} "
                f"{speed['median_ms']:8.2f}"
            )
