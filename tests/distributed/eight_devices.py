"""Run by test_sharding.py on eight virtual devices: each case must agree with one device, or with `jax.pmap`."""

import contextlib
import sys
import tempfile
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny_config
from flax import nnx
from rich.console import Console

from configs import common
from ssanet_jax.distributed import sharding
from ssanet_jax.distributed.candidate_map import candidate_map as mapped_over_candidates
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.models.backbones.resnet import TinyResNet
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.run import build_model
from ssanet_jax.training import loop
from ssanet_jax.training.nonfinite import nonfinite_metric
from ssanet_jax.training.step import TrainState, make_train_step
from ssanet_jax.training.train import train

SHAPES = ('8x1', '4x2', '2x4', '1x8')


def meshes(shapes=SHAPES):
    yield sharding.make_mesh(jax.devices()[:1])
    for shape in shapes:
        yield sharding.make_mesh(shape=shape)


def batch_of(size):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (size, 64, 64, 3), np.uint8)
    return {'image': images, 'label': random.integers(0, 16, size).astype(np.int32)}


def check_steps(config, size=8, shapes=SHAPES, stages=(0, 1, 2)):
    """One step of each stage: loss, metrics, parameters, BatchNorm statistics and momentum."""
    model = build_model(config, 16)
    _, params, stats = split_model(model)
    for index in stages:
        active = active_groups(config.stages, index)
        expected = None
        for mesh in meshes(shapes):
            optimizer, train_step = make_train_step(model, config.stages[index], active, config, 8, mesh)
            state = TrainState(params, stats, optimizer.init(params), np.int32(0))
            state = TrainState(*sharding.shard_state(state, mesh, config.mesh.shard_heads))
            places = jax.tree.map(lambda x: x.sharding, state)
            state, metrics = train_step(state, sharding.shard_batch(batch_of(size), mesh))
            for leaf, place in zip(jax.tree.leaves(state), jax.tree.leaves(places), strict=True):
                assert leaf.sharding.is_equivalent_to(place, leaf.ndim)  # or the next step would compile again
            found = jax.device_get((metrics, state))
            if expected is None:
                expected = found
            chex.assert_trees_all_close(found[0], expected[0], atol=1e-5, rtol=1e-4)
            chex.assert_trees_all_close(found[1], expected[1], atol=1e-5, rtol=1e-5)
            assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, stats)))  # only the copy was donated


def steps():
    check_steps(tiny_config.get_config(), stages=(0,))
    check_steps(tiny_config.get_config(), shapes=('4x2',), stages=(1, 2))


def uneven():
    """6 images on 8, 4 and 2 devices; 2 parts x 3 scales and one more proposal on 2, 4 and 8."""
    check_steps(tiny_config.get_config(), size=6, stages=(0,))
    check_steps(tiny_config.get_config(), size=6, shapes=('4x2',), stages=(1,))  # the third trains what the first does


def crops():
    """Every region through the backbone, whose BatchNorm sees those of all devices, and no padding."""
    config = tiny_config.get_config()
    config.model.update(sharing='none', crop_size=56)
    check_steps(config, size=4, shapes=('4x2', '1x8', '8x1'), stages=(0,))


def skipped_update():
    """A NaN in one image, which one device reads, changes no weight on any of them; the next step is as on one device.

    Only the count of the learning rate's schedule follows the steps.
    """
    config = tiny_config.get_config()
    config.on_nonfinite = 'skip'
    config.stages = common.global_pooling(epochs=1, learning_rate=0.01)
    stage, active = config.stages[0], active_groups(config.stages, 0)
    model = build_model(config, 16)
    _, params, stats = split_model(model)
    good = batch_of(8)
    good['image'] = good['image'].astype(np.float32)
    bad = good | {'image': good['image'].copy()}
    bad['image'][5, 20, 20] = np.nan
    expected = None
    is_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)
    for mesh in meshes(('4x2',)):
        optimizer, train_step = make_train_step(model, stage, active, config, 8, mesh)
        state = TrainState(params, stats, optimizer.init(params), np.int32(0))
        count = lambda node: optax.ScaleByScheduleState(np.int32(1)) if is_schedule(node) else node
        before = jax.device_get(state._replace(opt=jax.tree.map(count, state.opt, is_leaf=is_schedule)))
        state = TrainState(*sharding.shard_state(state, mesh, False))
        state, metrics = train_step(state, sharding.shard_batch(bad, mesh))
        assert nonfinite_metric(jax.device_get(metrics))
        for leaf, old in zip(jax.tree.leaves(state._replace(step=0)), jax.tree.leaves(before), strict=True):
            for shard in leaf.addressable_shards if hasattr(leaf, 'addressable_shards') else ():
                np.testing.assert_array_equal(shard.data, np.asarray(old)[shard.index])
        state, metrics = train_step(state, sharding.shard_batch(good, mesh))
        found = jax.device_get(metrics)
        assert not nonfinite_metric(found) and int(state.step) == 2
        if expected is None:
            expected = found
        chex.assert_trees_all_close(found, expected, atol=1e-5, rtol=1e-4)


