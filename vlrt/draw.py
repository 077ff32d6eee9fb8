"""Results as pictures, with Pillow alone."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from vlrt.results import Classification

_CARD_W, _PICTURE_H, _PAD, _ROW_H = 300, 260, 16, 30
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
    height = _PICTURE_H + 2 * _PAD + 26 + _ROW_H * len(best) + _PAD
    card = Image.new("RGB", (_CARD_W, height), _CARD)
    shown = image.convert("RGB")
    room_w, room_h = _CARD_W - 2 * _PAD, _PICTURE_H
    scale = min(room_w / shown.width, room_h / shown.height)
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    shown = shown.resize(size, Image.Resampling.LANCZOS)
    card.paste(shown, ((_CARD_W - size[0]) // 2, _PAD + (_PICTURE_H - size[1]) // 2))
    pen = ImageDraw.Draw(card)
    small, normal = ImageFont.load_default(13), ImageFont.load_default(15)
    y = _PICTURE_H + 2 * _PAD
    pen.text((_PAD, y), fitted(pen, title, small, room_w), fill=_FAINT, font=small)
    y += 26
    for label, score in best:
        percent = f"{score:.1%}"
        percent_w = pen.textlength(percent, font=normal)
        name = fitted(pen, label, normal, room_w - percent_w - 12)
        pen.text((_PAD, y), name, fill=_INK, font=normal)
        pen.text((_CARD_W - _PAD - percent_w, y), percent, fill=_INK, font=normal)
        bar_y = y + 20
        pen.rectangle((_PAD, bar_y, _CARD_W - _PAD - 1, bar_y + 4), fill=_TRACK)
        if score * room_w >= 1:
            pen.rectangle((_PAD, bar_y, _PAD + round(score * room_w) - 1, bar_y + 4), fill=_BAR)
        y += _ROW_H
    return card


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
    pen.text((_PAD, _PAD), fitted(pen, title, font, page.width - 2 * _PAD), fill=_INK, font=font)
    for number, card in enumerate(cards):
        row, column = divmod(number, columns)
        page.paste(card, (_PAD + column * (card_w + _PAD), top + row * (card_h + _PAD)))
    return page


def fitted(
    pen: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: float,
) -> str:
    """The text on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if pen.textlength(text, font=font) <= width:
        return text
    while text and pen.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
