"""Stages that several runs share: when they are identical, and that reusing one changes nothing."""

import dataclasses
import itertools
import json
import shutil

import chex
import jax
import pytest
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from configs import common, demo
from ssanet_jax.experiments.stage_reuse import reuse_stages, stage_identity
from ssanet_jax.experiments.tables import row_config
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.best_checkpoint import restore_network
from ssanet_jax.runs.files import CONFIG_FILE, read_run
from ssanet_jax.runs.run import build_model, load_run
from ssanet_jax.training.train import train


def identity(name, index=0, **changes):
    config = row_config(demo.get_config('ablation'), name)
    config.update_from_flattened_dict(changes)
    return stage_identity(config, index)


def test_heads_share_the_training_of_the_parts():
    sharing = ('mac', 'gmp', 'spp', 'fpn', 'dsm_fixed', 'dsm_1', 'op', 'dsm', 'ssanet', 'orientation_exact')
    assert all(identity(name) == identity('mac') for name in sharing)
    # Each of these trains other parts.
    apart = ('backbone', 'parts', 'mac', 'nts', 'mac_0.1', 'parts_3', 'sharing_part')
    assert all(identity(a) != identity(b) for a, b in itertools.combinations(apart, 2))


def test_nothing_is_shared_after_the_first_difference():
    assert identity('dsm', 1) == identity('ssanet', 1)
    assert identity('dsm', 1) != identity('features_flat', 1)
    assert identity('gmp', 1) != identity('spp', 1) != identity('dsm', 1)


@pytest.mark.parametrize(
    'changes, same',
    [
        ({'data.dir': 'elsewhere'}, True),
        ({'mesh.shape': '1x1'}, True),
        ({'async_checkpointing': 'on'}, True),
        ({'model.alpha': 1.1}, True),  # no group with several scales is active yet
        ({'loss.weights.oriented_pooling': 3.0}, True),
        ({'seed': 1}, False),
        ({'data.flip': False}, False),
        ({'optimizer.weight_decay': 0.5}, False),
        ({'loss.weights.mac': 0.4}, False),
        ({'model.nms_iou': 0.3}, False),
    ],
)
def test_settings_that_matter(changes, same):
    assert (identity('dsm', **changes) == identity('dsm')) == same


def loaded_shapes(config):
    """The shapes of what a stage after the first loads from it: parameters of its groups, statistics of all."""
    _, params, stats = split_model(nnx.eval_shape(lambda: build_model(config, 5, pretrained=False)))
    groups = active_groups(config.stages, 0)
    return jax.tree.map(lambda leaf: leaf.shape, ({group: params[group] for group in sorted(groups)}, stats))


@pytest.mark.parametrize('standardize', [False, True])
@pytest.mark.parametrize(
    'one, other, with_same_shapes',
    [
        ({'features': 'pooled'}, {'features': 'covariance'}, ()),
        ({'features': 'flat'}, {'features': 'covariance'}, ()),
        ({'features': 'pooled'}, {'features': 'flat'}, (False,)),
        ({'num_scales': 3}, {'num_scales': 5}, (False,)),
        ({'upright': 0}, {'upright': 4}, ()),
        ({'upright_size': 0}, {'upright_size': 32}, (False, True)),
        ({'part_head': 'none'}, {'part_head': 'spp'}, (False, True)),
        ({'grid': 3}, {'grid': 5}, (False, True)),
    ],
)
def test_stages_whose_arrays_have_other_shapes_are_not_shared(one, other, with_same_shapes, standardize, tiny_config):
    """None of these settings has an effect before scale mining, oriented pooling or another head is trained."""
    tiny_config.stages = common.global_pooling(epochs=1) + tiny_config.stages
    tiny_config.model.standardize = standardize
    configs = [tiny_config.copy_and_resolve_references() for _ in range(2)]
    for config, changes in zip(configs, (one, other)):
        config.model.update(changes)
    a, b = (loaded_shapes(config) for config in configs)
    assert (a == b) == (standardize in with_same_shapes), 'the settings must matter for the test to be meaningful'
    assert (stage_identity(configs[0], 0) == stage_identity(configs[1], 0)) == (a == b)


def test_without_parts_their_loss_weights_do_not_matter():
    assert identity('backbone', **{'loss.weights.mac': 0.1}) == identity('backbone')


