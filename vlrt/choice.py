"""Which precision of a bundle to load: by what its manifest measured, and by this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlrt import hardware
from vlrt.bundle import FOR_CUDA, PORTABLE, Bundle
from vlrt.errors import PrecisionError

# Variants whose matrix products are made of integers, and so may saturate; uint8 weights do not.
_INTEGER = ("int8", "quantized")
# Weights alone are small: they save memory, and are unpacked again at every use. First the best.
_WEIGHT_ONLY = ("int8w", "int4w", "q4", "q4f16", "q2", "q1", "bnb4")
# What runs well on a kind of device, first the best. OpenVINO brings its own precision to an fp32
# graph. Any other provider gets the exact variant.
_OWN_KERNELS = ("cpu", "cuda")
_PREFERRED = {"cuda": ("fp16", "fp32", *_WEIGHT_ONLY)}
_EXACT = ("fp32", "fp16")


@dataclass(frozen=True)
class Choice:
    """A precision to load.

    Attributes:
        precision: as the bundle calls it.
        reason: why, in words.
        exact_products: as `Session` takes it.
        form: which of `vlrt.bundle.FORMS` of its graphs, which the bundle has; "" for none.
    """

    precision: str
    reason: str
    exact_products: bool = False
    form: str = ""


def choose_precision(
    bundle: Bundle,
    components: Sequence[str],
    requested: str,
    kind: str,
    kernels: str,
    *,
    reason: str = "it was asked for",
) -> Choice:
    """Decide which variant to load.

    Args:
        bundle: the bundle.
        components: the components that the model needs.
        requested: a precision, or "auto": the fastest, out of those that passed their gate (no
            other is ever written), as far as the manifest and the machine tell; fp32 where they
            do not.
        kind: as `Placement.kind` gives it.
        kernels: this machine's int8 kernels, a key of `hardware.MEANINGS`.
        reason: why it was requested, unless that is "auto".

    Raises:
        PrecisionError: the bundle does not hold it for every component.
    """
    for component in components:
        if component not in bundle.variants:
            bundle.files(component, requested)  # raises, naming what is there
    held = bundle.held(components)
    if not held:
        raise PrecisionError(f"{bundle.name} has no precision that all its components share")
    # The fused operators are ONNX Runtime's own; OpenVINO takes some for others, and crashes.
    if bundle.manifest is not None and kind not in _OWN_KERNELS:
        held = _portable(bundle, components, held, requested, kind)
    if kind == "cuda":
        held = _on_cuda(bundle, components, held, requested)
    if requested == "auto":
        precision, reason = _automatic(bundle, components, held, kind, kernels)
    elif requested in held:
        precision = requested
    else:
        raise PrecisionError(
            f"{bundle.name} has no precision {requested!r}; it has: {', '.join(held)}"
        )
    if _saturates(bundle, components, precision, kernels):
        return Choice(
            precision,
            f"{reason}; this CPU's products of 8-bit weights would saturate, so that they are "
            "computed exactly, which is slow",
            exact_products=True,
        )
    return Choice(precision, reason, form=_form(bundle, components, precision, kind))


def _form(bundle: Bundle, components: Sequence[str], precision: str, kind: str) -> str:
    """The form of a precision's graphs that suits a kind of device.

    What was exported before there was one for CUDA is taken as it is.
    """
    if bundle.manifest is None or kind == "cpu":
        return ""
    form = FOR_CUDA if kind == "cuda" else PORTABLE
    return form if precision in bundle.formed(form, components) else ""


def runs_on_cuda(bundle: Bundle, components: Sequence[str]) -> list[str]:
    """The precisions that all of some components have and that CUDA has kernels for.

    It has none for the products of vlrt's int8 (MatMulIntegerToFloat, DynamicQuantizeMatMul). What
    foreign graphs are made of is not known here; `Session` sees where their nodes run.
    """
    held = bundle.held(components)
    return [p for p in held if bundle.manifest is None or p not in _INTEGER]


def _on_cuda(
    bundle: Bundle, components: Sequence[str], held: Sequence[str], requested: str
) -> list[str]:
    fit = runs_on_cuda(bundle, components)
    if not fit or requested in set(held) - set(fit):
        there = f"valid: {', '.join(fit)}" if fit else "export it again with fp16 or fp32"
        raise PrecisionError(
            f"{bundle.name} in int8 is for the CPU: its products have no kernels on CUDA, and "
            f"would run beside it; {there}"
        )
    return fit


def _portable(
    bundle: Bundle, components: Sequence[str], held: Sequence[str], requested: str, kind: str
) -> list[str]:
    """The precisions that a bundle of vlrt's has graphs of plain operators for."""
    plain = [p for p in held if p in bundle.formed(PORTABLE, components)]
    if not plain or requested in set(held) - set(plain):
        there = f"valid: {', '.join(plain)}" if plain else "export it again with fp32 or fp16"
        asked = f"{bundle.name} in {requested}" if requested in held else bundle.name
        raise PrecisionError(
            f"{asked} is made of operators that are ONNX Runtime's own; all providers but the "
            f"CPU's and CUDA's, such as {kind}, need graphs of plain ones; {there}"
        )
    return plain


