"""What is verified on and what scales are taken from: drawn, or one's own."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import VILT_TASKS, read_json, write_checkpoint, write_vilt_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, picture

from vlrt.bundle import MANIFEST
from vlrt.errors import ExportError

pytest.importorskip("onnx")
pytest.importorskip("safetensors")

from vlrt_export import __main__ as command
from vlrt_export import clip, owlvit, reference, samples, vilt
from vlrt_export.checkpoint import Checkpoint
from vlrt_export.demo.questions import KINDS

FEW = SimpleNamespace(PICTURES=4, TEXTS=None)  # what `read` must know of a family


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Checkpoint("tiny", write_checkpoint(tmp_path_factory.mktemp("clip") / "checkpoint"))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    root = tmp_path_factory.mktemp("vilt") / "checkpoint"
    return Checkpoint("tiny", write_vilt_checkpoint(root))


def folder(root, number, name="pictures"):
    made = root / name
    made.mkdir()
    for n in range(number):
        (made / f"{n:04}.png").write_bytes(encoded(picture("RGB", (6, 5), seed=n)))
    return str(made)


def file(root, number, name="texts.txt"):
    (root / name).write_text("".join(f"text {n}\n" for n in range(number)))
    return str(root / name)


def pixels(images):
    return [image.tobytes() for image in images]


def own(numbers):
    return [picture("RGB", (6, 5), seed=n).tobytes() for n in numbers]


# --- what is built in -----------------------------------------------------------------------------


def test_no_picture_and_no_text_are_drawn():
    assert samples.drawn_pictures(0) == samples.texts(0) == samples.captions(0) == []
    assert samples.questions(0) == []


def test_the_drawn_samples_are_the_same_every_time():
    first, second = samples.drawn_pictures(5), samples.drawn_pictures(5)
    assert pixels(first) == pixels(second)
    assert len({image.size for image in first}) > 2
    assert len(set(samples.texts())) == len(samples.texts()) >= 64
    assert samples.captions(9) == samples.captions(9)
    assert samples.questions(3) == samples.questions(3)


@pytest.mark.parametrize("family", [clip, owlvit])
def test_by_default_nothing_is_calibrated_on(family, tiny):
    made = samples.default(family, tiny)
    assert pixels(made.images) == pixels(samples.drawn_pictures(family.PICTURES))
    assert made.texts == samples.texts()
    assert made.calibration_images == made.calibration_texts == []
    assert (made.source, made.drawn, made.held_out) == ("drawn scenes", True, True)


def test_drawn_scales_come_of_other_scenes_and_texts(tiny):
    made = samples.read(["drawn"], clip, tiny)
    by_default = samples.default(clip, tiny)
    assert (made.texts, pixels(made.images)) == (by_default.texts, pixels(by_default.images))
    assert len(made.calibration_images) == clip.PICTURES
    assert not set(pixels(made.images)) & set(pixels(made.calibration_images))
    assert len(set(made.calibration_texts)) > 60
    assert not set(made.texts) & set(made.calibration_texts)
    assert (made.source, made.drawn, made.held_out) == ("drawn scenes", True, True)


@pytest.mark.parametrize("paths", [None, ["drawn"]])
def test_who_answers_is_asked_about_the_scene_beside(asked, paths):
    made = samples.read(paths, vilt, asked) if paths else samples.default(vilt, asked)
    planned, questions = zip(*samples.questions(vilt.TEXTS), strict=True)
    assert made.texts == list(questions)
    assert all(text.endswith("?") for text in made.texts)
    shapes = [image.width / image.height for image in made.images]
    assert shapes == [plan.frame[0] / plan.frame[1] for plan in planned]
    paired = vilt.samples(asked, made.images, made.texts)
    assert (pixels(paired[0]), paired[1]) == (pixels(made.images), made.texts)
    if paths:
        assert all(text.endswith("?") for text in made.calibration_texts)
        assert len(made.calibration_texts) == len(made.calibration_images) == vilt.TEXTS
        assert not set(pixels(made.images)) & set(pixels(made.calibration_images))


def test_the_questions_are_of_every_kind_in_turn():
    questions = [question for _, question in samples.questions(len(KINDS) * 2)]
    starts = (
        "how many ",
        "what colour is ",
        ("which shape ", "what shape "),
        "is there ",
        "is the ",
    )
    for at, question in enumerate(questions):
        assert question.startswith(starts[at % len(KINDS)])


@pytest.mark.parametrize("task", list(VILT_TASKS)[1:])
def test_who_does_not_answer_is_not_asked(tmp_path, task):
    opened = Checkpoint("tiny", write_vilt_checkpoint(tmp_path, task))
    assert samples.default(vilt, opened).texts == samples.texts(vilt.TEXTS)
    assert not any(text.endswith("?") for text in samples.read(["drawn"], vilt, opened).texts)


# --- one's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 7])
def test_few_serve_both(tmp_path, tiny, number):
    made = samples.read([folder(tmp_path, number), file(tmp_path, number)], clip, tiny)
    assert pixels(made.images) == pixels(made.calibration_images) == own(range(number))
    assert made.texts == made.calibration_texts == [f"text {n}" for n in range(number)]
    assert (made.held_out, made.drawn) == (False, False)


def test_every_second_is_held_out(tmp_path, tiny):
    made = samples.read([file(tmp_path, 9), folder(tmp_path, 8)], clip, tiny)
    assert pixels(made.calibration_images) == own(range(0, 8, 2))
    assert pixels(made.images) == own(range(1, 8, 2))
    assert made.calibration_texts == [f"text {n}" for n in range(0, 9, 2)]
    assert made.texts == [f"text {n}" for n in range(1, 9, 2)]
    assert (made.held_out, made.drawn) == (True, False)


def test_few_texts_among_many_pictures_are_not_held_out(tmp_path, tiny):
    made = samples.read([folder(tmp_path, 8), file(tmp_path, 7)], clip, tiny)
    assert not set(pixels(made.images)) & set(pixels(made.calibration_images))
    assert made.texts == made.calibration_texts
    assert made.held_out is False


def test_what_is_not_given_is_built_in(tmp_path, tiny):
    directory, texts = folder(tmp_path, 8), file(tmp_path, 8)
    drawn = samples.read(["drawn"], clip, tiny)
    made = samples.read([directory], clip, tiny)
    assert (made.texts, made.calibration_texts) == (drawn.texts, drawn.calibration_texts)
    assert (made.asked_for, drawn.asked_for) == ({"pixel_values"}, {"pixel_values", "input_ids"})
    assert made.source == f"8 pictures and built-in texts, of {Path(directory).name}"
    made = samples.read([texts], clip, tiny)
    assert made.asked_for == {"input_ids"}
    assert pixels(made.images) == pixels(drawn.images)
    assert pixels(made.calibration_images) == pixels(drawn.calibration_images)
    assert made.source == f"drawn scenes and 8 texts, of {Path(texts).name}"
    assert (made.held_out, made.drawn) == (True, False)


def test_many_are_thinned_out_evenly_and_it_is_said(tmp_path, tiny):
    paths = [folder(tmp_path, 12, "a"), folder(tmp_path, 17, "b"), file(tmp_path, 2000)]
    made = samples.read(paths, FEW, tiny)
    assert (len(made.images), len(made.calibration_images)) == (4, 4)
    assert pixels(made.calibration_images)[0] == own([0])[0]  # the first of "a"
    assert pixels(made.images)[-1] == own([16])[0]  # the last of "b"
    assert (len(made.texts), made.texts[-1]) == (256, "text 1999")
    assert made.source.startswith("8 of 29 pictures and 512 of 2000 texts, of a, b, ")


@given(st.lists(st.integers(), max_size=60), st.integers(1, 40))
def test_thinning_keeps_the_order_and_the_ends(items, most):
    kept = samples._thinned(list(enumerate(items)), most)
    assert len(kept) == min(most, len(items))
    assert [at for at, _ in kept] == sorted({at for at, _ in kept})
    if items and most > 1:
        assert (kept[0][0], kept[-1][0]) == (0, len(items) - 1)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "the directory '.*pictures' holds no pictures"),
        ({"a.png": b""}, r"must hold pictures alone: .*a\.png"),
        ({"a.png": b"no picture"}, r"must hold pictures alone: .*a\.png"),
        ({"a.png": None, "b.txt": b"a text"}, r"must hold pictures alone: .*b\.txt"),
        ({"a.png": None, "b.png": "cut"}, r"must hold pictures alone: .*b\.png"),
    ],
)
def test_a_folder_without_pictures_alone_is_refused(tmp_path, tiny, content, says):
    (tmp_path / "pictures").mkdir()
    good = encoded(picture("RGB", (6, 5)))
    for name, data in content.items():
        written = {None: good, "cut": good[:-30]}.get(data, data)
        (tmp_path / "pictures" / name).write_bytes(written)
    with pytest.raises(ExportError, match=says):
        samples.read([str(tmp_path / "pictures")], clip, tiny)


def test_a_folder_of_folders_holds_no_pictures(tmp_path, tiny):
    (tmp_path / "outer").mkdir()
    folder(tmp_path / "outer", 3)
    with pytest.raises(ExportError, match="outer' holds no pictures"):
        samples.read([str(tmp_path / "outer")], clip, tiny)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"texts\.txt' does not exist; valid: a directory of pictures, a text file with"),
        (b"", r"texts\.txt' holds no texts"),
        (b" \n\n", r"texts\.txt' holds no texts"),
        (b"\xff\xfe", r"texts\.txt' cannot be read: .*codec can't decode.*; valid: a directory"),
        (b"GIF89a\x05\0\x05\0", r"texts\.txt' is no text file; valid: "),
        (encoded(picture("RGB", (6, 5))), r"texts\.txt' cannot be read: .*; valid: a directory"),
        (encoded(picture("RGB", (6, 5)), "JPEG"), r"texts\.txt' cannot be read: .*; valid: "),
    ],
)
def test_a_file_without_texts_is_refused(tmp_path, tiny, content, says):
    if content is not None:
        (tmp_path / "texts.txt").write_bytes(content)
    with pytest.raises(ExportError, match=says):
        samples.read([str(tmp_path / "texts.txt")], clip, tiny)


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, tiny, monkeypatch):
    """Root may read everything, so the system's refusal is put in its place."""

    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    directory = folder(tmp_path, 1)
    monkeypatch.setattr("pathlib.Path.iterdir", refused)
    with pytest.raises(
        ExportError, match=r"pictures' cannot be read: .*Permission denied.*; valid"
    ):
        samples.read([directory], clip, tiny)


