"""What `vlrt bench serve` asks: requests as bytes, made once, good ones and bad ones.

Pictures are drawn scenes under a photograph's grain, so that their JPEG files are as large, and as
much work to decode, as those of photographs.
"""

import base64
import io
import itertools
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .request import LABELS, QUESTION

BODIES = ("multipart", "json")
MIDDLE_WH, LARGE_WH, SMALL_WH, HUGE_WH = (640, 480), (1920, 1080), (64, 48), (4000, 3000)
# Different pictures of the same size, which clients ask for in turn.
PICTURES = 4
_GRAIN = 5  # standard deviation, of 255 levels
_QUALITY = 88
_BOUNDARY = "vlrt-bench-3f1c8a60d97b4e52"
_INDEX = "requests.json"


@dataclass(frozen=True)
class Request:
    """A request.

    Attributes:
        name: of its kind.
        raw: head and body, as they are sent.
        expected: the status of a right answer; 503 is right as well.
        repeats: whether a good answer is the same each time, byte for byte.
        leave_after_s: the client goes away after so long, answered or not.
        weight: how often it is asked, beside others.
    """

    name: str
    raw: bytes
    expected: int = 200
    repeats: bool = True
    leave_after_s: float | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Served:
    """A model that is asked.

    Attributes:
        name: as the server knows it.
        method: "classify", "detect" or "ask".
    """

    name: str
    method: str


def keep(requests: Sequence[Request], folder: Path) -> None:
    """Write requests where `kept` finds them."""
    index = []
    for number, one in enumerate(requests):
        facts = {key: value for key, value in asdict(one).items() if key != "raw"}
        (folder / f"{number}.http").write_bytes(one.raw)
        index.append(facts)
    (folder / _INDEX).write_text(json.dumps(index))


def kept(folder: Path) -> list[Request]:
    """The requests that `keep` wrote."""
    index = json.loads((folder / _INDEX).read_text())
    return [
        Request(raw=(folder / f"{number}.http").read_bytes(), **facts)
        for number, facts in enumerate(index)
    ]


# --- what is asked --------------------------------------------------------------------------------


def plain(
    models: Sequence[Served], pictures: Sequence[bytes], *, body: str, labels: Sequence[str]
) -> list[Request]:
    """Every model with every picture, the same labels or question each time."""
    return [
        post(one.name, one, picture, body=body, labels=labels)
        for picture in pictures
        for one in models
    ]


def mixed(models: Sequence[Served]) -> list[Request]:
    """What many kinds of clients would ask: sizes, formats, labels; mistakes; and some that leave.

    Labels come in many orders and numbers, so that what is kept of them changes.
    """
    middle = [jpeg(MIDDLE_WH, seed) for seed in range(PICTURES)]
    large, huge = jpeg(LARGE_WH, 0), jpeg(HUGE_WH, 0)
    small = encoded(SMALL_WH, 0, "PNG")
    orders = itertools.cycle(
        order for size in (1, 2, 3, 4) for order in itertools.permutations(LABELS, size)
    )
    found = []
    for one in models:
        for picture in middle:
            for body in BODIES:
                name = f"{one.name}, 640x480, {body}"
                found.append(post(name, one, picture, body=body, labels=next(orders), weight=1.5))
        for name, picture, weight in (
            ("1920x1080", large, 3.0),
            ("4000x3000", huge, 0.5),
            ("64x48 PNG", small, 2.0),
            ("640x480 WebP", encoded(MIDDLE_WH, 0, "WEBP"), 1.0),
        ):
            found += [
                post(f"{one.name}, {name}", one, picture, labels=next(orders), weight=weight / 4)
                for _ in range(4)
            ]
        found += _mistakes(one, middle[0])
        found.append(
            post(f"{one.name}, left", one, large, leave_after_s=0.01, weight=0.5, repeats=False)
        )
    found += [
        get(f"GET {path}", path, repeats=False, weight=0.2)
        for path in ("/v1/models", "/health/ready", "/metrics")
    ]
    found.append(get("GET of nothing", "/v1/nothing", expected=404, weight=0.2))
    return found


