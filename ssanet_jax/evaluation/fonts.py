"""Text in pictures, in a font with accents, Greek, Cyrillic and arrows, which OpenCV's fonts lack."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]  # RGB
MIN_FONT_SIZE = 9  # pixels; smaller text is not legible


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # only for its font; importing it at the top would slow down every start

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf', size)


def text_size(text: str, font_size: int) -> tuple[int, int]:
    """(height, width) of a line in pixels; the height is the same for every text of one font size."""
    ascent, descent = _font(font_size).getmetrics()
    return ascent + descent, round(_font(font_size).getlength(text))


def draw_text(picture: np.ndarray, text: str, y: int, x: int, font_size: int, color: Color) -> None:
    """Draws a line of text into a picture, in place.

    Args:
      picture: uint8 `[H, W, 3]`, RGB; changed in place.
      text: one line.
      y, x: the upper left corner of the text, in pixels of the picture.
      font_size: in pixels.
      color: RGB.
    """
    canvas = Image.fromarray(picture)
    ImageDraw.Draw(canvas).text((x, y), text, fill=color, font=_font(font_size))
    picture[:] = np.asarray(canvas)


def fit_text(text: str, width: int, font_size: int) -> tuple[str, int]:
    """Shrinks the font down to `MIN_FONT_SIZE`, then cuts out the middle of a text, until it fits into `width` pixels.

    Both ends are kept, since class names often share one of them.

    Returns:
      The text and its font size.
    """
    text = ' '.join(text.split())  # one line: names may hold line breaks
    while font_size > MIN_FONT_SIZE and text_size(text, font_size)[1] > width:
        font_size -= 1
    kept = len(text)
    shortened = text
    while kept > 1 and text_size(shortened, font_size)[1] > width:
        kept -= 1
        shortened = f'{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}'
    return shortened, font_size
