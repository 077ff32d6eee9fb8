"""vlrt: vision-language models on ONNX Runtime, with no PyTorch where they run.

import vlrt

clip = vlrt.load("clip-b32", precision="int8")
clip.classify("cat.jpg", ["a cat", "a dog"]).best
"""

from vlrt import errors
from vlrt.errors import VlrtError
from vlrt.image import load_image
from vlrt.load import load
from vlrt.ops import cosine_similarity
from vlrt.results import Answers, Classification, Detections, EncodedImage, LabelSet, Matches
from vlrt.templates import IMAGENET_TEMPLATES

__all__ = [
    "IMAGENET_TEMPLATES",
    "Answers",
    "Classification",
    "Detections",
    "EncodedImage",
    "LabelSet",
    "Matches",
    "VlrtError",
    "__version__",
    "cosine_similarity",
    "errors",
    "load",
    "load_image",
]


def __getattr__(name: str) -> str:
    """`__version__`, read when it is asked for: reading metadata costs every start 25 ms."""
    if name == "__version__":
        from importlib.metadata import version

        return version("vlrt")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
