"""Reading datasets: each format as it should be, and each way to break it with its message."""

import argparse
import json
import re
import shutil

import pytest
from PIL import Image

from vlrt.errors import DatasetError, OptionError
from vlrt_benchmarks import datasets
from vlrt_benchmarks.dataset_captions import read as read_captions
from vlrt_benchmarks.dataset_coco import read as read_coco
from vlrt_benchmarks.dataset_imagenet import read as read_imagenet
from vlrt_benchmarks.dataset_vqa import read as read_vqa
from vlrt_benchmarks.datasets import Wanted


def paint(path, size_wh=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_wh, "red").save(path)
    return path


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- a folder of classes --------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "classes"
    for name in ("red_cat/1.jpg", "red_cat/2.JPEG", "dog/1.png"):
        paint(root / name)
    return root


def test_folders_are_classes_and_their_names_labels(folder):
    paint(folder / ".cache" / "x.jpg")
    write(folder / "dog" / ".DS_Store", "")
    found = read_imagenet(folder)
    assert found.labels == ("dog", "red cat")
    assert [p.name for p in found.pictures] == ["1.png", "1.jpg", "2.JPEG"]
    assert found.truth == (0, 1, 1)
    assert found.groups == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.json", {"dog": "a dog", "red_cat": "a red cat", "ant": "an ant"}),
        ("classes.tsv", "dog\ta dog\n\nred_cat\ta red cat\nant\tan ant\n"),
    ],
)
def test_a_file_has_the_labels_and_more_to_choose_from(folder, name, content):
    found = read_imagenet(folder, classes=write(folder / name, content))
    assert found.labels == ("a dog", "a red cat", "an ant")
    assert found.truth == (0, 1, 1)
    write(folder / "groups.json", {"rare": ["ant", "dog"]})
    assert read_imagenet(folder, classes=folder / name).groups == {"rare": (2, 0)}


BROKEN_FOLDERS = {
    "no folder": (shutil.rmtree, "classes is no folder"),
    "no classes": (lambda root: [shutil.rmtree(p) for p in root.iterdir()], "has no folders in it"),
    "one class": (lambda root: shutil.rmtree(root / "dog"), "has one class, red_cat"),
    "an empty class": (lambda root: (root / "ant").mkdir(), "ant is empty"),
    "no picture": (
        lambda root: write(root / "dog/x.txt", ""),
        "dog has what is no picture: .*x.txt",
    ),
    "WordNet ids": (
        lambda root: [p.rename(root / f"n0000000{i}") for i, p in enumerate(list(root.iterdir()))],
        "WordNet ids for names, such as n00000000",
    ),
    "a class without a label": (
        lambda root: write(root / "classes.json", {"dog": "dog", "x": "x"}),
        "no label for 1 folders: 'red_cat'",
    ),
    "a label that is none": (
        lambda root: write(root / "classes.json", {"dog": "", "red_cat": "cat"}),
        "'dog' has the label ''",
    ),
    "one label twice": (
        lambda root: write(root / "classes.json", {"dog": "cat", "red_cat": "cat"}),
        "classes have a label twice: 'cat'",
    ),
    "no JSON": (lambda root: write(root / "classes.json", "{"), "classes.json is not JSON"),
    "no object": (
        lambda root: write(root / "classes.json", []),
        "is a JSON list; valid: an object",
    ),
    "a strange group": (
        lambda root: write(root / "groups.json", {"rare": ["ant"]}),
        "'rare' has classes that there are none of: 'ant'",
    ),
    "an empty group": (lambda root: write(root / "groups.json", {"rare": []}), "'rare' is \\[\\]"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN_FOLDERS.values(), ids=list(BROKEN_FOLDERS))
def test_a_broken_folder_of_classes_is_refused(folder, broken, message):
    broken(folder)
    with pytest.raises(DatasetError, match=message):
        read_imagenet(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "no label for 2 folders"), ("dog\n", "label 1 is 'dog'"), ("dog\ta\ndog\tb\n", "twice")],
)
def test_broken_lines_of_labels_are_refused(folder, content, message):
    with pytest.raises(DatasetError, match=message):
        read_imagenet(folder, classes=write(folder / "x.tsv", content))
    with pytest.raises(DatasetError, match="cannot be read as text"):
        read_imagenet(folder, classes=folder / "none.tsv")


