"""One step of every stage: what it changes, what it costs, and the numbers that it reports."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_config

from configs import common
from ssanet_jax.data.pipeline import train_batches
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.models import losses
from ssanet_jax.models.groups import GROUPS, active_groups
from ssanet_jax.models.outputs import Outputs
from ssanet_jax.models.ssanet import merge_model, split_model
from ssanet_jax.runs.run import build_model
from ssanet_jax.training import step as steps
from ssanet_jax.training.step import TrainState

EPOCH_STEPS = 8
CONFIG = tiny_config.get_config()
STAGES = [row.name for row in CONFIG.stages]


class StageRun(NamedTuple):
    """Two steps of a stage, on the host."""

    row: Any
    states: list[TrainState]  # before, between, after
    metrics: list[dict[str, np.ndarray]]
    batches: list[dict[str, np.ndarray]]
    flops: float


class Setup(NamedTuple):
    runs: dict[str, StageRun]
    model: Any
    forward_flops: float  # of the backbone on one batch
    predict_flops: float  # of the whole network
    predict: Any


@pytest.fixture(scope='module')
def setup():
    """Two real steps of each stage, one stage after the other."""
    dataset = load_dataset(CONFIG.data)
    model = build_model(CONFIG, len(dataset.class_names))
    mesh = sharding.make_mesh(jax.devices()[:1])
    _, params, stats = jax.tree.map(np.array, split_model(model))
    runs = {}
    for index, row in enumerate(CONFIG.stages):
        active = active_groups(CONFIG.stages, index)
        optimizer, train_step = steps.make_train_step(model, row, active, CONFIG, EPOCH_STEPS, mesh)
        stream = train_batches(dataset.train, CONFIG.data, seed=index, epochs=1)
        batches = [{key: next(stream)[key] for key in ('image', 'label')} for _ in range(2)]
        state = jax.tree.map(jnp.array, TrainState(params, stats, optimizer.init(params), np.int32(0)))
        compiled = train_step.lower(state, batches[0]).compile()
        states, metrics = [jax.tree.map(np.array, state)], []
        for batch in batches:
            state, reported = compiled(state, batch)
            states.append(jax.tree.map(np.array, state))
            metrics.append(jax.device_get(reported))
        runs[row.name] = StageRun(row, states, metrics, batches, compiled.cost_analysis()['flops'])
        params, stats = states[-1].params, states[-1].stats

    predict = make_predict(model, GROUPS, mesh)  # leaves the model in evaluation mode
    graph, _, _ = split_model(model)
    images = batches[0]['image']
    backbone = jax.jit(lambda p, s, x: merge_model(graph, p, s).backbone(x))
    forward = backbone.lower(params, stats, images.astype(np.float32)).compile().cost_analysis()['flops']
    whole = predict.lower(params, stats, images).compile().cost_analysis()['flops']
    return Setup(runs, model, forward, whole, predict)


def leaves_changed(before, after):
    return [not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]


@pytest.mark.parametrize('name', STAGES)
def test_a_frozen_group_stays_bit_for_bit_and_a_trained_one_moves(setup, name):
    row, states, *_ = setup.runs[name]
    for group in GROUPS:
        before, after = states[0].params[group], states[-1].params[group]
        if group in row.train:
            assert any(leaves_changed(before, after)), group
        else:
            chex.assert_trees_all_equal(before, after)
    if 'backbone' in row.train:
        assert all(leaves_changed(states[0].params['backbone'], states[-1].params['backbone']))
    assert [int(state.step) for state in states] == [0, 1, 2]


@pytest.mark.parametrize('name', STAGES)
def test_batchnorm_statistics_move_only_where_the_backbone_trains(setup, name):
    row, states, *_ = setup.runs[name]
    changed = leaves_changed(states[0].stats, states[-1].stats)
    assert len(changed) > 10
    assert all(changed) if 'backbone' in row.train else not any(changed)


def test_the_sets_of_the_three_stages(setup):
    """The table above says what the paper's stages say: or the two tests before would hold trivially."""
    trained = {name: set(run.row.train) for name, run in setup.runs.items()}
    assert trained == {
        'scale_mining': set(GROUPS) - {'oriented_pooling'},
        'oriented_pooling': {'oriented_pooling', 'image_classifier'},
        'part_tuning': {'backbone', 'proposals', 'part_classifier'},
    }


