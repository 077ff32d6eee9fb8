"""Boxes and labels on a picture, with Pillow alone."""

import bisect
import colorsys
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vlrt import boxes as geometry
from vlrt import fonts
from vlrt.errors import OptionError
from vlrt.image import ImageInput, load_image
from vlrt.results import Detections

Color = tuple[int, int, int]

# The first labels of a set. Neighbours differ in hue and lightness, and all are of a middle
# lightness, seen on white and on black alike.
PALETTE: tuple[Color, ...] = (
    (236, 58, 74), (46, 125, 255), (20, 176, 96), (255, 132, 10), (158, 76, 250), (0, 190, 216),
    (246, 72, 186), (245, 214, 30), (156, 94, 46), (146, 208, 40), (72, 84, 190), (0, 122, 118),
)  # fmt: skip
_OUTLINE: Color = (20, 21, 24)
# Smaller pictures are enlarged until the longer side has this many pixels: below it, no legible
# text finds room.
_SMALLEST_LONG_SIDE = 480
_SMALLEST_FONT = 14
_LEGIBLE_FONT = 6  # strips that are lower than two such lines are drawn without tags


def fitted(
    pen: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: float,
) -> str:
    """The text on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if pen.textlength(text, font=font) <= width:
        return text
    fits = bisect.bisect_right(
        range(len(text)), width, key=lambda end: pen.textlength(text[:end] + "...", font=font)
    )
    return text[: max(0, fits - 1)] + "..."


def detections(image: ImageInput, found: Detections, *, font: str | None = None) -> Image.Image:
    """A picture with the boxes, labels and scores of what was found in it.

    Lines and text grow with the picture. One whose longer side is below 480 pixels is enlarged by a
    whole factor, so that its labels can be read. Nothing is drawn outside of the boxes but their
    tags, which stand above their box, or in or below it where there is no room, and keep clear of
    each other as long as there is any. The best score is drawn last, over the others.

    A label has the colour of its position among the labels. A character that no font at hand has is
    drawn without its accents or as a question mark, and a label of none but such as its position
    ("label 0"); see `vlrt.fonts`.

    Args:
        image: the picture that was searched, as `vlrt.load_image` takes it; left as it is.
        found: its objects. Boxes are cut at the picture's edges; those outside of it are left out.
        font: a TrueType or OpenType font file, for labels in scripts that no font at hand has.

    Returns:
        RGB, of the picture's size or a whole multiple of it; the picture itself if there are no
        objects.

    Raises:
        ImageError: the picture cannot be read.
        OptionError: the picture has another size than the one searched, a box is NaN, or the font
            cannot be read.
    """
    picture = load_image(image)
    if (picture.height, picture.width) != found.size_hw:
        height, width = found.size_hw
        raise OptionError(
            f"the picture is {picture.width}x{picture.height}, the one that was searched is "
            f"{width}x{height}"
        )
    if not len(found):
        return picture
    factor = max(1, -(-_SMALLEST_LONG_SIDE // max(picture.size)))
    if factor > 1:
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    marks = _marks(found, factor, font)
    canvas_hw = (picture.height, picture.width)
    pen = ImageDraw.Draw(picture)
    for mark in reversed(marks):
        _frame(pen, mark, max(2, _font_size(canvas_hw) // 6))
    for mark in reversed([mark for mark in marks if mark.text]):
        picture.paste(_tag(mark, _padding(canvas_hw)), mark.tag)
    return picture


def color(position: int) -> Color:
    """The colour of the label at a position: `PALETTE`, then more hues, without end."""
    if position < len(PALETTE):
        return PALETTE[position]
    # Steps of the golden angle never come back to a hue and spread evenly wherever they stop.
    turn = position * (math.sqrt(5) - 1) / 2 % 1
    lightness = (0.48, 0.57, 0.66)[position % 3]
    red, green, blue = colorsys.hls_to_rgb(turn, lightness, (0.85, 0.6)[position // 3 % 2])
    return round(red * 255), round(green * 255), round(blue * 255)


def ink(paper: Color) -> Color:
    """Black or white, whichever has more contrast on a colour (WCAG 2: 4.58 at the least)."""
    return (0, 0, 0) if luminance(paper) > 0.179 else (255, 255, 255)


def luminance(value: Color) -> float:
    """The relative luminance of an sRGB colour, 0..1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in (level / 255 for level in value)]  # fmt: skip
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


