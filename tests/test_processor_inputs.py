"""What graphs take of pictures, from each processor, by name."""

import numpy as np
import pytest
from pictures import picture

from vlrt.files import Settings
from vlrt.padded import PaddedProcessor
from vlrt.processor import ImageProcessor
from vlrt.ragged import RaggedProcessor

COMMON = {"do_resize": True, "do_pad": True, "do_normalize": True, "do_center_crop": False,
          "resample": 2, "image_mean": 0.5, "image_std": 0.25, "size_divisor": 8}  # fmt: skip
SIZES = {
    ImageProcessor: {"height": 16, "width": 24},
    PaddedProcessor: {"height": 16, "width": 24},
    RaggedProcessor: {"shortest_edge": 16},
}


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("kind", SIZES)
def test_inputs_are_named_arrays_with_a_row_a_picture(kind, number):
    made = kind.from_settings(Settings("preprocessor.json", COMMON | {"size": SIZES[kind]}))
    images = [picture("RGB", (40, 30), seed=n) for n in range(number)]
    found = made.inputs(images)
    masked = kind is RaggedProcessor
    assert set(found) == {"pixel_values", *(["pixel_mask"] if masked else [])}
    for name, array in found.items():
        assert len(array) == number
        assert array.dtype == (np.int64 if name == "pixel_mask" else np.float32)
    for n, image in enumerate(images):
        alone = made.pixels(image) if masked else made([image])[0]
        assert np.array_equal(found["pixel_values"][n], alone)
