"""Contact sheets: every photo in its place, with its parts and its class; a few pages at most."""

import cv2
import numpy as np
import pytest
from PIL import Image

from ssanet_jax.evaluation.drawing import PART_COLORS
from ssanet_jax.prediction_files import contact_sheet
from ssanet_jax.prediction_files.contact_sheet import COLUMNS, ROWS, write_contact_sheets
from ssanet_jax.prediction_files.journal import Record

PAGE = COLUMNS * ROWS


@pytest.fixture
def records(tmp_path):
    made = []
    for number, color in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200)]):
        file = str(tmp_path / f'{number}.png')
        Image.new('RGB', (80, 40), color).save(file)
        line = {'class': 'wren', 'probabilities': {'wren': 0.7}, 'boxes': [[10, 20, 30, 60]], 'unsure': 'x' * number}
        made.append(Record(file, line, 40, 80))
    return made


def sheet(path):
    return cv2.imread(str(path))[..., ::-1].astype(int)


def close(pixel, color):
    return np.abs(pixel - np.array(color)).max() < 40


def test_each_photo_keeps_its_place_and_proportions(records, tmp_path):
    records.insert(1, Record('broken.jpg', reason='broken'))
    (path,) = write_contact_sheets(tmp_path / 'out', records, ['wren'], False)
    picture = sheet(path)
    side, gap = contact_sheet._SIDE, 12
    for number, color in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200)]):
        x = gap + number * (side + gap)
        tile = picture[gap : gap + side, x : x + side]
        assert close(tile[side // 2, 10], color) and close(tile[side // 2, -10], color), 'as wide as the tile'
        assert close(tile[side // 4 - 15, 20], (243, 243, 241)), 'and half as high'
        # The box covers the middle half: its frame is found at a quarter of the photo's width.
        assert close(tile[side // 2, side // 4], PART_COLORS[0])


def test_a_few_pages_at_most(records, tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, 'MOST_PAGES', 2)
    out = tmp_path / 'out'
    files = write_contact_sheets(out, records * PAGE, ['wren'], True)
    assert [file.name for file in files] == ['contact_sheet_1.jpg', 'contact_sheet_2.jpg']
    assert len(write_contact_sheets(out, records, ['wren'], True)) == 1
    assert [file.name for file in out.iterdir()] == ['contact_sheet_1.jpg'], 'the second page was of other images'
    assert write_contact_sheets(out, records[:1], ['wren'], True) == [] and not list(out.iterdir())


def test_a_photo_that_is_gone(records, tmp_path):
    (tmp_path / '0.png').unlink()
    (path,) = write_contact_sheets(tmp_path / 'out', records, ['wren'], False)
    assert sheet(path).shape[0] > contact_sheet._SIDE
