"""The work ahead of a run: what each task leaves to be done, counted by hand."""

import pytest

from configs import common, cub, demo
from ssanet_jax.training.time_left import (
    FEATURES,
    ORIENTATIONS,
    PARTS,
    TRAINING,
    ImageCounts,
    views_after,
)


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