# --- COCO -----------------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path):
    for number in (7, 9):
        paint(tmp_path / "images" / f"{number}.jpg")
    return {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": 8, "height": 6}
            for number in (7, 9)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 5, "bbox": [1, 1, 4, 2.5], "iscrowd": 0},
            {
                "id": 2,
                "image_id": 9,
                "category_id": 3,
                "bbox": [0, 0, 8.5, 6],
                "area": 3.0,
                "iscrowd": 1,
            },
        ],
    }


def test_objects_are_those_of_their_picture(coco, tmp_path):
    write(tmp_path / "groups.json", {"pets": ["dog"]})
    found = read_coco(write(tmp_path / "x.json", coco))
    assert found.labels == ("cat", "dog")
    assert found.sizes_hw == ((6, 8), (6, 8))
    assert [p.name for p in found.pictures] == ["7.jpg", "9.jpg"]
    assert found.groups == {"pets": (1,)}
    none, (dog, cats) = found.things
    assert none == ()
    assert (dog.label, dog.box, dog.area, dog.crowd) == (1, (1, 1, 4, 2.5), 10, False)
    assert (cats.label, cats.area, cats.crowd) == (0, 3, True)


def changed(path, value):
    """What sets one value of a nested JSON: "images/0/id"."""

    def change(content):
        *steps, last = [int(key) if key.isdecimal() else key for key in path.split("/")]
        for step in steps:
            content = content[step]
        content[last] = value

    return change


