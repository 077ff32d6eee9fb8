"""The candidates of `vlrt bench tune`: what can be chosen of a load, for one bundle here."""

import argparse
from collections.abc import Sequence

from vlrt.bundle import Bundle
from vlrt.choice import choose_precision
from vlrt.errors import OptionError, PrecisionError, ProviderError
from vlrt.hardware import available_cpus
from vlrt.kernels import int8_kernels
from vlrt.load import components_of, import_family
from vlrt.session import CPU, CUDA, OPENVINO, engine, place, place_on, start
from vlrt.tuned import Setup


def candidates(bundle: Bundle, options: argparse.Namespace) -> tuple[tuple[Setup, ...], list[str]]:
    """The setups to measure, the default first, their files made local; and what is left out.

    Raises:
        OptionError: the bundle lacks a precision, or this process so many CPUs.
        ProviderError: a provider that was named is not there or does not start.
    """
    components, kernels, cpus = parts_of(bundle), int8_kernels(), available_cpus()
    held = bundle.held(components)
    if unknown := [p for p in options.precision or () if p not in held]:
        raise OptionError(f"{bundle.name} has no precision {unknown}; it has: {', '.join(held)}")
    too_many = [number for number in options.threads or () if number > cpus]
    if too_many:
        raise OptionError(f"--threads has {too_many}; valid: 1 to {cpus}, the CPUs of this process")
    providers, notes = _providers(options.provider)
    auto = place().provider
    base = auto if auto in providers else providers[0]
    taken = choose_precision(bundle, components, "auto", place_on(base).kind, kernels)
    default = Setup(taken.precision, cpus, base)
    setups = {default: taken.form}
    for provider in providers:
        kind = place_on(provider).kind
        # A GPU does the work itself: how many threads wait for it makes no difference.
        numbers = [cpus] if kind == "cuda" else options.threads or [1, cpus // 2 or 1, cpus]
        for precision in options.precision or held:
            try:
                choice = choose_precision(bundle, components, precision, kind, kernels)
            except PrecisionError as error:
                notes.append(f"Left out, {precision} on {provider}: {error}.")
                continue
            for number in sorted(set(numbers)):
                setups[Setup(precision, number, provider)] = choice.form
    for precision, form in {(s.precision, form) for s, form in setups.items()}:
        bundle.fetch(components, precision, form=form)
    return tuple(setups), notes


def _providers(named: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Those to measure on, and what is to be said of the others."""
    available, notes = engine().get_available_providers(), []
    found = []
    for provider in named or [p for p in (CPU, CUDA, OPENVINO) if p in available]:
        try:
            start(place_on(provider))
        except ProviderError as error:
            if named or provider == place().provider:
                raise
            notes.append(f"Left out, {provider}: {error}.")
        else:
            found.append(provider)
    return found, notes


def name_of(setup: Setup) -> str:
    """A setup in words: "int8 with 2 threads on CPU"."""
    return f"{setup} on {setup.provider.removesuffix('ExecutionProvider')}"


def parts_of(bundle: Bundle) -> tuple[str, ...]:
    """The components of a bundle that its model needs."""
    return components_of(import_family(str(bundle.config.need("model_type"))), bundle)
