"""`vlrt detect`, on a model that answers what the tests want."""

import inspect
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vlrt
from vlrt import cli, cli_detect, cli_options, draw
from vlrt.errors import ImageError
from vlrt.families import owlvit
from vlrt.image import load_image
from vlrt.results import Detections, LabelSet


class Model:
    """Finds each label once in each picture, one box below the other; records its calls."""

    def __init__(self):
        self.calls = []
        self.info = {"task": "zero-shot-object-detection"}

    def iter_detect(self, images, labels, **given):
        self._record("iter_detect", images, labels, **given)
        return self._found(images, tuple(labels), None)

    def encode_examples(self, pictures, **given):
        self._record("encode_examples", pictures, **given)
        names = tuple(Path(picture).stem for picture in pictures)
        return LabelSet(names, np.ones((len(names), 2), np.float32), "m")

    def iter_detect_like(self, images, examples, **given):
        self._record("iter_detect_like", images, examples, **given)
        return self._found(images, examples.labels, np.ones(len(examples), np.float32))

    def _record(self, method, *args, **given):
        # The real model takes what this one is given.
        inspect.signature(getattr(owlvit.Model, method)).bind(self, *args, **given)
        self.calls.append((method, args, given))

    def _found(self, images, labels, alphas):
        for path in images:
            try:
                width, height = load_image(path).size
            except ImageError as error:
                yield path, error
                continue
            rows = np.arange(len(labels), dtype=np.float32)
            boxes = np.stack([rows - 2, rows * 10, rows + 30.4, rows * 10 + 8], axis=1)
            if "empty" in Path(path).name:
                boxes, rows = boxes[:0], rows[:0]
            found = alphas[: len(rows)] if alphas is not None else None
            yield path, Detections(labels, boxes, 0.9 - rows / 10, rows.astype(np.intp),
                                   (height, width), found)  # fmt: skip


