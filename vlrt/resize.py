"""Pillow's resize and a crop of its result, bit for bit, without what the crop throws away.

Pillow resizes along the rows, rounds to uint8, then along the columns, each time in integers
(`src/libImaging/Resample.c`). Nothing of the first pass looks beyond its own row, and nothing of
the second beyond its own column. So here the first takes the rows in bands, only those that the
second will look at, and the second takes the columns in strips, only those that the crop keeps; in
several threads where a single picture is waited for. Pillow lets other threads run meanwhile.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import PIL
from PIL import Image
from PIL.Image import Resampling

if TYPE_CHECKING:
    # Imported when there is work for threads.
    from concurrent.futures import Future, ThreadPoolExecutor

# Pixels of a picture that its first pass takes at a time: two megabytes, which stay in a core's
# cache between the copy and the resize. Smaller bands compute the filter's weights too often.
_BAND = 2**19
# Pixels, before and after, from which on a second thread saves more than its start costs.
_SHARED = 2**18
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


def resize(
    image: Image.Image,
    size_hw: tuple[int, int],
    resample: int,
    use: Callable[[Image.Image, int], None],
    *,
    crop_hw: tuple[int, int] | None = None,
    threads: int = 1,
) -> None:
    """Resize a picture and cut out its centre, as `Image.resize` and `Image.crop` would.

    Args:
        image: mode RGB or RGBX, any size.
        size_hw: (height, width) to resize to.
        resample: Pillow's filter number.
        use: is given the result, in strips of whole columns: each a picture of the same mode, and
            the column that it begins at. It is called once for each, in any thread.
        crop_hw: (height, width) of the centre crop and so of the result, black where it is larger
            than the picture; `size_hw` by default.
        threads: in how many to resize a picture that is not small.
    """
    height, width = size_hw
    crop_h, crop_w = crop_hw or size_hw
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    if image.width * image.height + crop_h * crop_w < _SHARED:
        threads = 1
    reach = _REACH.get(Resampling(resample))  # nearest has none: it goes in one pass
    nothing_to_gain = threads == 1 and (crop_h, crop_w) == size_hw
    if nothing_to_gain or reach is None or not _rows_first(image.size, (width, height)):
        image = image.resize((width, height), Resampling(resample))
        use(_cropped(image, left, top, crop_w, crop_h), 0)
        return
    # The rows that the crop's will be made of.
    scale = image.height / height
    support = reach * max(scale, 1.0)
    first = max(0, int((max(top, 0) + 0.5) * scale - support) - 1)
    last = min(image.height, int((min(top + crop_h, height) - 0.5) * scale + support) + 2)
    rows = min(max(1, _BAND // image.width), _share(last - first, threads))
    if threads == 1 and last - first == image.height:
        rows = image.height  # in one go, which saves the copy of a band
    columns = _share(crop_w, threads)
    # As high as the picture, so that the second pass has the weights that the whole would have;
    # black beside the picture, and so is what becomes of it.
    strips = {
        start: Image.new(image.mode, (min(columns, crop_w - start), image.height))
        for start in range(0, crop_w, columns)
    }

    def first_pass(start: int) -> None:
        stop = min(start + rows, last)
        band = _cropped(image, 0, start, image.width, stop - start)
        band = band.resize((width, stop - start), Resampling(resample))
        for column, strip in strips.items():
            strip.paste(band, (-left - column, start))

    def second_pass(start: int) -> None:
        strip = strips.pop(start)
        strip = strip.resize((strip.width, height), Resampling(resample))
        use(_cropped(strip, 0, top, strip.width, crop_h), start)

    _for_each(first_pass, range(first, last, rows), threads)
    _for_each(second_pass, list(strips), threads)


def _share(number: int, threads: int) -> int:
    """How many of so many each thread gets, at the most."""
    return -(-number // threads)


def _cropped(image: Image.Image, left: int, top: int, width: int, height: int) -> Image.Image:
    """A part of a picture, black beyond it; the picture itself if that is all of it."""
    if (left, top, width, height) == (0, 0, *image.size):
        return image
    return image.crop((left, top, left + width, top + height))


def _rows_first(size_wh: tuple[int, int], resized_wh: tuple[int, int]) -> bool:
    """Whether Pillow surely resizes along the rows first.

    Until 12.1 it always does; from 12.2, not where a picture is a hundred times as high as wide;
    from 13.0, not where its height shrinks, and by more than twice what its width does, in pixels.
    """
    (width, height), (resized_w, resized_h) = size_wh, resized_wh
    version = tuple(int(part) for part in PIL.__version__.split(".")[:2])
    shorter, narrower = height - resized_h, width - resized_w
    known = version <= KNOWN_PILLOW
    return known and height <= 100 * width and (shorter <= 0 or shorter <= 2 * narrower)


def _for_each(work: Callable[[int], None], items: Sequence[int], threads: int) -> None:
    """Do a work for each item, in the caller's thread and the rest of so many."""
    if threads == 1:
        for item in items:
            work(item)
        return
    from concurrent.futures import Future

    futures: list[tuple[int, Future[None]]] = [(item, Future()) for item in items[1:]]
    try:
        _offer(work, futures, threads - 1)
        work(items[0])
        # What nobody has begun, the caller does: a core that is busy keeps it waiting for little.
        for item, future in reversed(futures):
            if future.cancel():
                work(item)
            else:
                future.result()
    except BaseException:
        for _, future in futures:
            if not future.cancel():
                future.exception()  # waits for it: afterwards nothing is at work any more
        raise


def _offer(
    work: Callable[[int], None], futures: "Sequence[tuple[int, Future[None]]]", threads: int
) -> None:
    """Let so many other threads do a work for each item, as far as there are any.

    There are none where the interpreter is about to end, as under a server's thread that outlives
    the main one, or where the system gives no more. Then the futures are left to the caller.
    """
    try:
        helpers = _helpers(threads, os.getpid())
        for item, future in futures:
            helpers.submit(_do, work, item, future)
    except RuntimeError:
        # It may have put down what it then refused. With it goes that, and the picture with that.
        _helpers.cache_clear()


def _do(work: Callable[[int], None], item: int, future: "Future[None]") -> None:
    """Do a work for an item, unless the caller has taken it back."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        work(item)
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        future.set_exception(error)
    else:
        future.set_result(None)


@functools.cache
def _helpers(number: int, process: int) -> "ThreadPoolExecutor":  # noqa: ARG001
    """So many threads of a process, a fork having none of its parent's.

    They stay: to start one for a small picture costs most of what it saves.
    """
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(number, thread_name_prefix="vlrt-resize")
