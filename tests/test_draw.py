import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from vlrt import draw
from vlrt.ops import softmax
from vlrt.results import Classification


def classification(labels):
    logits = np.linspace(3, 0, len(labels), dtype=np.float32)
    return Classification(tuple(labels), softmax(logits), logits)


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000), (320, 240)])
@pytest.mark.parametrize(
    "label", ["x", "a very long label " * 20, "naïve café 東京 🙂", "two\nlines"]
)
def test_a_card_has_one_size_whatever_the_picture_and_the_labels(size, label):
    card = draw.classification_card(
        Image.new("RGB", size), classification([label, "b"]), title=label
    )
    plain = draw.classification_card(Image.new("RGB", (9, 9)), classification(["a", "b"]))
    assert card.size == plain.size


def test_fewer_labels_than_asked_for_make_a_shorter_card():
    image = Image.new("RGB", (9, 9))
    one = draw.classification_card(image, classification(["a"]))
    three = draw.classification_card(image, classification(["a", "b", "c"]))
    assert one.height < three.height


@pytest.mark.parametrize(
    ("number", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (5, 4, 2), (9, 4, 3)]
)
def test_a_sheet_shows_every_card(number, columns, rows):
    cards = [Image.new("RGB", (50, 40), (255, 0, i)) for i in range(number)]
    page = draw.sheet(cards, title="t")
    assert page.width >= columns * 50
    assert page.height >= rows * 40
    seen = {pixel for _, pixel in page.getcolors(1 << 20)}
    assert {(255, 0, i) for i in range(number)} <= seen


@pytest.mark.parametrize(("text", "width"), [("", 0), ("short", 1000), ("much too long", 40)])
def test_fitted_text_is_never_wider_than_its_room(text, width):
    pen = ImageDraw.Draw(Image.new("RGB", (9, 9)))
    font = ImageFont.load_default(15)
    fitted = draw.fitted(pen, text, font, width)
    assert pen.textlength(fitted, font=font) <= width
    if width == 1000:
        assert fitted == text
