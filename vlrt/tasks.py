"""What a ViLT checkpoint is for, as its `config.json` says, and what that needs."""

from collections.abc import Mapping
from typing import Any

from vlrt.errors import BundleError
from vlrt.files import Settings

TASKS = {
    "ViltForQuestionAnswering": "visual-question-answering",
    "ViltForImageAndTextRetrieval": "image-text-retrieval",
    "ViltForImagesAndTextClassification": "images-and-text-classification",
    "ViltForMaskedLM": "fill-mask",
}
METHODS = {
    "visual-question-answering": "ask",
    "image-text-retrieval": "match",
    "images-and-text-classification": "compare",
    "fill-mask": "fill",
}
# The axes of each task's `logits`: B pairs, N answers or classes, L tokens, V words.
AXES = {
    "visual-question-answering": "BN",
    "image-text-retrieval": "B1",
    "images-and-text-classification": "BN",
    "fill-mask": "BLV",
}


def task(config: Mapping[str, Any]) -> str:
    """What the checkpoint was trained for, by the first of its `architectures`.

    Raises:
        BundleError: they name none of the known ones.
    """
    stated = config.get("architectures")
    name = stated[0] if isinstance(stated, list) and stated else None
    if not isinstance(name, str) or name not in TASKS:
        raise BundleError(
            f"architectures in config.json is {stated!r:.80}; valid, as the first of a list: "
            + ", ".join(TASKS)
        )
    return TASKS[name]


def class_names(config: Settings) -> tuple[str, ...]:
    """The words of `id2label`, by id.

    Raises:
        BundleError: there are none, or they do not have the ids 0, 1, 2, ...
    """
    stated = config.get("id2label")
    if not isinstance(stated, dict) or not stated:
        raise BundleError(
            f"{config.file} has no 'id2label', the words of the model's answers; without it they "
            "would be mere numbers"
        )
    words = [stated.get(str(position)) for position in range(len(stated))]
    for position, word in enumerate(words):
        if not isinstance(word, str):
            raise BundleError(
                f"{config.file}: id2label has {word!r:.60} for {position}; valid: a text for each "
                f"id from 0 to {len(stated) - 1}"
            )
    return tuple(word for word in words if isinstance(word, str))
