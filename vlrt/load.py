"""From a bundle to a model."""

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vlrt import families, tuned
from vlrt.bundle import Bundle, open_bundle
from vlrt.checks import checked_count
from vlrt.choice import Choice, choose_precision, rows_apart, runs_on_cuda
from vlrt.errors import OptionError, PrecisionError, UnknownFamilyError
from vlrt.files import writing
from vlrt.hardware import available_cpus
from vlrt.image import DECODE
from vlrt.kernels import int8_kernels
from vlrt.session import (
    Placement,
    Provider,
    Runner,
    Session,
    Wishes,
    engine,
    place,
    place_on,
)
from vlrt.similarity import SIMILARITIES, SIMILARITY_RUNNER


class Plan(NamedTuple):
    """How to load a bundle.

    Attributes:
        placement: where.
        choice: the precision.
        threads: inside an operator.
        tuning: what `vlrt bench tune` left, if it was asked, whether it holds here or not.
    """

    placement: Placement
    choice: Choice
    threads: int
    tuning: tuned.Tuning | None = None


def load(
    source: str | os.PathLike[str],
    *,
    precision: str = "auto",
    device: str = "auto",
    providers: Sequence[Provider] | None = None,
    revision: str | None = None,
    offline: bool = False,
    threads: int | None = None,
    spinning: bool = True,
    decode: str = "exact",
    values: dict[str, float] | None = None,
    memory_limit: int | None = None,
    cuda_graph: bool = False,
    engine_cache: str | os.PathLike[str] | None = None,
    similarity: str = "numpy",
    wrap: Callable[[str, Session], Runner] | None = None,
) -> Any:
    """Load a bundle.

    Args:
        source: a directory, or `owner/name` on the Hugging Face hub, of which only the files of
            the chosen precision are downloaded.
        precision: "fp32", "fp16", "int8", any other that the bundle holds, or "auto": the fastest,
            by what `vlrt bench tune` found on this machine; where it was not run, by the manifest's
            times and this machine's kernels (`model.info` says which and why).
        device: "cpu", "cuda", "cuda:1", "tensorrt", "tensorrt:1", or "auto": CUDA if this ONNX
            Runtime is built for it and the bundle holds a precision for it, unless tuning found
            another faster. On a GPU that is named, all that is work in a graph must run, else it
            is an error; with "auto", `info` says what the CPU does beside it.
        providers: ONNX Runtime provider names instead of a device, each alone or as a pair with
            a dictionary of its options; those behind the first may take what it has no kernels for.
            If the first is not the CPU's or CUDA's, a bundle of vlrt's gives it graphs of plain
            operators, which exports make in fp32 and fp16 alone.
        revision: branch, tag or commit, on the hub.
        offline: use only what the hub's cache already holds.
        threads: threads inside an operator; by default as many as tuning found best, if the
            precision is "auto" too, else all CPUs that this process may use.
        spinning: let threads that wait within a run spin: faster single requests, at a
            neighbour's cost. Between runs none spins.
        decode: "exact", or "fast": JPEGs much larger than the model needs are decoded at 1/2, 1/4
            or 1/8 of their size. Faster, and no longer bit-exact.
        values: numbers that no graph holds, for foreign bundles that do not state them, such as
            `{"logit_scale": 100.0}`. They win over those of the bundle.
        memory_limit: on CUDA, what each graph may take of the GPU's memory, in MiB: its weights and
            what it computes. Without, as much as its largest run needs.
        cuda_graph: on CUDA, record the first run of each shape and replay it: the lowest latency,
            for buffers of its own for each shape, up to 64 of them.
        engine_cache: for TensorRT, the folder that its engines are kept in; made if there is none.
        similarity: "numpy", or "device" to compare pictures with labels on the GPU too, which pays
            for thousands of labels.
        wrap: given a component's name and its session, returns what the model runs instead, such as
            one that runs the requests of several threads together (`vlrt.server`).

    Returns:
        The `Model` of the family that `config.json` names, such as `vlrt.families.clip.Model`.

    Raises:
        BundleError: the bundle is missing, broken or not understood (see `vlrt.errors`).
        PrecisionError: the bundle does not hold the precision, or not for this provider.
        ProviderError: the device is not there, does not start or refuses its options, or does not
            run a graph as a whole; or ONNX Runtime is not installed.
        OptionError: an argument is outside its valid choices, or the file that tuning left is
            broken.
    """
    if decode not in DECODE:
        raise OptionError(f"decode is {decode!r}; valid: {', '.join(DECODE)}")
    if similarity not in SIMILARITIES:
        raise OptionError(f"similarity is {similarity!r}; valid: {', '.join(SIMILARITIES)}")
    if threads is not None:
        checked_count("threads", threads)
    cache = None if engine_cache is None else os.fspath(engine_cache)
    placement = place(device, providers, Wishes(memory_limit, cuda_graph, cache))
    if cache is not None:
        with writing(Path(cache)):
            Path(cache).mkdir(parents=True, exist_ok=True)
    bundle = open_bundle(Path(source), revision=revision, offline=offline)
    family = import_family(str(bundle.config.need("model_type")))
    components = components_of(family, bundle)
    kernels = int8_kernels()
    plan = decide(bundle, components, placement, kernels, precision=precision, threads=threads)
    choice = plan.choice
    placement = plan.placement.for_precision(choice.precision)
    paths = bundle.fetch(components, choice.precision, form=choice.form)
    if similarity == "device":
        if not placement.uses_cuda or wrap is not None:
            raise OptionError(
                "similarity='device' is for graphs on a GPU that nothing is wrapped around; these "
                f"run on {placement.provider}{'' if wrap is None else ', wrapped'}"
            )
        paths[SIMILARITY_RUNNER] = bundle.fetch_similarity()
    opened = {
        component: Session(
            path,
            placement,
            threads=plan.threads,
            spinning=spinning,
            exact_products=choice.exact_products,
            advice=_advice(bundle, components, choice.precision),
        )
        for component, path in paths.items()
    }
    info = {
        "family": bundle.config["model_type"],
        "task": family.task(bundle.config),
        "bundle": bundle.name,
        "revision": bundle.origin.revision if bundle.origin else None,
        "precision": choice.precision,
        "precision_reason": choice.reason,
        "int8_kernels": kernels,
        "exact_products": choice.exact_products,
        "rows_apart": rows_apart(bundle, components, choice.precision),
        "form": choice.form,
        "provider": placement.provider,
        "provider_options": dict(placement.options),
        "provider_reason": placement.reason + _beside(opened),
        "nodes": {component: dict(session.nodes.on) for component, session in opened.items()},
        "pixels": _pixels(opened.values()),
        "padded": placement.uses_cuda,
        "similarity": similarity,
        "threads": plan.threads,
        "spinning": spinning,
        "decode": decode,
        "components": list(components),
    }
    if components != family.COMPONENTS:
        info["note"] = family.FOREIGN_NOTE
    sessions: dict[str, Runner] = {**opened}
    if wrap is not None:
        sessions = {component: wrap(component, session) for component, session in opened.items()}
    return family.Model(bundle, sessions, info=info, values={**bundle.values, **(values or {})})


