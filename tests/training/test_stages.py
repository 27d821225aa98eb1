"""The table of stages: what it refuses, its learning rates, and its optimizer against SGD written out."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.registry import build_backbone
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer
from ssanet_jax.models.groups import GROUPS, active_groups
from ssanet_jax.training import stages
from ssanet_jax.training.stages import stage


def new_stage(**changes):
    values = dict(name='first', epochs=3, learning_rate=0.1, train=dict(backbone=1)) | changes
    return stage(values.pop('name'), **values)


def optimizer(name='sgd', momentum=0.9, weight_decay=0.05):
    return ConfigDict(dict(name=name, momentum=momentum, weight_decay=weight_decay))


@pytest.mark.parametrize(
    'table, message',
    [
        ((), 'empty'),
        ((new_stage(), new_stage()), 'two stages of one name .first, first.'),
        ((new_stage(train=dict(backbone=1, bakbone=1)),), "'bakbone', which is not a group: choose from backbone"),
        ((new_stage(train={}),), "'first' trains nothing"),
        ((new_stage(name='fine'), new_stage(epochs=0)), "'first' has 0 epochs"),
        (
            (ConfigDict({**new_stage(), 'speed': 2}),),
            "'first' has an unknown field 'speed': choose from name, epochs, learning_rate, ",
        ),
        ((new_stage(schedule='stairs'),), "'stairs': choose from step, cosine, constant"),
        (
            (new_stage(name='results.json'),),
            "'results.json' has a name .*: use letters, digits and _",
        ),  # another file of the run
        ((new_stage(name='../first'),), 'use letters, digits and _'),
        ((new_stage(trainable_backbone_layers=-1),), 'trainable_backbone_layers -1: give a number from 1'),
        (
            (new_stage(train=dict(proposals=1), trainable_backbone_layers=1),),
            'trainable_backbone_layers 1, but does not train the backbone',
        ),
        ((new_stage(layer_decay=1.5),), 'layer_decay 1.5: give a factor below 1'),
        ((new_stage(train=dict(proposals=1), layer_decay=0.5),), 'layer_decay 0.5, but does not train the backbone'),
        (  # silently without parts, before: a network from another run has proposals, but they would not be active
            (new_stage(train=dict(backbone=1, scale_mining=1)),),
            "'first' trains scale_mining, which reads the parts, but .*: add proposals to its train",
        ),
        (
            (new_stage(train=dict(part_head=1)), new_stage(name='second', train=dict(proposals=1))),
            "'first' trains part_head, which reads the parts",
        ),
    ],
)
def test_a_table_that_cannot_be_trained_is_refused(table, message):
    with pytest.raises(UserError, match=message):
        stages.check_stages(table, optimizer())


def test_a_good_table_passes():
    table = (new_stage(), new_stage(name='second', train=dict.fromkeys(GROUPS, 1), schedule='cosine'))
    for name in ('sgd', 'adamw'):
        stages.check_stages(table, optimizer(name))


def test_the_fields_of_a_stage():
    assert tuple(sorted(new_stage())) == tuple(sorted(stages.FIELDS))


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(UserError, match="config.optimizer.name is 'lion': choose from sgd, adamw"):
        stages.check_stages((new_stage(),), optimizer('lion'))


def test_groups_become_active_stage_by_stage():
    table = (
        new_stage(train=dict(backbone=1, proposals=1)),
        new_stage(train=dict(scale_mining=1)),
        new_stage(train=dict(backbone=1)),
    )
    expected = [{'backbone', 'proposals'}] + [{'backbone', 'proposals', 'scale_mining'}] * 2
    assert [active_groups(table, index) for index in range(3)] == expected


def rate_by_hand(step, *, schedule, epochs, milestones, warmup_epochs, epoch_steps, rate=0.1):
    warmup = round(warmup_epochs * epoch_steps)
    if step < warmup:
        return rate * step / warmup
    if schedule == 'step':
        return rate * 0.1 ** sum(step >= milestone * epoch_steps for milestone in milestones)
    if schedule == 'cosine':
        return rate * (1 + math.cos(math.pi * (step - warmup) / (epochs * epoch_steps - warmup))) / 2
    return rate


@settings(deadline=None, max_examples=40)
@given(
    schedule=st.sampled_from(stages.SCHEDULES),
    milestones=st.lists(st.integers(1, 5), max_size=3).map(sorted),
    warmup_epochs=st.sampled_from([0.0, 0.5, 1.0]),
    epoch_steps=st.integers(1, 5),
)
def test_learning_rate_of_every_step(schedule, milestones, warmup_epochs, epoch_steps):
    settings = dict(schedule=schedule, epochs=6, milestones=milestones, warmup_epochs=warmup_epochs)
    rate = stages.learning_rate(new_stage(**settings), epoch_steps)
    steps = np.arange(6 * epoch_steps)
    expected = [rate_by_hand(int(step), **settings, epoch_steps=epoch_steps) for step in steps]
    np.testing.assert_allclose([float(rate(step)) for step in steps], expected, rtol=1e-5, atol=1e-8)


def test_the_rate_falls_at_the_first_step_after_the_milestone():
    rate = stages.learning_rate(new_stage(epochs=9, milestones=(2, 4)), 10)
    np.testing.assert_allclose(
        [rate(19), rate(20), rate(39), rate(40), rate(89)], [0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5
    )


def test_milestones_that_fall_together_lower_the_rate_once_each():
    (scaled,) = stages.scale_epochs([new_stage(epochs=10, milestones=(4, 5, 9))], 2)
    assert scaled.milestones == (1, 1, 2)
    rate = stages.learning_rate(scaled, 10)
    np.testing.assert_allclose([rate(9), rate(10), rate(19)], [0.1, 0.001, 0.001], rtol=1e-5)


def parameters():
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)
    return {
        'backbone': {'kernel': draw(3, 4), 'bias': draw(4)},
        'proposals': {'kernel': draw(5)},
        'scale_mining': {'weights': draw(2, 2)},
    }


FACTORS = {'backbone': 1.0, 'proposals': 0.2}
STEPS, EPOCH_STEPS, MOMENTUM, DECAY = 7, 2, 0.9, 0.05


def trains(path):
    return path[0] in FACTORS


class OptimizerVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_sgd_by_torchs_rule(self):
        """SGD as in PyTorch: v <- m v + g + decay p, p <- p - rate factor v."""
        table = new_stage(train=FACTORS, milestones=(1, 2))
        transform = stages.make_optimizer(table, optimizer('sgd', MOMENTUM, DECAY), EPOCH_STEPS, trains)
        params = parameters()
        state = transform.init(params)
        update = self.variant(transform.update)
        expected, velocity = parameters(), jax.tree.map(np.zeros_like, parameters())
        random = np.random.default_rng(1)
        for step in range(STEPS):
            gradients = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), params)
            updates, state = update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            rate = rate_by_hand(
                step, schedule='step', epochs=3, milestones=(1, 2), warmup_epochs=0, epoch_steps=EPOCH_STEPS
            )
            for group, factor in FACTORS.items():
                for name in expected[group]:
                    v, p, g = velocity[group], expected[group], gradients[group]
                    v[name] = MOMENTUM * v[name] + g[name] + DECAY * p[name]
                    p[name] = p[name] - rate * factor * v[name]
            chex.assert_trees_all_close(params, expected, rtol=1e-5, atol=1e-6)
        assert not np.allclose(params['proposals']['kernel'], parameters()['proposals']['kernel'])


def test_adamw_decays_apart_from_the_gradient():
    """AdamW: p <- p - rate factor (m^ / (sqrt(v^) + 1e-8) + decay p), with bias-corrected m^ and v^."""
    transform = stages.make_optimizer(
        new_stage(train=FACTORS, schedule='constant'), optimizer('adamw', 0.8, DECAY), EPOCH_STEPS, trains
    )
    params, expected = parameters(), parameters()
    state, update = transform.init(params), jax.jit(transform.update)
    first, second = (jax.tree.map(np.zeros_like, expected) for _ in range(2))
    random = np.random.default_rng(1)
    for step in range(1, STEPS + 1):
        gradients = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), params)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for group, factor in FACTORS.items():
            for name, p in expected[group].items():
                m, v, g = first[group], second[group], gradients[group][name]
                m[name] = 0.8 * m[name] + 0.2 * g
                v[name] = 0.999 * v[name] + 0.001 * g**2
                direction = m[name] / (1 - 0.8**step) / (np.sqrt(v[name] / (1 - 0.999**step)) + 1e-8)
                expected[group][name] = p - 0.1 * factor * (direction + DECAY * p)
        chex.assert_trees_all_close(params, expected, rtol=1e-4, atol=1e-5)


def test_frozen_leaves_get_no_update_and_hold_no_state():
    transform = stages.make_optimizer(new_stage(train=FACTORS), optimizer(), EPOCH_STEPS, trains)
    params = parameters()
    state = transform.init(params)
    # Momentum for the three leaves that train, and a counter for each of the two schedules.
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(state))
    assert shapes == [(), (), (3, 4), (4,), (5,)]
    updates, _ = transform.update(jax.tree.map(jnp.ones_like, params), state, params)
    assert not np.any(updates['scale_mining']['weights'])
    assert np.all(updates['backbone']['kernel'])


def test_params_are_split_and_merged_without_loss():
    trained, frozen = stages.split_params(parameters(), trains)
    assert trained.keys() == {'backbone', 'proposals'} and frozen.keys() == {'scale_mining'}
    chex.assert_trees_all_equal(stages.merge_params(trained, frozen), parameters())


@pytest.mark.parametrize('name', ['efficientnet_lite0', 'resnet18', 'convnext_tiny'])
def test_only_the_last_layers_of_the_backbone_train(name):
    """A layer is what lies between two halvings: by the names that torchvision and timm give their blocks."""
    shapes = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0)))
    tree = nnx.to_pure_dict(nnx.state(shapes, nnx.Param))
    params = {'backbone': tree, 'image_classifier': {'kernel': np.zeros(3)}, 'proposals': {'bias': np.zeros(3)}}
    table = new_stage(train=dict(backbone=1, image_classifier=1), trainable_backbone_layers=1)
    chosen = stages.make_trains(table, shapes, params)
    trained = {path for path in flatten_dict(params) if chosen(path)}
    first = {  # of each family: the top-level entries of its last layer
        'efficientnet_lite0': {('blocks', i) for i in range(11, 16)} | {('head',), ('head_norm',)},
        'resnet18': {('stages', 3)},
        'convnext_tiny': {('stages', 3), ('shrinks', 2), ('head_norm',)},
    }[name]
    in_last = lambda path: any(path[1 : 1 + len(entry)] == entry for entry in first)
    backbone = {path for path in flatten_dict(params) if path[0] == 'backbone' and in_last(path)}
    assert backbone and trained == backbone | {('image_classifier', 'kernel')}

    shapes = jax.tree.map(lambda leaf: np.shape(leaf), params)
    state = stages.make_optimizer(table, optimizer(), EPOCH_STEPS, chosen).init(params)
    momentum = [leaf.shape for leaf in jax.tree.leaves(state) if np.ndim(leaf)]
    assert len(momentum) == sum(bool(flatten_dict(shapes)[path]) for path in trained)  # and none for frozen layers


def test_more_layers_than_the_backbone_has_are_refused():
    shapes = nnx.eval_shape(lambda: build_backbone('resnet18', nnx.Rngs(0)))
    params = {'backbone': nnx.to_pure_dict(nnx.state(shapes, nnx.Param))}
    for count in (1, 4):
        stages.make_trains(new_stage(trainable_backbone_layers=count), shapes, params)
    with pytest.raises(UserError, match="'first' has trainable_backbone_layers 5, and the backbone has 4 layers"):
        stages.make_trains(new_stage(trainable_backbone_layers=5), shapes, params)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_the_rate_decays_from_layer_to_layer(name):
    """In the first step, the updates are those without the decay times 0.5 per layer behind."""
    backbone = nnx.eval_shape(lambda: VisionTransformer(8, 3, 2, nnx.Rngs(0), patch_size=4, positions='rotary'))
    tree = jax.tree.map(lambda leaf: np.ones(leaf.shape), nnx.to_pure_dict(nnx.state(backbone, nnx.Param)))
    params = {'backbone': tree, 'image_classifier': {'kernel': np.ones(3)}}
    groups = dict(backbone=1, image_classifier=1)
    updates = []
    for decay in (0, 0.5):
        table = new_stage(train=groups, layer_decay=decay)
        factor = stages.decay_layers(table, backbone, params) if decay else None
        chosen = stages.make_trains(table, backbone, params)
        transform = stages.make_optimizer(table, optimizer(name, MOMENTUM, DECAY), EPOCH_STEPS, chosen, factor)
        update, _ = jax.jit(transform.update)(params, transform.init(params), params)
        updates.append(flatten_dict(update))
    expected = {
        ('backbone', 'patch_embed', 'kernel'): 1 / 8,
        ('backbone', 'class_token'): 1 / 8,
        ('backbone', 'blocks', 0, 'mlp', 'expand', 'kernel'): 1 / 4,
        ('backbone', 'blocks', 1, 'scale1'): 1 / 2,
        ('backbone', 'blocks', 2, 'norm2', 'bias'): 1,
        ('backbone', 'norm', 'scale'): 1,
        ('image_classifier', 'kernel'): 1,
    }
    for path, factor in expected.items():
        assert np.all(updates[0][path]), path
        np.testing.assert_allclose(updates[1][path], factor * updates[0][path], rtol=1e-6)
