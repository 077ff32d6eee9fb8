"""CLIP's part of `vlrt demo`: which coloured shape is in the picture?"""

import json
import time
from pathlib import Path

from vlrt import cards, demo
from vlrt.image import load_image
from vlrt.load import load


def run(out: Path) -> list[str]:
    """Classify the pictures that come with vlrt among all 64 coloured shapes.

    Args:
        out: directory for the picture of the result, `vlrt-demo-clip.png`.

    Returns:
        Lines to print.
    """
    described = json.loads((demo.ROOT / "pictures" / "clip.json").read_text(encoding="utf-8"))
    paths = [demo.ROOT / "pictures" / entry["file"] for entry in described["pictures"]]
    truths = [entry["truth"] for entry in described["pictures"]]
    started = time.perf_counter()
    clip = load(demo.bundle("clip"))
    loaded = time.perf_counter()
    labels = clip.encode_labels(described["labels"])
    encoded = time.perf_counter()
    results = clip.classify(paths, labels)
    done = time.perf_counter()
    lines = [f"which of {len(labels)} coloured shapes is it?"]
    for path, truth, result in zip(paths, truths, results, strict=True):
        first, *others = (f"{label} {score:.1%}" for label, score in result.top(3))
        verdict = "right" if result.best[0] == truth else f"WRONG, it is {truth}"
        lines.append(f"  {path.name:<14} {first:<28} ({', '.join(others)})  {verdict}")
    target = out / "vlrt-demo-clip.png"
    drawn = [
        cards.classification_card(load_image(path), result, title=path.name)
        for path, result in zip(paths, results, strict=True)
    ]
    cards.sheet(drawn, title="vlrt demo: zero-shot classification of drawn scenes").save(target)
    seconds = {
        "load": loaded - started,
        f"{len(labels)} labels": encoded - loaded,
        f"{len(paths)} pictures": done - encoded,
    }
    return [*lines, *demo.summary(clip.info, seconds, target)]