BROKEN_COCO = {
    "no images": (
        lambda c: c.pop("images"),
        "x.json has no list 'images'; it has: categories, ann",
    ),
    "an empty list": (changed("annotations", []), "the list 'annotations' is empty"),
    "no object": (changed("images/0", 7), "images\\[0\\] is 7; valid: an object"),
    "no id": (changed("images/0/id", "7"), "image 0: 'id' is '7'; valid: a whole number"),
    "an image twice": (changed("images/0/id", 9), "image 9 is there twice"),
    "a file twice": (changed("images/0/file_name", "9.jpg"), "images have a file_name twice"),
    "no file": (changed("images/0/file_name", ""), "image 7: 'file_name' is ''"),
    "a missing picture": (
        changed("images/1/file_name", "8.jpg"),
        "x.json: 1 of its pictures are missing: .*8.jpg",
    ),
    "no size": (changed("images/0/width", 0), "image 7 has a size of 0x6"),
    "a category twice": (changed("categories/0/id", 5), "category 5 is there twice"),
    "a name twice": (changed("categories/0/name", "dog"), "categories have a name twice: 'dog'"),
    "an annotation twice": (changed("annotations/0/id", 2), "annotation 2 is there twice"),
    "an unknown image": (changed("annotations/0/image_id", 8), "annotation 1 is of image 8"),
    "an unknown category": (
        changed("annotations/1/category_id", 4),
        "annotation 2 is of category 4",
    ),
    "no box": (changed("annotations/0/bbox", [1, 2, 3]), "annotation 1: 'bbox' is \\[1, 2, 3\\]"),
    "a box of texts": (changed("annotations/0/bbox", [1, 2, "3", 4]), "annotation 1: 'bbox' is"),
    "a box of a negative size": (
        changed("annotations/0/bbox", [3, 1, -1, 2]),
        "annotation 1: .* has a negative size",
    ),
    "a box outside": (
        changed("annotations/0/bbox", [1, 1, 9, 2]),
        "annotation 1: .* reaches out of its picture of 8x6",
    ),
    "a strange area": (changed("annotations/0/area", -1), "annotation 1: 'area' is -1"),
    "a strange crowd": (changed("annotations/0/iscrowd", 2), "annotation 1: 'iscrowd' is 2"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN_COCO.values(), ids=list(BROKEN_COCO))
def test_broken_coco_annotations_are_refused(coco, tmp_path, broken, message):
    broken(coco)
    with pytest.raises(DatasetError, match=message):
        read_coco(write(tmp_path / "x.json", coco))


@pytest.mark.parametrize("box", [[1, 1, 0, 2], [1, 1, 3, 0], [0, 0, 0, 0]])
def test_boxes_of_no_size_are_left_out_and_counted(coco, tmp_path, box):
    whole = read_coco(write(tmp_path / "x.json", coco))
    coco["annotations"][0]["bbox"] = box
    found = read_coco(write(tmp_path / "y.json", coco))
    assert (whole.sizeless, found.sizeless) == (0, 1)
    assert [len(there) for there in found.things] == [0, 1]
    assert found.subset([0]).sizeless == 1


def test_many_missing_pictures_are_counted_and_not_all_named(coco, tmp_path):
    coco["images"] += [
        {"id": i, "file_name": f"no{i}.jpg", "width": 1, "height": 1} for i in range(10, 16)
    ]
    with pytest.raises(
        DatasetError, match=r"6 of its pictures.*no10.*no12\.jpg' and 3 more"
    ) as error:
        read_coco(write(tmp_path / "x.json", coco))
    assert "no13" not in str(error.value)


def test_pictures_may_lie_elsewhere(coco, tmp_path):
    (tmp_path / "images").rename(tmp_path / "val")
    file = write(tmp_path / "x.json", coco)
    assert len(read_coco(file, images=tmp_path / "val")) == 2
    with pytest.raises(DatasetError, match="2 of its pictures are missing"):
        read_coco(file)
    with pytest.raises(DatasetError, match=r"--images .*none is no folder"):
        read_coco(file, images=tmp_path / "none")


# --- VQA ------------------------------------------------------------------------------------------


@pytest.fixture
def vqa(tmp_path):
    """Questions under the official names, with a picture of an official name and a plain one."""
    paint(tmp_path / "COCO_val2014_000000000042.jpg")
    paint(tmp_path / "73.png")
    people = [{"answer_id": i, "answer": "yes", "answer_confidence": "yes"} for i in range(10)]
    return {
        "questions": {
            "data_subtype": "val2014",
            "questions": [
                {"image_id": 42, "question": "Is it red?", "question_id": 42000},
                {"image_id": 73, "question": "How many?", "question_id": 73000},
            ],
        },
        "annotations": {
            "annotations": [
                {"image_id": 73, "question_id": 73000, "answer_type": "number", "answers": people},
                {"image_id": 42, "question_id": 42000, "answer_type": "yes/no", "answers": people},
            ]
        },
    }


def write_vqa(root, content):
    write(root / "v2_mscoco_val2014_annotations.json", content["annotations"])
    return write(root / "v2_OpenEnded_mscoco_val2014_questions.json", content["questions"])


def test_questions_find_their_answers_and_pictures(vqa, tmp_path):
    found = read_vqa(write_vqa(tmp_path, vqa))
    assert found.questions == ("Is it red?", "How many?")
    assert [p.name for p in found.pictures] == ["COCO_val2014_000000000042.jpg", "73.png"]
    assert found.answers == (("yes",) * 10,) * 2
    assert found.groups == {"number": (1,), "yes/no": (0,)}
    write(tmp_path / "groups.json", {"hard": [73000]})
    assert read_vqa(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").groups == {
        "hard": (1,)
    }


BROKEN_VQA = {
    "no questions": (changed("questions/questions", []), "the list 'questions' is empty"),
    "a question twice": (
        changed("questions/questions/0/question_id", 73000),
        "questions.json: question 73000 is there twice",
    ),
    "an annotation twice": (
        changed("annotations/annotations/0/question_id", 42000),
        "annotations.json: annotation 42000 is there twice",
    ),
    "no annotation": (
        lambda c: c["annotations"]["annotations"].pop(),
        "has no answers to 1 questions of .*: '42000'",
    ),
    "an annotation too many": (
        lambda c: c["questions"]["questions"].pop(),
        "answers 1 questions that are not in .*: '73000'",
    ),
    "another image": (
        changed("annotations/annotations/0/image_id", 42),
        "question 73000 is about image 73 in .*, and about 42 in",
    ),
    "no words": (
        changed("questions/questions/1/question", " "),
        "question 73000: 'question' is ' '",
    ),
    "a missing picture": (
        changed("questions/questions/1/image_id", 74),
        "question 73000 is about image 74",
    ),
    "nine answers": (
        changed("annotations/annotations/0/answers", [{"answer": "1"}] * 9),
        "question 73000 has 9 answers; valid: 10",
    ),
    "an answer that is none": (
        changed("annotations/annotations/0/answers", [{"answer": 1}] * 10),
        "question 73000: answer 0 is",
    ),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN_VQA.values(), ids=list(BROKEN_VQA))
def test_broken_questions_are_refused(vqa, tmp_path, broken, message):
    broken(vqa)
    with pytest.raises(DatasetError, match=message):
        read_vqa(write_vqa(tmp_path, vqa))


def test_missing_pictures_and_answers_of_questions_are_named(vqa, tmp_path):
    file = write_vqa(tmp_path, vqa)
    (tmp_path / "73.png").unlink()
    names = r"COCO_val2014_000000000073\.jpg, 73\.jpg"
    with pytest.raises(DatasetError, match=f"pictures of 1 images are not in .*'73'.*{names}"):
        read_vqa(file)
    alone = write(tmp_path / "alone.json", vqa["questions"])
    with pytest.raises(DatasetError, match="pass --annotations FILE"):
        read_vqa(alone)


# --- captions -------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    return [paint(tmp_path / name) for name in ("a.jpg", "b.jpg")]


def captions_json():
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 5, "image_id": 2, "caption": "two"},
            {"id": 6, "image_id": 1, "caption": "one"},
            {"id": 7, "image_id": 2, "caption": "too"},
        ],
    }


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("name", "content"),
    [("x.tsv", "b.jpg\ttwo\na.jpg\tone\n\nb.jpg\ttoo\n"), ("x.json", captions_json())],
)
def test_captions_belong_to_their_picture(tmp_path, name, content):
    found = read_captions(write(tmp_path / name, content))
    assert [p.name for p in found.pictures] == ["b.jpg", "a.jpg"]
    assert found.captions == ("two", "one", "too")
    assert found.owners == (0, 1, 0)


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no captions"),
        ("a.jpg one", "caption 1 is 'a.jpg one'; valid: a picture's path, a tab"),
        ("a.jpg\tone\nb.jpg\t \n", "caption 2 is 'b.jpg'"),
        ("a.jpg\tone\nc.jpg\ttwo", "1 of its pictures are missing: .*c.jpg"),
    ],
)
def test_broken_lines_of_captions_are_refused(tmp_path, content, message):
    with pytest.raises(DatasetError, match=message):
        read_captions(write(tmp_path / "x.tsv", content))


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (changed("annotations", []), "the list 'annotations' is empty"),
        (changed("annotations/0/image_id", 3), "annotation 5 is of image 3"),
        (changed("annotations/1/image_id", 2), "1 of its images have no caption: '1'"),
        (changed("annotations/0/caption", None), "annotation 5: 'caption' is None"),
        (changed("images/0/id", 2), "image 2 is there twice"),
    ],
)
def test_broken_captions_in_json_are_refused(tmp_path, broken, message):
    content = captions_json()
    broken(content)
    with pytest.raises(DatasetError, match=message):
        read_captions(write(tmp_path / "x.json", content))


