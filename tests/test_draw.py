import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from vlrt import draw, fonts
from vlrt.errors import OptionError
from vlrt.results import Detections


@pytest.mark.parametrize(("text", "width"), [("", 0), ("short", 1000), ("much too long", 40)])
def test_fitted_text_is_never_wider_than_its_room(text, width):
    pen = ImageDraw.Draw(Image.new("RGB", (9, 9)))
    font = ImageFont.load_default(15)
    fitted = draw.fitted(pen, text, font, width)
    assert pen.textlength(fitted, font=font) <= width
    if width == 1000:
        assert fitted == text


# --- detections -----------------------------------------------------------------------------------

LABELS = ("cat", "a red car", "naïve café", "東京", "🙂", "two\nlines", "a long label " * 30)


def detections(boxes, size_wh, label_ids=None, labels=LABELS):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    ids = np.arange(len(boxes)) % len(labels) if label_ids is None else np.array(label_ids)
    scores = np.linspace(1, 0, len(boxes), dtype=np.float32)
    return Detections(labels, boxes, scores, ids.astype(np.intp), size_wh[::-1])


def noise(size_wh):
    pixels = np.random.default_rng(0).integers(0, 256, (*size_wh[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def random_boxes(number, size_wh, seed=0):
    centers, sizes = np.random.default_rng(seed).uniform(0, 1, (2, number, 2))
    corners = np.concatenate([centers - sizes / 4, centers + sizes / 4], axis=1)
    return corners * np.array([*size_wh, *size_wh])


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (640, 480), (2000, 50)])
def test_a_picture_in_which_nothing_was_found_is_itself(size):
    image = noise(size)
    drawn = draw.detections(image, detections([], size))
    assert drawn is not image
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(image))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), (480, 480)), ((32, 32), (480, 480)), ((200, 150), (600, 450)), ((1, 300), (2, 600)),
     ((480, 10), (480, 10)), ((640, 480), (640, 480)), ((20000, 50), (20000, 50)),
     ((50, 20000), (50, 20000)), ((20000, 1), (20000, 1)), ((1, 20000), (1, 20000))],
    ids=str,
)  # fmt: skip
def test_pictures_of_any_size_are_drawn_on_and_only_small_ones_enlarged(size, expected):
    image = Image.new("RGB", size, (90, 90, 90))
    drawn = draw.detections(image, detections(random_boxes(20, size), size))
    assert drawn.size == expected
    assert len(drawn.getcolors(1 << 24)) > 1
    assert image.getcolors() == [(size[0] * size[1], (90, 90, 90))]  # the caller's is left alone


@pytest.mark.parametrize("size", [(640, 480), (2000, 50), (60, 900)])
@pytest.mark.parametrize("number", [1, 10, 60])
def test_every_pixel_outside_of_the_lines_and_tags_is_as_it_was(size, number):
    image = noise(size)
    found = detections(random_boxes(number, size), size)
    changed = (np.asarray(draw.detections(image, found)) != np.asarray(image)).any(axis=2)
    allowed = np.zeros_like(changed)
    for mark in draw._marks(found, 1, None):
        for x0, y0, x1, y1 in (mark.box, mark.tag):
            allowed[y0:y1, x0:x1] = True
    assert changed.any()
    assert not (changed & ~allowed).any()


def test_the_inside_of_a_box_is_as_it_was():
    image = noise((640, 480))
    drawn = draw.detections(image, detections([[100, 100, 400, 300]], (640, 480)))
    inside = (slice(110, 290), slice(110, 390))
    np.testing.assert_array_equal(np.asarray(drawn)[inside], np.asarray(image)[inside])


def test_a_box_is_drawn_in_the_colour_of_its_label_and_the_best_over_the_others():
    found = detections([[100, 100, 400, 300]] * 2, (640, 480), label_ids=[3, 1])
    drawn = draw.detections(Image.new("RGB", (640, 480)), found)
    assert drawn.getpixel((101, 200)) == draw.color(3)


@pytest.mark.parametrize(
    "box",
    [(-50, 10, -1, 20), (700, 10, 800, 20), (10, -30, 20, 0), (10, 480, 20, 600)],
)
def test_a_box_outside_of_the_picture_is_not_drawn(box):
    image = noise((640, 480))
    drawn = draw.detections(image, detections([box], (640, 480)))
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(image))


@pytest.mark.parametrize(
    "box",
    [(-np.inf, -np.inf, np.inf, np.inf), (10, 10, 10, 10), (639.9, 479.9, 640, 480), (0, 0, 1, 1)],
)
def test_the_largest_and_the_smallest_box_are_drawn(box):
    image = Image.new("RGB", (640, 480))
    drawn = draw.detections(image, detections([box], (640, 480)))
    assert draw.color(0) in {color for _, color in drawn.getcolors(1 << 20)}


@given(
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    corners=st.lists(st.tuples(*[st.floats(-100, 1000, width=32)] * 4), max_size=12),
)
def test_no_box_and_no_tag_is_outside_of_the_picture(size, corners):
    for mark in draw._marks(detections(corners, size), 1, None):
        for x0, y0, x1, y1 in (mark.box, mark.tag):
            assert 0 <= x0 <= x1 <= size[0]
            assert 0 <= y0 <= y1 <= size[1]
        assert mark.box[0] < mark.box[2]
        assert mark.box[1] < mark.box[3]


