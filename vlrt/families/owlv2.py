"""OWLv2: OWL-ViT on padded squares, with an opinion of its own on where objects are.

Agrees with `transformers/models/owlv2/modeling_owlv2.py`.
"""

import numpy as np
from numpy.typing import NDArray

from vlrt import boxes as geometry
from vlrt.errors import BundleError
from vlrt.families import owlvit
from vlrt.families.owlvit import COMPONENTS, FOREIGN_COMPONENTS, FOREIGN_NOTE, task
from vlrt.files import Settings
from vlrt.padded import PaddedProcessor
from vlrt.processor import Processor
from vlrt.results import EncodedImage

__all__ = ["COMPONENTS", "FOREIGN_COMPONENTS", "FOREIGN_NOTE", "Model", "image_processor", "task"]


def image_processor(settings: Settings) -> Processor:
    """What turns pictures into `pixel_values`."""
    return PaddedProcessor.from_settings(settings)


class Model(owlvit.Model):
    """An OWLv2 model, used as an OWL-ViT is (see `vlrt.families.owlvit.Model`)."""

    _image_processor = staticmethod(image_processor)

    def _example_place(self, example: EncodedImage, box: NDArray[np.float32] | None) -> int | None:
        """The place of the highest objectness or, given a box, of the box most like it."""
        if box is None:
            if example.objectness_logits is None:
                raise BundleError(f"the vision_model of {self._name} gives no objectness_logits")
            return int(example.objectness_logits.argmax())
        overlap = geometry.iou(box[None], self._pixel_boxes(example))[0]
        return int(overlap.argmax()) if overlap.any() else None