def decide(
    bundle: Bundle,
    components: Sequence[str],
    placement: Placement,
    kernels: str,
    *,
    precision: str = "auto",
    threads: int | None = None,
) -> Plan:
    """Decide how to load a bundle: as asked, as it was tuned, or as is likely to be best.

    Args:
        bundle: the bundle.
        components: those that the model needs.
        placement: as `place` gives it for what the caller asks.
        kernels: this machine's int8 kernels, a key of `hardware.MEANINGS`.
        precision, threads: as `load` takes them.

    Raises:
        PrecisionError: the bundle does not hold the precision, or not for this provider.
        OptionError: the file that tuning left is broken.
    """
    if (
        not placement.asked_for
        and placement.kind == "cuda"
        and not runs_on_cuda(bundle, components)
    ):
        why = "auto: CUDA is there, but has no kernels for what the bundle holds"
        placement = replace(place("cpu"), reason=why, asked_for=False)
    tuning = tuned.find(bundle) if precision == "auto" else None
    misfit = "" if tuning is None else _misfit(tuning, placement, kernels)
    if tuning is None or misfit:
        choice = choose_precision(bundle, components, precision, placement.kind, kernels)
        if tuning is not None:
            reason = f"{choice.reason}; not as tuned on {tuning.date}: {misfit}"
            choice = replace(choice, reason=reason)
        return Plan(placement, choice, threads or available_cpus(), tuning)
    chosen, reason = tuning.chosen, f"auto: {tuning}"
    if placement.provider != chosen.provider:
        placement = replace(place_on(chosen.provider), reason=reason)
    if threads not in (None, chosen.threads):
        reason += f"; threads={threads} was given"
    try:
        choice = choose_precision(
            bundle, components, chosen.precision, placement.kind, kernels, reason=reason
        )
    except PrecisionError as error:
        raise tuned.broken(tuning.path, bundle, str(error)) from error
    return Plan(placement, choice, threads or chosen.threads, tuning)