class _Mark(NamedTuple):
    """One object on the canvas; rectangles are (x0, y0, x1, y1) in pixels, the ends exclusive."""

    box: tuple[int, int, int, int]
    tag: tuple[int, int, int, int]
    text: str
    font: ImageFont.FreeTypeFont
    color: Color


def _marks(found: Detections, factor: int, font_file: str | None) -> list[_Mark]:
    """What to draw, the best first; nothing for boxes outside of the picture."""
    canvas_hw = (found.size_hw[0] * factor, found.size_hw[1] * factor)
    boxes, kept = _pixel_boxes(found.boxes * np.float32(factor), canvas_hw)
    size, pad = _font_size(canvas_hw), _padding(canvas_hw)
    pen = ImageDraw.Draw(Image.new("1", (1, 1)))
    texts = []
    for box, i in zip(boxes, kept, strict=True):
        room = min(canvas_hw[1], max(int(box[2] - box[0]), 16 * size)) - 2 * pad
        texts.append(_tag_text(pen, found, int(i), size, font_file, room))
    widths = [
        math.ceil(pen.textlength(text, font=font)) + 2 * pad if text else 0 for text, font in texts
    ]
    tag_h = min(canvas_hw[0], round(1.1 * size) + pad)
    tags = place_tags(boxes, np.array(widths, np.intp), tag_h, canvas_hw)
    return [
        _Mark(tuple(box), tuple(tag), text, font, color(int(found.label_ids[i])))
        for box, tag, (text, font), i in zip(
            boxes.tolist(), tags.tolist(), texts, kept, strict=True
        )
    ]