def _mistakes(model: Served, picture: bytes) -> Iterator[Request]:
    """Requests that must be refused, each with its own status."""
    cut = picture[: len(picture) // 2]
    yield post(f"{model.name}, cut off", model, cut, expected=422, weight=0.4)
    yield post(f"{model.name}, no picture", model, b"no picture", expected=422, weight=0.4)
    yield post(f"{model.name}, empty", model, b"", expected=422, weight=0.2)
    yield post(f"{model.name}, 30000x30000", model, vast_png(30000), expected=413, weight=0.4)
    path = f"/v1/{model.method}"
    broken = json_body(fields(model, LABELS), picture)[:-20]
    yield Request(f"{model.name}, broken JSON", raw(path, "application/json", broken), expected=400,
                  weight=0.4)  # fmt: skip
    other = Served("no-such-model", model.method)
    yield post(f"{model.name}, another name", other, picture, expected=404, weight=0.4)


def post(
    name: str,
    model: Served,
    picture: bytes,
    *,
    body: str = "multipart",
    labels: Sequence[str] = LABELS,
    **more: Any,
) -> Request:
    """A question about a picture to a model; `more` is of `Request`."""
    told = fields(model, labels)
    kind, content = (
        ("application/json", json_body(told, picture))
        if body == "json"
        else (f"multipart/form-data; boundary={_BOUNDARY}", multipart(told, picture))
    )
    return Request(name, raw(f"/v1/{model.method}", kind, content), **more)


def get(name: str, path: str, **more: Any) -> Request:
    """A request without a body; `more` is of `Request`."""
    return Request(name, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), **more)


def fields(model: Served, labels: Sequence[str]) -> dict[str, Any]:
    """What a request says beside its picture."""
    if model.method == "ask":
        return {"model": model.name, "question": QUESTION}
    return {"model": model.name, "labels": list(labels)}


def json_body(told: dict[str, Any], picture: bytes) -> bytes:
    """As JSON, the picture in base64."""
    return json.dumps({**told, "image": base64.b64encode(picture).decode()}).encode()


def multipart(told: dict[str, Any], picture: bytes) -> bytes:
    """As a form, the picture as a file; a list is a field that is repeated."""
    texts = [
        (name, text)
        for name, value in told.items()
        for text in (value if isinstance(value, list) else [value])
    ]
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in texts
    ]
    parts.append(
        f"--{_BOUNDARY}\r\nContent-Disposition: form-data; "
        'name="image"; filename="picture"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + picture
        + b"\r\n"
    )
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def raw(path: str, kind: str, body: bytes) -> bytes:
    """A POST as it is sent."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# --- pictures -------------------------------------------------------------------------------------


def jpeg(size_wh: tuple[int, int], seed: int) -> bytes:
    """A drawn photograph as JPEG."""
    return encoded(size_wh, seed, "JPEG", quality=_QUALITY)


def encoded(size_wh: tuple[int, int], seed: int, kind: str, **options: Any) -> bytes:
    """A drawn scene under grain, as a file.

    Args:
        size_wh: (width, height) in pixels.
        seed: another one is another picture.
        kind: as Pillow names formats.
        options: of Pillow's `save`.
    """
    import numpy as np
    from PIL import Image

    from vlrt_export.demo.scenes import draw_scene

    rng = np.random.default_rng(seed)
    pairs = [("red", "circle"), ("yellow", "star")]
    drawn = draw_scene(rng, size_wh=size_wh, n_objects=2, pairs=pairs).image
    pixels = np.asarray(drawn.convert("RGB"), np.int16)
    grain = (_GRAIN * rng.standard_normal(pixels.shape, np.float32)).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(file, kind, **options)
    return file.getvalue()


def vast_png(side: int) -> bytes:
    """A small file whose header says that it is `side` pixels wide and high."""

    def chunk(name: bytes, data: bytes) -> bytes:
        named = name + data
        return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(64))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
