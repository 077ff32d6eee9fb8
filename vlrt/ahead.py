"""Reading pictures of any shape ahead of the model, one by one: decode threads, bounded memory."""

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vlrt.errors import ImageError
from vlrt.image import ImageInput, decode
from vlrt.levels import Pixels
from vlrt.ragged import RaggedProcessor
from vlrt.stream import Stream

if TYPE_CHECKING:
    # Imported when there is more than one picture to read, as in `vlrt.stream`.
    from concurrent.futures import Future


def read_each(
    sources: Iterable[Any], processor: RaggedProcessor, ahead: int, info: Mapping[str, Any]
) -> Stream[Pixels]:
    """Decode and process pictures in threads while the caller works on those before.

    Whatever the number of sources, beside those that the caller keeps, `ahead` pictures are held at
    the most. Order is kept. A picture that cannot be read does not stop the others.

    Args:
        sources: pictures, as `vlrt.load_image` takes them; consumed lazily.
        processor: makes the pixels.
        ahead: pictures to be read while the caller has another, at least 1.
        info: the model's: how many `threads` to decode in (none are started for a single picture),
            and whether to `decode` JPEGs at a reduced size ("fast"). A single picture has all the
            threads to be resized in.

    Yields:
        Each source with its pixels, as `RaggedProcessor.pixels` makes them, or why it could not be
        read.
    """
    side = processor.shorter_side if info["decode"] == "fast" else None

    def read(source: ImageInput, threads: int = 1) -> Pixels | ImageError:
        try:
            image, size_hw = decode(source, shorter_side=side)
            # A picture that was decoded smaller still gets the shape of the whole one.
            return processor.pixels(image, None if side is None else size_hw, threads)
        except ImageError as error:
            return error

    iterator = iter(sources)
    first = list(itertools.islice(iterator, 2))
    if len(first) < 2:
        for source in first:
            yield source, read(source, int(info["threads"]))
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(int(info["threads"]), thread_name_prefix="vlrt-decode") as pool:
        pending: deque[tuple[Any, Future[Pixels | ImageError]]] = deque()
        for source in itertools.chain(first, iterator):
            pending.append((source, pool.submit(read, source)))
            if len(pending) > ahead:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
