"""Pictures of what prototypes attend to: light falls where the part is, also in images that are turned upright."""

import numpy as np
import pytest
from flax import nnx

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.attention import attend, attention_sheet, draw_attention
from ssanet_jax.models.groups import GROUPS, UPRIGHT
from ssanet_jax.models.ssanet import SSANet

GRAY = np.full((64, 64, 3), 100, np.uint8)
RED = (255, 0, 0)


def network(**settings):
    settings = dict(proposal='prototypes', num_parts=3, num_scales=1, backbone='resnet_tiny') | settings
    model = SSANet(4, 64, **settings, rngs=nnx.Rngs(0))
    model.eval()
    return model


def photos(count=2):
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize('row, column', [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize('side', [64, 128])
def test_light_falls_on_the_cell_that_is_attended_to(row, column, side):
    """Cells of 16 pixels whose centers are at 8, 24, 40 and 56: an inner one is brightest at its center."""
    attention = np.zeros((4, 4), np.float32)
    attention[row, column] = 0.3
    picture = draw_attention(GRAY, attention, RED, center=8, stride=16, side=side)
    red = picture[..., 0].astype(float)
    places = np.argwhere(red == red.max())
    np.testing.assert_allclose(places.mean(0) + 0.5, np.array([row, column]) * side / 4 + side / 8, atol=1)
    far = np.hypot(*(np.indices((side, side)) + 0.5 - places.mean(0)[:, None, None])) > 0.4 * side
    np.testing.assert_array_equal(picture[far], 35)  # dimmed, and no color


def test_the_color_is_mixed_in():
    picture = draw_attention(GRAY, np.ones((2, 2), np.float32), RED, center=16, stride=32, side=64)
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
    as_given = attend(model, images, GROUPS)  # until the orientation is fitted, images stay as they are
    np.testing.assert_array_equal(as_given.images, images)


def test_a_sheet_has_a_row_per_image_and_a_column_per_part():
    sheet = attention_sheet(network(), photos(2), GROUPS, side=40)
    assert sheet.shape == (2 * 48 + 8, 4 * 48 + 8, 3)  # the parts together, the object, two prototypes; gaps of 8


@pytest.mark.parametrize('proposal', ['ranking', 'random'])
def test_networks_without_prototypes_are_refused(proposal):
    model = network(proposal=proposal)
    with pytest.raises(UserError, match='proposal=.prototypes'):
        attend(model, photos(), GROUPS)
