"""A run whose loss is no longer finite stops with one line, and keeps its last good checkpoint."""

import jax
import numpy as np
import pytest
from rich.console import Console

from configs import common
from ssanet_jax.errors import UserError
from ssanet_jax.runs.checkpoints import Checkpoints
from ssanet_jax.training import loop


def test_a_hugely_too_large_rate_stops_the_run(tiny_config, tmp_path):
    # The first step of the warm-up has rate zero: its checkpoint is good. The next ones are not.
    tiny_config.stages = common.global_pooling(epochs=1, learning_rate=1e30, warmup_epochs=1)
    tiny_config.checkpoint_steps = 1
    with pytest.raises(
        UserError, match=r'(loss|norm)/\w+ became (nan|inf) at step \d of stage global_pooling'
    ) as error:
        loop.train(tiny_config, tmp_path / 'run', Console(stderr=True))
    assert 'lower the learning_rate' in str(error.value) and '\n' not in str(error.value)

    checkpoints = Checkpoints(tmp_path / 'run' / 'global_pooling' / 'checkpoints')
    step, items = checkpoints.restore({'params': None, 'stats': None, 'opt': None})
    checkpoints.close()
    assert f'checkpoint {step} is kept' in str(error.value)
    leaves = jax.tree.leaves(items)
    assert len(leaves) > 50 and all(np.isfinite(leaf).all() for leaf in leaves)
    assert not (tmp_path / 'run' / 'results.json').exists()
    assert not (tmp_path / 'run' / 'global_pooling' / 'evaluation.json').exists()


def test_the_message_names_the_loss_first():
    metrics = {
        'accuracy': np.float32(0),
        'gradient_norm/backbone': np.float32('nan'),
        'loss/mac': np.float32('nan'),
        'loss/image': np.float32(2),
    }
    with pytest.raises(
        UserError, match=r'^loss/mac became nan at step 7 of stage joint \(no checkpoint had been written\)'
    ):
        loop.check_finite(7, metrics, 'joint', [])
    metrics = {name: np.float32(1) for name in metrics}
    loop.check_finite(7, metrics, 'joint', [])
