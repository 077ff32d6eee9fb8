"""Questions about pictures with ten answers each, in the two files of VQAv2 (visualqa.org)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as member
from pathlib import Path
from typing import Any

from vlrt.errors import DatasetError

from .dataset_files import by_id, entries, few, field, picture_folder, read_groups, read_json

ANSWERS = 10  # of ten people, to every question
_SUFFIXES = ("jpg", "png", "jpeg")


@dataclass(frozen=True)
class Questions:
    """Questions, each about one picture.

    Attributes:
        source: the file of the questions.
        pictures: of each question, its picture's file.
        questions: their words.
        answers: of each question, what ten people said.
        groups: positions of questions to count apart, by name: as `groups.json` says, or else
            VQA's own answer types.
    """

    source: Path
    pictures: tuple[Path, ...]
    questions: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    groups: Mapping[str, tuple[int, ...]] = member(default_factory=dict)
    format = "vqa"

    def __len__(self) -> int:
        return len(self.questions)

    def subset(self, positions: Sequence[int]) -> "Questions":
        """Some of the questions; groups of which none is left are no groups any more."""
        moved = {old: new for new, old in enumerate(positions)}
        groups = {
            name: tuple(moved[i] for i in members if i in moved)
            for name, members in self.groups.items()
        }
        return replace(
            self,
            pictures=tuple(self.pictures[i] for i in positions),
            questions=tuple(self.questions[i] for i in positions),
            answers=tuple(self.answers[i] for i in positions),
            groups={name: members for name, members in groups.items() if members},
        )


def read(file: Path, *, annotations: Path | None = None, images: Path | None = None) -> Questions:
    """Read questions and their answers.

    Args:
        file: such as VQAv2's `v2_OpenEnded_mscoco_val2014_questions.json`.
        annotations: the answers; by default the file beside it that is called alike, as
            `v2_mscoco_val2014_annotations.json` is.
        images: the folder of the pictures, called as VQA does (`COCO_val2014_000000000042.jpg`) or
            by their ids; by default `images` beside the file, or the file's own folder.

    Raises:
        DatasetError: a picture that is missing; an id that is there twice; a question without
            answers or answers without a question; other than ten answers.
    """
    asked = read_json(file)
    beside = file.with_name(file.name.replace("OpenEnded_", "").replace("questions", "annotations"))
    answered = beside if annotations is None else annotations
    if answered == file or not answered.is_file():
        raise DatasetError(f"{file}: its answers are not at {answered}; pass --annotations FILE")
    said = by_id(
        entries(read_json(answered), "annotations", answered), "question_id", answered, "annotation"
    )
    questions = by_id(entries(asked, "questions", file), "question_id", file, "question")
    unanswered = [number for number in questions if number not in said]
    if unanswered:
        raise DatasetError(
            f"{answered} has no answers to {len(unanswered)} questions of {file}: {few(unanswered)}"
        )
    unasked = [number for number in said if number not in questions]
    if unasked:
        raise DatasetError(
            f"{answered} answers {len(unasked)} questions that are not in {file}: {few(unasked)}"
        )
    ids = [field(e, "image_id", int, f"{file}: question {n}") for n, e in questions.items()]
    words = [field(e, "question", str, f"{file}: question {n}") for n, e in questions.items()]
    for number, image in zip(questions, ids, strict=True):
        if said[number].get("image_id", image) != image:
            raise DatasetError(
                f"question {number} is about image {image} in {file}, and about "
                f"{said[number]['image_id']} in {answered}"
            )
    folder = picture_folder(file, images)
    known = {number: position for position, number in enumerate(questions)}
    return Questions(
        file,
        _pictures(ids, folder, str(asked.get("data_subtype", "")), file),
        tuple(words),
        tuple(_answers(said[number], f"{answered}: question {number}") for number in questions),
        read_groups(file.parent, known, "question ids") or _answer_types(said, known),
    )


def _answers(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    listed = field(entry, "answers", list, where)
    if len(listed) != ANSWERS:
        raise DatasetError(f"{where} has {len(listed)} answers; valid: {ANSWERS}")
    for position, one in enumerate(listed):
        if not isinstance(one, dict) or not isinstance(one.get("answer"), str):
            raise DatasetError(
                f"{where}: answer {position} is {one!r:.60}; valid: an object with a text 'answer'"
            )
    return tuple(one["answer"] for one in listed)


def _answer_types(
    said: Mapping[int, Mapping[str, Any]], known: Mapping[int, int]
) -> dict[str, tuple[int, ...]]:
    """Questions by the type of their answer: "yes/no", "number" and "other", if it is said."""
    types = {entry.get("answer_type") for entry in said.values()}
    names = sorted(name for name in types if isinstance(name, str))
    return {
        name: tuple(known[n] for n, entry in said.items() if entry.get("answer_type") == name)
        for name in names
    }


def _pictures(ids: Sequence[int], folder: Path, subtype: str, file: Path) -> tuple[Path, ...]:
    """The picture of each id, under one of the names that it may have."""
    there = {path.name for path in folder.iterdir()}
    found: dict[int, Path] = {}
    for number in sorted(set(ids)):
        stems = (f"COCO_{subtype}_{number:012d}", f"{number:012d}", str(number))
        names = (f"{stem}.{suffix}" for stem in stems for suffix in _SUFFIXES)
        name = next((name for name in names if name in there), None)
        if name is not None:
            found[number] = folder / name
    missing = [number for number in dict.fromkeys(ids) if number not in found]
    if missing:
        raise DatasetError(
            f"{file}: the pictures of {len(missing)} images are not in {folder}: {few(missing)}; "
            f"valid names: COCO_{subtype or 'val2014'}_{missing[0]:012d}.jpg, {missing[0]}.jpg"
        )
    return tuple(found[number] for number in ids)
