"""CLIP's part of `vlrt demo`: which coloured shape is in the picture?"""

from pathlib import Path

from vlrt import cards, demo
from vlrt.image import load_image


def run(out: Path) -> list[str]:
    """Classify the pictures that come with vlrt among all 64 coloured shapes.

    Args:
        out: directory for the picture of the result, `vlrt-demo-clip.png`.

    Returns:
        Lines to print.
    """
    shown = demo.Demonstration("clip")
    clip, paths, names = shown.model, shown.paths, shown.described["labels"]
    labels = shown.timed(f"{len(names)} labels", lambda: clip.encode_labels(names))
    results = shown.timed(f"{len(paths)} pictures", lambda: clip.classify(paths, labels))
    lines = [f"which of {len(names)} coloured shapes is it?"]
    for path, entry, result in zip(paths, shown.described["pictures"], results, strict=True):
        truth = entry["truth"]
        first, *others = (f"{label} {score:.1%}" for label, score in result.top(3))
        verdict = "right" if result.best[0] == truth else f"WRONG, it is {truth}"
        lines.append(f"  {path.name:<14} {first:<28} ({', '.join(others)})  {verdict}")
    drawn = [
        cards.classification_card(load_image(path), result, title=path.name)
        for path, result in zip(paths, results, strict=True)
    ]
    page = cards.sheet(drawn, title="vlrt demo: zero-shot classification of drawn scenes")
    return [*lines, *shown.finish(out, page)]
