"""JPEGs through simplejpeg, where the extra `fast-decode` is installed: Pillow's pixels, sooner.

Both call libjpeg-turbo, with the same settings. Pillow copies each row twice on the way; simplejpeg
has the rows written where they stay. It is asked only for what both are known to decode alike, and
has no say in what is a picture: what it refuses or warns of is left to Pillow, and so is the error.
"""

import functools
from types import ModuleType
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image

# (colours, sampling) in simplejpeg's words that decode bit for bit as in Pillow. The rest is rare,
# and some of it (CMYK) is turned into RGB in another way.
_ALIKE = {("Gray", "Gray"), ("RGB", "444")} | {
    ("YCbCr", sampling) for sampling in ("444", "422", "420", "440")
}
# From so many pixels on it is the faster way. It decodes twelve megapixels in half of Pillow's time
# and two in little less than that, and its four bytes a pixel take a tenth longer to resize.
_LEAST_PIXELS = 2**22
# simplejpeg takes a file as a whole. A longer one than this is left to Pillow, which does not.
_MOST_BYTES = 2**28
# Pillow's libjpeg-turbo has to be at least simplejpeg's own, and below what mozjpeg calls itself:
# (major, minor).
_LEAST_TURBO, _BEYOND_TURBO = (3, 1), (4, 0)


@functools.cache
def simplejpeg() -> ModuleType | None:
    """The module, or None where it is not installed, or Pillow's JPEG library is another or older.

    Imported when first asked for, and not with vlrt.
    """
    from PIL import features

    turbo = features.version_feature("libjpeg_turbo") or "0.0"
    if not _LEAST_TURBO <= tuple(int(part) for part in turbo.split(".")[:2]) < _BEYOND_TURBO:
        return None
    try:
        import simplejpeg as module
    except ModuleNotFoundError as error:
        if error.name != "simplejpeg":
            raise
        return None
    found: ModuleType = module
    return found


def decoder() -> str:
    """What decodes large JPEGs exactly, with its version: simplejpeg or Pillow."""
    module = simplejpeg()
    return f"Pillow {PIL.__version__}" if module is None else f"simplejpeg {module.__version__}"


def decoded(image: Image.Image, file: BinaryIO) -> Image.Image:
    """A picture that Pillow has opened, decoded by simplejpeg if that is sooner and the same.

    Args:
        image: as Pillow opened it, of a size within the limit; nothing is decoded yet.
        file: what it was opened from.

    Returns:
        Mode RGBX (of which X means nothing), or `image` as it is.
    """
    # MPO is several JPEGs in a row, of which the first is the picture: telephones write it.
    unlike = image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB")
    if unlike or image.width * image.height < _LEAST_PIXELS:
        return image
    module = simplejpeg()
    if module is None:
        return image
    position = file.tell()
    file.seek(0)
    data = file.read(_MOST_BYTES + 1)
    file.seek(position)
    if len(data) > _MOST_BYTES:
        return image
    # Of Pillow's size, whatever simplejpeg reads in the file: it writes nowhere else.
    pixels = np.empty((image.height, image.width, 4), np.uint8)
    try:
        height, width, *kind = module.decode_jpeg_header(data)
        if (height, width) != pixels.shape[:2] or tuple(kind) not in _ALIKE:
            return image
        module.decode_jpeg(data, "RGBX", buffer=pixels)
    except (KeyError, ValueError):
        # A sampling that it has no name for; an error, or a warning: Pillow tells them apart.
        return image
    whole = Image.frombuffer("RGBX", image.size, pixels, "raw", "RGBX", 0, 1)
    whole.info = image.info.copy()  # the orientation is here
    return whole