# --- which of them, and how much ------------------------------------------------------------------

CLASSIFY, DETECT = "zero-shot-image-classification", "zero-shot-object-detection"


def options(path, **others):
    given = {"format": None, "images": None, "annotations": None, "classes": None}
    return argparse.Namespace(dataset=path, **{**given, **others})


def test_the_format_is_guessed_where_one_alone_fits(folder, pictures, tmp_path):
    lines = write(tmp_path / "captions.tsv", "a.jpg\tone")
    assert datasets.wanted(options(folder), CLASSIFY) == Wanted("imagenet", folder)
    assert datasets.wanted(options(lines), CLASSIFY) == Wanted("captions", lines)
    assert datasets.wanted(options(folder), DETECT).format == "coco"
    assert datasets.wanted(options(folder), "image-text-retrieval").format == "captions"


@pytest.mark.parametrize(
    ("task", "others", "message"),
    [
        (CLASSIFY, {}, "both captions.tsv and folders; pass --format imagenet or captions"),
        (CLASSIFY, {"format": "voc"}, "--format is 'voc'; valid: imagenet, coco, vqa, captions"),
        (DETECT, {"format": "vqa"}, "--format vqa does not show .*; valid: coco"),
        ("fill-mask", {}, "no accuracy of fill-mask here; valid are models for: zero-shot-image"),
        (CLASSIFY, {"format": "imagenet", "images": "x"}, "--images has no effect on .* imagenet"),
        (DETECT, {"classes": "x"}, "--classes has no effect on the format coco"),
        (DETECT, {"annotations": "x"}, "--annotations has no effect on the format coco"),
    ],
)
def test_what_does_not_fit_is_refused(folder, task, others, message):
    write(folder / "captions.tsv", "dog/1.png\ta dog")
    with pytest.raises(OptionError, match=message):
        datasets.wanted(options(folder, **others), task)