def shard_heads():
    config = tiny_config.get_config()
    config.mesh.shard_heads = True
    check_steps(config, shapes=('8x1', '4x2'), stages=(0, 1))
    mesh = sharding.make_mesh(shape='8x1')
    _, params, _ = split_model(build_model(config, 16))
    sharded = sharding.shard_state(params, mesh, True)
    for group, tree in sharded.items():
        whole = group not in ('scale_mining', 'oriented_pooling')
        assert all(leaf.sharding.is_fully_replicated == whole for leaf in jax.tree.leaves(tree)), group
        if not whole:  # an eighth of each on each device
            for leaf in jax.tree.leaves(tree):
                assert {shard.data.size for shard in leaf.addressable_shards} == {leaf.size // 8}


def candidate_map():
    """Against `jax.pmap`, which the paper's "in parallel" is in JAX: values, gradients, BatchNorm statistics."""
    jax.config.update('jax_enable_x64', True)  # no rectifier may fall on the other side of zero by rounding
    backbone = TinyResNet(nnx.Rngs(0), jnp.float64)
    graph, weights = nnx.split(backbone)
    weights = jax.tree.map(lambda x: x.astype(jnp.float64), weights)
    random = np.random.default_rng(0)
    images, gains = random.normal(size=(4, 16, 16, 3)), random.normal(size=(4, 8))

    def function(gains, images, weights, training=False):
        network = nnx.merge(graph, weights, copy=True)
        network.train() if training else network.eval()
        maps = network((gains[:, :, None, None, None] * images[:, None]).reshape(-1, *images.shape[1:]))
        return maps.reshape(*gains.shape, *maps.shape[1:]), nnx.state(network, nnx.BatchStat)

    def everything(mapped):
        def total(weights, gains):
            maps, statistics = mapped(gains, images, weights)
            return jnp.sin(maps).sum(), (maps, statistics)

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(weights, gains)

    # One candidate of every image on each device; pmap cannot hand on the gradient of a jit, so it sums its own.
    def one(gains, weights):
        total = lambda weights, gains: jnp.sin(function(gains[:, None], images, weights)[0]).sum()
        slopes = jax.grad(total, argnums=(0, 1))(weights, gains)
        return function(gains[:, None], images, weights)[0][:, 0], (jax.lax.psum(slopes[0], 'devices'), slopes[1])

    maps, (by_weights, by_gains) = jax.pmap(one, 'devices', in_axes=(1, None), out_axes=(1, (None, 1)))(gains, weights)
    for mesh in meshes():
        (_, (found, _)), slopes = everything(mapped_over_candidates(function, mesh))
        chex.assert_trees_all_close((found, slopes), (maps, (by_weights, by_gains)), rtol=1e-9, atol=1e-9)

    # With BatchNorm learning, and 5 candidates of 3 images, which divide over nothing.
    gains, images = gains[:3, :5], images[:3]
    training = lambda gains, images, weights: function(gains, images, weights, training=True)
    expected = everything(training)
    for mesh in meshes():
        # BatchNorm computes in float32 at least; what agrees is limited by that.
        chex.assert_trees_all_close(everything(mapped_over_candidates(training, mesh)), expected, rtol=1e-3, atol=1e-3)


def evaluation():
    """One image on all eight devices."""
    config = tiny_config.get_config()
    model = build_model(config, 16)
    _, params, stats = split_model(model)
    images = batch_of(3)['image']
    for count in (1, 3):
        found = []
        for mesh in (sharding.make_mesh(jax.devices()[:1]), sharding.make_mesh(images=count)):
            predict = make_predict(model, active_groups(config.stages, 2), mesh)
            found.append(predict(*sharding.replicate((params, stats), mesh), images[:count]))
        chex.assert_trees_all_close(jax.device_get(found[0]), jax.device_get(found[1]), rtol=1e-5, atol=1e-5)
    assert dict(sharding.make_mesh(images=1).shape) == {'data': 1, 'candidate': 8}


class Begun(Exception):
    """A stage is about to take its first step."""


def memory():
    """When training begins, every device holds its share of the state, and the first one no more than that."""
    config = tiny_config.get_config()
    config.mesh.shard_heads = True
    held = dict.fromkeys(jax.devices(), 0)

    def begun(*_, **__):
        for array in jax.live_arrays():
            for shard in array.addressable_shards:
                held[shard.device] += shard.data.nbytes
        raise Begun

    loop.train_batches = begun
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Begun):
        train(config, Path(folder), Console(quiet=True))
    least, *_, most = sorted(held.values())
    assert 0 < most <= 1.01 * least, held


if __name__ == '__main__':
    assert len(jax.devices()) == 8
    case = sys.argv[1]
    cases = (steps, uneven, crops, skipped_update, shard_heads, memory, candidate_map, evaluation)
    {check.__name__: check for check in cases}[case]()
    print(case, 'agrees')
