"""Fonts: names in any script that some font of the machine has are drawn in it, others are not drawn as empty boxes."""

import shutil
import subprocess

import numpy as np
import pytest

from ssanet_jax.evaluation import fonts
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.evaluation.sheets import parts_sheet

HAN = '\u9ebb\u96c0'  # sparrow
RUNIC = '\u16a0\u16a2'
UNKNOWN = '\U000f0000\U000f0001'  # private use: in no font


def _write_font(path, characters):
    """A font in which each character is a rectangle of another width, and Latin letters as well."""
    builder_module = pytest.importorskip('fontTools.fontBuilder')
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    characters = list(characters) + list('abcdefghijklmnopqrstuvwxyz()0123456789. ')
    names = ['.notdef', *(f'u{ord(character):05X}' for character in characters)]
    glyphs = {}
    for number, name in enumerate(names):
        pen = TTGlyphPen(None)
        pen.moveTo((50, 0))
        for point in ((50, 700), (250 + 30 * number, 700), (250 + 30 * number, 0)):
            pen.lineTo(point)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder = builder_module.FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): name for character, name in zip(characters, names[1:])})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics({name: (300 + 30 * number, 50) for number, name in enumerate(names)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({'familyName': f'Test {path.stem}', 'styleName': 'Regular'})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200)
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose only system fonts are those that a test writes into this folder."""

    def forget():
        for cached in (fonts._find_font, fonts._charmap, fonts._fonts_in_folders):
            cached.cache_clear()

    forget()
    monkeypatch.setattr(fonts, '_FOLDERS', (str(tmp_path),))
    monkeypatch.setenv('PATH', '')  # without fontconfig
    yield tmp_path
    forget()


def test_names_in_common_scripts_need_no_other_font(machine):
    assert fonts.can_draw('Möwe, ἀετός, воробей, → \u200d')
    assert fonts.can_draw('Mo\u0308we')


def test_a_font_is_found_in_the_folders_of_the_system(machine):
    assert not fonts.can_draw(HAN)
    fonts._find_font.cache_clear()
    fonts._fonts_in_folders.cache_clear()
    (machine / 'broken.ttf').write_bytes(b'no font')
    (machine / 'inner').mkdir()
    path = _write_font(machine / 'inner' / 'Han.TTF', HAN)
    assert fonts.can_draw(HAN) and fonts.can_draw(f'{HAN} (is {HAN[0]})')
    assert not fonts.can_draw(RUNIC + HAN)
    assert fonts._find_font(frozenset(HAN)).path == path
    drawn = []
    for character in HAN:
        picture = np.zeros((30, 60, 3), np.uint8)
        fonts.draw_text(picture, character, 2, 2, 20, (255, 255, 255))
        drawn.append(picture)
    assert drawn[0].any() and not np.array_equal(*drawn)


@pytest.mark.skipif(shutil.which('fc-list') is None, reason='needs fontconfig')
def test_a_font_is_found_by_fontconfig(tmp_path, monkeypatch):
    path = _write_font(tmp_path / 'fonts.otf', RUNIC + UNKNOWN)
    (tmp_path / 'fonts.conf').write_text(
        f'<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>{tmp_path}</dir>'
        f'<cachedir>{tmp_path}/cache</cachedir></fontconfig>'
    )
    monkeypatch.setenv('FONTCONFIG_FILE', str(tmp_path / 'fonts.conf'))
    assert fonts._fontconfig_fonts(frozenset(map(ord, UNKNOWN))) == [fonts._FontFile(path, 0)]
    assert fonts._fontconfig_fonts(frozenset(map(ord, UNKNOWN + HAN))) == []


def test_without_fontconfig_and_with_a_failing_one_nothing_is_raised(monkeypatch):
    for error in (FileNotFoundError, subprocess.TimeoutExpired('fc-list', 1), subprocess.CalledProcessError(1, 'x')):

        def fail(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr(subprocess, 'run', fail)
        assert fonts._fontconfig_fonts(frozenset({1})) == []


def _prediction(class_names, index=0):
    image = np.zeros((64, 64, 3), np.uint8)
    none = np.zeros((0, 4), np.float32)
    return Prediction(
        label=class_names[index], class_index=index, score=1.0, probabilities=np.eye(len(class_names))[index],
        class_names=class_names, boxes=none, scales=none[:, 0], orientations=(), evidence=None, path=None,
        image=image, input_boxes=none, input_proposals=none,
    )  # fmt: skip


def test_names_without_a_font_become_class_numbers(machine):
    picture = lambda names, index: np.asarray(_prediction(names, index).plot(224))
    names = (UNKNOWN, UNKNOWN[::-1], 'wren')
    np.testing.assert_array_equal(picture(names, 1), picture(('wren', 'class 1', ''), 1))
    np.testing.assert_array_equal(picture(names, 2), picture(('a', 'b', 'wren'), 2))
    sheet = lambda names: parts_sheet([_prediction(names, 0)], [1], side=224)
    np.testing.assert_array_equal(sheet(names), sheet(('class 0', 'class 1')))


def test_names_in_two_scripts_without_a_common_font_become_class_numbers(machine):
    _write_font(machine / 'han.ttf', HAN)
    _write_font(machine / 'runic.ttf', RUNIC)
    sheet = lambda names: parts_sheet([_prediction(names, 0)], [1], side=224)
    np.testing.assert_array_equal(sheet((HAN, RUNIC)), sheet(('class 0', 'class 1')))


@pytest.mark.parametrize('name', ['a\x1b[31mb', 'bytes \udce9', 'line\nbreak', '\u202ereversed', 'tab\there'])
def test_control_characters_are_drawn_escaped(name):
    words, size = fonts.fit_text(name, 400, 13)
    assert fonts.can_draw(name) and words.isprintable()
    fonts.draw_text(np.zeros((30, 400, 3), np.uint8), words, 2, 2, size, (255, 255, 255))
