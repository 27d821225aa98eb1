"""Pictures: boxes, marks and words where they belong, sheets of the right shape."""

import dataclasses

import cv2
import numpy as np
import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.drawing import PART_COLORS, QUARTER_TURNS, contact_sheet, draw_parts, save_picture
from ssanet_jax.evaluation.fonts import MIN_FONT_SIZE, draw_text, fit_text, text_size
from ssanet_jax.evaluation.prediction import Evidence, Prediction
from ssanet_jax.evaluation.sheets import evenly, keypoints_sheet, parts_sheet

GREY = np.full((64, 64, 3), 90, np.uint8)


def count(picture, color):
    """Pixels of exactly this color."""
    return int((picture == color).all(-1).sum())


def test_a_box_is_drawn_along_its_edges_in_the_color_of_its_part():
    boxes = np.array([[16.0, 8, 48, 40], [-10, 50, 90, 60]])  # the second reaches outside
    picture = draw_parts(GREY, boxes, [1.0, 2 ** (1 / 3)], side=448)
    assert picture.shape == (448 + 28, 448, 3)
    near = lambda y, x: picture[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).astype(int)
    for y, x in ((336, 150), (200, 280), (200, 56)):  # on the bottom, right and left edges of the first, times 7
        assert (np.abs(near(y, x) - PART_COLORS[0]).max(-1) < 40).any()
    assert (picture[130:320, 80:270] == 90).all(), 'the inside of a box stays as it is'
    assert (np.abs(near(300, 350) - PART_COLORS[1]).max(-1) < 40).any(), 'the part that is inside the picture is drawn'
    assert (GREY == 90).all(), 'the image itself is left alone'


