"""Pillow's resize and a crop of its result, bit for bit, without what the crop throws away.

Pillow resizes along the rows, rounds to uint8, then along the columns, each time in integers
(`src/libImaging/Resample.c`). Nothing of the first pass looks beyond its own row, so here it takes
the rows in bands: only those that the second pass will look at, and in several threads where a
single large picture is waited for. Pillow lets other threads run meanwhile.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import PIL
from PIL import Image
from PIL.Image import Resampling

Box: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom in pixels, as Pillow has it

# Pixels of a picture that its first pass takes at a time: two megabytes, which stay in a core's
# cache between the copy and the resize. Smaller bands compute the filter's weights too often.
_BAND = 2**19
# The newest Pillow, (major, minor), whose order of passes is known here; a later one resizes on its
# own, until someone has looked.
KNOWN_PILLOW = (13, 0)
# How far each filter reaches from the centre of an output pixel, in pixels of the coarser side.
_REACH = {
    Resampling.BOX: 0.5,
    Resampling.BILINEAR: 1.0,
    Resampling.HAMMING: 1.0,
    Resampling.BICUBIC: 2.0,
    Resampling.LANCZOS: 3.0,
}


def resized(
    image: Image.Image,
    size_hw: tuple[int, int],
    resample: int,
    *,
    crop_hw: tuple[int, int] | None = None,
    threads: int = 1,
) -> Image.Image:
    """Resize a picture and cut out its centre, as `Image.resize` and `Image.crop` would.

    Args:
        image: mode RGB or RGBX, any size.
        size_hw: (height, width) to resize to.
        resample: Pillow's filter number.
        crop_hw: (height, width) of the centre crop, black where it is larger than the picture; all
            of it by default.
        threads: in how many to resize a large picture.

    Returns:
        A picture of the same mode, (height, width) being `crop_hw` or else `size_hw`.
    """
    height, width = size_hw
    crop_h, crop_w = crop_hw or size_hw
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    reach = _REACH.get(Resampling(resample))  # nearest has none: it goes in one pass
    large = image.width * image.height > _BAND
    if reach is None or not large or not _rows_first(image.size, (width, height)):
        image = image.resize((width, height), Resampling(resample))
        box = (left, top, left + crop_w, top + crop_h)
        return image if crop_hw in (None, size_hw) else image.crop(box)
    # What of the crop is picture; the rest is black and comes last.
    inside: Box = (max(left, 0), max(top, 0), min(left + crop_w, width), min(top + crop_h, height))
    scale = image.height / height
    support = reach * max(scale, 1.0)
    first = max(0, int((inside[1] + 0.5) * scale - support) - 1)
    last = min(image.height, int((inside[3] - 0.5) * scale + support) + 2)
    # As high as the picture, so that the second pass has the weights that the whole would have.
    narrow = Image.new(image.mode, (inside[2] - inside[0], image.height))

    def first_pass(start: int) -> None:
        stop = min(start + step, last)
        band = image.crop((0, start, image.width, stop))
        band = band.resize((width, stop - start), Resampling(resample))
        narrow.paste(band, (-inside[0], start))

    step = max(1, _BAND // image.width)
    _for_each(first_pass, range(first, last, step), threads)
    image = narrow.resize((narrow.width, height), Resampling(resample))
    x, y = left - inside[0], top
    return image.crop((x, y, x + crop_w, y + crop_h))


def _rows_first(size_wh: tuple[int, int], resized_wh: tuple[int, int]) -> bool:
    """Whether Pillow surely resizes along the rows first.

    Until 12.1 it always does; from 12.2, not where a picture is a hundred times as high as wide;
    from 13.0, not where its height shrinks by more than twice what its width does, in pixels.
    """
    (width, height), (resized_w, resized_h) = size_wh, resized_wh
    version = tuple(int(part) for part in PIL.__version__.split(".")[:2])
    known = version <= KNOWN_PILLOW
    return known and height <= 100 * width and height - resized_h <= 2 * (width - resized_w)


def _for_each(work: Callable[[int], None], items: Iterable[int], threads: int) -> None:
    """Do all the work, in threads if more than one is allowed."""
    if threads == 1:
        for item in items:
            work(item)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads, thread_name_prefix="vlrt-resize") as pool:
        for _ in pool.map(work, items):
            pass
