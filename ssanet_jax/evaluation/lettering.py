"""Words in pictures, in a font that has accents, Greek, Cyrillic and arrows, which OpenCV's has not."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
SMALLEST = 9  # pixels; below that nobody reads it


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # for its font alone, which a quarter of a second at every start would be too much for

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf', size)


def extent(words: str, size: int) -> tuple[int, int]:
    """(height, width) of a line in pixels, the same height for all words of one size."""
    ascent, descent = _font(size).getmetrics()
    return ascent + descent, round(_font(size).getlength(words))


def write(picture: np.ndarray, words: str, y: int, x: int, size: int, colour: Colour) -> None:
    """Writes a line into an RGB picture, in place, its upper left corner at (y, x)."""
    canvas = Image.fromarray(picture)
    ImageDraw.Draw(canvas).text((x, y), words, fill=colour, font=_font(size))
    picture[:] = np.asarray(canvas)


def fitted(words: str, width: int, size: int) -> tuple[str, int]:
    """Words and size that fit into `width` pixels: smaller as far as can be read, then without their middle.

    Both ends stay, since names of classes often share one of them.
    """
    words = ' '.join(words.split())  # a line: names may hold breaks
    while size > SMALLEST and extent(words, size)[1] > width:
        size -= 1
    kept = len(words)
    shown = words
    while kept > 1 and extent(shown, size)[1] > width:
        kept -= 1
        shown = f'{words[: (kept + 1) // 2]}…{words[len(words) - kept // 2 :]}'
    return shown, size
