"""What is said of an image: everything that the network chose, and nothing that it did not."""

import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

from ssanet_jax.evaluation.recognition import ORIENTATIONS, Recogniser
from ssanet_jax.models.ssanet import SSANet

CLASSES, SIDE, K = 5, 64, 2


@pytest.fixture(scope='module')
def model():
    return SSANet(
        CLASSES,
        SIDE,
        backbone='resnet_tiny',
        num_parts=K,
        num_proposals=3,
        num_scales=3,
        crop_size=56,
        rngs=nnx.Rngs(0),
    )


@pytest.fixture(scope='module')
def images():
    return list(np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8))


@pytest.mark.parametrize(
    'heads',
    [['image_classifier'], ['proposals'], ['proposals', 'scale_mining'], ['proposals', 'oriented_pooling']],
    ids='+'.join,
)
def test_only_what_was_chosen(model, images, heads):
    """Three images in calls of two, so that the last one is padded."""
    active = frozenset(['backbone', *heads])
    found = list(Recogniser(model, active, batch_size=2)(images))
    model.eval()
    outputs = model(np.stack(images), active=active)
    assert len(found) == 3
    for i, one in enumerate(found):
        np.testing.assert_allclose(one.probabilities, softmax(np.asarray(outputs.logits[i])), rtol=1e-3, atol=1e-5)
        assert one.label == np.argmax(outputs.logits[i])
        count = K if 'proposals' in active else 0
        assert one.boxes.shape == one.proposals.shape == (count, 4)
        if 'scale_mining' in active:
            np.testing.assert_allclose(one.scales, 2 ** ((outputs.aligned_scale[i] - 1) / 3), rtol=1e-5)
            sides = lambda boxes: boxes[:, 2:] - boxes[:, :2]
            np.testing.assert_allclose(sides(one.boxes), sides(one.proposals) * one.scales[:, None], rtol=1e-4)
        else:
            assert len(one.scales) == 0
            np.testing.assert_array_equal(one.boxes, one.proposals)
        expected = outputs.orientation[i] if 'oriented_pooling' in active else []
        assert one.orientations == [ORIENTATIONS[o] for o in expected]
