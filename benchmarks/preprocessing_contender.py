"""A contender of `preprocessing.py`, a program of its own: from JPEG files to pixel values.

    python preprocessing_contender.py CONTENDER JOB

JOB is JSON: threads, outputs (a directory to save what comes out in), and works: by name, the
snapshot's directory, its model_type, and the paths of the pictures, which are read as one batch.
All works are done once first; then a line of JSON with the versions is printed. From then on each
line read, the name of a work, is a turn: one run that is not counted, for another contender had the
caches, and at least three more, whose seconds are printed as a line of JSON. It ends with its
input.

The programs import what they run inside of functions: no contender has another's library.
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from engine_contender import turn
from numpy.typing import NDArray

Work = dict[str, Any]
Run = Callable[[], NDArray[np.float32]]
_LEAST_SECONDS = 0.2
_PACKAGES = {
    "transformers": ("transformers", "pillow"),
    "hf-processors-rs": ("hf-processors-rs",),
    "vlrt, Pillow": ("vlrt", "pillow"),
    "vlrt, simplejpeg": ("vlrt", "pillow", "simplejpeg"),
    "vlrt, fast": ("vlrt", "pillow"),
}


def load_transformers(work: Work, threads: int) -> Run:  # noqa: ARG001
    """The family's PIL processor; it has no threads."""
    import transformers
    from transformers.image_utils import load_image

    name = {"clip": "CLIP", "owlvit": "OwlViT", "vilt": "Vilt"}[work["model_type"]]
    processor = getattr(transformers, f"{name}ImageProcessorPil").from_pretrained(work["snapshot"])

    def run() -> NDArray[np.float32]:
        images = [load_image(path) for path in work["paths"]]
        pixels: NDArray[np.float32] = processor(images, return_tensors="np")["pixel_values"]
        return pixels

    return run


def load_hf_processors_rs(work: Work, threads: int) -> Run:
    """Its CLIP processor, or its ViT processor set to what the other families come to.

    It has none for OWL-ViT and ViLT. ViT's does the same when it is told the size of the result,
    which for ViLT depends on the picture: here it is computed once, and not counted.
    """
    import hf_processors_rs

    if work["model_type"] == "clip":
        processor = hf_processors_rs.AutoImageProcessor.from_pretrained(
            work["snapshot"], backend="pil"
        )
    else:
        settings = json.loads(Path(work["snapshot"], "preprocessor_config.json").read_text())
        height, width = work["size_hw"]
        processor = hf_processors_rs.ImageProcessor.from_dict(
            {
                **{key: settings[key] for key in ("image_mean", "image_std", "resample")},
                **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True),
                "size": {"height": height, "width": width},
                "rescale_factor": 1 / 255,
                "image_processor_type": "ViTImageProcessor",
            },
            backend="pil",
        )
    return lambda: processor(work["paths"], num_threads=threads)


def load_vlrt(work: Work, threads: int, decode: str = "exact") -> Run:
    """What the family's model does with pictures."""
    from vlrt.ahead import read_each
    from vlrt.files import Settings
    from vlrt.processor import ImageProcessor
    from vlrt.ragged import RaggedProcessor, padded
    from vlrt.stream import read_batches

    path = Path(work["snapshot"], "preprocessor_config.json")
    settings = Settings(str(path), json.loads(path.read_text()))
    paths, number = work["paths"], max(2, len(work["paths"]))
    info = {"threads": threads, "decode": decode}
    if work["model_type"] == "vilt":
        ragged = RaggedProcessor.from_settings(settings)

        def run() -> NDArray[np.float32]:
            read = [value for _, value in read_each(paths, ragged, number, info)]
            pixels: NDArray[np.float32] = padded(read)["pixel_values"]
            return pixels

        return run
    square = work["model_type"] == "owlvit"
    processor = ImageProcessor.from_settings(settings, default_to_square=square)
    return lambda: next(read_batches(paths, processor, number, info)).pixel_values


def load(contender: str, work: Work, threads: int) -> Run:
    """A work of any contender."""
    if contender == "transformers":
        return load_transformers(work, threads)
    if contender == "hf-processors-rs":
        return load_hf_processors_rs(work, threads)
    if contender == "vlrt, Pillow":
        sys.modules["simplejpeg"] = None  # type: ignore[assignment]  # as if not installed
    return load_vlrt(work, threads, "fast" if contender == "vlrt, fast" else "exact")


def main() -> None:
    """Load, show what comes out, and take turns."""
    contender, job = sys.argv[1], json.loads(sys.argv[2])
    runs = {name: load(contender, work, job["threads"]) for name, work in job["works"].items()}
    for name, run in runs.items():
        np.save(Path(job["outputs"], f"{name}.npy"), run())
    print(json.dumps({name: version(name) for name in _PACKAGES[contender]}), flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(runs[line.strip()], _LEAST_SECONDS)), flush=True)


if __name__ == "__main__":
    main()