def glyph(name, side):
    """The arrow alone: true where it is dark."""
    box = np.array([[24.0, 16, 56, 56]])
    drawn = draw_parts(GREY, box, [1.0], side=side, orientations=[name])
    height, length = text_size('1 ×1', max(side // 34, 10))
    y, x = round(24 * side / 64) - height, round(16 * side / 64) + length + 2
    return drawn[y : y + height, x : x + height].astype(int).sum(-1) < sum(PART_COLORS[0]) / 2


@pytest.mark.parametrize('side', [224, 448])
def test_an_arrow_shows_the_orientation(side):
    right = glyph('horizontal', side)
    reach = right.sum(0)  # how high it is in each column
    middle = len(reach) // 2
    assert reach[middle : middle + 3].max() > 2 * reach[middle - 3], 'the head is on the right'
    assert reach[-1] == reach[0] == 0, 'it touches no edge'
    for name, turns in QUARTER_TURNS.items():
        turned = glyph(name, side)
        assert (turned != np.rot90(right, -turns)).mean() < 0.1, name
        assert turns == 0 or (turned != right).mean() > 0.1


def test_the_label_shows_index_and_scale():
    plain, other = (draw_parts(GREY, np.array([[24.0, 16, 56, 56]]), [scale], side=448) for scale in (1.0, 2.0))
    changed = np.argwhere((plain != other).any(-1))
    assert len(changed) and (changed[:, 0] < 24 * 7).all() and (changed[:, 1] < 30 * 7).all(), 'above the box'


def test_without_scale_mining_the_label_shows_no_scale():
    box = np.array([[24.0, 16, 56, 56]])
    mined, plain, turned = (
        count(draw_parts(GREY, box, scales, side=448, orientations=orientations), PART_COLORS[0])
        for scales, orientations in (([1.0], ()), ((), ()), ((), ['vertical']))
    )
    height, shorter = text_size('1', 13)
    assert mined - plain > 0.5 * height * (text_size('1 ×1', 13)[1] - shorter), 'the label is narrower'
    assert plain < turned < mined + height**2


def test_labels_of_one_place_do_not_hide_each_other():
    boxes = np.tile([[20.0, 20, 40, 40]], (4, 1))
    for side in (224, 448):
        picture = draw_parts(GREY, boxes, [1.26] * 4, side=side, orientations=list(QUARTER_TURNS))
        height, width = text_size('1 ×1.3', max(side // 34, 10))
        for color in PART_COLORS[:4]:
            assert count(picture, color) > 0.5 * height * width
    # At the rim they stay in the picture.
    corner = draw_parts(GREY, np.array([[-20.0, -20, 10, 10]]), [1.26], side=224)
    height, width = text_size('1 ×1.3', 10)
    assert count(corner[:224], PART_COLORS[0]) > 0.5 * height * width


def test_key_points_are_dots_and_centers_triangles():
    boxes = np.array([[10.0, 10, 30, 30], [34, 34, 54, 60]])
    keypoints = np.array([[50.0, 12, 1], [58, 20, 0], [12, 50, 1]])
    picture = draw_parts(GREY, boxes, [1.0, 1.0], side=448, keypoints=keypoints)
    for y, x, visible in keypoints:
        assert (picture[round(7 * y), round(7 * x)] == (255 if visible else 90)).all()
    for color, (y, x) in zip(PART_COLORS, ((20, 20), (44, 47))):
        assert (picture[7 * y, 7 * x] == color).all()
        assert (picture[7 * y - 30, 7 * x] == 90).all()
    without = draw_parts(GREY, boxes, [1.0, 1.0], side=448)
    assert (without[7 * 20, 7 * 20] == 90).all() and count(without, (255, 255, 255)) <= 28 * 448


def test_frames_are_dashed_on_request():
    boxes = np.array([[8.0, 8, 24, 24], [32.0, 20, 56, 60]])
    picture = draw_parts(GREY, boxes, (), side=448, dashed=[1])
    row = picture[32 * 7, 20 * 7 : 60 * 7]
    dashes, gaps = (row == PART_COLORS[1]).all(-1), (row == 0).all(-1)
    assert 0.4 < dashes.mean() < 0.7 and 0.3 < gaps.mean() < 0.6
    assert 10 < np.abs(np.diff(dashes.astype(int))).sum() < 100, 'many dashes'
    solid = draw_parts(GREY, boxes[:1], (), side=448)
    assert (picture[: 28 * 7] == solid[: 28 * 7]).all(), 'the other frame as without it'


def test_words_become_smaller_then_lose_their_middle():
    assert fit_text('wren', 200, 13) == ('wren', 13)
    name = 'Scissor tailed Flycatcher (is Great Crested Flycatcher)'
    words, size = fit_text(name, 300, 13)
    assert words == name and MIN_FONT_SIZE <= size < 13 and text_size(words, size)[1] <= 300
    words, size = fit_text(name, 120, 13)
    assert size == MIN_FONT_SIZE and text_size(words, size)[1] <= 120
    start, end = words.split('…')
    assert name.startswith(start) and name.endswith(end) and min(len(start), len(end)) > 4
    assert len(fit_text(name, 1, 13)[0]) <= 2


def test_letters_beyond_ascii_are_drawn():
    drawings = []
    for words in ('ö', 'ж', 'λ', '\ufffe'):  # the last has no shape of its own
        picture = np.zeros((24, 24, 3), np.uint8)
        draw_text(picture, words, 2, 2, 16, (255, 255, 255))
        drawings.append(picture.any(-1))
    assert all(drawing.any() for drawing in drawings[:3])
    assert len({drawing.tobytes() for drawing in drawings}) == 4, 'no two alike, and none is the sign for nothing'


def test_a_sheet_holds_the_pictures_in_order():
    pictures = [np.full((10, 12, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet(pictures, columns=2, gap=4)
    assert sheet.shape == (2 * 14 + 4, 2 * 16 + 4, 3)
    assert (sheet[4:14, 4:16] == 10).all() and (sheet[4:14, 20:32] == 20).all() and (sheet[18:28, 4:16] == 30).all()
    assert (sheet[18:28, 20:32] == 255).all()


def test_pictures_of_several_sizes_are_in_the_middle_of_their_place():
    sizes = [(10, 12), (4, 6), (8, 4)]
    pictures = [np.full((*size, 3), value, np.uint8) for size, value in zip(sizes, (10, 20, 30))]
    sheet = contact_sheet(pictures, columns=2, gap=4)
    assert sheet.shape == (4 + 10 + 4 + 8 + 4, 4 + 12 + 4 + 6 + 4, 3)
    for value, rows, columns in ((10, (4, 14), (4, 16)), (20, (7, 11), (20, 26)), (30, (18, 26), (8, 12))):
        found = np.argwhere((sheet == value).all(-1))
        assert (*found.min(0), *(found.max(0) + 1)) == (rows[0], columns[0], rows[1], columns[1])
        assert len(found) == (rows[1] - rows[0]) * (columns[1] - columns[0])


def test_sheets_of_predictions():
    boxes, before = np.array([[8.0, 8, 24, 24]], np.float32), np.array([[30.0, 30, 50, 50]], np.float32)
    prediction = Prediction(
        label='robin',
        class_index=1,
        score=0.8,
        probabilities=np.float32([0.2, 0.8]),
        class_names=('wren', 'robin'),
        boxes=boxes,
        scales=np.float32([0.5]),
        orientations=('vertical',),
        evidence=Evidence('wren', (1.0,), 0.0, 0.0),
        path=None,
        image=GREY,
        input_boxes=boxes,
        input_proposals=before,
    )
    sheet = lambda labels: parts_sheet([prediction] * 3, labels, 2, side=128)
    right = sheet([1, 1, 1])
    assert right.shape == (2 * (128 + 28) + 3 * 8, 2 * 128 + 3 * 8, 3)
    drawn = draw_parts(GREY, boxes, [0.5], 'robin', 128, orientations=['vertical'])
    assert (right[8:164, 8:136] == drawn).all()
    assert (sheet([1, 0, 1])[8:164, 144:272] != right[8:164, 144:272]).any(), 'the caption has the true class'

    points = np.array([[40.0, 10, 1]])
    sheet = keypoints_sheet([prediction] * 3, [1, 1, 1], [points] * 3, [before] * 3, side=128)
    assert sheet.shape == (2 * (128 + 28) + 3 * 8, 3 * 128 + 4 * 8, 3)
    for top, center in ((8, 80), (172, 32)):  # before: the proposal; after: the part
        assert (sheet[top + 80, 8 + 20] == 255).all() and (sheet[top + center, 8 + center] == PART_COLORS[0]).all()
    one_scale = keypoints_sheet([prediction] * 3, [1, 1, 1], [points] * 3, side=128)
    assert one_scale.shape == (128 + 28 + 2 * 8, 3 * 128 + 4 * 8, 3), 'nothing to compare with'

    # A network that finds an object knows whether its parts are there.
    pair = dict(boxes=np.repeat(boxes, 2, 0) + [[0], [20]], scales=np.ones(2, np.float32), orientations=())
    pair['input_boxes'] = pair['boxes']
    seen, hidden = (dataclasses.replace(prediction, **pair, present=(True, is_seen)) for is_seen in (True, False))
    for shown, name, dashed in ((seen, '2', []), (hidden, '2?', [1])):
        drawn = draw_parts(GREY, pair['boxes'], (), 'robin', 128, names=['object', name], dashed=dashed)
        np.testing.assert_array_equal(parts_sheet([shown], [1], side=128)[8:-8, 8:-8], drawn)

    # A photo twice as wide as the square input: the box is where it is in the photo.
    photo = np.full((64, 128, 3), 90, np.uint8)
    of_photo = dataclasses.replace(prediction, boxes=boxes * [1, 2, 1, 2], read_photo=lambda: photo)
    sheet = parts_sheet([of_photo], [1], side=128)
    drawn = draw_parts(photo, boxes * [1, 2, 1, 2], [0.5], 'robin', 128, orientations=['vertical'])
    np.testing.assert_array_equal(sheet[8:-8, 8:-8], drawn)
    assert sheet.shape == (64 + 28 + 2 * 8, 128 + 2 * 8, 3)


def test_positions_at_even_distances():
    assert evenly(5, 9) == [0, 2, 4, 6, 8] and evenly(10, 3) == [0, 1, 2] and evenly(3, 0) == []


def test_saved_pictures_keep_their_colors(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[..., 0] = 200  # red
    save_picture(tmp_path / 'new' / 'red.png', picture)
    assert (cv2.imread(str(tmp_path / 'new' / 'red.png')) == (0, 0, 200)).all()


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot write .*file/x.png'):
        save_picture(tmp_path / 'file' / 'x.png', np.zeros((8, 8, 3), np.uint8))
