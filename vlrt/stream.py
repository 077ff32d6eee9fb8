"""Reading pictures ahead of the model: decode threads, fixed-size batches, bounded memory."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard, TypeVar

import numpy as np

from vlrt.errors import ImageError, OptionError
from vlrt.image import ImageInput, decode
from vlrt.levels import Pixels
from vlrt.processor import Processor

if TYPE_CHECKING:
    # Imported when there is more than one picture to read: a first single answer comes sooner.
    from concurrent.futures import Future

T = TypeVar("T")
U = TypeVar("U")
# What a family gives for each picture of a stream: the picture, and its result or its error.
Stream: TypeAlias = Iterator[tuple[Any, T | ImageError]]
Several: TypeAlias = list[Any] | tuple[Any, ...]  # a list of one kind is no list of a union
# What became of a source: its picture's original (height, width), or why it could not be read.
_Outcome: TypeAlias = tuple[int, int] | ImageError
_Pending: TypeAlias = "tuple[list[ImageInput], Pixels, list[Future[_Outcome]]]"


class Batch(NamedTuple):
    """Consecutive sources, processed.

    Attributes:
        sources: what was read, in order.
        errors: for each source, None or why it could not be read.
        pixel_values: of the N without error, in order: float32 [N, 3, H, W] or uint8 [N, H, W, 3].
        sizes_hw: the original (height, width) of each picture without error, upright, in order.
    """

    sources: Sequence[ImageInput]
    errors: list[ImageError | None]
    pixel_values: Pixels
    sizes_hw: list[tuple[int, int]]

    @property
    def readable(self) -> list[int]:
        """The positions of the pictures without error."""
        return [position for position, error in enumerate(self.errors) if error is None]

    def each(self, values: Iterable[T]) -> Stream[T]:
        """Every source, in order, with its error or the next of the values of those without one."""
        rest = iter(values)
        for source, error in zip(self.sources, self.errors, strict=True):
            yield source, next(rest) if error is None else error


def is_list(images: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a caller gave several pictures; anything but a list or tuple is one."""
    return isinstance(images, list | tuple)


def listed(images: Any) -> Sequence[Any]:
    """Several pictures as they are, and one as a list of one."""
    return images if is_list(images) else [images]


def check_several(images: Any, method: str) -> None:
    """Refuse one picture where a stream of them belongs.

    Raises:
        OptionError: it is one; the message names the method.
    """
    one = isinstance(images, str | bytes | bytearray | memoryview | np.ndarray)
    if one or hasattr(images, "read") or not isinstance(images, Iterable):
        raise OptionError(f"{method} takes several pictures; wrap one as [picture]")


def mapped(function: Callable[[T], U], stream: Stream[T]) -> Stream[U]:
    """Apply a function to what is no error."""
    for source, value in stream:
        yield source, value if isinstance(value, ImageError) else function(value)


def as_given(images: Any, stream: Stream[T]) -> T | list[T]:
    """What a stream gives for one picture or, if several were given, for each of them.

    Raises:
        ImageError: a picture cannot be read; it is named with its position. Or there is none.
    """
    several = is_list(images)
    values = collected(stream, len(images) if several else 1)
    return values if several else values[0]


def collected(stream: Stream[T], number: int, *, what: str = "picture") -> list[T]:
    """All that a stream of `number` pictures gives.

    Args:
        stream: of that many pictures.
        number: of one alone the position is not told.
        what: to call them in messages.

    Raises:
        ImageError: a picture cannot be read; it is named with its position. Or there is none.
    """
    values: list[T] = []
    for position, (_, value) in enumerate(stream):
        if isinstance(value, ImageError):
            which = f"{what} {position}: " if number > 1 else ""
            raise ImageError(f"{which}{value}") from value
        values.append(value)
    if not values:
        raise ImageError("there are no pictures")
    return values


def read_batches(
    sources: Iterable[Any], processor: Processor, batch_size: int, info: Mapping[str, Any]
) -> Iterator[Batch]:
    """Decode and process pictures in threads while the caller works on the batch before.

    Whatever the number of sources, three batches of pixels are held at the most, the caller's and
    two ahead of it, and a decoded picture a thread. Order is kept. A picture that cannot be read
    does not stop the others.

    Args:
        sources: pictures, as `vlrt.load_image` takes them; consumed lazily.
        processor: makes the pixels.
        batch_size: pictures in each batch but the last.
        info: the model's: how many `threads` to decode in (none are started for a single picture),
            and whether to `decode` JPEGs at a reduced size ("fast"). A single picture has all the
            threads to be resized in.
    """
    side = processor.shorter_side if info["decode"] == "fast" else None

    def read(source: ImageInput, slot: Pixels, threads: int = 1) -> _Outcome:
        try:
            image, size_hw = decode(source, shorter_side=side)
            processor.into(image, slot, threads)
        except ImageError as error:
            return error
        return size_hw

    chunks = _chunks(sources, batch_size)
    first = next(chunks, [])
    if not first:
        return
    if len(first) == 1 < batch_size:  # then there is no more, and a thread costs more than it saves
        pixels = processor.empty(1)
        yield _batch(first, pixels, [read(first[0], pixels[0], int(info["threads"]))])
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(int(info["threads"]), thread_name_prefix="vlrt-decode") as pool:
        ahead: deque[_Pending] = deque()
        for chunk in itertools.chain([first], chunks):
            pixels = processor.empty(len(chunk))
            futures = [pool.submit(read, *pair) for pair in zip(chunk, pixels, strict=True)]
            ahead.append((chunk, pixels, futures))
            if len(ahead) == 2:
                yield _finished(ahead.popleft())
        while ahead:
            yield _finished(ahead.popleft())


def _finished(pending: _Pending) -> Batch:
    chunk, pixels, futures = pending
    return _batch(chunk, pixels, [future.result() for future in futures])


def _batch(chunk: list[ImageInput], pixels: Pixels, outcomes: list[_Outcome]) -> Batch:
    errors = [outcome if isinstance(outcome, ImageError) else None for outcome in outcomes]
    sizes_hw = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    if any(errors):
        pixels = pixels[[error is None for error in errors]]
    return Batch(chunk, errors, pixels, sizes_hw)


def _chunks(sources: Iterable[ImageInput], size: int) -> Iterator[list[ImageInput]]:
    iterator = iter(sources)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
