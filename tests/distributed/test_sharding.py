"""Several devices: the same step as on one, and what does not divide."""

import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from commands import ROOT

from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError


@pytest.mark.slow
@pytest.mark.parametrize(
    'case',
    ['steps', 'uneven', 'crops', 'skipped_update', 'shard_heads', 'memory', 'candidate_map', 'evaluation'],
)
def test_on_eight_devices(case):
    """Eight devices compute the same as one: see eight_devices.py, which needs its own process."""
    path = (ROOT, ROOT / 'tests', os.environ.get('PYTHONPATH', ''))
    environment = os.environ | {
        'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
        'JAX_PLATFORMS': 'cpu',
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # the programs compile for a minute and compute for a second
        'PYTHONPATH': os.pathsep.join(map(str, path)),
    }
    command = [sys.executable, str(ROOT / 'tests' / 'distributed' / 'eight_devices.py'), case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f'{case} agrees'


@pytest.mark.parametrize(
    ('shape', 'images', 'expected'),
    [('auto', None, (8, 1)), ('auto', 32, (8, 1)), ('auto', 6, (4, 2)), ('auto', 1, (1, 8)), ('2x4', 32, (2, 4))],
)
def test_the_shape_of_the_mesh(shape, images, expected):
    """The data axis gets as many devices as there are images; the others share the candidates of each image."""
    devices = [types.SimpleNamespace(process_index=0) for _ in range(8)]
    assert sharding._mesh_shape(devices, shape, images) == expected


@pytest.mark.parametrize(('images', 'expected'), [(None, (8, 1)), (3, (2, 4)), (1, (2, 4))])
def test_candidates_stay_within_a_process(images, expected):
    devices = [types.SimpleNamespace(process_index=index // 4) for index in range(8)]
    assert sharding._mesh_shape(devices, 'auto', images) == expected
    with pytest.raises(UserError, match='2 processes cannot share the candidates of an image'):
        sharding._mesh_shape(devices, '1x8', images)


def test_a_row_of_the_mesh_is_of_one_process(monkeypatch):
    """Though the devices come in the order of a slice of 4 x 4 chips, whose hosts hold 2 x 2 each."""
    devices = [types.SimpleNamespace(process_index=index // 8 * 2 + index % 4 // 2) for index in range(16)]
    monkeypatch.setattr(sharding, 'Mesh', lambda array, *_, **__: array)
    rows = sharding.make_mesh(devices, '4x4')
    assert [{device.process_index for device in row} for row in rows] == [{0}, {1}, {2}, {3}]


@pytest.mark.parametrize('shape', ['', '8', '0x8', '2x', 'x', '-1x8', '2x2x2', 'all'])
def test_no_shape(shape):
    with pytest.raises(UserError, match=f'config.mesh.shape={shape}: give auto'):
        sharding.make_mesh(shape=shape)


def test_too_few_devices():
    with pytest.raises(UserError, match=r'config.mesh.shape=64x2 is 128 devices, and there are \d+'):
        sharding.make_mesh(shape='64x2')


def test_a_batch_of_nothing_is_refused():
    mesh = sharding.make_mesh(jax.devices()[:1])
    sharding.check_batch(1, mesh, 'config.data.batch_size')
    for size in (0, -4):
        with pytest.raises(UserError, match=f'config.data.batch_size = {size}: a batch needs at least one image'):
            sharding.check_batch(size, mesh, 'config.data.batch_size')


def test_a_replica_is_a_copy():
    """The step donates its state: what it was made from must live on (on four devices: see above)."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    original = jax.numpy.arange(4.0)
    replica = sharding.replicate({'x': original}, mesh)
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(replica)
    np.testing.assert_array_equal(original, np.arange(4.0))
