"""Prompt templates: the list, filling, reading."""

import pytest
from ids import told

from vlrt import IMAGENET_TEMPLATES
from vlrt.errors import OptionError, TextError
from vlrt.templates import fill, fill_all, read


def test_there_are_eighty_different_ones_for_imagenet():
    assert len(IMAGENET_TEMPLATES) == len(set(IMAGENET_TEMPLATES)) == 80
    assert len(fill(IMAGENET_TEMPLATES, "cat")) == 80
    assert {"a photo of a {}.", "itap of my {}.", "a tattoo of the {}."} <= set(IMAGENET_TEMPLATES)


@pytest.mark.parametrize(
    ("templates", "label", "expected"),
    [
        (["{}"], "cat", ["cat"]),
        (["a {}.", "the {}!"], "cat", ["a cat.", "the cat!"]),
        (("{} {0} {x}",), "cat", ["cat {0} {x}"]),  # only the bare pair is a place
        (["a {}"], "{}", ["a {}"]),
        (["a {}"], "%s {0} \\1", ["a %s {0} \\1"]),
    ],
)
def test_a_label_takes_the_place_of_the_braces(templates, label, expected):
    assert fill(templates, label) == expected


@pytest.mark.parametrize(
    "templates", [[], (), "a {}", "", ["a"], ["{} {}"], [""], [None], [7], ["{}", "b"]], ids=told
)
def test_templates_without_exactly_one_place_are_refused(templates):
    with pytest.raises(TextError, match="template"):
        fill(templates, "cat")


def test_imagenet_is_a_name():
    assert read("imagenet") == IMAGENET_TEMPLATES


def test_a_file_holds_one_a_line(tmp_path):
    file = tmp_path / "templates.txt"
    file.write_text("a {}.\n\n  ein schönes {}  \r\n", encoding="utf-8")
    assert read(str(file)) == ("a {}.", "ein schönes {}")


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\x00", "directory"], ids=told)
def test_what_is_neither_is_refused_by_name(tmp_path, content):
    file = tmp_path / "templates.txt"
    if content == "directory":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(OptionError, match=r"templates\.txt"):
        read(str(file))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "templates.txt"
    file.write_text("a {}\n", encoding="utf-8-sig")
    assert read(str(file)) == ("a {}",)


@pytest.mark.parametrize(
    ("templates", "labels", "expected"),
    [
        (["a {}"], [], []),
        ({}, [], []),
        (["a {}", "{}"], ["cat", "dog"], [["a cat", "cat"], ["a dog", "dog"]]),
        ((t for t in ("a {}", "{}")), ["cat", "dog"], [["a cat", "cat"], ["a dog", "dog"]]),
        (
            {"dog": ["my {}"], "cat": (t for t in ("a {}", "{}"))},
            ["cat", "dog"],
            [["a cat", "cat"], ["my dog"]],
        ),
    ],
    ids=told,
)
def test_labels_share_templates_or_have_their_own(templates, labels, expected):
    assert fill_all(templates, labels) == expected


@pytest.mark.parametrize(
    ("templates", "error", "says"),
    [
        ({"cat": ["a {}"]}, OptionError, r"templates has no entry for \['dog'\]"),
        ({"cat": ["{}"], "dog": ["{}"], "cow": ["{}"]}, OptionError, r"\['cow'\], not among"),
        ({"cat": ["{}"], "dog": []}, TextError, "template"),
        ({"cat": ["{}"], "dog": "a {}"}, TextError, "template"),
        ({"cat": ["{}"], "dog": ["a"]}, TextError, "template"),
        (7, TextError, "template"),
        (iter(()), TextError, "template"),
    ],
    ids=told,
)
def test_templates_that_do_not_fit_the_labels_are_refused(templates, error, says):
    with pytest.raises(error, match=says):
        fill_all(templates, ["cat", "dog"])
