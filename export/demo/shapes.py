"""Outlines of the drawn shapes, in a unit frame.

An outline is a float64 array [points, 2] of (x, y) with y downwards. Every outline is centred on
its bounding box, and the longer side of that box is 1.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring")

# Largest turn either way, in degrees. A square turned by 45 would be a diamond, so the turns stay
# far below the angle at which one class begins to look like another.
MAX_TURN = {
    "circle": 0.0,
    "square": 10.0,
    "triangle": 15.0,
    "star": 18.0,
    "heart": 20.0,
    "cross": 12.0,
    "diamond": 10.0,
    "ring": 0.0,
}

RING_HOLE = 0.56  # inner diameter of the ring as a fraction of the outer one


def _centred(points: Points) -> Points:
    low, high = points.min(axis=0), points.max(axis=0)
    centred: Points = (points - (low + high) / 2) / (high - low).max()
    return centred


def _polar(radii: Points, start: float) -> Points:
    """Points at equal angles around the origin, the first at `start` radians."""
    angles = start + np.arange(len(radii)) * (2 * np.pi / len(radii))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], axis=1)


def _cross() -> Points:
    arm = 0.17  # half the width of an arm
    right = [(arm, -0.5), (arm, -arm), (0.5, -arm), (0.5, arm), (arm, arm), (arm, 0.5)]
    return np.array(right + [(-x, -y) for x, y in right])


@cache
def outline(shape: str) -> Points:
    """The outer outline of a shape in the unit frame: float64 [points, 2]. Do not write to it."""
    up = -np.pi / 2
    if shape in ("circle", "ring"):
        points = _polar(np.ones(96), 0.0)
    elif shape == "square":
        points = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
    elif shape == "triangle":
        points = _polar(np.ones(3), up)
    elif shape == "star":
        points = _polar(np.tile([1.0, 0.42], 5), up)
    elif shape == "heart":
        points = _heart()
    elif shape == "cross":
        points = _cross()
    elif shape == "diamond":
        points = np.array([(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)])
    else:
        raise ValueError(f"unknown shape {shape!r}; the shapes are {', '.join(SHAPES)}")
    centred = _centred(points)
    centred.setflags(write=False)
    return centred


def placed_outline(
    shape: str, centre: tuple[float, float], extent: float, degrees: float
) -> Points:
    """The outline scaled to `extent`, turned clockwise by `degrees`, its box centred on `centre`.

    `extent` is the longer side of the unturned shape's box. Returns float64 [points, 2].
    """
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = outline(shape) @ turn
    middle = (turned.min(axis=0) + turned.max(axis=0)) / 2
    placed: Points = (turned - middle) * extent + np.asarray(centre)
    return placed
