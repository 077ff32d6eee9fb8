"""What a result of accuracy says in sentences: what made it fair, and what a reader should know."""

from collections.abc import Mapping
from typing import Any

from . import accuracy_boxes, accuracy_measures, scenes
from .dataset_coco import Scenes
from .datasets import Dataset
from .subject import Subject


def fairness(dataset: Dataset) -> list[str]:
    """The conditions under which contenders are compared, in words."""
    said = ["All contenders read the same files, and are asked the same of each."]
    said.append(
        "PyTorch runs transformers' own models, PIL image processors and tokenizers; of vlrt only "
        "the filling-in of templates and what counts the answers takes part."
    )
    said.append(
        "Intervals hold 95 %, by drawing pictures again, each with all questions or captions that "
        "are about it; differences are of the same items, drawn together."
    )
    if isinstance(dataset, Scenes):
        said.append(
            f"Detections: the best {accuracy_boxes.BEST} of a picture, of all labels, where a box "
            "may have several; counted by pycocotools, at IoU 0.5 to 0.95."
        )
    return said


def language_only(amount: int | None, seed: int) -> str:
    """How far one gets with drawn questions without looking at a picture, in words."""
    from vlrt_export.demo.question_accuracy import guesser_accuracy

    per_kind = scenes.AMOUNTS["vqa"] if amount is None else amount
    share = guesser_accuracy(per_kind=per_kind, seed=seed)["answers"]["all"]
    return (
        "Who has heard thousands of such questions with their answers, gives the most frequent one "
        f"and looks at no picture is right in {share:.1%}."
    )


def notes(subject: Subject, dataset: Dataset, facts: Mapping[str, Any], base: str) -> list[str]:
    """What a reader should know of this run."""
    said = []
    if subject.seeded:
        said.append(
            "The weights are from a seed: accuracy is chance. Only differences and "
            f"{accuracy_measures.same_as(base)!r} mean anything."
        )
    if facts["items"] < facts["of"]:
        said.append(f"{facts['items']} of {facts['of']} items were counted, drawn from a seed.")
    if facts["drawn"] and not subject.seeded:
        said.append(
            "Drawn scenes show whether a variant is as good as PyTorch; only the demonstration "
            "models were made for them."
        )
    if isinstance(dataset, Scenes) and dataset.sizeless:
        said.append(
            f"{dataset.sizeless} boxes of the file have no width or no height: they were left out."
        )
    if isinstance(dataset, Scenes):
        said.append(
            "The fewer pictures, the higher their mAP, and its interval makes up for only a part "
            "of that: compare it with others on the same pictures. Differences do not suffer."
        )
        said.append(
            f"{accuracy_measures.same_as(base)!r}: of the objects that it finds in a picture, the "
            "share found again with the same label and an IoU of 0.75, the mean over pictures."
        )
    return said
