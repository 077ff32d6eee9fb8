"""Draws the pictures that come with vlrt: `python -m export.demo.pictures -o DIRECTORY`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .backgrounds import BACKGROUNDS
from .captions import label
from .questions import ask_about
from .scenes import ALL_PAIRS, HELD_OUT_PAIRS, SEEN_PAIRS, SIZES, Scene, draw_scene

_SEED = 20
_SIDE = 320
_SCENES_WH = ((480, 360), (480, 480), (360, 480), (480, 360))
_QUALITY = 92


def draw_classification(out: Path) -> None:
    """JPEGs of one object each, half of them pairs never seen in training, and `clip.json`.

    Every colour and every shape occurs once, and every size and background.
    """
    rng = np.random.default_rng(_SEED)
    held_out = HELD_OUT_PAIRS[::2]
    rest = HELD_OUT_PAIRS[1::2]  # their colours with each other's shapes are pairs of training
    seen = [(colour, rest[i - 1][1]) for i, (colour, _) in enumerate(rest)]
    pictures = []
    for number, pair in enumerate([*seen, *held_out]):
        scene = draw_scene(
            rng,
            size_wh=(_SIDE, _SIDE),
            pairs=[pair],
            sizes=[list(SIZES)[number % len(SIZES)]],
            backgrounds=[BACKGROUNDS[number % len(BACKGROUNDS)]],
        )
        name = f"shape-{number + 1}.jpg"
        scene.image.save(out / name, quality=_QUALITY)
        pictures.append({"file": name, "truth": label(pair), "in_training": pair in SEEN_PAIRS})
    described = {"labels": [label(pair) for pair in ALL_PAIRS], "pictures": pictures}
    (out / "clip.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def draw_scenes(out: Path) -> list[Scene]:
    """JPEGs of several objects each, square, wide and tall: `scene-<number>.jpg`.

    Every scene holds an object of a pair that detection never sees in training.
    """
    scenes = []
    for number, size_wh in enumerate(_SCENES_WH, start=1):
        rng = np.random.default_rng((_SEED, number))
        while True:
            scene = draw_scene(rng, size_wh=size_wh, n_objects=(3, 5))
            if any((thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in scene.objects):
                break
        scene.image.save(out / _scene_file(number), quality=_QUALITY)
        scenes.append(scene)
    return scenes


def _scene_file(number: int) -> str:
    return f"scene-{number}.jpg"


def describe_objects(scenes: Sequence[Scene], out: Path) -> None:
    """`owlvit.json`: what there is to find in the scenes."""
    pictures = []
    for number, scene in enumerate(scenes, start=1):
        objects = [
            {
                "label": label((thing.colour, thing.shape)),
                "box": [round(edge, 1) for edge in thing.box],
                "in_training": (thing.colour, thing.shape) in SEEN_PAIRS,
            }
            for thing in scene.objects
        ]
        pictures.append({"file": _scene_file(number), "objects": objects})
    described = {"labels": [label(pair) for pair in ALL_PAIRS], "pictures": pictures}
    (out / "owlvit.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def describe_questions(scenes: Sequence[Scene], out: Path) -> None:
    """`vilt.json`: what there is to ask about the scenes, and the answers."""
    pictures = []
    for number, scene in enumerate(scenes, start=1):
        rng = np.random.default_rng((_SEED, number, 1))
        asked = [
            {"question": one.question, "answer": one.answer} for one in ask_about(rng, scene.plan)
        ]
        pictures.append({"file": _scene_file(number), "questions": asked})
    text = json.dumps({"pictures": pictures}, indent=2) + "\n"
    (out / "vilt.json").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="export.demo.pictures", description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True, help="directory to draw into")
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    draw_classification(out)
    scenes = draw_scenes(out)
    describe_objects(scenes, out)
    describe_questions(scenes, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
