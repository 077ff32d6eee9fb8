"""Pictures of every kind, drawn from a seed."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
SIZES_WH = {"portrait": (37, 61), "landscape": (61, 37), "square": (48, 48)}
ELONGATED_WH = ((20000, 50), (50, 20000), (1, 1))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Smooth waves under noise, uint8: both a gradient and hard edges for a filter to get wrong."""
    rng = np.random.default_rng((seed, *shape))
    waves = np.sin(np.arange(np.prod(shape)).reshape(shape) / 7) * 80 + 120
    return np.clip(waves + rng.normal(0, 40, shape), 0, 255).astype(np.uint8)


def picture(mode: str = "RGB", size_wh: tuple[int, int] = (61, 37), seed: int = 0) -> Image.Image:
    """A picture of any of Pillow's usual modes."""
    width, height = size_wh
    if mode == "I;16":
        levels = noise(height, width, seed=seed).astype(np.uint16)
        return Image.fromarray(levels * 201)
    if mode == "P":
        return picture("RGB", size_wh, seed).quantize(16)
    if mode == "P with transparency":
        image = picture("P", size_wh, seed)
        image.info["transparency"] = 3
        return image
    if mode == "1":
        return Image.fromarray(noise(height, width, seed=seed)).convert("1")
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if bands == 1 else (height, width, bands)
    return Image.frombytes(mode, size_wh, noise(*shape, seed=seed).tobytes())


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a picture's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated_jpeg(orientation: int, size_wh: tuple[int, int] = (61, 37)) -> bytes:
    """A JPEG that its EXIF orientation turns."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(picture("RGB", size_wh), "JPEG", exif=exif, quality=95)


def animated_gif() -> bytes:
    """Three frames, the first of which counts."""
    first, *others = (picture("P", seed=seed) for seed in range(3))
    return encoded(first, "GIF", save_all=True, append_images=others)


def _png_16_bit_rgb() -> bytes:
    """Pillow reads 16-bit RGB and cannot write it, so this writes the PNG by hand."""
    width, height = 61, 37
    levels = noise(height, width, 3).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in levels)

    def chunk(name: bytes, data: bytes) -> bytes:
        named = name + data
        return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


FILES: dict[str, Callable[[], bytes]] = {
    **{f"rgb {name}": lambda wh=wh: encoded(picture("RGB", wh)) for name, wh in SIZES_WH.items()},
    **{
        f"{mode} {name}": lambda mode=mode, wh=wh: encoded(picture(mode, wh))
        for mode in ("L", "LA", "RGBA", "P", "P with transparency", "1", "I;16")
        for name, wh in (("landscape", (61, 37)), ("portrait", (37, 61)))
    },
    "CMYK": lambda: encoded(picture("CMYK"), "JPEG", quality=95),
    "RGB;16-bit file": _png_16_bit_rgb,
    "RGB with a transparent colour": lambda: encoded(
        picture("P").convert("RGB"), transparency=picture("P").convert("RGB").getpixel((3, 3))
    ),
    "grey jpeg": lambda: encoded(picture("L"), "JPEG", quality=95),
    "webp with alpha": lambda: encoded(picture("RGBA"), "WEBP", lossless=True),
    "animated gif": animated_gif,
    "one pixel": lambda: encoded(picture("RGB", (1, 1))),
    "one pixel wide": lambda: encoded(picture("RGB", (1, 300))),
    "one pixel high": lambda: encoded(picture("RGB", (300, 1))),
    **{f"exif {n}": lambda n=n: rotated_jpeg(n) for n in range(1, 9)},
}
