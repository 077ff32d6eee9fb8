"""RGB pictures to `pixel_values` as OWLv2 wants them: padded to a square, then resized.

The reference is transformers' `models/owlv2/image_processing_pil_owlv2.py`, which pads with black
at the bottom and on the right, blurs with SciPy's Gaussian filter and samples the result linearly.
Each of these is linear and works on one axis at a time, so here an axis has one matrix: a row an
output sample, a few taps wide. Black adds nothing to a sum, so the padding is never made.

transformers also clips the result to the range of its input. Taps are positive and sum to 1, so
that undoes rounding alone, which the tolerance of the tests covers, and is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt.errors import BundleError, ImageError
from vlrt.files import Settings
from vlrt.processor import batch_of, read_mean_std, read_resample, read_rescale, read_size

_TRUNCATE = 4  # standard deviations at which the Gaussian ends
# Pixels along a side. The matrix of an axis grows with it, to some 200 MB here; a picture can have
# so many only if it is less than 90 pixels wide, and keeps nothing of that width once resized.
_LONGEST_SIDE = 1_000_000
_BAND = 16  # output samples computed by one dense product; more of them multiply more zeros
# Multiplications in one product. OpenBLAS, which NumPy's wheels bring, spreads larger ones over its
# own threads, whose wake-up takes longer than the product where cores are busy. Pictures are read
# by several threads anyway (`vlrt.stream`).
_PRODUCT = 4 * 65536


@dataclass(frozen=True, eq=False)
class PaddedProcessor:
    """Rescale, pad to a square, resize and normalise, as a `preprocessor_config.json` says.

    Agrees with `transformers.Owlv2ImageProcessorPil`, which rounds to float32 at every step, to
    1e-5, and exactly in the padding.

    Attributes:
        output_hw: (height, width) of every result.
        anti_aliasing: blur before sampling, where pixels become fewer.
        rescale_factor: what the levels 0..255 are multiplied by.
        mean, std: float32 [3, 1], taken off and divided by, after the resize.
    """

    output_hw: tuple[int, int]
    anti_aliasing: bool
    rescale_factor: float
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def from_settings(cls, settings: Settings) -> "PaddedProcessor":
        """Read the settings; an integer `size` means a square.

        `resample` chooses no filter. transformers hands it on as `anti_aliasing`, so that every
        number but 0 (nearest) asks for the blur, and 0 for none; the same happens here.

        Raises:
            BundleError: a value that is needed is missing or of an unknown form, or the settings
                turn a step on or off that defines this processing.
        """
        factor = read_rescale(settings)
        if factor is None:
            # transformers would then blur in uint8, and so cut off the fractions.
            key = "do_rescale" if settings.get("rescale") is None else "rescale"
            raise BundleError(f"{settings.file}: {key} is false; only true is supported")
        for key in ("do_pad", "do_resize"):
            if settings.need(key) is not True:
                raise BundleError(
                    f"{settings.file}: {key} is {settings[key]!r}; only true is supported"
                )
        if settings.get("do_center_crop"):
            raise BundleError(f"{settings.file}: do_center_crop is set; a padded picture has none")
        size = read_size(settings, "size", default_to_square=True)
        if "height" not in size:
            raise BundleError(
                f"{settings.file}: size is {settings['size']!r}; valid: a positive integer, "
                '[height, width] or {"height": h, "width": w}'
            )
        mean, std = np.zeros((3, 1), np.float32), np.ones((3, 1), np.float32)
        if settings.need("do_normalize"):
            mean, std = read_mean_std(settings)
        return cls(
            output_hw=(size["height"], size["width"]),
            anti_aliasing=read_resample(settings) != 0,
            rescale_factor=factor,
            mean=mean,
            std=std,
        )

    @property
    def shorter_side(self) -> int:
        """Pixels along the shorter side that a fast decode must not undercut.

        It is the longer side that becomes `output_hw`, and it is at least as long as the shorter.
        """
        return max(self.output_hw)

    def as_bytes(self) -> NoReturn:
        """Refuse: what is resized here is no bytes any more.

        Raises:
            BundleError: always.
        """
        raise BundleError(
            "the graph takes pixel_values as bytes; pictures that are padded to a square are "
            "resized in fractions"
        )

    def empty(self, number: int) -> NDArray[np.float32]:
        """Room for so many results, float32 [N, 3, H, W]."""
        return np.empty((number, 3, *self.output_hw), np.float32)

    def into(self, image: Image.Image, out: NDArray[np.float32], threads: int = 1) -> None:  # noqa: ARG002
        """Process one picture into a slot of a batch.

        Beside the result it holds a few rows of the picture at a time, however large it is.

        Args:
            image: mode RGB or RGBX, any size.
            out: float32 [3, H, W], contiguous, with (H, W) equal to `output_hw`; overwritten.
            threads: not used: the products are too small to be shared out.

        Raises:
            ImageError: the picture is longer than `_LONGEST_SIDE`.
        """
        side = max(image.size)
        if side > _LONGEST_SIDE:
            raise ImageError(
                f"the {image.width}x{image.height} picture is too long to be padded to a square; "
                f"the limit is {_LONGEST_SIDE} pixels along a side"
            )
        rows, columns = (
            list(_bands(length, side, size, blur=self.anti_aliasing))
            for length, size in zip((image.height, image.width), self.output_hw, strict=True)
        )
        mean, std = self.mean[..., None], self.std[..., None]
        out[:] = (0 - mean) / std
        factor = np.float32(self.rescale_factor)
        # Without the blur, samples far apart may all miss a thin picture.
        reached = slice(columns[-1].outputs.stop if columns else 0)
        for row in rows:
            strip = image.crop((0, row.inputs.start, image.width, row.inputs.stop))
            levels = np.asarray(strip)[..., :3].astype(np.float32).reshape(len(row.taps), -1)
            shorter = _product(row.taps.T, levels).reshape(-1, image.width, 3)
            channels = np.ascontiguousarray(shorter.transpose(2, 0, 1))
            block = out[:, row.outputs]
            for column in columns:
                np.matmul(channels[..., column.inputs], column.taps, out=block[..., column.outputs])
            done = block[..., reached]
            done *= factor
            done -= mean
            done /= std

    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Process RGB pictures to `pixel_values`, float32 [N, 3, H, W]."""
        return batch_of(self, images)

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, NDArray[Any]]:
        """Process RGB pictures to {"pixel_values": float32 [N, 3, H, W]}."""
        return {"pixel_values": self(images)}

    def to_pixels(
        self, boxes: NDArray[np.float32], size_hw: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Boxes of the square that the model saw to pixels of the picture.

        Args:
            boxes: float32 [..., 4], (x0, y0, x1, y1) in 0..1 of the square.
            size_hw: (height, width) of the original picture in pixels.

        Returns:
            float32 [..., 4], (x0, y0, x1, y1) in pixels, not clipped: the square has the picture's
            longer side, and its top left corner is the picture's.
        """
        return boxes * np.float32(max(size_hw))


class _Band(NamedTuple):
    """Some rows of an axis' matrix, without the zeros on either side.

    Attributes:
        outputs: n output samples.
        inputs: the k samples of the picture that they are made of.
        taps: float32 [k, n].
    """

    outputs: slice
    inputs: slice
    taps: NDArray[np.float32]


def _bands(length: int, side: int, size: int, *, blur: bool) -> Iterator[_Band]:
    """Resizing along one axis, as bands of a matrix.

    Args:
        length: samples of the picture along this axis; black follows, up to `side`.
        side: samples of the square.
        size: samples of the result.
        blur: apply the Gaussian first, of deviation (side / size - 1) / 2, if that is positive.

    Yields:
        Bands in order, up to the last output that the picture reaches: the rest is black.
    """
    # Output i covers an interval of the input; its centre, counted in samples, is where it is read.
    centre = np.abs((np.arange(size) + 0.5) * (side / size) - 0.5)
    centre = np.maximum(np.minimum(centre, 2 * (side - 1) - centre), 0)
    first = np.floor(centre).astype(np.intp)
    fraction = (centre - first)[:, None]
    kernel = _gaussian(max(0.0, (side / size - 1) / 2) if blur else 0.0)
    # Between two blurred neighbours: the kernel at one, and at the next, in their shares.
    taps = (1 - fraction) * np.append(kernel, 0) + fraction * np.insert(kernel, 0, 0)
    radius = len(kernel) // 2
    source = _mirrored(first[:, None] + np.arange(-radius, radius + 2), side)
    for start in range(0, size, _BAND):
        outputs = slice(start, min(start + _BAND, size))
        sample, tap = np.nonzero((source[outputs] < length) & (taps[outputs] > 0))
        if not len(sample):
            return
        used = source[outputs][sample, tap]
        low, width = used.min(), outputs.stop - start
        inputs = slice(int(low), int(used.max()) + 1)
        # A mirrored sample has two taps or more, which bincount adds.
        dense = np.bincount(
            (used - low) * width + sample,
            taps[outputs][sample, tap],
            minlength=(inputs.stop - inputs.start) * width,
        )
        yield _Band(outputs, inputs, dense.reshape(-1, width).astype(np.float32))


def _product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """`a @ b`, a piece of the columns at a time (see `_PRODUCT`)."""
    result = np.empty((len(a), b.shape[1]), np.float32)
    step = max(1, _PRODUCT // a.size)
    for start in range(0, b.shape[1], step):
        piece = slice(start, start + step)
        np.matmul(a, b[:, piece], out=result[:, piece])
    return result


def _gaussian(sigma: float) -> NDArray[np.float64]:
    """Samples of a Gaussian at -r..r, summing to 1, with r the truncation rounded; [1] for 0."""
    radius = int(_TRUNCATE * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    weights: NDArray[np.float64] = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    return weights


def _mirrored(index: NDArray[np.intp], side: int) -> NDArray[np.intp]:
    """Indices beyond 0..side-1 reflected about the first and last sample, as often as it takes."""
    if side == 1:
        return np.zeros_like(index)
    around = index % (2 * side - 2)
    return np.minimum(around, 2 * side - 2 - around)
