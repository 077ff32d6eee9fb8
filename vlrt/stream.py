"""Reading pictures ahead of the model: decode threads, fixed-size batches, bounded memory."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import ImageError
from vlrt.image import ImageInput, decode
from vlrt.processor import Processor

if TYPE_CHECKING:
    # Imported when there is more than one picture to read: a first single answer comes sooner.
    from concurrent.futures import Future

# What became of a source: its picture's original (height, width), or why it could not be read.
_Outcome: TypeAlias = tuple[int, int] | ImageError
_Pending: TypeAlias = "tuple[list[ImageInput], NDArray[np.float32], list[Future[_Outcome]]]"


class Batch(NamedTuple):
    """Consecutive sources, processed.

    Attributes:
        sources: what was read, in order.
        errors: for each source, None or why it could not be read.
        pixel_values: float32 [number without error, 3, H, W], in order.
        sizes_hw: the original (height, width) of each picture without error, upright, in order.
    """

    sources: Sequence[ImageInput]
    errors: list[ImageError | None]
    pixel_values: NDArray[np.float32]
    sizes_hw: list[tuple[int, int]]


def is_list(images: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a caller gave several pictures; anything but a list or tuple is one."""
    return isinstance(images, list | tuple)


def read_batches(
    sources: Iterable[ImageInput],
    processor: Processor,
    *,
    batch_size: int,
    workers: int,
    fast: bool = False,
) -> Iterator[Batch]:
    """Decode and process pictures in threads while the caller works on the batch before.

    At most two batches of pixels and `workers` decoded pictures are held at once, whatever the
    number of sources. Order is kept. A picture that cannot be read does not stop the others.

    Args:
        sources: pictures, as `vlrt.load_image` takes them; consumed lazily.
        processor: makes the pixels.
        batch_size: pictures in each batch but the last.
        workers: decode threads; none are started for a single picture.
        fast: let JPEGs be decoded at a reduced size.
    """
    side = processor.shorter_side if fast else None

    def read(source: ImageInput, slot: NDArray[np.float32]) -> _Outcome:
        try:
            image, size_hw = decode(source, shorter_side=side)
            processor.into(image, slot)
        except ImageError as error:
            return error
        return size_hw

    chunks = _chunks(sources, batch_size)
    first = next(chunks, [])
    if not first:
        return
    if len(first) == 1 < batch_size:  # then there is no more, and a thread costs more than it saves
        pixels = np.empty((1, 3, *processor.output_hw), np.float32)
        yield _batch(first, pixels, [read(first[0], pixels[0])])
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers, thread_name_prefix="vlrt-decode") as pool:
        ahead: deque[_Pending] = deque()
        for chunk in itertools.chain([first], chunks):
            pixels = np.empty((len(chunk), 3, *processor.output_hw), np.float32)
            futures = [pool.submit(read, *pair) for pair in zip(chunk, pixels, strict=True)]
            ahead.append((chunk, pixels, futures))
            if len(ahead) == 2:
                yield _finished(ahead.popleft())
        while ahead:
            yield _finished(ahead.popleft())


def _finished(pending: _Pending) -> Batch:
    chunk, pixels, futures = pending
    return _batch(chunk, pixels, [future.result() for future in futures])


def _batch(chunk: list[ImageInput], pixels: NDArray[np.float32], outcomes: list[_Outcome]) -> Batch:
    errors = [outcome if isinstance(outcome, ImageError) else None for outcome in outcomes]
    sizes_hw = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    if any(errors):
        pixels = pixels[[error is None for error in errors]]
    return Batch(chunk, errors, pixels, sizes_hw)


def _chunks(sources: Iterable[ImageInput], size: int) -> Iterator[list[ImageInput]]:
    iterator = iter(sources)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
