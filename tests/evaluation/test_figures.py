"""Pictures: boxes where they belong, sheets of the right shape."""

import cv2
import numpy as np
import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.figures import COLOURS, contact_sheet, draw_parts, save_picture


def test_a_box_is_drawn_along_its_edges_in_the_colour_of_its_part():
    image = np.full((64, 64, 3), 90, np.uint8)
    boxes = np.array([[16.0, 8, 48, 40], [-10, 50, 90, 60]])  # the second reaches outside
    picture = draw_parts(image, boxes, [1.0, 2 ** (1 / 3)], side=448)
    assert picture.shape == (448 + 28, 448, 3)
    near = lambda y, x: picture[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).astype(int)
    for y, x in ((336, 150), (200, 280), (200, 56)):  # on the bottom, right and left edges of the first, times 7
        assert (np.abs(near(y, x) - COLOURS[0]).max(-1) < 40).any()
    assert (picture[130:320, 80:270] == 90).all(), 'the inside of a box stays as it is'
    assert (np.abs(near(300, 350) - COLOURS[1]).max(-1) < 40).any(), 'the part that is inside the picture is drawn'


def test_a_sheet_holds_the_pictures_in_order():
    pictures = [np.full((10, 12, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet(pictures, columns=2, gap=4)
    assert sheet.shape == (2 * 14 + 4, 2 * 16 + 4, 3)
    assert (sheet[4:14, 4:16] == 10).all() and (sheet[4:14, 20:32] == 20).all() and (sheet[18:28, 4:16] == 30).all()
    assert (sheet[18:28, 20:32] == 255).all()


def test_saved_pictures_keep_their_colours(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[..., 0] = 200  # red
    save_picture(tmp_path / 'new' / 'red.png', picture)
    assert (cv2.imread(str(tmp_path / 'new' / 'red.png')) == (0, 0, 200)).all()


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot write .*file/x.png'):
        save_picture(tmp_path / 'file' / 'x.png', np.zeros((8, 8, 3), np.uint8))