def test_a_path_too_long_for_the_system_is_refused(tiny):
    with pytest.raises(ExportError, match=r"cannot be read|does not exist"):
        samples.read(["x" * 5000], clip, tiny)


def test_drawn_stands_alone(tmp_path, tiny):
    with pytest.raises(ExportError, match="'drawn' brings pictures and texts and stands alone"):
        samples.read(["drawn", folder(tmp_path, 1)], clip, tiny)
    with pytest.raises(ExportError, match="no path was given"):
        samples.read([], clip, tiny)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_calibrates_on_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reference, "missing", lambda: ["torch"])
    root = write_checkpoint(tmp_path / "checkpoint")
    paths = [folder(tmp_path, 8), file(tmp_path, 10)]
    arguments = [root, "-o", tmp_path / "out", "--precision", "fp32", "int8", "--calibrate", *paths]
    assert command.main([*map(str, arguments), "--quality", "accuracy"]) == 0, capsys.readouterr()
    manifest = read_json(tmp_path / "out" / MANIFEST)
    quality = manifest["quality"]["fp32"]
    assert (quality["pictures"], quality["labels"]) == (4, 5)
    assert manifest["verified"]["on"] == "8 pictures and 10 texts, of pictures, texts.txt"
    assert (manifest["verified"]["held_out"], manifest["verified"]["quality"]) == (True, "accuracy")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--calibrate", "nowhere"], "vlrt export: 'nowhere' does not exist; valid: a directory"),
        (["--calibrate", "drawn", "nowhere"], "'drawn' brings pictures and texts"),
    ],
)
def test_the_command_says_what_cannot_be_calibrated_on(tmp_path, capsys, arguments, says):
    root = write_checkpoint(tmp_path / "checkpoint")
    assert command.main([str(root), "-o", str(tmp_path / "out"), *arguments]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--calibrate"], "expected at least one argument"),
        (["--quality", "best"], "invalid choice: 'best'"),
        (["--precision", "int4"], "invalid choice: 'int4'"),
        (["--images", "x"], "unrecognized arguments"),
    ],
)
def test_the_command_knows_its_arguments(capsys, arguments, says):
    with pytest.raises(SystemExit):
        command.main(["model", "-o", "out", *arguments])
    assert says in capsys.readouterr().err
