"""hf-processors-rs: transformers' image processors in Rust, from files to pixel values.

It has CLIP's. For OWL-ViT and ViLT, which it does not know, its ViT processor does the same when
it is told the size of the result; ViLT's depends on the picture, and is worked out beforehand.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import FROM_FILE, Entry, Stage, resized_hw, several_shapes

if TYPE_CHECKING:
    from ..plan import Plan
    from ..subject import Subject

NAME = "hf-processors-rs"
NEEDS = ("hf_processors_rs",)
INSTALL = "pip install hf-processors-rs"

_SETTINGS = "preprocessor_config.json"
_TAKEN_OVER = ("image_mean", "image_std", "resample")


def refused(subject: "Subject", plan: "Plan") -> dict[str, str]:
    """What it has no contender for here, and why."""
    if subject.family == "owlv2":
        return {NAME: "it cannot pad a picture to a square, as OWLv2's processor does"}
    shapes = several_shapes(subject, plan)
    return {NAME: shapes} if shapes else {}


def entries(subject: "Subject", plan: "Plan") -> list[Entry]:
    """The one that there is. Its JPEG decoder is its own, so its pixels may differ a little."""
    if refused(subject, plan):
        return []
    return [Entry(NAME, NAME, "fp32", (FROM_FILE,))]


def prepare(entry: Entry, subject: "Subject", plan: "Plan", cache: Path) -> dict[str, Any]:  # noqa: ARG001
    """`sizes_hw`, of ViLT by path the (height, width) that a picture is resized to."""
    sizes = resized_hw(subject, plan)
    return {"sizes_hw": sizes} if sizes else {}


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """Its processor, with the model's settings."""
    import hf_processors_rs

    if job["family"] == "clip":
        processor = hf_processors_rs.AutoImageProcessor.from_pretrained(
            job["bundle"], backend="pil"
        )
    else:
        settings = json.loads(Path(job["bundle"], _SETTINGS).read_text(encoding="utf-8"))
        sizes = [job["sizes_hw"][path] for path in job["pictures"]] if "sizes_hw" in job else []
        processor = hf_processors_rs.ImageProcessor.from_dict(
            as_vit(settings, sizes), backend="pil"
        )
    paths, threads = job["pictures"], job["threads"]
    return {
        FROM_FILE: Stage(
            lambda: processor(paths, num_threads=threads), lambda pixels: {"pixel_values": pixels}
        )
    }


def as_vit(settings: Mapping[str, Any], sizes_hw: list[list[int]]) -> dict[str, Any]:
    """The settings of a ViT processor that does what another does.

    Args:
        settings: the other's.
        sizes_hw: of the results, where the settings do not say it.

    Raises:
        ValueError: the results are not of one size.
    """
    said = settings["size"]
    if not sizes_hw:
        either = (said["height"], said["width"]) if isinstance(said, dict) else said
        sizes_hw = [[either, either] if isinstance(either, int) else list(either)]
    if any(list(size) != list(sizes_hw[0]) for size in sizes_hw):
        raise ValueError(
            f"hf-processors-rs makes pictures of one size alone, and these become {sizes_hw} "
            f"(height, width); give pictures of one shape, or leave {NAME} out of --against"
        )
    height, width = sizes_hw[0]
    return {
        **{key: settings[key] for key in _TAKEN_OVER},
        **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True),
        "size": {"height": height, "width": width},
        "rescale_factor": settings.get("rescale_factor", 1 / 255),
        "image_processor_type": "ViTImageProcessor",
    }
