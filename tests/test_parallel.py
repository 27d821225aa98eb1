"""Several devices: the same step as on one, and what does not divide."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from commands import ROOT

from ssanet_jax import parallel
from ssanet_jax.errors import UserError

STEP = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import chex, jax, numpy as np
import tiny_config
from ssanet_jax import parallel
from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.training import experiment, stages, step as steps

assert len(jax.devices()) == 4
config = tiny_config.get_config()
model = experiment.build_model(config, 16)
_, params, stats = split_model(model)
optimizer, train_step = steps.make_train_step(model, config.stages[0], stages.active_groups(config.stages, 0), config, 8)
random = np.random.default_rng(0)
batch = dict(image=random.integers(0, 256, (8, 64, 64, 3), np.uint8), label=random.integers(0, 16, 8).astype(np.int32))
found = []
for devices in (jax.devices(), jax.devices()[:1]):
    mesh = parallel.make_mesh(devices)
    state = steps.TrainState(*parallel.replicate((params, stats, optimizer.init(params), np.int32(0)), mesh))
    images = parallel.shard_batch(batch, mesh)
    assert len(images['image'].sharding.device_set) == len(devices)
    assert {{shard.data.shape[0] for shard in images['image'].addressable_shards}} == {{8 // len(devices)}}
    state, metrics = train_step(state, images)
    found.append(jax.device_get((metrics, state.params, state.stats)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, stats)))  # only the copy was donated
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
(many, *many_model), (one, *one_model) = found
np.testing.assert_allclose(many['loss/total'], one['loss/total'], atol=1e-5, rtol=1e-5)
chex.assert_trees_all_close(many, one, atol=1e-5, rtol=1e-4)
chex.assert_trees_all_close(many_model, one_model, atol=1e-5, rtol=1e-5)
for name in ('batch_size', 'eval_batch_size'):
    parallel.check_batch(8, parallel.make_mesh(), name)
    try:
        parallel.check_batch(6, parallel.make_mesh(), name)
    except UserError as error:
        assert str(error) == f'{{name}} = 6 does not divide over 4 devices: make it a multiple of 4', error
    else:
        raise AssertionError('6 divides over 4')
print('equal')
"""


@pytest.mark.slow
def test_a_step_on_four_devices_equals_a_step_on_one():
    """BatchNorm, the loss over all pairs of images, and the gradients see the whole batch."""
    environment = os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=4', 'JAX_PLATFORMS': 'cpu'}
    script = STEP.format(tests=str(ROOT / 'tests'), root=str(ROOT))
    done = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'equal'


def test_a_batch_of_nothing_is_refused():
    mesh = parallel.make_mesh(jax.devices()[:1])
    parallel.check_batch(1, mesh, 'config.data.batch_size')
    for size in (0, -4):
        with pytest.raises(UserError, match=f'config.data.batch_size = {size}: a batch needs at least one image'):
            parallel.check_batch(size, mesh, 'config.data.batch_size')


def test_a_replica_is_a_copy():
    """The step donates its state: what it was made from must live on (on four devices: see above)."""
    mesh = parallel.make_mesh(jax.devices()[:1])
    original = jax.numpy.arange(4.0)
    replica = parallel.replicate({'x': original}, mesh)
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(replica)
    np.testing.assert_array_equal(original, np.arange(4.0))
