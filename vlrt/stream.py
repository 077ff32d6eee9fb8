"""Reading pictures ahead of the model: decode threads, fixed-size batches, bounded memory."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlrt.errors import ImageError
from vlrt.image import ImageInput, ImageProcessor, decode


class Batch(NamedTuple):
    """Consecutive sources, processed.

    Attributes:
        sources: what was read, in order.
        errors: for each source, None or why it could not be read.
        pixel_values: float32 [number without error, 3, H, W], in order.
    """

    sources: Sequence[ImageInput]
    errors: list[ImageError | None]
    pixel_values: NDArray[np.float32]


def read_batches(
    sources: Iterable[ImageInput],
    processor: ImageProcessor,
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
        workers: decode threads; with 1 or fewer sources than 2, none are started.
        fast: let JPEGs be decoded at a reduced size.
    """
    side = processor.shorter_side if fast else None

    def read(source: ImageInput, slot: NDArray[np.float32]) -> None:
        processor.into(decode(source, shorter_side=side).image, slot)

    chunks = _chunks(sources, batch_size)
    first = next(chunks, None)
    if first is None:
        return
    if len(first) == 1:  # a thread pool would cost more than it saves
        yield _batch(first, processor, lambda source, slot: _done(read, source, slot))()
        first = next(chunks, None)
        if first is None:
            return
    with ThreadPoolExecutor(workers, thread_name_prefix="vlrt-decode") as pool:
        ahead: deque[Callable[[], Batch]] = deque()
        for chunk in itertools.chain([first], chunks):
            ahead.append(_batch(chunk, processor, lambda s, slot: pool.submit(read, s, slot)))
            if len(ahead) == 2:
                yield ahead.popleft()()
        while ahead:
            yield ahead.popleft()()


def _batch(
    chunk: list[ImageInput],
    processor: ImageProcessor,
    submit: Callable[[ImageInput, NDArray[np.float32]], "Future[None]"],
) -> Callable[[], Batch]:
    """Start reading a chunk; the returned function waits for it."""
    pixels = np.empty((len(chunk), 3, *processor.output_hw), np.float32)
    futures = [submit(source, slot) for source, slot in zip(chunk, pixels, strict=True)]

    def wait() -> Batch:
        errors: list[ImageError | None] = []
        for future in futures:
            error = future.exception()
            if error is not None and not isinstance(error, ImageError):
                raise error
            errors.append(error)
        if any(errors):
            return Batch(chunk, errors, pixels[[error is None for error in errors]])
        return Batch(chunk, errors, pixels)

    return wait


def _done(
    read: Callable[[ImageInput, NDArray[np.float32]], None],
    source: ImageInput,
    slot: NDArray[np.float32],
) -> "Future[None]":
    """Read in this thread, wrapped as what a pool would return."""
    future: Future[None] = Future()
    try:
        read(source, slot)
    except ImageError as error:
        future.set_exception(error)
    else:
        future.set_result(None)
    return future


def _chunks(sources: Iterable[ImageInput], size: int) -> Iterator[list[ImageInput]]:
    iterator = iter(sources)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