def _beside(sessions: Mapping[str, Session]) -> str:
    """What the CPU does beside a GPU that was not asked for, in words; empty if nothing."""
    told = [f"{name}: {one.nodes.told()}" for name, one in sessions.items() if one.nodes.beside]
    return f"; nodes on the CPU, for want of kernels: {'; '.join(told)}" if told else ""


def _pixels(sessions: Iterable[Session]) -> str:
    """What the graphs take pictures as: "uint8", or "float32" where none takes any."""
    taken = [
        session.inputs["pixel_values"] for session in sessions if "pixel_values" in session.inputs
    ]
    return str(taken[0].dtype) if taken else "float32"


def _misfit(tuning: tuned.Tuning, placement: Placement, kernels: str) -> str:
    """Why a load may not go by what was found, in words; empty if it may."""
    # Options of other providers may name another device.
    own = placement.kind in ("cpu", "cuda")
    provider = placement.provider if own else str(placement)
    ort = engine()
    available = () if placement.asked_for else ort.get_available_providers()
    return tuning.misfit(tuned.conditions(kernels, ort.__version__), provider, available)


def _advice(bundle: Bundle, components: Sequence[str], precision: str) -> str:
    """What to do where a graph cannot be loaded, though it is the one that the manifest names."""
    version = bundle.stated("verified", "versions", "onnxruntime")
    made = (
        "The bundle does not say which ONNX Runtime it was made with: a later one may load it"
        if version is None
        else f"The bundle was made and tried with ONNX Runtime {version}: upgrade if this is older"
    )
    others = ", ".join(name for name in bundle.held(components) if name != precision)
    return made + (f", or load another precision: {others}" if others else "")


def components_of(family: Any, bundle: Bundle) -> tuple[str, ...]:
    """Which of a bundle's components to load.

    Returns:
        The family's own; where they are not all there, the first of its `FOREIGN_COMPONENTS` that
        are; where nothing fits, its own again, so that the error names what it wants.
    """
    own: tuple[str, ...] = family.COMPONENTS
    for components in (own, *getattr(family, "FOREIGN_COMPONENTS", ())):
        if all(name in bundle.variants for name in components):
            return tuple(components)
    return own


def import_family(model_type: str) -> Any:
    """The module of a family; its file name is the registry.

    Raises:
        UnknownFamilyError: there is no such file.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    if model_type not in known:
        raise UnknownFamilyError(
            f"model_type is {model_type!r}; this vlrt has the families: {', '.join(known)}"
        )
    return importlib.import_module(f"{families.__name__}.{model_type}")
