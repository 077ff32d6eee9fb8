"""What a comparison of latencies measures, and what it measures it on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("psutil", reason="the benchmarks need the extra bench")

import vlrt
from vlrt.errors import ImageError, OptionError, TextError
from vlrt.ops import softmax
from vlrt_benchmarks.peers import STAGES, inputs, levels_of, values_of
from vlrt_benchmarks.plan import Plan, check, drawn_pictures, given_pictures, make_arrays
from vlrt_benchmarks.subject import Subject

BUNDLES = Path(vlrt.__file__).parent / "demo" / "bundles"
TASKS = {"clip": "zero-shot-image-classification", "owlvit": "zero-shot-object-detection",
         "vilt": "visual-question-answering"}  # fmt: skip


def subject(family):
    return Subject(family, family, TASKS[family], BUNDLES / family, None, False, ("int8",))


def plan(**changes):
    settings = {
        "batches": (1,),
        "pictures": (),
        "drawn": True,
        "size_wh": (64, 48),
        "labels": ("a red circle", "a blue square"),
        "question": "what color is the circle?",
        "tokens": (),
        "stages": STAGES["clip"],
        "threads": 1,
        "cpus": (),
        "device": "cpu",
        "rounds": 3,
        "turn_s": 0.01,
        "warm_up_s": 0.1,
    }
    return Plan(**{**settings, **changes})


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "tokens", "first", "second"),
    [
        ((), (), [], []),
        (("encode image", "encode text"), (),
         ["encode image", "encode text"], ["encode image"]),
        (("encode text", "suppress"), (12,),
         ["encode text", "encode text, 12 tokens", "suppress"], ["encode text, 12 tokens"]),
    ],
)  # fmt: skip
def test_what_no_batch_changes_is_measured_once(stages, tokens, first, second):
    made = plan(batches=(1, 8), stages=stages, tokens=tokens)
    assert made.rows(1) == first
    assert made.rows(8) == second


@pytest.mark.parametrize(
    ("row", "items"),
    [("decode", 8), ("encode text", 2), ("encode text, 12 tokens", 8), ("suppress", 1)],
)
def test_items_are_pictures_or_texts(row, items):
    assert plan().items(row, 8) == items


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("clip", {"stages": ("suppress",)}, "has no stage 'suppress'; valid: 'decode'"),
        ("vilt", {"stages": ("encode",)}, "has no stage 'encode'"),
        ("vilt", {"stages": STAGES["vilt"], "tokens": (12,)}, "--tokens 12 adds rows"),
    ],
)
def test_what_the_model_does_not_have_is_refused(family, changes, says):
    with pytest.raises(OptionError, match=says):
        check(plan(**changes), subject(family))


@pytest.mark.parametrize(
    ("family", "task", "says"),
    [("siglip", "", "is of siglip; valid: clip"), ("vilt", "fill-mask", "is for fill-mask")],
)
def test_models_that_cannot_be_measured_are_refused(family, task, says):
    other = Subject("x", family, task, Path(), None, False, ("fp32",))
    with pytest.raises(OptionError, match=says):
        check(plan(stages=()), other)


# --- pictures -------------------------------------------------------------------------------------


def test_drawn_pictures_are_the_same_each_time_and_kept(tmp_path):
    first = drawn_pictures(tmp_path / "a", 2, (64, 48))
    again = drawn_pictures(tmp_path / "b", 3, (64, 48))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again[:2]]
    with Image.open(first[0]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 48))
    assert first[0].read_bytes() != first[1].read_bytes()
    times = [path.stat().st_mtime_ns for path in first]
    assert drawn_pictures(tmp_path / "a", 2, (64, 48)) == first
    assert [path.stat().st_mtime_ns for path in first] == times


def test_pictures_that_are_too_few_come_again(tmp_path):
    given = drawn_pictures(tmp_path, 2, (64, 48))
    assert given_pictures(given, 5) == (*given, *given, given[0])
    assert plan(pictures=given).paths(1) == [str(given[0])]


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        given_pictures([tmp_path / "broken.jpg"], 1)


def test_plans_are_told_apart_by_what_is_in_the_pictures(tmp_path):
    pictures = drawn_pictures(tmp_path, 2, (64, 48))
    drawn = plan(pictures=pictures)
    assert drawn.facts() == plan(pictures=drawn_pictures(tmp_path / "x", 2, (64, 48))).facts()
    ours = plan(pictures=pictures, drawn=False).facts()
    assert ours != drawn.facts()
    pictures[1].write_bytes(pictures[0].read_bytes())
    assert plan(pictures=pictures, drawn=False).facts() != ours


# --- arrays ---------------------------------------------------------------------------------------


def made_arrays(tmp_path, family, batch=2, **changes):
    pictures = drawn_pictures(tmp_path, batch, (64, 48))
    path = tmp_path / "arrays.npz"
    own = plan(pictures=pictures, batches=(batch,), stages=STAGES[family], **changes)
    make_arrays(subject(family), own, batch, path)
    return {"arrays": str(path)}


def test_clip_is_measured_on_what_its_own_stages_give(tmp_path):
    job = made_arrays(tmp_path, "clip", tokens=(5,))
    clip = vlrt.load(str(BUNDLES / "clip"), device="cpu", threads=1)
    pictures = [str(tmp_path / f"drawn-64x48-{number}.jpg") for number in range(2)]
    finish = inputs(job, "post-process")
    embeds = finish["image_embeds"] / np.linalg.norm(finish["image_embeds"], axis=1)[:, None]
    scores = softmax(embeds @ finish["text_embeds"].T * finish["logit_scale"])
    found = clip.classify(pictures, ["a red circle", "a blue square"])
    np.testing.assert_allclose(scores, [one.scores for one in found], atol=1e-5)
    assert inputs(job, "encode image")["pixel_values"].shape == (2, 3, 64, 64)
    assert inputs(job, "encode text, 5 tokens")["input_ids"].shape == (2, 5)
    assert inputs(job, "encode text")["input_ids"].shape[0] == 2


def test_detectors_have_boxes_to_suppress_in_pixels(tmp_path):
    job = made_arrays(tmp_path, "owlvit")
    given = inputs(job, "suppress")
    places = inputs(job, "post-process")["pred_boxes"].shape[1]
    assert given["boxes"].shape == (places, 4)
    assert given["boxes"].dtype == np.float32
    assert given["boxes"][:, 0].max() > 1
    assert set(given["labels"].tolist()) <= {0, 1}
    assert ((given["scores"] > 0) & (given["scores"] < 1)).all()
    assert inputs(job, "post-process")["size_hw"].tolist() == [[48, 64]] * 2


def test_questions_are_asked_of_every_picture(tmp_path):
    given = inputs(made_arrays(tmp_path, "vilt"), "encode image and text")
    assert len(given["input_ids"]) == len(given["pixel_values"]) == 2
    assert given["pixel_mask"].all()
    assert not given["token_type_ids"].any()


@pytest.mark.parametrize("length", [2, 33])
def test_lengths_that_the_model_does_not_take_are_refused(tmp_path, length):
    with pytest.raises(OptionError, match=f"--tokens is {length}; valid: 3 to 32"):
        made_arrays(tmp_path, "clip", tokens=(length,))


def test_a_label_that_is_too_long_is_named(tmp_path):
    with pytest.raises(TextError, match="label 0 has"):
        made_arrays(tmp_path, "clip", labels=("a red circle " * 20,))


def test_every_length_is_made_of_that_many_tokens(tmp_path):
    job = made_arrays(tmp_path, "clip", tokens=(3, 17, 32))
    for length in (3, 17, 32):
        given = inputs(job, f"encode text, {length} tokens")
        assert given["input_ids"].shape == (2, length)
        assert given["attention_mask"].all()


# --- what a GPU is given --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "sizes", "first", "second"),
    [
        ((), (), [], []),
        (("encode image",), (), ["encode image"], ["encode image"]),
        (("encode image", "encode text"), (2, 4),
         ["encode image", "encode image, 2 pictures", "encode image, 4 pictures", "encode text"],
         ["encode image"]),
        (("encode image and text",), (3,),
         ["encode image and text", "encode image and text, 3 pictures"],
         ["encode image and text"]),
    ],
)  # fmt: skip
def test_further_sizes_are_rows_of_the_first_batch(stages, sizes, first, second):
    made = plan(batches=(1, 8), stages=stages, sizes=sizes)
    assert [made.rows(1), made.rows(8)] == [first, second]
    assert made.most == max(8, *sizes, 0)
    for row, size in zip(first[1:], sizes, strict=False):
        assert made.items(row, 1) == size


def test_further_sizes_need_a_tower_of_pictures():
    with pytest.raises(OptionError, match="--sizes 4 adds rows to 'encode image'"):
        check(plan(stages=("decode",), sizes=(4,)), subject("clip"))


@pytest.mark.parametrize("values", [np.zeros((0, 3, 2, 2), np.float32), None])
def test_levels_are_what_the_values_were_made_of(values):
    table = np.stack([np.linspace(-1.5, 2, 256), np.linspace(0, 1, 256), np.arange(256)])
    table = table.astype(np.float32)
    levels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype(np.uint8)
    if values is None:
        values = values_of(levels, table)
        np.testing.assert_array_equal(levels_of(values, table), levels)
    assert levels_of(values, table).shape == (len(values), *values.shape[2:], 3)


@pytest.mark.parametrize("family", ["clip", "owlvit", "vilt"])
def test_for_a_gpu_pictures_are_levels_and_give_the_same_values(tmp_path, family):
    pictures = drawn_pictures(tmp_path, 3, (64, 48))
    stage = "encode image and text" if family == "vilt" else "encode image"
    found = {}
    for device in ("cpu", "cuda"):
        asked = plan(pictures=pictures, stages=(stage,), device=device, sizes=(2, 3))
        path = tmp_path / f"{device}.npz"
        make_arrays(subject(family), asked, 1, path)
        found[device] = {"arrays": str(path)}
    for row, number in {stage: 1, f"{stage}, 2 pictures": 2, f"{stage}, 3 pictures": 3}.items():
        expected, values = (inputs(found[device], row) for device in ("cpu", "cuda"))
        levels = inputs(found["cuda"], row, levels=True)
        assert levels["levels"].dtype == np.uint8
        assert len(levels["levels"]) == number
        assert set(values) == set(expected)
        assert "pixel_values" not in levels
        for name, array in expected.items():
            np.testing.assert_array_equal(values[name], array)
