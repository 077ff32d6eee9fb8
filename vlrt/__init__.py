"""vlrt: vision-language models on ONNX Runtime, with no PyTorch where they run.

import vlrt

clip = vlrt.load("clip-b32", precision="int8")
clip.classify("cat.jpg", ["a cat", "a dog"]).best
"""

from importlib.metadata import version

from vlrt import errors
from vlrt.errors import VlrtError
from vlrt.image import load_image
from vlrt.load import load
from vlrt.ops import cosine_similarity
from vlrt.results import Classification, LabelSet
from vlrt.templates import IMAGENET_TEMPLATES

__version__ = version("vlrt")

__all__ = [
    "IMAGENET_TEMPLATES",
    "Classification",
    "LabelSet",
    "VlrtError",
    "__version__",
    "cosine_similarity",
    "errors",
    "load",
    "load_image",
]