@pytest.fixture
def model(monkeypatch):
    made = Model()
    monkeypatch.setattr(vlrt, "load", lambda *_, **__: made)
    return made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Run in a directory with pictures."""
    for name in ("a.png", "b.jpg", "empty.png", "sub/a.png", "sub/c.bmp", "ids/000000039769.jpg",
                 "ids/7.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (640, 480), (200, 200, 200)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def detect(*arguments, labels="cat,a red car"):
    return cli.main(["detect", *arguments, *(["--labels", labels] if labels else []),
                     "--model", "owl"])  # fmt: skip


# --- what is printed ------------------------------------------------------------------------------


def test_nothing_found_is_said(model, folder, capsys):
    assert detect("empty.png") == 0
    assert capsys.readouterr().out == "  nothing found\n"
    assert detect("empty.png", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"image": "empty.png", "width": 640, "height": 480, "detections": []}
    assert detect("empty.png", "--format", "coco") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_text_is_aligned_and_boxes_are_whole_pixels_inside(model, folder, capsys):
    assert detect("a.png", "b.jpg", labels="cat,a red car,東京") == 0
    said = capsys.readouterr()
    lines = ["  0.900  cat        0,0,30,8", "  0.800  a red car  0,10,31,18",
             "  0.700  東京       0,20,32,28"]  # fmt: skip
    assert said.out.splitlines() == ["a.png", *lines, "b.jpg", *lines]
    assert said.err == ""


@pytest.mark.parametrize("option", [["--json"], ["--format", "jsonl"]])
def test_json_lines_are_what_the_library_gives(model, folder, capsys, option):
    assert detect("a.png", "sub", *option) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    paths = ["a.png", "sub/a.png", "sub/c.bmp"]
    expected = [found.to_dict() for _, found in Model().iter_detect(paths, ["cat", "a red car"])]
    assert printed == [{"image": path, **row} for path, row in zip(paths, expected, strict=True)]


def test_coco_is_one_array_with_the_ids_in_the_names(model, folder, capsys):
    assert detect("ids", "--format", "coco") == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["image_id"] for entry in entries] == [39769, 39769, 7, 7]
    assert [entry["category_id"] for entry in entries] == [1, 2, 1, 2]
    assert entries[0]["file_name"] == "000000039769.jpg"
    assert entries[0]["bbox"] == pytest.approx([0, 0, 30.4, 8])
    assert detect("sub", "--format", "coco") == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["image_id"] for entry in entries] == [1, 1, 2, 2]


@pytest.mark.parametrize(("kind", "name"), [("coco", "out.json"), ("jsonl", "new/out.jsonl")])
def test_results_go_into_a_file(model, folder, capsys, kind, name):
    assert detect("sub", "--format", kind) == 0
    printed = capsys.readouterr().out
    assert detect("sub", "--format", kind, "-o", name) == 0
    assert capsys.readouterr().out == ""
    assert Path(name).read_text() == printed
    assert detect("sub", "--format", kind, "-o", name) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert not list(folder.rglob("*.partial"))


def test_a_bad_picture_is_named_and_the_others_are_searched(model, folder, capsys):
    (folder / "bad.jpg").write_bytes(b"no picture")
    for kind in ("text", "coco"):
        assert detect("bad.jpg", "a.png", "missing.png", "--format", kind) == 1
        said = capsys.readouterr()
        assert "bad.jpg" not in said.out
        assert "a.png" in said.out
        for expected in ("bad.jpg", "missing.png", "2 of 3 could not be read"):
            assert expected in said.err
    assert detect("bad.jpg", "a.png", "missing.png", "--json", "-o", "out") == 1
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["image"] for row in rows] == ["bad.jpg", "a.png", "missing.png"]
    assert [set(row) == {"image", "error"} for row in rows] == [True, False, True]
    assert "'bad.jpg' is not a picture" in rows[0]["error"]
    assert [path.name for path in Path("out").iterdir()] == ["a.png"]


def test_a_reader_that_leaves_ends_the_command_quietly(model, folder, monkeypatch):
    class Gone(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

        def fileno(self):
            return 99

    replaced = []
    monkeypatch.setattr("os.dup2", lambda *pair: replaced.append(pair[1]))
    monkeypatch.setattr("sys.stdout", Gone())
    assert detect("a.png") == 0
    assert replaced == [99]


# --- what is asked --------------------------------------------------------------------------------


def test_what_is_not_given_is_left_to_the_model(model, folder):
    assert detect("a.png") == 0
    ((_, (paths, labels), given),) = model.calls
    assert (paths, labels) == (["a.png"], ["cat", "a red car"])
    assert given == {"top_k": None, "batch_size": 4, "threshold": 0.1, "class_agnostic": False,
                     "multi_label": False, "templates": None, "truncate": False}  # fmt: skip
    own = inspect.signature(owlvit.Model.iter_detect).parameters
    for name in set(given) - {"labels"}:
        assert own[name].default == given[name], name


def test_every_option_reaches_the_model(model, folder):
    options = ["--threshold", "0.2", "--iou", "0.5", "--class-agnostic", "--multi-label",
               "--top-k", "3", "--templates", "imagenet", "--truncate", "--batch-size", "2",
               "--label-threshold", "cat=0.4"]  # fmt: skip
    assert detect("a.png", *options) == 0
    ((_, _, given),) = model.calls
    assert given == {"top_k": 3, "batch_size": 2, "iou_threshold": 0.5, "class_agnostic": True,
                     "threshold": {"cat": 0.4, "a red car": 0.2}, "multi_label": True,
                     "templates": vlrt.IMAGENET_TEMPLATES, "truncate": True}  # fmt: skip


def test_a_threshold_for_a_label_may_have_equals_signs_in_its_name(model, folder):
    assert detect("a.png", "--label-threshold", "a=b=0.4", labels="a=b,c") == 0
    assert model.calls[0][2]["threshold"] == {"a=b": 0.4, "c": cli_detect.THRESHOLD}


def test_examples_are_searched_for_with_their_boxes(model, folder, capsys):
    like = ["--like", "a.png", "--like-box", "1,2,30,40", "--like", "b.jpg"]
    assert detect("sub", *like, "--iou", "0.4", "--threshold", "0.5", labels=None) == 0
    (_, (pictures,), encoded), (method, (paths, _), given) = model.calls
    assert pictures == ["a.png", "b.jpg"]
    assert encoded == {"boxes": [(1.0, 2.0, 30.0, 40.0), None]}
    assert (method, paths) == ("iter_detect_like", ["sub/a.png", "sub/c.bmp"])
    assert given == {"top_k": None, "batch_size": 4, "iou_threshold": 0.4, "threshold": 0.5}
    assert "b  0,10,31,18" in capsys.readouterr().out
    model.calls.clear()
    assert detect("sub", "--like", "a.png", labels=None) == 0
    assert model.calls[1][2] == {"top_k": None, "batch_size": 4}


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.png", "out.JPG", "new/out.webp", "out.tiff"])
def test_one_picture_is_drawn_under_the_name_given(model, folder, name, capsys):
    assert detect("a.png", "-o", name) == 0
    assert capsys.readouterr().err == f"drawn: {name}\n"
    with Image.open(name) as drawn:
        assert drawn.size == (640, 480)
        assert len(drawn.convert("RGB").getcolors(1 << 20)) > 2


def test_the_picture_drawn_is_the_library_s(model, folder):
    assert detect("a.png", "-o", "out.png") == 0
    ((_, found),) = Model().iter_detect(["a.png"], ["cat", "a red car"])
    with Image.open("out.png") as drawn:
        expected = draw.detections("a.png", found)
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))


def test_several_pictures_are_drawn_under_their_names_below_a_directory(model, folder):
    Image.new("RGB", (640, 480)).save(folder / "sub" / "c.ppm")
    assert detect("b.jpg", "sub/**", "-o", "out") == 0
    assert sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.*")) == [
        "a.png", "b.jpg", "c.bmp", "c.ppm.png"
    ]  # fmt: skip
    assert detect(".", "-o", "all/") == 0
    assert Path("all/sub/a.png").is_file()
    assert Path("all/a.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.png", "sub/a.png", "-o", "out"], "would both be drawn"),
        (["a.png", "a.png", "-o", "out"], "would both be drawn"),
        (["a.png", "b.jpg", "-o", "out.png"], "directory"),
        (["a.png", "-o", "a.png"], "itself"),
        (["a.png", "-o", ".", "--overwrite"], "itself"),
        (["a.png", "-o", "b.jpg", "--labels-file", "x"], "once"),
        (["a.png", "-o", "b.jpg"], "--overwrite"),
        (["b.jpg", "-o", "sub/a.png"], "--overwrite"),
        (["a.png", "-o", "sub"], "--overwrite"),
        (["a.png", "-o", "out.txt"], "valid are"),
        (["a.png", "-o", "out.json"], "valid are"),
        (["a.png", "-o", "out.json", "--json"], ".jsonl"),
        (["a.png", "-o", "out.jsonl", "--format", "coco"], ".json"),
        (["a.png", "-o", "a.png/x"], "cannot be written"),
        (["a.png", "--font", "x.ttf"], "-o"),
        (["a.png", "--font", "x.ttf", "-o", "out.png"], "x.ttf"),
        (["a.png", "--like", "b.jpg"], "once"),
        (["a.png", "--label-threshold", "dog=0.5"], "valid: cat, a red car"),
        (["*.gif"], "*.gif"),
        (["ids/7.png", "ids/0*.jpg", "ids/7.png", "--format", "coco"], "image_id 7"),
        (["a.png", "--templates", "none"], "imagenet"),
        (["a.png", "--class-agnostic"], "--class-agnostic has no effect without --iou"),
        (["a.png", "--threshold", "1.5"], "--threshold is 1.5"),
        (["a.png", "--iou", "-1"], "--iou is -1.0"),
        (["a.png", "--iou", "nan"], "--iou is nan"),
        (["a.png", "--label-threshold", "cat=2"], "--label-threshold of 'cat' is 2.0"),
        (["a.png", "-o", "x" * 300 + ".png"], "cannot be written"),
        (["a.png", "-o", "x" * 300], "cannot be written"),
    ],
)
def test_a_mistake_is_named_and_leaves_every_file_alone(model, folder, capsys, arguments, said):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert detect(*arguments) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.startswith("vlrt: ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "arguments",
    [["--class-agnostic"], ["--threshold", "2"], ["--iou", "2"], ["--label-threshold", "cat=2"],
     ["--font", "x.ttf", "-o", "out.png"], ["--templates", "none"], ["-o", "b.jpg"],
     ["-o", "x" * 300]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_mistake_is_told_before_the_model_is_loaded(folder, monkeypatch, capsys, arguments):
    loads = []
    monkeypatch.setattr(vlrt, "load", lambda *_, **__: loads.append(1))
    assert detect("a.png", *arguments) == 1
    assert capsys.readouterr().err.startswith("vlrt: ")
    assert loads == []


def test_a_full_disk_is_told_and_leaves_no_file(model, folder, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("needs Linux's /dev/full")
    Path("found.jsonl.partial").symlink_to("/dev/full")
    assert detect("a.png", "--json", "-o", "found.jsonl") == 1
    assert "found.jsonl' cannot be written" in capsys.readouterr().err
    assert not list(folder.glob("found*"))


@pytest.mark.parametrize("misplaced", [["--truncate"], ["--class-agnostic"], ["--multi-label"],
                                       ["--label-threshold", "a=1"],
                                       ["--templates", "imagenet"]])  # fmt: skip
def test_what_is_for_labels_is_refused_with_examples(model, folder, capsys, misplaced):
    assert detect("a.png", "--like", "b.jpg", *misplaced, labels=None) == 1
    assert misplaced[0] in capsys.readouterr().err


def test_nothing_to_find_is_refused(model, folder, capsys):
    assert detect("a.png", labels=None) == 1
    assert "--like" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["a.png", "--threshold", "x"], ["a.png", "--format", "xml"], ["a.png", "--top-k", "0"],
     ["a.png", "--json", "--format", "coco"], ["a.png", "--label-threshold", "cat"],
     ["a.png", "--label-threshold", "0.5"], ["a.png", "--label-threshold", "=0.5"],
     ["a.png", "--like-box", "1,2,3,4"], ["a.png", "--like", "b.jpg", "--like-box", "1,2,3"],
     ["a.png", "--like", "b", "--like-box", "1,2,3,4", "--like-box", "1,2,3,4"]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(model, folder, arguments):
    with pytest.raises(SystemExit) as stop:
        detect(*arguments)
    assert stop.value.code == 2


def test_existing_pictures_are_replaced_when_told(model, folder):
    before = Path("b.jpg").read_bytes()
    assert detect("a.png", "-o", "b.jpg", "--overwrite") == 0
    assert Path("b.jpg").read_bytes() != before


def test_a_model_for_something_else_is_refused(folder, monkeypatch, capsys):
    class Classifier:
        info = {"task": "zero-shot-image-classification"}  # noqa: RUF012

    monkeypatch.setattr(vlrt, "load", lambda *_, **__: Classifier())
    assert detect("a.png") == 1
    assert "zero-shot-image-classification" in capsys.readouterr().err


# --- the bar --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "printing", "terminals", "shown"),
    [(0, False, (True, True), False), (1, False, (True, True), False),
     (2, False, (True, True), True), (2, True, (True, True), False),
     (2, True, (True, False), True), (2, False, (False, False), False)],
)  # fmt: skip
def test_the_bar_is_shown_to_whom_it_helps(total, printing, terminals, shown, monkeypatch, capsys):
    for name, terminal in zip(("stderr", "stdout"), terminals, strict=True):
        monkeypatch.setattr(f"sys.{name}.isatty", lambda terminal=terminal: terminal)
    bar = cli_options.Progress(total, printing=printing)
    bar.advance(1)
    bar.say("note")
    bar.close()
    said = capsys.readouterr().err
    assert ("#" in said) == shown
    assert "note\n" in said


@pytest.mark.parametrize("options", [[], ["--json"], ["--format", "coco"]], ids=str)
def test_no_bar_is_drawn_among_results_on_one_terminal(model, folder, monkeypatch, capsys, options):
    for name in ("stderr", "stdout"):
        monkeypatch.setattr(f"sys.{name}.isatty", lambda: True)
    assert detect("sub", *options) == 0
    assert "#" not in capsys.readouterr().err


def test_a_bar_is_drawn_where_results_go_into_a_file(model, folder, monkeypatch, capsys):
    for name in ("stderr", "stdout"):
        monkeypatch.setattr(f"sys.{name}.isatty", lambda: True)
    assert detect("sub", "--format", "coco", "-o", "found.json") == 0
    assert "#" in capsys.readouterr().err
