"""The work ahead of a run: what each task leaves to be done, counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from configs import common, cub, demo
from ssanet_jax.models.backbones.resnet import ResNet
from ssanet_jax.models.groups import UPRIGHT
from ssanet_jax.runs.run import build_model
from ssanet_jax.training.stages import stage
from ssanet_jax.training.time_left import (
    FEATURES,
    ORIENTATIONS,
    PARTS,
    TRAINING,
    ImageCounts,
    views_after,
)
from ssanet_jax.training.upright_fit import orientation_features


def test_a_fitted_stage_looks_for_parts_and_computes_features():
    config = common.prototypes()
    # 192 images at 448, then two views of each: at 448, and four crops at 224.
    assert views_after(config, 0, PARTS, ImageCounts(192, 0)) == pytest.approx(2 * 192 * (448**2 + 4 * 224**2) / 448**2)
    assert views_after(config, 0, FEATURES, ImageCounts(192, 0)) == 0
    # At 224, with two crops, and of at most 1,000 images.
    assert views_after(common.fast(), 0, PARTS, ImageCounts(5000, 0)) == pytest.approx(10_000 * 3)


def test_orientations_are_work_too():
    config = common.upright()
    features = 200 * (448**2 + 4 * 224**2)
    assert views_after(config, 0, PARTS, ImageCounts(100, 0)) == pytest.approx((100 * 4 * 224**2 + features) / 448**2)
    assert views_after(config, 0, ORIENTATIONS, ImageCounts(100, 0)) == pytest.approx(features / (4 * 224**2))


def test_all_later_stages_count():
    config = demo.get_config()  # 6, 2 and 1 epochs; the second one trains heads only
    assert views_after(config, 0, TRAINING, ImageCounts(100, 0)) == pytest.approx((200 * 1 + 100 * 3) / 3)
    assert views_after(config, 1, TRAINING, ImageCounts(100, 0)) == pytest.approx(100 * 3)
    assert views_after(config, 2, TRAINING, ImageCounts(100, 0)) == 0


def test_a_cache_is_filled_before_training():
    config = cub.lite0()
    config.stages = config.stages[:2]
    config.stages[0].cache = 2  # of 5 epochs; then 8 epochs with the backbone
    assert views_after(config, 0, FEATURES, ImageCounts(10, 0)) == pytest.approx(5 * 10 * 0.01 + 8 * 10 * 3)


def test_boxes_that_are_not_prototypes_are_not_looked_for():
    config = common.nts()
    assert views_after(config, 1, PARTS, ImageCounts(10, 0)) > 0  # cells, for their covariance
    config.model.features = 'pooled'
    with pytest.raises(StopIteration):
        views_after(config, 1, PARTS, ImageCounts(10, 0))


def test_evaluations_are_work_too():
    """One after each stage; of the other stages, those on the way; with validation images, the test images last."""
    config = common.prototypes()
    assert views_after(config, 0, FEATURES, ImageCounts(192, 50)) == 50
    assert views_after(config, 0, PARTS, ImageCounts(192, 50)) == pytest.approx((2 * 192 + 50) * 2)
    config = demo.get_config()
    config.eval_epochs = 2
    assert views_after(config, 1, TRAINING, ImageCounts(100, 30)) == pytest.approx(30 + 100 * 3 + 30)
    config.stages[2].epochs = 3
    assert views_after(config, 1, TRAINING, ImageCounts(100, 30)) == pytest.approx(30 + 300 * 3 + 2 * 30)
    assert views_after(config, 1, TRAINING, ImageCounts(100, 30, validation=10)) == pytest.approx(
        10 + 300 * 3 + 2 * 10 + 30
    )


@pytest.mark.parametrize('upright, upright_size', [(0, 0), (4, 32), (8, 0), (24, 32)])
@pytest.mark.parametrize('sharing, part_groups', [('none', ['scale_mining']), ('none', []), ('part', ['scale_mining'])])
def test_pixels_are_those_that_pass_through_the_backbone(
    sharing, part_groups, upright, upright_size, tiny_config, monkeypatch
):
    tiny_config.model.update(
        proposal='prototypes', sharing=sharing, crop_size=56, global_size=32, upright=upright, upright_size=upright_size
    )
    groups = ['proposals', 'image_classifier', *part_groups, *([UPRIGHT] if upright else [])]
    tiny_config.stages = (stage('fit', epochs=1, train=dict.fromkeys(groups, 1), fit=True),)
    model = build_model(tiny_config, 16)
    passed = []
    pyramid = ResNet.pyramid
    monkeypatch.setattr(
        ResNet, 'pyramid', lambda self, x: passed.append(x.shape[0] * x.shape[1] * x.shape[2]) or pyramid(self, x)
    )

    def pixels(function):
        passed.clear()
        graph, state = nnx.split(model)
        image = jnp.zeros((1, 64, 64, 3))
        jax.eval_shape(lambda state: function(nnx.merge(graph, state), image), state)
        return sum(passed)

    image = pixels(lambda model, x: model.global_map(x))
    features = pixels(lambda model, x: model.extract_features(x, active={*groups} - {UPRIGHT}))
    evaluation = pixels(lambda model, x: model.extract_features(x, active=groups))
    turned = pixels(lambda model, x: orientation_features(model.upright, model.backbone, x)) if upright else 0
    assert image == 32**2 and features > 2 * image
    left = lambda task, test=0: views_after(tiny_config, 0, task, ImageCounts(1, test))
    assert left(PARTS) == pytest.approx((turned + features) / image)
    assert left(FEATURES, test=1) == pytest.approx(evaluation / features)
    if upright:
        assert left(ORIENTATIONS) == pytest.approx(features / turned)
    frozen = stage('frozen', epochs=1, learning_rate=0.1, train=dict(image_classifier=1))
    trained = stage('trained', epochs=1, learning_rate=0.1, train=dict(backbone=1))
    tiny_config.stages = (*tiny_config.stages, frozen, trained)
    # No backward pass goes through the views by which the orientation is found.
    assert views_after(tiny_config, 1, TRAINING, ImageCounts(1, 0)) == pytest.approx(
        (3 * features + evaluation - features) / evaluation
    )
