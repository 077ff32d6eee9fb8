"""ViLT's part of `vlrt demo`: questions about the scenes."""

from pathlib import Path

from vlrt import cards, demo
from vlrt.image import load_image


def run(out: Path) -> list[str]:
    """Ask the questions about the scenes that come with vlrt.

    Args:
        out: directory for the picture of the result, `vlrt-demo-vilt.png`.

    Returns:
        Lines to print.
    """
    shown = demo.Demonstration("vilt")
    described = shown.described["pictures"]
    asked = [[entry["question"] for entry in picture["questions"]] for picture in described]
    number = sum(map(len, asked))
    results = shown.timed(
        f"{number} questions",
        lambda: [
            shown.model.ask(path, questions)
            for path, questions in zip(shown.paths, asked, strict=True)
        ],
    )
    lines = [f"{number} questions about {len(shown.paths)} scenes"]
    for picture, answers in zip(described, results, strict=True):
        lines.append(f"  {picture['file']}")
        for entry, found in zip(picture["questions"], answers, strict=True):
            answer, score = found.best
            verdict = "right" if answer == entry["answer"] else f"WRONG, it is {entry['answer']}"
            lines.append(f"    {entry['question']:<60} {answer:<8} {score:.2f}  {verdict}")
    drawn = [
        cards.answers_card(load_image(path), answers, title=path.name)
        for path, answers in zip(shown.paths, results, strict=True)
    ]
    page = cards.sheet(drawn, title="vlrt demo: questions about drawn scenes")
    return [*lines, *shown.finish(out, page)]
