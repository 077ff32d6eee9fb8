"""Finding pictures: by name, in directories, by patterns."""

from pathlib import PurePath

import pytest

from vlrt.errors import ImageError, OptionError
from vlrt.sources import find_pictures, names_pictures


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Run in a directory of files; their contents are not looked at."""
    for name in ("b.PNG", "a.jpg", "notes.txt", "sub/c.webp", "sub/deep/d.jpg", ".hidden.jpg",
                 "odd[1].jpg", "plain", "empty/none.txt"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_sources_hold_no_pictures():
    with pytest.raises(OptionError, match="nothing"):
        find_pictures([])


@pytest.mark.parametrize(
    ("sources", "pairs", "others"),
    [
        (["a.jpg"], [("a.jpg", "a.jpg")], []),
        (["./sub/c.webp"], [("./sub/c.webp", "c.webp")], []),
        (["plain", "notes.txt"], [("plain", "plain"), ("notes.txt", "notes.txt")], []),
        (["missing.jpg"], [("missing.jpg", "missing.jpg")], []),
        (["x" * 5000], [("x" * 5000, "x" * 5000)], []),
        (["http://a/b?c.jpg"], [("http://a/b?c.jpg", "b?c.jpg")], []),
        (["a.jpg", "a.jpg"], [("a.jpg", "a.jpg")] * 2, []),
        (["sub"], [("sub/c.webp", "c.webp"), ("sub/deep/d.jpg", "deep/d.jpg")], []),
        (["*.jpg"], [("a.jpg", "a.jpg"), ("odd[1].jpg", "odd[1].jpg")], []),
        (["odd[1].jpg"], [("odd[1].jpg", "odd[1].jpg")], []),
        (["[ab].*"], [("a.jpg", "a.jpg"), ("b.PNG", "b.PNG")], []),
        (["sub/**/*.jpg"], [("sub/deep/d.jpg", "deep/d.jpg")], []),
        (["s*/*.webp"], [("sub/c.webp", "sub/c.webp")], []),
        (["sub/**"], [("sub/c.webp", "c.webp"), ("sub/deep/d.jpg", "deep/d.jpg")], []),
        (["[an]*"], [("a.jpg", "a.jpg")], ["notes.txt"]),
    ],
)  # fmt: skip
def test_sources_become_paths_and_the_names_under_their_root(folder, sources, pairs, others):
    found, left = find_pictures(sources)
    assert found == [(path, PurePath(name)) for path, name in pairs]
    assert left == others


def test_an_absolute_pattern_and_directory_keep_names_relative(folder):
    names = [PurePath("c.webp"), PurePath("deep/d.jpg")]
    for source in (folder / "sub", folder / "sub" / "**"):
        found, _ = find_pictures([str(source)])
        assert [name for _, name in found] == names
        assert all(path.startswith(str(folder)) for path, _ in found)


@pytest.mark.parametrize(
    ("source", "error"), [("empty", OptionError), ("*.txt", OptionError), ("*.gif", ImageError),
                          ("nowhere/**/*.jpg", ImageError),
                          pytest.param("x" * 300 + "*", ImageError, id="too long")],
)  # fmt: skip
def test_what_holds_no_picture_is_named(folder, source, error):
    with pytest.raises(error) as raised:
        find_pictures([source])
    assert source in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False), (" ", False), ("How many cats are there?", False), ("Why", False),
        ("What is in a.jpg?", False), ("x" * 5000, False), ("x\0y", False), ("[", False),
        ("a.jpg", True), ("missing.JPG", True), ("no/such/*.jpg", True), ("http://a/c.jpg", True),
        ("notes.txt", True), ("missing.txt", False), ("plain", True), (".", True), ("sub", True),
        ("sub/", True), ("sub/*", True), ("sub/**", True), ("*.gone", False),
    ],
)  # fmt: skip
def test_what_names_pictures_is_told_from_what_is_said(folder, text, expected):
    assert names_pictures(text) == expected
