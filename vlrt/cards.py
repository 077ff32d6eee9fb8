"""Results as cards, and cards on a sheet, with Pillow alone."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from vlrt import draw, fonts
from vlrt.results import Answers, Classification, Detections

_CARD_W, _PICTURE_H, _PAD, _ROW_H, _QUESTION_H = 300, 260, 16, 30, 30
_WIDE_W, _WIDE_H = 480, 480  # room for a picture with boxes on it
_ASK_W = 380  # of a card with questions, which are longer than labels
_INK, _FAINT, _PAPER, _CARD = (28, 30, 34), (120, 125, 135), (238, 239, 242), (255, 255, 255)
_BAR, _TRACK = (52, 104, 214), (226, 229, 236)


def classification_card(
    image: Image.Image, result: Classification, *, title: str = "", top_k: int = 3
) -> Image.Image:
    """A picture above bars for its best labels.

    Args:
        image: RGB, any size; shown whole, in proportion.
        result: its scores.
        title: one line under the picture, such as its file name.
        top_k: how many labels.

    Returns:
        RGB, of a width that does not depend on the picture.
    """
    best = result.top(top_k)
    card, y = _card(image, title, (_CARD_W - 2 * _PAD, _PICTURE_H), _ROW_H * len(best) + _PAD)
    _bars(card, [(label, score, f"{score:.1%}") for label, score in best], y)
    return card


def answers_card(
    image: Image.Image, asked: Sequence[Answers], *, title: str = "", top_k: int = 1
) -> Image.Image:
    """A picture above the questions about it, each with bars for its best answers.

    Args:
        image: RGB, any size; shown whole, in proportion.
        asked: what was answered to each question.
        title: one line under the picture, such as its file name.
        top_k: how many answers to each.

    Returns:
        RGB, of a size that depends on the numbers of questions and answers alone.
    """
    best = [list(zip(one.answers, one.scores.tolist(), strict=True))[:top_k] for one in asked]
    below = sum(_QUESTION_H + _ROW_H * len(answers) for answers in best) + _PAD
    card, y = _card(image, title, (_ASK_W - 2 * _PAD, _PICTURE_H), below)
    pen = ImageDraw.Draw(card)
    for one, answers in zip(asked, best, strict=True):
        question, font = fonts.drawable(one.question, 13)
        fitting = draw.fitted(pen, question, font, _ASK_W - 2 * _PAD)
        pen.text((_PAD, y + 10), fitting, fill=_FAINT, font=font)
        # Each answer is scored by itself: such scores are told as numbers, not as shares.
        rows = [(answer, score, f"{score:.2f}") for answer, score in answers]
        y = _bars(card, rows, y + _QUESTION_H)
    return card


def _bars(card: Image.Image, rows: Sequence[tuple[str, float, str]], y: int) -> int:
    """Draw a bar of length 0..1 under each name and the number as it is told.

    Args:
        card: drawn on from side to side.
        rows: (name, length, number told).
        y: where the first begins, in pixels.

    Returns:
        Where the next would begin.
    """
    pen, normal = ImageDraw.Draw(card), ImageFont.load_default(15)
    room_w = card.width - 2 * _PAD
    for text, length, told in rows:
        told_w = pen.textlength(told, font=normal)
        name, font = fonts.drawable(text, 15)
        name = draw.fitted(pen, name, font, room_w - told_w - 12)
        pen.text((_PAD, y), name, fill=_INK, font=font)
        pen.text((card.width - _PAD - told_w, y), told, fill=_INK, font=normal)
        bar_y = y + 20
        pen.rectangle((_PAD, bar_y, card.width - _PAD - 1, bar_y + 4), fill=_TRACK)
        if length * room_w >= 1:
            pen.rectangle((_PAD, bar_y, _PAD + round(length * room_w) - 1, bar_y + 4), fill=_BAR)
        y += _ROW_H
    return y


def detection_card(image: Image.Image, found: Detections, *, title: str = "") -> Image.Image:
    """A picture with what was found in it.

    Args:
        image: RGB, the picture that was searched; shown whole, in proportion.
        found: its objects.
        title: one line under the picture, such as its file name.

    Returns:
        RGB, of a size that does not depend on the picture.
    """
    card, _ = _card(draw.detections(image, found), title, (_WIDE_W, _WIDE_H), 0)
    return card


def _card(
    image: Image.Image, title: str, room_wh: tuple[int, int], below: int
) -> tuple[Image.Image, int]:
    """A card with a picture and its title, and where the `below` pixels under them begin."""
    room_w, room_h = room_wh
    shown = image.convert("RGB")
    scale = min(room_w / shown.width, room_h / shown.height)
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    if size != shown.size:
        shown = shown.resize(size, Image.Resampling.LANCZOS)
    card = Image.new("RGB", (room_w + 2 * _PAD, room_h + 2 * _PAD + 26 + below), _CARD)
    card.paste(shown, ((card.width - size[0]) // 2, _PAD + (room_h - size[1]) // 2))
    pen, small = ImageDraw.Draw(card), ImageFont.load_default(13)
    y = room_h + 2 * _PAD
    pen.text((_PAD, y), draw.fitted(pen, title, small, room_w), fill=_FAINT, font=small)
    return card, y + 26


def sheet(cards: Sequence[Image.Image], *, title: str, columns: int = 4) -> Image.Image:
    """Cards in rows under a title.

    Args:
        cards: at least one, all of one size.
        title: one line.
        columns: cards in a row, at most.
    """
    columns = min(columns, len(cards))
    rows = -(-len(cards) // columns)
    card_w, card_h = cards[0].size
    font = ImageFont.load_default(18)
    top = _PAD * 2 + 22
    page = Image.new(
        "RGB",
        (_PAD + columns * (card_w + _PAD), top + rows * (card_h + _PAD)),
        _PAPER,
    )
    pen = ImageDraw.Draw(page)
    pen.text(
        (_PAD, _PAD), draw.fitted(pen, title, font, page.width - 2 * _PAD), fill=_INK, font=font
    )
    for number, card in enumerate(cards):
        row, column = divmod(number, columns)
        page.paste(card, (_PAD + column * (card_w + _PAD), top + row * (card_h + _PAD)))
    return page