def _font_size(canvas_hw: tuple[int, int]) -> int:
    # The geometric mean of the sides: 20000x50 is not to be lettered like a large picture.
    wanted = max(_SMALLEST_FONT, round(math.sqrt(canvas_hw[0] * canvas_hw[1]) / 52))
    return max(1, min(wanted, canvas_hw[0] // 2))


def _padding(canvas_hw: tuple[int, int]) -> int:
    return max(2, _font_size(canvas_hw) // 4)


def _pixel_boxes(
    boxes: NDArray[np.float32], canvas_hw: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Whole pixels inside the canvas, at least one by one, and which of the boxes they are."""
    broken = np.flatnonzero(np.isnan(boxes).any(axis=1))
    if len(broken):
        raise OptionError(f"box {broken[0]} is not a number: {boxes[broken[0]].tolist()}")
    ends = np.array(canvas_hw[::-1])
    kept = np.flatnonzero(((boxes[:, :2] < ends) & (boxes[:, 2:] > 0)).all(axis=1))
    pixels = np.rint(geometry.clip(boxes[kept], canvas_hw)).astype(np.intp)
    pixels[:, :2] = np.minimum(pixels[:, :2], ends - 1)
    pixels[:, 2:] = np.maximum(pixels[:, 2:], pixels[:, :2] + 1)
    return pixels, kept


def _tag_text(
    pen: ImageDraw.ImageDraw, found: Detections, i: int, size: int, font_file: str | None, room: int
) -> tuple[str, ImageFont.FreeTypeFont]:
    """What fits of the label and score of one object: both, the label cut, one of them, or ""."""
    label_id = int(found.label_ids[i])
    if size < _LEGIBLE_FONT:
        return "", fonts.drawable("", size)[1]
    name, font = fonts.drawable(found.labels[label_id], size, file=font_file)
    if not any(mark.isalnum() for mark in name):
        name = f"label {label_id}"
    score = f"{found.scores[i]:.2f}"
    cut = fitted(pen, name, font, room - pen.textlength("  " + score, font=font))
    choices = [f"{cut}  {score}"] if len(cut) > len("...") or cut == name else []
    fitting = (text for text in [*choices, name, score] if pen.textlength(text, font=font) <= room)
    return next(fitting, ""), font


def place_tags(
    boxes: NDArray[np.intp], widths: NDArray[np.intp], height: int, canvas_hw: tuple[int, int]
) -> NDArray[np.intp]:
    """Where each box's tag stands: inside the canvas, over as little of the tags before as it can.

    Above the box if there is room, else in it at its top, else below it or along its sides.

    Args:
        boxes: intp [N, 4], (x0, y0, x1, y1) in pixels inside the canvas, the first placed first.
        widths: intp [N], of the tags; those wider than the canvas are cut to it.
        height: of all tags, not above the canvas's.
        canvas_hw: (height, width) in pixels.

    Returns:
        intp [N, 4], rectangles like the boxes.
    """
    placed = np.empty((len(boxes), 4), np.intp)
    for i, (box, full_width) in enumerate(zip(boxes.tolist(), widths.tolist(), strict=True)):
        width = min(full_width, canvas_hw[1])
        choices = _tag_choices(box, (height, width), canvas_hw)
        over = np.minimum(choices[:, None, 2:], placed[None, :i, 2:]) - np.maximum(
            choices[:, None, :2], placed[None, :i, :2]
        )
        hidden = over.clip(0).prod(axis=2).sum(axis=1)
        placed[i] = choices[hidden.argmin()]
    return placed


def _tag_choices(
    box: Sequence[int], tag_hw: tuple[int, int], canvas_hw: tuple[int, int]
) -> NDArray[np.intp]:
    """Rectangles for one tag that lie in the canvas, the preferred first."""
    (x0, y0, x1, y1), (tag_h, tag_w) = box, tag_hw
    rows = [y0 - tag_h, y0, y1, y1 - tag_h, (y0 + y1 - tag_h) // 2, y0 - 2 * tag_h, y1 + tag_h]
    columns = [x0, x1 - tag_w, (x0 + x1 - tag_w) // 2]
    inside = [y for y in rows if 0 <= y <= canvas_hw[0] - tag_h]
    y, x = np.meshgrid(
        inside or [min(y0, canvas_hw[0] - tag_h)],
        np.clip(columns, 0, canvas_hw[1] - tag_w),
        indexing="ij",
    )
    corner = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.intp)
    return np.concatenate([corner, corner + np.array([tag_w, tag_h])], axis=1)


def _frame(pen: ImageDraw.ImageDraw, mark: _Mark, line: int) -> None:
    """The box's line, between two thin dark ones that part it from any background."""
    x0, y0, x1, y1 = mark.box
    line = min(line, max(1, min(x1 - x0, y1 - y0) // 6))
    edge = line // 3
    last = (x1 - 1, y1 - 1)
    if edge:
        pen.rectangle(((x0, y0), last), outline=_OUTLINE, width=line + 2 * edge)
    pen.rectangle(
        ((x0 + edge, y0 + edge), (x1 - 1 - edge, y1 - 1 - edge)), outline=mark.color, width=line
    )


def _tag(mark: _Mark, pad: int) -> Image.Image:
    """The tag as a picture of its own, so that no letter leaves it."""
    x0, y0, x1, y1 = mark.tag
    tag = Image.new("RGB", (x1 - x0, y1 - y0), mark.color)
    # Capitals are 0.7 of the font's size: they stand in the middle.
    baseline = (tag.height + round(0.7 * mark.font.size)) // 2
    pen = ImageDraw.Draw(tag)
    pen.text((pad, baseline), mark.text, fill=ink(mark.color), font=mark.font, anchor="ls")
    return tag