def _automatic(
    bundle: Bundle, components: Sequence[str], held: Sequence[str], kind: str, kernels: str
) -> tuple[str, str]:
    """The precision for "auto", and why."""
    if len(held) == 1:
        return held[0], f"auto: it is the only one held for {kind}"
    if kind == "cpu":
        return _on_cpu(bundle, components, held, kernels)
    for precision in _PREFERRED.get(kind, _EXACT):
        if precision in held:
            return precision, f"auto: it suits {kind} best of {', '.join(held)}"
    return held[0], f"auto: nothing held suits {kind}; it is the first one held"


def _on_cpu(
    bundle: Bundle, components: Sequence[str], held: Sequence[str], kernels: str
) -> tuple[str, str]:
    fit = [
        precision
        for precision in held
        if precision != "fp16"  # every operator would widen it to fp32 first
        and precision not in _WEIGHT_ONLY
        and not _saturates(bundle, components, precision, kernels)
    ]
    here = f"{kernels} int8 kernels here"
    if not fit:
        return _least_unfit(held, here)
    if len(fit) == 1:
        return fit[0], f"auto: of {', '.join(held)} it suits a CPU best, with {here}"
    there = bundle.stated("verified", "machine", "int8_kernels") or "unknown"
    alike = _alike(kernels, there)
    speed = _measured_speed(bundle, components) if alike else {}
    timed = [precision for precision in fit if precision in speed]
    if len(timed) > 1:
        fastest = min(timed, key=lambda precision: speed[precision])
        measured = f"the manifest measured it as the fastest of {', '.join(timed)}"
        return fastest, f"auto: {measured}, with {there} int8 kernels; {here}"
    times_apart = f"{here}, and the manifest's times are from {there} ones"
    if bundle.manifest is not None and not alike:
        # Where products saturate, weights of 7 bits: twice as many at once as in fp32.
        if kernels in (*hardware.FAST, hardware.SATURATING) and "int8" in fit:
            return "int8", f"auto: {times_apart}"
        return _exact(fit, times_apart)
    return _exact(fit, "no variants were compared on a CPU")


def _exact(fit: Sequence[str], why: str) -> tuple[str, str]:
    if "fp32" in fit:
        return "fp32", f"auto: {why}, so the exact one is taken"
    return fit[0], f"auto: {why}; it is the first one held"


def _least_unfit(held: Sequence[str], here: str) -> tuple[str, str]:
    """Of variants that do not suit a CPU, the one that loses least, and why."""
    of = f"auto: none of {', '.join(held)} suits a CPU with {here}"
    for precision in _WEIGHT_ONLY:
        if precision in held:
            return precision, f"{of}; weights alone in few bits save memory, though no time"
    if "fp16" in held:
        return "fp16", f"{of}; fp16 is widened to fp32 at every operator, slow and exact"
    return held[0], f"{of}; it is the first one held"


def rows_apart(bundle: Bundle, components: Sequence[str], precision: str) -> bool:
    """Whether it is known that what a picture or a text gives does not depend on its batch.

    It does not where graphs compute in floats, or with scales that were fixed at export. Scales
    that are taken from the whole batch make it depend, and so do kernels for weights of 8 bits
    alone, which round in another order where there are more rows.
    """
    return precision in ("fp32", "fp16") or all(
        bundle.stated_of(component, precision, "recipe", "scales") == "static"
        for component in components
    )


def _alike(here: str, there: str) -> bool:
    """Whether times measured with one machine's int8 kernels say which is faster on another's."""
    if "unknown" in (here, there):
        return False
    return here == there or (here in hardware.FAST and there in hardware.FAST)


def _saturates(bundle: Bundle, components: Sequence[str], precision: str, kernels: str) -> bool:
    """Whether a variant's products are cut off at 16 bits by a machine's kernels."""
    if kernels != hardware.SATURATING or precision not in _INTEGER:
        return False
    return any(_weight_bits(bundle, component, precision) > 7 for component in components)


def _weight_bits(bundle: Bundle, component: str, precision: str) -> int:
    """Bits of a variant's quantised weights; 8 where nobody says."""
    bits = bundle.stated_of(component, precision, "recipe", "weight_bits")
    return bits if isinstance(bits, int) else 8


def _measured_speed(bundle: Bundle, components: Sequence[str]) -> dict[str, float]:
    """Milliseconds for one item through all components, by precision, as measured on a CPU."""
    total: dict[str, float] = {}
    for precision in bundle.held(components):
        speeds = [bundle.stated_of(component, precision, "speed") for component in components]
        times = [
            speed["median_ms"]
            for speed in speeds
            if isinstance(speed, dict) and speed.get("device") == "cpu"
        ]
        if len(times) == len(components):
            total[precision] = sum(times)
    return total