@pytest.fixture
def rows(finished_run):
    """The configuration of the finished run, and the same without oriented pooling."""
    full = load_run(finished_run.workdir).config
    full.stages = tuple(ConfigDict(row) for row in full.stages)
    return full, row_config(full, 'dsm')


@pytest.fixture
def images(finished_run):
    """The digest of the finished run's images."""
    return read_run(finished_run.workdir)['images']


@pytest.mark.slow
def test_a_reused_stage_equals_a_trained_one(finished_run, rows, images, tmp_path):
    _, config = rows
    console = Console(quiet=True)
    assert reuse_stages(config, tmp_path / 'taken', [finished_run.workdir], images) == ['scale_mining']
    written = (tmp_path / 'taken/scale_mining/evaluation.json').stat().st_mtime_ns
    taken = train(config, tmp_path / 'taken', console)
    assert (tmp_path / 'taken/scale_mining/evaluation.json').stat().st_mtime_ns == written, 'not trained again'
    trained = train(config, tmp_path / 'trained', console)
    untimed = lambda results: dataclasses.replace(
        results,
        stages={name: dataclasses.replace(stage, wall_seconds=0) for name, stage in results.stages.items()},
        wall_seconds=0,
    )
    assert untimed(taken) == untimed(trained)
    networks = [split_model(load_run(tmp_path / name).model)[1:] for name in ('taken', 'trained')]
    chex.assert_trees_all_equal(*networks)


def test_only_runs_with_the_same_images_and_settings_are_reused(finished_run, rows, images, tmp_path):
    full, _ = rows
    assert reuse_stages(full, tmp_path / 'a', [finished_run.workdir], 'other images') == []
    full.data.interpolation = 'bicubic'  # the donor's weights asked for bilinear
    assert reuse_stages(full, tmp_path / 'b', [finished_run.workdir], images) == []
    assert not (tmp_path / 'a').exists() and not (tmp_path / 'b').exists()


def test_a_claimed_run_is_kept_and_leftovers_are_removed(finished_run, rows, images, tmp_path):
    """A stage linked by an attempt that never claimed the directory may have other settings."""
    full, _ = rows
    (tmp_path / 'oriented_pooling').mkdir()
    full.loss.weights.mac = 0.25
    assert reuse_stages(full, tmp_path, [finished_run.workdir], images) == []
    assert not (tmp_path / 'oriented_pooling').exists()
    (tmp_path / 'scale_mining').mkdir()
    (tmp_path / CONFIG_FILE).write_text('{}')
    full.loss.weights.mac = 0.5
    assert reuse_stages(full, tmp_path, [finished_run.workdir], images) == []
    assert (tmp_path / 'scale_mining').is_dir() and not list((tmp_path / 'scale_mining').iterdir())


def test_unfinished_stages_are_not_reused(finished_run, rows, images, tmp_path):
    full, _ = rows
    other = tmp_path / 'other'
    (other / 'scale_mining').mkdir(parents=True)
    (other / CONFIG_FILE).write_text((finished_run.workdir / CONFIG_FILE).read_text())
    assert reuse_stages(full, tmp_path / 'mine', [other], images) == []
    (other / 'scale_mining/evaluation.json').write_text(json.dumps({}))
    assert reuse_stages(full, tmp_path / 'mine', [other], images) == ['scale_mining']


def test_a_run_of_an_earlier_version_is_another(finished_run, rows, images, tmp_path):
    full, _ = rows
    other = shutil.copytree(finished_run.workdir, tmp_path / 'other')
    content = json.loads((other / CONFIG_FILE).read_text())
    del content['config']['model']['part_head'], content['config']['model']['output_stride'], content['checksum']
    (other / CONFIG_FILE).write_text(json.dumps(content))
    assert reuse_stages(full, tmp_path / 'mine', [other], images) == []


@pytest.mark.slow
def test_a_head_starts_as_it_was_built(finished_run, rows, tmp_path):
    """The previous stage does not have the head: its checkpoint lacks the group."""
    full, _ = rows
    full.model.part_head = 'gap'
    model = build_model(full, 16)
    _, params, stats = split_model(model)
    restored, _ = restore_network(
        finished_run.workdir, 'scale_mining', params, stats, groups={'backbone', 'scale_mining'}
    )
    chex.assert_trees_all_equal(restored['part_head'], params['part_head'])
    chex.assert_trees_all_equal(restored['oriented_pooling'], params['oriented_pooling'])
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(restored['backbone'], params['backbone'])