@pytest.mark.parametrize('name', STAGES)
def test_optimiser_state_is_for_trained_leaves_only(setup, name):
    row, states, *_ = setup.runs[name]
    momentum = sum(leaf.size for leaf in jax.tree.leaves(states[0].opt) if leaf.ndim)
    assert momentum == sum(leaf.size for group in row.train for leaf in jax.tree.leaves(states[0].params[group]))


def test_no_backward_pass_through_a_frozen_backbone(setup):
    """A backward pass costs about twice the forward one; stage 2 adds less than half of one to a prediction."""
    assert setup.runs['oriented_pooling'].flops < setup.predict_flops + 0.5 * setup.forward_flops
    assert setup.runs['oriented_pooling'].flops < 2 * setup.forward_flops
    for name in ('scale_mining', 'part_tuning'):
        assert setup.runs[name].flops > setup.predict_flops + 1.5 * setup.forward_flops


EXPECTED_LOSSES = {
    'scale_mining': {'image', 'parts', 'mac', 'ranking', 'scale_mining'},
    'oriented_pooling': {'image', 'oriented_pooling'},
    'part_tuning': {'image', 'parts', 'mac', 'ranking', 'scale_mining', 'oriented_pooling'},
}


@pytest.mark.parametrize('name', STAGES)
def test_every_number_of_a_step_is_reported(setup, name):
    run = setup.runs[name]
    expected = {'accuracy', 'loss/total'} | {f'loss/{term}' for term in EXPECTED_LOSSES[name]}
    kinds = ('gradient_norm', 'update_norm', 'parameter_norm', 'learning_rate')
    expected |= {f'{kind}/{group}' for kind in kinds for group in run.row.train}
    for metrics in run.metrics:
        assert metrics.keys() == expected
        assert all(np.ndim(value) == 0 and np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize('name', STAGES)
def test_the_total_is_the_weighted_sum_of_the_terms(setup, name):
    weights = CONFIG.loss.weights
    assert weights.mac == 0.5  # the paper's lambda; one weight that is not 1 is needed here
    for metrics in setup.runs[name].metrics:
        total = sum(weights[term] * metrics[f'loss/{term}'] for term in EXPECTED_LOSSES[name])
        np.testing.assert_allclose(metrics['loss/total'], total, rtol=1e-5)


def norm(tree):
    return np.sqrt(sum(np.square(leaf.astype(np.float64)).sum() for leaf in jax.tree.leaves(tree)))


@pytest.mark.parametrize('name', STAGES)
def test_norms_are_those_of_the_arrays(setup, name):
    row, states, metrics, *_ = setup.runs[name]
    for group in row.train:
        first, second = states[0].params[group], states[1].params[group]
        # After the first step the momentum is the gradient and the decay, and nothing else.
        velocity = optax.tree.get(states[1].opt.inner_states[group], 'trace')[group]
        gradient = jax.tree.map(lambda v, p: v - CONFIG.optimizer.weight_decay * p, velocity, first)
        np.testing.assert_allclose(metrics[0][f'gradient_norm/{group}'], norm(gradient), rtol=1e-4)
        np.testing.assert_allclose(metrics[0][f'parameter_norm/{group}'], norm(first), rtol=1e-5)
        np.testing.assert_allclose(metrics[1][f'parameter_norm/{group}'], norm(second), rtol=1e-5)
        moved = jax.tree.map(lambda p, q: q.astype(np.float64) - p, first, second)
        np.testing.assert_allclose(metrics[0][f'update_norm/{group}'], norm(moved), rtol=1e-2)


def test_learning_rates_are_those_of_the_schedule(setup):
    first, second = setup.runs['scale_mining'].metrics
    np.testing.assert_allclose(
        [first['learning_rate/proposals'], second['learning_rate/backbone']], [0.01, 0.05], rtol=1e-5
    )
    cosine = 0.01 * (1 + np.cos(np.pi / EPOCH_STEPS)) / 2
    first, second = setup.runs['oriented_pooling'].metrics
    np.testing.assert_allclose(
        [first['learning_rate/oriented_pooling'], second['learning_rate/image_classifier']],
        [0.001, cosine / 3],
        rtol=1e-5,
    )
    chex.assert_trees_all_close(
        setup.runs['part_tuning'].metrics[1]['learning_rate/part_classifier'], np.float32(0.0025)
    )


def cross_entropy(logits, labels, smoothing=0.0):
    """Mean over the batch, in float64."""
    logits = np.asarray(logits, np.float64)
    log_probability = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    classes = logits.shape[-1]
    target = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    return -(target * log_probability).sum(-1)


def test_losses_and_gradient_of_stage_two_by_hand(setup):
    """With the whole backbone frozen, a step computes the same features as a prediction."""
    _, states, metrics, batches, _ = setup.runs['oriented_pooling']
    labels, smoothing = batches[0]['label'], CONFIG.loss.label_smoothing
    outputs = setup.predict(states[0].params, states[0].stats, batches[0]['image'])
    np.testing.assert_allclose(
        metrics[0]['loss/image'], cross_entropy(outputs.image_logits, labels, smoothing).mean(), rtol=1e-4
    )
    np.testing.assert_allclose(
        metrics[0]['loss/oriented_pooling'], cross_entropy(outputs.oriented_logits, labels, smoothing).mean(), rtol=1e-4
    )
    np.testing.assert_allclose(metrics[0]['accuracy'], (np.argmax(outputs.logits, -1) == labels).mean(), rtol=1e-6)

    # Of a softmax and a bias: mean of (probability - target). OP's bias sees its logits alone.
    for group, logits in (('image_classifier', outputs.image_logits), ('oriented_pooling', outputs.oriented_logits)):
        velocity = optax.tree.get(states[1].opt.inner_states[group], 'trace')[group]['bias']
        target = np.eye(16)[labels] * (1 - smoothing) + smoothing / 16
        expected = (np.array(jax.nn.softmax(logits)) - target).mean(0) + CONFIG.optimizer.weight_decay * states[
            0
        ].params[group]['bias']
        np.testing.assert_allclose(velocity, expected, atol=1e-5)


ALL_WEIGHTS = common.get_config().loss.weights


@pytest.mark.parametrize('table', [common.three_stages(), tiny_config.get_config().stages])
def test_losses_of_the_three_stages(table):
    for index, row in enumerate(table):
        found = steps.stage_losses(active_groups(table, index), row.train, ALL_WEIGHTS)
        assert found == {name: ALL_WEIGHTS[name] for name in EXPECTED_LOSSES[row.name]}


def test_losses_of_other_tables():
    (row,) = common.global_pooling()
    assert steps.stage_losses(set(row.train), row.train, ALL_WEIGHTS) == {'image': 1.0}
    (row,) = common.joint()
    heads = set(ALL_WEIGHTS) - {'part_head', 'fusion'}
    assert steps.stage_losses(set(row.train), row.train, ALL_WEIGHTS).keys() == heads
    groups = (*(set(row.train) - {'scale_mining', 'oriented_pooling'}), 'part_head')  # a baseline
    expected = {'image', 'parts', 'mac', 'ranking', 'part_head'}
    assert steps.stage_losses(groups, groups, ALL_WEIGHTS).keys() == expected
    without = common.get_config().loss.weights
    without.mac = without.ranking = 0.0
    assert steps.stage_losses(set(row.train), row.train, without).keys() == {
        'image',
        'parts',
        'scale_mining',
        'oriented_pooling',
    }
    # Parts without scale mining: the losses that need it are out.
    groups = ('backbone', 'proposals', 'part_classifier', 'oriented_pooling')
    expected = {'parts', 'mac', 'ranking', 'oriented_pooling'}
    assert steps.stage_losses(groups, groups, ALL_WEIGHTS).keys() == expected

    # The loss of the sum of all heads is off by default, and replaces the losses of single heads where it is on.
    summed = common.get_config().loss.weights
    summed.update(dict.fromkeys(summed, 0.0), fusion=1.0)
    for groups in (('image_classifier',), ('backbone', 'scale_mining'), ('part_head',)):
        assert steps.stage_losses(groups, groups, summed) == {'fusion': 1.0}
    assert not steps.stage_losses(set(row.train), ('proposals', 'part_classifier'), summed)


B, K, M, C, N = 4, 2, 3, 6, 5


def random_outputs():
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)
    return Outputs(
        image_logits=draw(B, N),
        scores=draw(B, M),
        boxes=draw(B, M, 4),
        part_features=draw(B, M, C),
        part_logits=draw(B, M, N),
        aligned_boxes=draw(B, K, 4),
        scale_logits=draw(B, N),
        oriented_logits=draw(B, N),
        head_logits=draw(B, N),
    ), np.array([0, 3, 1, 3])


