"""Muted backgrounds, described without pixels so that they can be painted at any size.

Their colours are nearly grey and of middle to light tone: far from every object colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rgb = tuple[int, int, int]

BACKGROUNDS = ("plain", "gradient", "noise", "stripes", "checks")

_TONES = (130, 228)  # range of the mean grey level
_TINT = 13  # largest departure of a channel from grey
_CONTRAST = (16, 38)  # tone difference between the two colours of a pattern
_NOISE_CELLS = 24


@dataclass(frozen=True)
class Background:
    """Two colours and a pattern; `period` in units of the shorter side, `angle` in radians."""

    kind: str
    first: Rgb
    second: Rgb
    angle: float
    period: float
    seed: int


def plan_background(rng: np.random.Generator, kind: str) -> Background:
    """Choose the colours and the pattern of a background of the given kind."""
    if kind not in BACKGROUNDS:
        raise ValueError(f"unknown background {kind!r}; there are {', '.join(BACKGROUNDS)}")
    tone = rng.uniform(*_TONES)
    step = rng.uniform(*_CONTRAST)
    other = tone - step if tone - step >= _TONES[0] else tone + step
    tint = rng.uniform(-_TINT, _TINT, size=3)
    first = np.clip(np.rint(tone + tint), 0, 255).astype(int).tolist()
    second = np.clip(np.rint(other + tint), 0, 255).astype(int).tolist()
    angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(0.12, 0.3)
    seed = int(rng.integers(2**31))
    return Background(kind, tuple(first), tuple(second), angle, period, seed)


def _wave(along: NDArray[np.float64], period: float, pixel: float) -> NDArray[np.float64]:
    """A square wave of `period` between 0 and 1 whose edges are about one pixel soft."""
    steepness = period / (np.pi * pixel)
    wave: NDArray[np.float64] = np.clip(
        0.5 + 0.5 * steepness * np.sin(2 * np.pi * along / period), 0, 1
    )
    return wave


def _mixture(background: Background, size_wh: tuple[int, int]) -> NDArray[np.float64]:
    """The share of the second colour at every pixel: float64 in 0..1, [height, width] or less."""
    width, height = size_wh
    short = min(size_wh)
    if background.kind == "plain":
        return np.zeros((1, 1))
    if background.kind == "noise":
        rng = np.random.default_rng(background.seed)
        columns = -(-_NOISE_CELLS * width // short)
        rows = -(-_NOISE_CELLS * height // short)
        cells = rng.uniform(0, 255, size=(rows, columns)).astype(np.uint8)
        fine = Image.fromarray(cells).resize(size_wh, Image.Resampling.BICUBIC)
        return np.asarray(fine, dtype=np.float64) / 255
    x = (np.arange(width)[None, :] + 0.5) / short
    y = (np.arange(height)[:, None] + 0.5) / short
    cosine, sine = np.cos(background.angle), np.sin(background.angle)
    if background.kind == "gradient":
        along: NDArray[np.float64] = x * cosine + y * sine
        return np.interp(along, (along.min(), along.max()), (0, 1))
    if background.kind == "stripes":
        return _wave(x * cosine + y * sine, background.period, 1 / short)
    across = _wave(x, background.period, 1 / short)
    down = _wave(y, background.period, 1 / short)
    return across + down - 2 * across * down  # one or the other, not both


def paint_background(background: Background, size_wh: tuple[int, int]) -> Image.Image:
    """Paint a background as an RGB picture of `size_wh` pixels."""
    if background.kind == "plain":
        return Image.new("RGB", size_wh, background.first)
    share = _mixture(background, size_wh)[:, :, None]
    first, second = np.array(background.first), np.array(background.second)
    pixels = np.rint(first + (second - first) * share).astype(np.uint8)
    return Image.fromarray(pixels)
