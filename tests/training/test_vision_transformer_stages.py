"""SSANet on a tiny vision transformer: crops of several cells, the class token, a step of every stage, a fitted run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import changed, run_python
from flax import nnx
from flax.traverse_util import flatten_dict
from page_checks import check_page
from rich.console import Console

from configs import common
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.distributed import sharding
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.sharing import average_cells
from ssanet_jax.models.ssanet import SSANet, split_model
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.run import load_run
from ssanet_jax.training import step as steps
from ssanet_jax.training.stages import stage
from ssanet_jax.training.step import TrainState
from ssanet_jax.training.train import train

SIZE, CLASSES, WIDTH = 32, 4, 8


# A vision transformer with patches of 4 and rotary positions, here and in the commands that a test starts.
OPTIONS = dict(patch_size=4, positions='rotary', num_registers=1)
REGISTER = f"""
from functools import partial
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer
BACKBONES['vit_tiny'] = partial(VisionTransformer, {WIDTH}, 1, 2, **{OPTIONS})
"""


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(BACKBONES, 'vit_tiny', partial(VisionTransformer, WIDTH, 1, 2, **OPTIONS))


def network(**settings):
    settings = dict(num_parts=2, num_scales=1, crop_size=28) | settings
    return SSANet(CLASSES, SIZE, backbone='vit_tiny', **settings, rngs=nnx.Rngs(0))


def test_larger_crops_are_averaged_to_seven_cells():
    maps = np.random.default_rng(0).normal(size=(2, 3, 14, 14, 5)).astype(np.float32)
    expected = [[maps[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(7)] for i in range(7)]
    np.testing.assert_allclose(
        average_cells(maps), np.moveaxis(np.array(expected), (0, 1), (2, 3)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(average_cells(maps[:, :, :7, :7]), maps[:, :, :7, :7])


def test_the_class_token_comes_before_the_average_of_the_map():
    model = network(class_token=True, sharing='image')
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    read = nnx.jit(lambda model, images: model.extract_features(images, active={'backbone', 'image_classifier'}).image)
    (level,) = nnx.jit(lambda model, images: model.backbone.pyramid(model.normalize(images)))(model, images)
    expected = np.concatenate([level.token, level.map.mean((1, 2))], -1)
    np.testing.assert_allclose(read(model, images), expected, rtol=1e-5, atol=1e-5)
    assert model.image_classifier.kernel[...].shape == (2 * WIDTH, CLASSES)


PAPER = dict(proposal='ranking', num_proposals=3, num_scales=3, sharing='image')
# As in `dinov2_finetune`, on a GPU.
PROTOTYPES = dict(proposal='prototypes', sharing='none', class_token=True, dtype='bfloat16', remat=True)


def fine_tuning():
    """The second stage of `dinov2_finetune`, for a transformer of one block."""
    config = common.dinov2_finetune()
    config.stages = config.stages[1:]
    # A warm-up begins with a rate of 0; `fit` would have found the prototypes.
    config.stages[0].update(warmup_epochs=0.0, trainable_backbone_layers=1, learning_rate=0.1)
    config.stages[0].train.proposals = 1.0
    return config


@pytest.mark.slow
@pytest.mark.parametrize('settings', [PAPER, PROTOTYPES], ids=['three stages', 'dinov2_finetune'])
def test_one_step_of_each_stage(tiny_config, settings):
    """It changes every parameter of the backbone that a stage trains, and none that it does not."""
    if settings is PAPER:
        config, frozen = tiny_config, set()
        config.stages = common.three_stages((1, 1, 1), 1, 1)  # the rates are high, so that every weight moves
    else:
        config, frozen = fine_tuning(), {'patch_embed', 'class_token', 'registers'}
    model, mesh = network(**settings), sharding.make_mesh(jax.devices()[:1])
    random = np.random.default_rng(0)
    batch = {'image': random.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8), 'label': np.arange(4, dtype=np.int32)}
    for index, row in enumerate(config.stages):
        optimizer, train_step = steps.make_train_step(model, row, active_groups(config.stages, index), config, 8, mesh)
        _, params, stats = jax.tree.map(jnp.array, split_model(model))
        before = flatten_dict(jax.tree.map(np.array, params))
        state, metrics = train_step(TrainState(params, stats, optimizer.init(params), jnp.int32(0)), batch)
        assert np.isfinite(metrics['loss/total'])
        after = flatten_dict(jax.device_get(state.params))
        moved = {path for path in before if not np.array_equal(before[path], after[path])}
        assert {path[0] for path in moved} <= set(row.train)
        if 'backbone' in row.train:
            backbone = {path for path in before if path[0] == 'backbone'}
            assert backbone - moved == {path for path in backbone if path[1] in frozen}


def test_a_fitted_run_predicts_and_is_reported(tiny_config, tmp_path):
    """The recipe of configs/cub.py:dinov2: frozen, prototypes, crops of 2 x 7 cells, the class token."""
    config = tiny_config
    config.model.update(
        backbone='vit_tiny',
        proposal='prototypes',
        num_parts=2,
        num_scales=1,
        sharing='none',
        crop_size=28,
        standardize=True,
        class_token=True,
        fusion='global+parts',
    )
    config.data.update(train_count=32, test_count=16)
    config.loss.weights.ranking = 0.0
    config.stages = (stage('fit', epochs=1, fit=True, train=dict(proposals=1, image_classifier=1, scale_mining=1)),)
    results = train(config, tmp_path / 'run', Console(quiet=True))
    test = load_dataset(config.data).test
    predictions = Predictor.from_run(load_run(tmp_path / 'run')).predict([test[i]['image'] for i in range(len(test))])
    correct = [each.class_index == test.labels[i] for i, each in enumerate(predictions)]
    assert np.mean(correct) == pytest.approx(results.accuracy, abs=1e-6)

    done = run_python(changed('ssanet_jax.report', REGISTER), f'--workdir={tmp_path / "run"}')
    assert done.returncode == 0, done.stderr
    page = check_page((tmp_path / 'run/report.html').read_text())
    assert {'results', 'parts', 'explained', 'attention', 'confusion'} <= set(page.ids)
    assert f'{results.accuracy:.4f}' in page.text and 'vit_tiny' in page.text
