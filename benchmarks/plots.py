"""What the drawings share: one style, a colour for each contender, and SVG that fits any page.

Text and lines are drawn in a colour that stands for the page's own, so that a drawing is readable
on light and on dark; letters stay letters, in the page's font. A drawing of the same numbers is the
same, byte for byte.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import ExtraMissingError

# Stands for the page's own colour of text; nobody's colour, and black to any other reader of SVG.
INK = "#010203"
WIDTH = 5.8  # inches; a page shows an inch as about 90 pixels
# Colours that are told apart with any colour vision (after Okabe and Ito, 2008), on white and on
# black. Contenders of one engine share a hue: fp32, 16 bits, int8, and what else there is of it.
_HUES = {
    "vlrt": ("#7db8f0", "#4f9be8", "#1f74d1", "#12a5d8"),
    "torch-compile": ("#b8860b", "#cf9f2b", "#94701a", "#dcb65a"),
    "torch": ("#d55e00", "#e8883a", "#b04e05", "#efa76d"),
    "transformers": ("#d55e00", "#e8883a", "#b04e05", "#efa76d"),
    "pipeline": ("#a8574a", "#bd7669", "#8a463b", "#cd9187"),
    "openvino": ("#9a6cc9", "#b18bd8", "#7a48b0", "#c3a5e2"),
    "optimum": ("#0f9b76", "#3bb392", "#0a7d5f", "#6cc7ae"),
    "opencv": ("#c25b94",),
    "torchvision": ("#b07aa1",),
}
_OTHER = ("#7c8794",)
_ROUNDED = re.compile(r"(\.\d\d)\d+")  # less than a hundredth of a point is seen by nobody
_SHADES = {"fp32": 0, "fp16": 1, "bf16": 1, "int8": 2}
_STYLE: Any = {
    "svg.fonttype": "none",  # letters, not outlines
    "svg.hashsalt": "vlrt",
    "text.parse_math": False,  # a dollar is a dollar
    "axes.edgecolor": INK,
    "axes.formatter.useoffset": False,
    "axes.labelcolor": INK,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "font.size": 8.5,
    "grid.alpha": 0.14,
    "grid.color": INK,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


def colour(contender: str) -> str:
    """A contender's colour, the same in every drawing."""
    for engine, shades in _HUES.items():
        if contender == engine or contender.startswith(f"{engine}-"):
            words = contender[len(engine) + 1 :].split("-")
            shade = _SHADES.get(words[0], 3) if len(words) == 1 and words[0] else 3 * bool(words[0])
            return shades[min(shade, len(shades) - 1)]
    return _OTHER[0]


@contextmanager
def style() -> Iterator[None]:
    """Draw as reports do, whatever the user's own style of matplotlib is.

    Raises:
        ExtraMissingError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise ExtraMissingError("a report", "bench", error.name or "matplotlib") from error
    with mpl.rc_context(), warnings.catch_warnings():
        # The page's font draws the letters; matplotlib's only says how wide they are.
        warnings.filterwarnings("ignore", message=".*missing from font")
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def drawn(
    draw: Callable[..., None],
    height: float,
    *,
    panels: Sequence[float] = (1,),
    shared: bool = False,
) -> str:
    """A drawing as an `<svg>` element.

    Args:
        draw: is given the axes, one after another.
        height: of all, in inches.
        panels: how high the axes are, beside each other's, one above the other.
        shared: whether these have the same x.
    """
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = figure.subplots(
            len(panels), 1, squeeze=False, sharex=shared, height_ratios=list(panels)
        )
        axes = grid[:, 0]
        draw(*axes)
        for one in axes:
            one.patch.set_visible(False)
        return _svg(figure)


def _svg(figure: Any) -> str:
    held = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(held, format="svg", transparent=True, metadata=nothing)
    svg = held.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:xmlns(?::xlink)?|version|width|height)="[^"]*"', "", svg, count=5)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r' d="[^"]*"', lambda path: _ROUNDED.sub(r"\1", path[0]), svg)
    return svg.replace(INK, "currentColor").strip()


def unique(svg: str, prefix: str) -> str:
    """The same drawing with ids of its own on a page of several."""
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}-", svg)


def ratio_axis(axes: Any, low: float, high: float, label: str) -> None:
    """Make x the logarithm of ratios from low to high, with a line where both are as fast."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    plain_ticks(axes.xaxis, low, high)
    axes.grid(axis="x")
    axes.axvline(1, color=INK, linewidth=1.1)
    axes.set_xlabel(label)


def plain_ticks(axis: Any, low: float, high: float) -> None:
    """Numbers and not powers of ten on a logarithmic axis: 1, 2, 5, 10; even steps if few fit."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    decades = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            break
    else:
        inside = [
            t
            for t in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
            if low <= t <= high
        ]
    axis.set_major_locator(FixedLocator(inside))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def density(values: Sequence[float] | NDArray[np.float64], grid: Any) -> Any:
    """How dense values lie along a grid, the densest place 1; by a Gaussian kernel.

    The width is Silverman's (1986, 3.31), and never less than a step of the grid.

    Args:
        values: at least one.
        grid: float64 [N], evenly spaced.
    """
    data = np.asarray(values, float)
    if len(data) > 2000:  # quantiles say the same as all of them
        data = np.quantile(data, np.linspace(0, 1, 2000))
    quarter = np.subtract(*np.percentile(data, (75, 25))) / 1.34
    spread = min(data.std(), quarter) or data.std()
    width = max(0.9 * spread * len(data) ** -0.2, float(grid[1] - grid[0]))
    found = np.exp(-(((grid[:, None] - data) / width) ** 2) / 2).sum(axis=1)
    return found / found.max()


def end_labels(axes: Any, ends: Sequence[tuple[float, float, str, str]], gap: float = 0.06) -> None:
    """Write names beside the right ends of lines, moved apart where they would overlap.

    Args:
        axes: drawn, with limits set.
        ends: x, y, name and colour of each.
        gap: the least distance, as a share of the height.
    """
    to_share = axes.transData + axes.transAxes.inverted()
    placed = sorted((float(to_share.transform((x, y))[1]), name, c) for x, y, name, c in ends)
    heights = [share for share, _, _ in placed]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    over = max(0.0, heights[-1] - 1) if heights else 0.0
    for height, (_, name, shade) in zip(heights, placed, strict=True):
        axes.annotate(
            name, (1, height - over), xycoords="axes fraction", xytext=(5, 0),
            textcoords="offset points", va="center", color=shade, annotation_clip=False,
        )  # fmt: skip