def covered(rectangles):
    """Pixels that pairs of rectangles share."""
    shared = 0
    for a, b in itertools.combinations(rectangles, 2):
        over = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        shared += over.clip(0).prod()
    return shared


def test_tags_stand_above_their_box_and_keep_clear_of_each_other():
    wide = np.full(4, 80)
    assert draw.place_tags(np.empty((0, 4), np.intp), wide[:0], 20, (480, 640)).shape == (0, 4)
    one = draw.place_tags(np.array([[100, 100, 300, 300]]), wide[:1], 20, (480, 640))
    assert one.tolist() == [[100, 80, 180, 100]]
    top = draw.place_tags(np.array([[100, 5, 300, 300]]), wide[:1], 20, (480, 640))
    assert top.tolist() == [[100, 5, 180, 25]]
    same = draw.place_tags(np.array([[100, 100, 300, 300]] * 4), wide, 20, (480, 640))
    assert covered(same) == 0
    sixty = random_boxes(60, (1280, 960)).clip(0, 960).astype(np.intp)
    assert covered(draw.place_tags(sixty, np.full(60, 90), 20, (960, 1280))) < 0.02 * 60 * 90 * 20


def test_a_narrow_picture_has_the_score_alone_and_a_low_one_no_tag():
    narrow = draw._marks(detections([[0, 100, 50, 500]], (50, 1000), [1]), 1, None)
    assert narrow[0].text == "1.00"
    assert draw._marks(detections([[0, 0, 900, 8]], (2000, 8)), 1, None)[0].text == ""


def test_a_long_label_is_cut_before_its_score():
    (mark,) = draw._marks(detections([[0, 100, 50, 500]], (640, 480), [6]), 1, None)
    assert mark.text.startswith("a long label")
    assert mark.text.endswith("...  1.00")


def test_lines_and_text_grow_with_the_picture():
    sizes = [draw._font_size(hw) for hw in ((480, 640), (3000, 4000), (6000, 8000), (50, 20000))]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[3] <= 25


def test_a_picture_of_another_size_than_the_one_searched_is_refused():
    with pytest.raises(OptionError, match=r"30x20.*640x480"):
        draw.detections(Image.new("RGB", (30, 20)), detections([], (640, 480)))


def test_a_box_that_is_no_number_is_refused():
    found = detections([[0, 0, 9, 9], [0, np.nan, 9, 9]], (640, 480))
    with pytest.raises(OptionError, match="box 1"):
        draw.detections(Image.new("RGB", (640, 480)), found)


def test_colours_can_be_told_apart_and_read():
    colors = [draw.color(i) for i in range(200)]
    assert tuple(colors[:12]) == draw.PALETTE
    assert len(set(colors)) == 200
    apart = [np.abs(np.subtract(a, b)).sum() for a, b in itertools.combinations(colors[:12], 2)]
    assert min(apart) > 90
    for color in colors:
        paper, text = draw.luminance(color), draw.luminance(draw.ink(color))
        assert (max(paper, text) + 0.05) / (min(paper, text) + 0.05) > 4.5
        assert 0.05 < paper < 0.8  # neither lost on black nor on white


# --- text -----------------------------------------------------------------------------------------


@pytest.fixture
def no_system_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", ())


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", ""), ("a red car, 50%", "a red car, 50%"), ("two\nlines\tand more", "two lines and more"),
     ("naïve café", "naive cafe"), ("東京 tower", "? tower"), ("\ud800a\x00b", "?a?b")],
)  # fmt: skip
def test_what_the_built_in_font_lacks_is_replaced(text, shown, no_system_fonts):
    found, font = fonts.drawable(text, 20)
    assert found == shown
    assert font.size == 20


def test_a_label_of_nothing_that_can_be_drawn_is_numbered(no_system_fonts):
    (mark,) = draw._marks(detections([[100, 100, 400, 300]], (640, 480), [3]), 1, None)
    assert mark.text == "label 3  1.00"


def test_a_system_font_is_taken_for_what_the_built_in_one_lacks():
    if not fonts._installed("DejaVuSans.ttf"):
        pytest.skip("this machine has no DejaVu Sans")
    assert fonts.drawable("naïve café ж", 20)[0] == "naïve café ж"
    assert fonts.drawable("cat", 20)[1].getname() != fonts.drawable("é", 20)[1].getname()


def test_a_font_of_the_caller_is_used_for_all_text(tmp_path):
    if not fonts._installed("DejaVuSansMono.ttf"):
        pytest.skip("this machine has no DejaVu Sans Mono")
    file = fonts._font("DejaVuSansMono.ttf", 20).path
    assert fonts.drawable("cat", 20, file=file)[1].getname()[0] == "DejaVu Sans Mono"
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    found = detections([[0, 0, 9, 9]], (640, 480))
    with pytest.raises(OptionError, match=r"broken\.ttf"):
        draw.detections(Image.new("RGB", (640, 480)), found, font=str(tmp_path / "broken.ttf"))
