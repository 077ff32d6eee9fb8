import numpy as np
import pytest
from PIL import Image

from vlrt import cards
from vlrt.ops import softmax
from vlrt.results import Answers, Classification, Detections


def classification(labels):
    logits = np.linspace(3, 0, len(labels), dtype=np.float32)
    return Classification(tuple(labels), softmax(logits), logits)


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000), (320, 240)])
@pytest.mark.parametrize(
    "label", ["x", "a very long label " * 20, "naïve café 東京 🙂", "two\nlines"]
)
def test_a_card_has_one_size_whatever_the_picture_and_the_labels(size, label):
    card = cards.classification_card(
        Image.new("RGB", size), classification([label, "b"]), title=label
    )
    plain = cards.classification_card(Image.new("RGB", (9, 9)), classification(["a", "b"]))
    assert card.size == plain.size


def test_fewer_labels_than_asked_for_make_a_shorter_card():
    image = Image.new("RGB", (9, 9))
    one = cards.classification_card(image, classification(["a"]))
    three = cards.classification_card(image, classification(["a", "b", "c"]))
    assert one.height < three.height


def asked(questions, answers):
    scores = np.linspace(1, 0, len(answers), dtype=np.float32)
    return [Answers(question, tuple(answers), scores) for question in questions]


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000), (320, 240)])
@pytest.mark.parametrize(
    "text", ["x", "a very long text " * 20, "naïve café 東京 🙂", "two\nlines"]
)
def test_a_card_of_answers_has_one_size_whatever_is_said(size, text):
    card = cards.answers_card(Image.new("RGB", size), asked([text] * 2, [text, "b"]), title=text)
    plain = cards.answers_card(Image.new("RGB", (9, 9)), asked("ab", "abc"))
    assert card.size == plain.size


@pytest.mark.parametrize(("questions", "top_k"), [(0, 1), (1, 1), (1, 3), (4, 1), (2, 2)])
def test_a_card_shows_a_bar_for_each_of_the_best_answers(questions, top_k):
    image, bar = Image.new("RGB", (9, 9)), (52, 104, 214)
    card = np.asarray(cards.answers_card(image, asked("q" * questions, "abcd"), top_k=top_k))
    # Rows of pixels where a bar begins; scores are 1, 2/3, 1/3, 0.
    rows = (card == bar).all(axis=2).sum(axis=1)
    lengths = [int(n) for before, n in zip([0, *rows[:-1]], rows, strict=True) if n and not before]
    assert lengths == [round(score * 348) for score in (1, 2 / 3, 1 / 3)[:top_k]] * questions


@pytest.mark.parametrize(
    ("number", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (5, 4, 2), (9, 4, 3)]
)
def test_a_sheet_shows_every_card(number, columns, rows):
    drawn = [Image.new("RGB", (50, 40), (255, 0, i)) for i in range(number)]
    page = cards.sheet(drawn, title="t")
    assert page.width >= columns * 50
    assert page.height >= rows * 40
    seen = {pixel for _, pixel in page.getcolors(1 << 20)}
    assert {(255, 0, i) for i in range(number)} <= seen


@pytest.mark.parametrize("number", [0, 1, 30])
@pytest.mark.parametrize("size_wh", [(1, 1), (3000, 2), (2, 3000), (640, 480)])
def test_a_card_of_detections_has_one_size_whatever_the_picture(number, size_wh):
    boxes = np.tile(np.array([0, 0, *size_wh], np.float32), (number, 1))
    found = Detections(
        ("a",), boxes, np.ones(number, np.float32), np.zeros(number, np.intp), size_wh[::-1]
    )
    card = cards.detection_card(Image.new("RGB", size_wh), found, title="t")
    empty = Detections(("a",), boxes[:0], found.scores[:0], found.label_ids[:0], (9, 9))
    assert card.size == cards.detection_card(Image.new("RGB", (9, 9)), empty).size