def ranking_by_loops(scores, costs):
    total = 0.0
    for b, i, j in np.ndindex(B, M, M):
        if costs[b, j] > costs[b, i]:
            total += max(0.0, 1 - scores[b, i] + scores[b, j])
    return total / B


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_each_loss_by_hand(smoothing):
    outputs, labels = random_outputs()
    loss = common.get_config().loss
    loss.label_smoothing, loss.mac_temperature = smoothing, 0.5
    values = steps.compute_losses(outputs, labels, steps.LOSSES, loss)
    assert values.keys() == steps.LOSSES.keys()
    repeated = np.repeat(labels[:, None], M, 1)
    expected = {
        'image': cross_entropy(outputs.image_logits, labels, smoothing).mean(),
        'parts': cross_entropy(outputs.part_logits, repeated, smoothing).sum(1).mean(),
        'mac': losses.mac_loss(
            outputs.part_features[:, :K], 0.5
        ),  # the parts that classify, not those that are only ranked
        'ranking': ranking_by_loops(outputs.scores, cross_entropy(outputs.part_logits, repeated)),
        'scale_mining': cross_entropy(outputs.scale_logits, labels, smoothing).mean(),
        'oriented_pooling': cross_entropy(outputs.oriented_logits, labels, smoothing).mean(),
        'part_head': cross_entropy(outputs.head_logits, labels, smoothing).mean(),
        'fusion': cross_entropy(
            outputs.scale_logits + outputs.oriented_logits + outputs.head_logits, labels, smoothing
        ).mean(),
    }
    assert expected.keys() == values.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-5, err_msg=name)


def test_only_the_losses_asked_for_are_computed():
    outputs, labels = random_outputs()
    bare = Outputs(outputs.image_logits)  # global pooling: nothing else is there
    assert steps.compute_losses(bare, labels, {'image': 1.0}, common.get_config().loss).keys() == {'image'}


@pytest.mark.parametrize(
    'field, value', [('mac_reduction', 'median'), ('mac_temperature', 0.0), ('label_smoothing', 1.0)]
)
def test_a_loss_section_that_cannot_be_used_is_refused(field, value):
    loss = common.get_config().loss
    steps.check_loss(loss)
    loss[field] = value
    with pytest.raises(UserError, match=f'config.loss.{field}={value}'):
        steps.check_loss(loss)
