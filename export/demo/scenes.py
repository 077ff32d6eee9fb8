"""Seeded random scenes of coloured shapes, with their exact description.

A scene is first planned and then drawn. A plan has no pixels: its lengths are in units of the
shorter picture side, so that one plan can be drawn at 64 px for training and at 320 px for people.
`draw_scene` does both. The same generator state always gives the same scene.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .backgrounds import BACKGROUNDS, Background, paint_background, plan_background
from .shapes import MAX_TURN, RING_HOLE, SHAPES, Points, placed_outline

if TYPE_CHECKING:
    from collections.abc import Sequence

Rgb = tuple[int, int, int]
Box = tuple[float, float, float, float]
Pair = tuple[str, str]
Mask = NDArray[np.bool_]

COLOURS: dict[str, Rgb] = {
    "red": (214, 34, 38),
    "orange": (245, 130, 24),
    "yellow": (246, 216, 42),
    "green": (38, 158, 66),
    "blue": (36, 84, 214),
    "purple": (122, 42, 168),
    "pink": (248, 120, 190),
    "black": (24, 24, 26),
}
COLOUR_JITTER = 14  # largest change of a channel from one object to the next

# Extent of an object (the longer side of its unturned box) over the shorter picture side.
SIZES: dict[str, float] = {"small": 0.24, "medium": 0.36, "large": 0.52}
SIZE_JITTER = 0.08  # relative; keeps the three sizes apart

MAX_OBJECTS = 5
MIN_VISIBLE = 0.6  # of every object's area, after later objects are drawn over it

ALL_PAIRS: tuple[Pair, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
# A diagonal of the colour-by-shape table: each colour and each shape is held out exactly once.
HELD_OUT_PAIRS: tuple[Pair, ...] = tuple(
    (colour, SHAPES[(3 * i + 1) % len(SHAPES)]) for i, colour in enumerate(COLOURS)
)
SEEN_PAIRS: tuple[Pair, ...] = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT_PAIRS)

OTHER_COLOUR = "other"  # the colour of a recoloured object: none of COLOURS
_OTHER_DISTANCE = 70  # from every one of COLOURS, in RGB
_OTHER_RANGE = 70  # between the channels, so that it is not as grey as a background

_COARSE = 96  # cells on the shorter side when planning overlaps
_SPARE = 0.05  # extra visibility asked for while planning, against coarse rounding
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Sprite:
    """A planned object; lengths in units of the shorter picture side, angles in degrees."""

    shape: str
    colour: str
    size: str
    rgb: Rgb
    centre: tuple[float, float]
    extent: float
    turn: float

    def outline(self) -> Points:
        """The outer outline, float64 [points, 2]."""
        return placed_outline(self.shape, self.centre, self.extent, self.turn)


@dataclass(frozen=True)
class Plan:
    """A scene before drawing: `frame` is (width, height) with the shorter side 1."""

    frame: tuple[float, float]
    background: Background
    sprites: tuple[Sprite, ...]


@dataclass(frozen=True)
class Object:
    """A drawn object. `box` is (x0, y0, x1, y1) in pixels, tight, before occlusion."""

    shape: str
    colour: str
    size: str
    box: Box

    @property
    def label(self) -> str:
        """The words "colour shape"."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """An RGB picture and its description; `objects` run from the back to the front."""

    image: Image.Image
    objects: tuple[Object, ...]
    background: str
    plan: Plan


def _polygon_mask(points: Points, size_wh: tuple[int, int], hole: Points | None) -> Image.Image:
    """An 8-bit mask, 255 inside the outline; coordinates are continuous pixel edges."""
    mask = Image.new("L", size_wh, 0)
    pen = ImageDraw.Draw(mask)
    # Pillow puts integer coordinates at pixel centres.
    pen.polygon([(x - 0.5, y - 0.5) for x, y in points.tolist()], fill=255)
    if hole is not None:
        pen.polygon([(x - 0.5, y - 0.5) for x, y in hole.tolist()], fill=0)
    return mask


def _hole(sprite: Sprite) -> Points | None:
    if sprite.shape != "ring":
        return None
    return placed_outline("circle", sprite.centre, sprite.extent * RING_HOLE, 0.0)


def _coarse_mask(sprite: Sprite, frame: tuple[float, float]) -> Mask:
    """The covered cells of a coarse grid over the frame: bool [rows, columns]."""
    hole = _hole(sprite)
    size_wh = (round(frame[0] * _COARSE), round(frame[1] * _COARSE))
    mask = _polygon_mask(
        sprite.outline() * _COARSE, size_wh, None if hole is None else hole * _COARSE
    )
    return np.asarray(mask) > 0


def visible_fractions(masks: Sequence[Mask]) -> list[float]:
    """How much of each mask is left when every later one is drawn over it."""
    fractions: list[float] = []
    covered = np.zeros_like(masks[0]) if masks else None
    for mask in reversed(masks):
        assert covered is not None
        fractions.append(float((mask & ~covered).sum() / max(mask.sum(), 1)))
        covered = covered | mask
    return fractions[::-1]


def _plan_sprite(
    rng: np.random.Generator, frame: tuple[float, float], pair: Pair, size: str
) -> Sprite:
    colour, shape = pair
    extent = SIZES[size] * rng.uniform(1 - SIZE_JITTER, 1 + SIZE_JITTER)
    turn = rng.uniform(-1, 1) * MAX_TURN[shape]
    jitter = rng.integers(-COLOUR_JITTER, COLOUR_JITTER + 1, size=3)
    red, green, blue = np.clip(np.array(COLOURS[colour]) + jitter, 0, 255).tolist()
    spread = np.ptp(placed_outline(shape, (0.0, 0.0), extent, turn), axis=0)
    low, high = spread / 2, np.array(frame) - spread / 2
    x, y = rng.uniform(low, high).tolist()
    return Sprite(shape, colour, size, (red, green, blue), (x, y), extent, turn)


def plan_scene(
    rng: np.random.Generator,
    *,
    size_wh: tuple[int, int] = (256, 256),
    n_objects: int | tuple[int, int] = 1,
    pairs: Sequence[Pair] = ALL_PAIRS,
    sizes: Sequence[str] = tuple(SIZES),
    backgrounds: Sequence[str] = BACKGROUNDS,
) -> Plan:
    """Choose a scene. `n_objects` is a count or an inclusive range within 1 to 5.

    Of `size_wh` only the aspect ratio matters here.
    """
    low, high = (n_objects, n_objects) if isinstance(n_objects, int) else n_objects
    if not 1 <= low <= high <= MAX_OBJECTS:
        raise ValueError(f"n_objects must lie within 1 and {MAX_OBJECTS}, not {n_objects}")
    if not pairs or not sizes or not backgrounds:
        raise ValueError("pairs, sizes and backgrounds must not be empty")
    background = plan_background(rng, backgrounds[int(rng.integers(len(backgrounds)))])
    count = int(rng.integers(low, high + 1))
    return _placed(rng, size_wh, background, [pairs] * count, sizes)


def plan_objects(
    rng: np.random.Generator, objects: Sequence[Pair], *, size_wh: tuple[int, int]
) -> Plan:
    """Choose a scene of these 1 to 5 objects, from the back to the front, of any size anywhere."""
    if not 1 <= len(objects) <= MAX_OBJECTS:
        raise ValueError(f"there must be 1 to {MAX_OBJECTS} objects, not {len(objects)}")
    background = plan_background(rng, BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))])
    return _placed(rng, size_wh, background, [[pair] for pair in objects], tuple(SIZES))


def _placed(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    background: Background,
    choices: Sequence[Sequence[Pair]],
    sizes: Sequence[str],
) -> Plan:
    """A scene with an object out of each of the choices."""
    short, count = min(size_wh), len(choices)
    frame = (size_wh[0] / short, size_wh[1] / short)
    # A crowded draw can leave no room for the last objects: start again until all of them fit.
    for _ in range(1000):
        sprites: list[Sprite] = []
        masks: list[Mask] = []
        for _ in range(count * 8):
            pairs = choices[len(sprites)]
            pair = pairs[int(rng.integers(len(pairs)))]
            size = sizes[int(rng.integers(len(sizes)))]
            sprite = _plan_sprite(rng, frame, pair, size)
            if count > 1:
                mask = _coarse_mask(sprite, frame)
                if min(visible_fractions([*masks, mask])) < MIN_VISIBLE + _SPARE:
                    continue
                masks.append(mask)
            sprites.append(sprite)
            if len(sprites) == count:
                return Plan(frame, background, tuple(sprites))
    raise RuntimeError(f"no room for {count} objects of sizes {tuple(sizes)}")


def recolour(rng: np.random.Generator, plan: Plan, share: float = 1.0) -> Plan:
    """The plan with its objects in random strong colours that resemble none of COLOURS.

    share: how many of the objects, on average; the others keep their colours.
    """
    palette = np.array(list(COLOURS.values()))
    sprites = []
    for sprite in plan.sprites:
        if share < 1 and rng.random() >= share:
            sprites.append(sprite)
            continue
        while True:
            rgb = rng.integers(0, 256, size=3)
            distance = np.linalg.norm(palette - rgb, axis=1).min()
            if distance >= _OTHER_DISTANCE and np.ptp(rgb) >= _OTHER_RANGE:
                break
        red, green, blue = rgb.tolist()
        sprites.append(replace(sprite, colour=OTHER_COLOUR, rgb=(red, green, blue)))
    return replace(plan, sprites=tuple(sprites))


def _draw_sprite(image: Image.Image, sprite: Sprite, scale: float) -> Object:
    """Draw one object over the picture, antialiased, and describe it in pixels."""
    points = sprite.outline() * scale
    limit = np.array(image.size, dtype=np.float64)
    low, high = np.clip(points.min(axis=0), 0, limit), np.clip(points.max(axis=0), 0, limit)
    corner = np.floor(low)
    width, height = np.ceil(high - corner).astype(int).tolist()
    hole = _hole(sprite)
    fine = _polygon_mask(
        (points - corner) * _SUPERSAMPLING,
        (width * _SUPERSAMPLING, height * _SUPERSAMPLING),
        None if hole is None else (hole * scale - corner) * _SUPERSAMPLING,
    )
    left, top = corner.astype(int).tolist()
    area = (left, top, left + width, top + height)
    image.paste(sprite.rgb, area, fine.reduce(_SUPERSAMPLING))
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return Object(sprite.shape, sprite.colour, sprite.size, box)


def draw_plan(plan: Plan, size_wh: tuple[int, int]) -> Scene:
    """Draw a plan at a size in pixels; its aspect ratio must be the plan's."""
    scale = min(size_wh)
    wanted = (round(plan.frame[0] * scale), round(plan.frame[1] * scale))
    if wanted != tuple(size_wh):
        raise ValueError(f"the plan's aspect ratio asks for {wanted} pixels, not {size_wh}")
    image = paint_background(plan.background, size_wh)
    objects = tuple(_draw_sprite(image, sprite, scale) for sprite in plan.sprites)
    return Scene(image, objects, plan.background.kind, plan)


def draw_scene(
    rng: np.random.Generator,
    *,
    size_wh: tuple[int, int] = (256, 256),
    n_objects: int | tuple[int, int] = 1,
    pairs: Sequence[Pair] = ALL_PAIRS,
    sizes: Sequence[str] = tuple(SIZES),
    backgrounds: Sequence[str] = BACKGROUNDS,
) -> Scene:
    """Plan a scene and draw it at `size_wh` pixels; see `plan_scene` for the choices."""
    plan = plan_scene(
        rng,
        size_wh=size_wh,
        n_objects=n_objects,
        pairs=pairs,
        sizes=sizes,
        backgrounds=backgrounds,
    )
    return draw_plan(plan, size_wh)
