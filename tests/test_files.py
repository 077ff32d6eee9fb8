"""Files: lines of text, and files that appear whole or not at all."""

from pathlib import Path

import pytest

from vlrt.errors import ImageError, OptionError
from vlrt.files import text_lines, whole_file, writing


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbfa cat\r\n\r\n b \n", ["a cat", "b"]),
        ("東京\n\ufeffx".encode(), ["東京", "\ufeffx"]),
    ],
)
def test_lines_are_read_without_the_mark_that_some_editors_write(content, lines, tmp_path):
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    assert text_lines(str(file)) == lines


@pytest.mark.parametrize("error", [OSError("no room"), ValueError("no room")])
def test_what_fails_while_writing_names_the_file(error, tmp_path):
    says = r"x\.bin' cannot be written: no room"
    with pytest.raises(OptionError, match=says), writing(tmp_path / "x.bin"):
        raise error


def test_errors_that_are_vlrt_s_own_pass(tmp_path):
    with pytest.raises(ImageError, match=r"^bad$"), writing(tmp_path / "x.bin"):
        raise ImageError("bad")


def write(target, *parts):
    with whole_file(target) as file:
        for part in parts:
            if isinstance(part, Exception):
                raise part
            file.write(part)


def test_a_whole_file_appears_when_all_is_written(tmp_path):
    target = tmp_path / "new" / "x.bin"
    write(target, b"all of ", b"it")
    assert target.read_bytes() == b"all of it"
    assert [path.name for path in target.parent.iterdir()] == ["x.bin"]


def test_a_file_that_is_not_finished_leaves_what_was_there(tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(b"before")
    with pytest.raises(ImageError):
        write(target, b"half", ImageError("bad"))
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("name", ["file/x.bin", "x" * 300, "directory"], ids=lambda name: name[:9])
def test_a_place_where_nothing_can_be_written_is_named(name, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(OptionError, match="cannot be written"):
        write(tmp_path / name, b"all")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told(tmp_path):
    (tmp_path / "x.bin.partial").symlink_to("/dev/full")
    with pytest.raises(OptionError, match=r"x\.bin' cannot be written: .*space"):
        write(tmp_path / "x.bin", b"all")
    assert list(tmp_path.iterdir()) == []
