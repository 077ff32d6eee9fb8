"""The client of `vlrt bench serve`: HTTP/1.1 over kept connections, as little work as can be.

A request is bytes that were made before. An answer must have a Content-Length, as every answer of
`vlrt serve` has. Whatever is no answer is a `Failure` with a name, so that it can be counted: a
refused connection, one that was lost, one that stayed silent for too long, one that was left on
purpose.
"""

import asyncio
import errno
from dataclasses import dataclass

REFUSED, LOST, TIMED_OUT = "refused", "connection lost", "timed out"
UNREADABLE, LEFT = "unreadable answer", "left"
# uvicorn closes a connection that was idle for five seconds; one that is about to be is not used.
_IDLE_S = 3.0


class Failure(Exception):  # noqa: N818 - it is counted, and no error of the benchmark
    """What came in place of an answer; its text is the name that it is counted under."""


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        status: of HTTP.
        retry_after: the header, or None.
        body: all of it.
        closes: whether the server closes the connection after it.
    """

    status: int
    retry_after: str | None
    body: bytes
    closes: bool


class Connections:
    """Connections to one server; each bears one request at a time, and is kept for the next.

    Args:
        host, port: of the server.
        timeout_s: without its answer for so long, from the moment of asking, a request has failed.

    Attributes:
        opened: how many were made in all.
    """

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.opened = 0
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._kept: list[_Connection] = []  # the last one is the one used last

    async def ask(self, request: bytes, leave_after_s: float | None = None) -> Answer:
        """Send a request and read its answer.

        Args:
            request: head and body.
            leave_after_s: go away without the answer if it takes longer than this.

        Raises:
            Failure: there was no answer.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (self._timeout_s if leave_after_s is None else leave_after_s)
        late = TIMED_OUT if leave_after_s is None else LEFT
        connection = self._idle(loop.time()) or await self._connect(until - loop.time(), late)
        timer = loop.call_at(until, connection.expire)
        try:
            connection.writer.write(request)
            answer = await _read(connection.reader)
        except (ValueError, asyncio.LimitOverrunError) as error:
            connection.abort()
            raise Failure(f"{UNREADABLE}: {error}") from error
        except (OSError, EOFError) as error:
            connection.abort()
            raise Failure(late if connection.expired else LOST) from error
        except BaseException:
            connection.abort()
            raise
        finally:
            timer.cancel()
        # An answer that came before all of the request was sent leaves a rest on the line.
        unsent = connection.writer.transport.get_write_buffer_size()
        if answer.closes or unsent:
            connection.abort()
        else:
            connection.since = loop.time()
            self._kept.append(connection)
        return answer

    async def close(self) -> None:
        """Close those that are kept."""
        for connection in self._kept:
            connection.abort()
        self._kept.clear()
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn

    def _idle(self, now: float) -> "_Connection | None":
        while self._kept:
            connection = self._kept.pop()
            if now - connection.since < _IDLE_S and not connection.reader.at_eof():
                return connection
            connection.abort()
        return None

    async def _connect(self, within_s: float, late: str) -> "_Connection":
        try:
            opening = asyncio.open_connection(self._host, self._port)
            reader, writer = await asyncio.wait_for(opening, within_s)
        except asyncio.TimeoutError as error:
            raise Failure(late) from error
        except ConnectionRefusedError as error:
            raise Failure(REFUSED) from error
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, str(error))
            raise Failure(f"not connected: {code}") from error
        self.opened += 1
        return _Connection(reader, writer)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.expired, self.since = False, 0.0

    def expire(self) -> None:
        """Give up what is waited for, which then fails."""
        self.expired = True
        self.abort()

    def abort(self) -> None:
        self.writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> Answer:
    """One answer.

    Raises:
        ValueError: it is not HTTP as it is expected.
        OSError, EOFError: the connection ended before it did.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError(f"begins with {bytes(first[:20])!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip().decode("latin-1")
    if b"content-length" not in headers:
        raise ValueError("no Content-Length")
    body = await reader.readexactly(int(headers[b"content-length"]))
    closes = headers.get(b"connection", "").lower() == "close"
    return Answer(int(rest[:3]), headers.get(b"retry-after"), body, closes)
