"""Pictures of what prototypes attend to: light falls where the part is, in the proportions of the upright photo."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.attention import attend, attention_sheet, draw_attention, picture_size
from ssanet_jax.models.groups import GROUPS, UPRIGHT
from ssanet_jax.models.ssanet import SSANet
from ssanet_jax.models.upright import turn_upright

RED = (255, 0, 0)


def network(**settings):
    settings = dict(proposal='prototypes', num_parts=3, num_scales=1, backbone='resnet_tiny') | settings
    model = SSANet(4, 64, **settings, rngs=nnx.Rngs(0))
    model.eval()
    return model


def gray(height, width):
    return np.full((height, width, 3), 100, np.uint8)


def photos(count=2):
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize('row, column', [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize('size', [(64, 64), (128, 128), (64, 160), (96, 48)])
def test_light_falls_on_the_cell_that_is_attended_to(row, column, size):
    """Four by four cells: an inner one is brightest at its center."""
    attention = np.zeros((4, 4), np.float32)
    attention[row, column] = 0.3
    picture = draw_attention(gray(*size), attention, RED, center=1 / 8, stride=1 / 4)
    red = picture[..., 0].astype(float)
    places = np.argwhere(red == red.max())
    center = (np.array([row, column]) + 0.5) / 4 * size
    np.testing.assert_allclose(places.mean(0) + 0.5, center, atol=1)
    far = (abs(np.indices(size) + 0.5 - center[:, None, None]) > np.reshape(size, (2, 1, 1)) / 4).any(0)
    np.testing.assert_array_equal(picture[far], 35)  # dimmed, and no color


def test_the_color_is_mixed_in():
    picture = draw_attention(gray(64, 64), np.ones((2, 2), np.float32), RED, center=1 / 4, stride=1 / 2)
    np.testing.assert_array_equal(picture, np.broadcast_to([162, 60, 60], picture.shape))


def test_attention_is_a_distribution_over_the_object():
    found = attend(network(), photos(), GROUPS)
    np.testing.assert_allclose(found.attention.sum((1, 2)), 1, atol=1e-3)
    np.testing.assert_array_equal(found.images, photos())
    assert found.boxes.shape == (2, 3, 4)


def test_turned_photos_are_shown_upright():
    """A photo and its quarter turn lead to the same upright pixels, and so to the same attention."""
    model, images = network(upright=4), photos()
    active = (*GROUPS, UPRIGHT)
    given, turned = (attend(model, each, active) for each in (images, np.rot90(images, 1, (1, 2))))
    np.testing.assert_array_equal(given.images, turned.images)
    np.testing.assert_allclose(given.attention, turned.attention, atol=1e-5)
    np.testing.assert_array_equal((given.angles + 90) % 360, turned.angles)
    as_given = attend(model, images, GROUPS)  # until the orientation is fitted, images stay as they are
    np.testing.assert_array_equal(as_given.images, images)


def test_parts_are_looked_for_where_the_network_looks():
    """Other turns than quarters leave corners without content, which the network reads as the mean color."""
    model, images, active = network(upright=8), photos(8), (*GROUPS, UPRIGHT)
    features = model.upright.features(model.backbone, model.normalize(images))
    model.upright.classifier.standardize.fit(np.concatenate(features))  # else noise has one orientation
    found = attend(model, images, active)
    slanted = found.angles % 90 == 45
    assert 0 < slanted.sum() < 8, 'both kinds of turns'
    seen = model.extract_features(jnp.asarray(images), active=active)  # its boxes lie in the turned images
    np.testing.assert_array_equal(found.angles, seen.image_orientation * 45)
    np.testing.assert_allclose(found.boxes, seen.boxes, atol=1e-3)
    upright = turn_upright(model.normalize(images), seen.image_orientation, 8)
    np.testing.assert_allclose(found.attention, model.locate(model.backbone(upright)).attention, atol=1e-5)
    corners = found.images[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # [8, 4, 3]
    assert (corners[slanted] == np.round(model.mean)).all() and not (corners[~slanted] == np.round(model.mean)).all()


def test_a_sheet_has_a_row_per_image_and_a_column_per_part():
    sheet = attention_sheet(network(), photos(2), [(30, 30)] * 2, GROUPS, side=40)
    assert sheet.shape == (2 * 48 + 8, 4 * 48 + 8, 3)  # the parts together, the object, two prototypes; gaps of 8
    sheet = attention_sheet(network(), photos(2), [(30, 60), (60, 45)], GROUPS, side=40)
    assert sheet.shape == (28 + 48 + 8, 4 * 48 + 8, 3)  # the proportions of the photos


def test_the_proportions_are_turned_with_the_photo():
    """Photos on their side and upright lead to the same sheet: the same pixels, in the same proportions."""
    model, images = network(upright=4), photos()
    active = (*GROUPS, UPRIGHT)
    wide = attention_sheet(model, images, [(30, 60), (20, 60)], active, side=40)
    high = attention_sheet(model, np.rot90(images, 1, (1, 2)), [(60, 30), (60, 20)], active, side=40)
    np.testing.assert_allclose(wide.astype(int), high, atol=1)


@pytest.mark.parametrize(
    'angle, size', [(0, (60, 120)), (180, (60, 120)), (90, (120, 60)), (270, (120, 60)), (45, (120, 120))]
)
def test_a_quarter_turn_exchanges_height_and_width(angle, size):
    assert picture_size((10, 20), angle, 120) == size
    assert picture_size((20, 10), angle, 120) == size[::-1]


def test_the_thinnest_photos_can_be_drawn():
    sheet = attention_sheet(network(), photos(2), [(1, 5000), (5000, 1)], GROUPS, side=40)
    assert sheet.shape == (9 + 48 + 8, 4 * 48 + 8, 3)


@pytest.mark.parametrize('proposal', ['ranking', 'random'])
def test_networks_without_prototypes_are_refused(proposal):
    model = network(proposal=proposal)
    with pytest.raises(UserError, match='proposal=.prototypes'):
        attend(model, photos(), GROUPS)
