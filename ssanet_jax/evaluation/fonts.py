"""Text in pictures, in any script that a font of this machine has.

Matplotlib's font has accents, Greek, Cyrillic and arrows, which OpenCV's fonts lack. For other scripts a font of the
system is looked for: by fontconfig, or in the folders where systems keep fonts.
"""

import os
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssanet_jax.printable import printable

Color = tuple[int, int, int]  # RGB
MIN_FONT_SIZE = 9  # pixels; smaller text is not legible

_FOLDERS = (
    '/usr/share/fonts',
    '/usr/local/share/fonts',
    '~/.local/share/fonts',
    '~/.fonts',
    '/System/Library/Fonts',
    '/Library/Fonts',
    '~/Library/Fonts',
    'C:/Windows/Fonts',
)
_SUFFIXES = ('.ttf', '.ttc', '.otf', '.otc')


class _FontFile(NamedTuple):
    path: Path
    index: int  # of the face in a collection


def can_draw(text: str) -> bool:
    """Whether a font of this machine has all characters of a text."""
    return _find_font(frozenset(_one_line(text)) - _IGNORABLE) is not None


def text_size(text: str, font_size: int) -> tuple[int, int]:
    """(height, width) of a line in pixels; the height is the same for every text of one font size."""
    ascent, descent = _load(_default_font(), font_size).getmetrics()
    return ascent + descent, round(_font(text, font_size).getlength(text))


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
    ascent, _ = _load(_default_font(), font_size).getmetrics()
    # On the baseline of the default font, since other fonts differ in height.
    ImageDraw.Draw(canvas).text((x, y + ascent), text, fill=color, font=_font(text, font_size), anchor='ls')
    picture[:] = np.asarray(canvas)


def fit_text(text: str, width: int, font_size: int) -> tuple[str, int]:
    """Shrinks the font down to `MIN_FONT_SIZE`, then cuts out the middle of a text, until it fits into `width` pixels.

    Both ends are kept, since class names often share one of them.

    Returns:
      The text and its font size.
    """
    text = _one_line(text)
    while font_size > MIN_FONT_SIZE and text_size(text, font_size)[1] > width:
        font_size -= 1
    kept = len(text)
    shortened = text
    while kept > 1 and text_size(shortened, font_size)[1] > width:
        kept -= 1
        shortened = f'{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}'
    return shortened, font_size


def _one_line(text: str) -> str:
    """Names may hold line breaks, control characters, and letters with separate accents, which fonts place badly."""
    return printable(unicodedata.normalize('NFC', ' '.join(text.split())))


# Fonts need no glyphs for spaces, joiners and the choice between text and emoji.
_IGNORABLE = frozenset(' \xa0\u3000\u200b\u200c\u200d\u200e\u200f\ufe0e\ufe0f\ufeff')


def _font(text: str, font_size: int) -> ImageFont.FreeTypeFont:
    return _load(_find_font(frozenset(text) - _IGNORABLE) or _default_font(), font_size)


@lru_cache(maxsize=64)
def _load(font: _FontFile, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font.path, size, index=font.index)


@cache
def _default_font() -> _FontFile:
    import matplotlib  # only for its font; importing it at the top would slow down every start

    return _FontFile(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf', 0)


@lru_cache(maxsize=1024)
def _find_font(characters: frozenset[str]) -> _FontFile | None:
    """The first font that has all these characters and can be loaded; None if there is none."""
    codes = {ord(character) for character in characters}
    if codes <= _charmap(_default_font()):
        return _default_font()
    for font in _system_fonts(frozenset(codes - _charmap(_default_font()))):
        try:
            if codes <= _charmap(font) and _load(font, MIN_FONT_SIZE).getlength(min(characters)) > 0:
                return font
        except (OSError, RuntimeError, ValueError):  # a damaged font, or one of fixed sizes
            continue
    return None


@lru_cache(maxsize=256)
def _charmap(font: _FontFile) -> frozenset[int]:
    """The code points that a font has glyphs for; empty if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(os.fspath(font.path)).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _system_fonts(codes: frozenset[int]) -> Iterator[_FontFile]:
    """Fonts of this machine that may have these code points, plain ones first."""
    plain_first = lambda font: ('Sans' not in font.path.name, 'Regular' not in font.path.name, str(font.path))
    yield from sorted(_fontconfig_fonts(codes), key=plain_first)
    yield from sorted(_fonts_in_folders(), key=plain_first)


def _fontconfig_fonts(codes: frozenset[int]) -> list[_FontFile]:
    pattern = f':charset={" ".join(f"{code:x}" for code in sorted(codes))}'
    try:
        listed = subprocess.run(
            ['fc-list', '--format', '%{index}\t%{file}\n', pattern], capture_output=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):  # not installed
        return []
    lines = [line.partition('\t') for line in os.fsdecode(listed).splitlines()]
    # The upper half of an index tells instances of a variable font apart.
    return list(dict.fromkeys(_FontFile(Path(path), int(index) & 0xFFFF) for index, _, path in lines if path))


@cache
def _fonts_in_folders() -> list[_FontFile]:
    found = []
    for folder in _FOLDERS:
        for place, _, names in os.walk(os.path.expanduser(folder)):
            found += [_FontFile(Path(place, name), 0) for name in names if name.lower().endswith(_SUFFIXES)]
    return found
