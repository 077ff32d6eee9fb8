"""The parts of a multipart/form-data body, strictly: what is broken is refused, never guessed."""

from typing import NamedTuple

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from vlrt.errors import LimitError, RequestError

_ENCODINGS = {"", "7bit", "8bit", "binary"}  # those in which a part's bytes are what they are


class Part(NamedTuple):
    """One part.

    Attributes:
        name: of its field.
        is_file: whether it has a file name.
        data: its bytes.
    """

    name: str
    is_file: bool
    data: bytes

    @property
    def text(self) -> str:
        """Its bytes as text.

        Raises:
            RequestError: they are not UTF-8.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"the field {self.name!r:.80} is not UTF-8: {error}") from error


def parts(body: bytes, content_type: str, *, most: int) -> list[Part]:
    """Take a body apart.

    Args:
        body: all of it.
        content_type: the header, which states the boundary.
        most: so many parts at the most.

    Raises:
        RequestError: there is no boundary, or the body does not keep to it; or a part has no name,
            or one that is not UTF-8.
        LimitError: there are more parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RequestError(f"Content-Type is {content_type!r:.120}; it states no boundary")
    collector = _Collector(most)
    try:
        parser = python_multipart.MultipartParser(
            boundary,
            {
                "on_part_begin": collector.begin,
                "on_header_field": collector.header_name,
                "on_header_value": collector.header_value,
                "on_header_end": collector.header_end,
                "on_part_data": collector.data,
                "on_part_end": collector.end,
                "on_end": collector.close,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(f"the body is not multipart/form-data: {error}") from error
    if not collector.closed:
        raise RequestError("the body ends before its closing boundary")
    return collector.parts


class _Collector:
    """What the parser calls; it gives slices of the body, several to a part."""

    def __init__(self, most: int) -> None:
        self.parts: list[Part] = []
        self.closed = False
        self._most = most

    def begin(self) -> None:
        if len(self.parts) == self._most:
            raise LimitError(f"the body has more than {self._most} parts, the most that are taken")
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value, self._data = bytearray(), bytearray(), bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def end(self) -> None:
        encoding = self._headers.get(b"content-transfer-encoding", b"").decode("latin-1")
        if encoding.lower() not in _ENCODINGS:
            raise RequestError(
                f"Content-Transfer-Encoding is {encoding!r:.80}; valid: binary, or none"
            )
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise RequestError(
                f"part {len(self.parts)} has no Content-Disposition of form-data with a name"
            )
        try:
            name = options[b"name"].decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"the name of part {len(self.parts)} is not UTF-8") from error
        self.parts.append(Part(name, b"filename" in options, bytes(self._data)))

    def close(self) -> None:
        self.closed = True