def test_paths_that_hold_no_dataset_are_refused(tmp_path):
    with pytest.raises(OptionError, match=re.escape(f"--dataset {tmp_path / 'no'} is not there")):
        datasets.wanted(options(tmp_path / "no"), DETECT)
    with pytest.raises(OptionError, match=r"neither captions\.tsv nor folders"):
        datasets.wanted(options(tmp_path), CLASSIFY)
    with pytest.raises(OptionError, match=r"a folder without instances\.json; valid for coco"):
        datasets.read(Wanted("coco", tmp_path))


def test_a_limit_draws_the_same_items_again_in_their_order(coco, tmp_path):
    whole = read_coco(write(tmp_path / "x.json", coco))
    assert datasets.limited(whole, None, 0) is whole
    some = datasets.limited(whole, 1, 5)
    assert some == datasets.limited(whole, 1, 5)
    assert len(some) == 1
    assert len({datasets.limited(whole, 1, seed).pictures for seed in range(20)}) == 2
    assert datasets.limited(whole, 2, 3) == whole
    with pytest.raises(OptionError, match=r"--limit is 3; .* has 2"):
        datasets.limited(whole, 3, 0)


def test_parts_keep_what_belongs_together(vqa, pictures, folder, tmp_path):
    some = read_vqa(write_vqa(tmp_path, vqa)).subset([1])
    assert (some.questions, some.groups) == (("How many?",), {"number": (0,)})
    lines = write(tmp_path / "x.tsv", "b.jpg\ttwo\na.jpg\tone\nb.jpg\ttoo")
    captions = read_captions(lines).subset([0])
    assert (captions.captions, captions.owners) == (("two", "too"), (0, 0))
    classes = read_imagenet(folder).subset([2])
    assert (classes.truth, classes.labels) == ((1,), ("dog", "red cat"))


def test_a_caption_may_be_there_twice(pictures, tmp_path):
    found = read_captions(write(tmp_path / "x.tsv", "a.jpg\tone\nb.jpg\ttwo\na.jpg\tone"))
    assert found.captions == ("one", "two", "one")
    assert found.owners == (0, 1, 0)


def test_a_picture_that_was_changed_is_noticed(coco, tmp_path):
    whole = read_coco(write(tmp_path / "x.json", coco))
    before = datasets.state(whole)
    assert before == datasets.state(whole)
    paint(whole.pictures[0], (5, 5))
    assert datasets.state(whole) != before
    assert datasets.facts(whole, 2) == datasets.facts(whole, 2)


def test_facts_tell_one_dataset_from_another(coco, tmp_path):
    whole = read_coco(write(tmp_path / "x.json", coco))
    facts = datasets.facts(whole.subset([0]), len(whole))
    assert (facts["format"], facts["items"], facts["of"]) == ("coco", 1, 2)
    digests = {datasets.facts(whole.subset(p), 2)["sha256"] for p in ([0], [1], [0, 1])}
    assert len(digests) == 3
