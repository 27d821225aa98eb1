"""The benchmark of saving checkpoints."""

import jax
import numpy as np

from benchmarks import checkpointing
from benchmarks.checkpointing import RETURN, SYNCHRONOUS, WRITTEN, Settings, measure, state
from ssanet_jax.runs.checkpoints import Checkpoints

SETTINGS = Settings(backbone='resnet_tiny', size=64, num_classes=5, rounds=1)


def test_both_kinds_are_timed(monkeypatch):
    saves = []

    class Counted(Checkpoints):
        def save(self, step, items):
            super().save(step, items)
            saves.append((step, self._thread is not None, self.directory.name))

    monkeypatch.setattr(checkpointing, 'Checkpoints', Counted)
    rows = measure(SETTINGS).comparisons
    assert [(row.first, row.second) for row in rows] == [(RETURN, SYNCHRONOUS), (WRITTEN, SYNCHRONOUS)]
    returned, written = (row.seconds[0] for row in rows)
    assert 0 < returned <= written
    kinds = [(False, 'blocking'), (True, 'asynchronous')]
    assert saves == [(step, *kind) for step in (0, 1) for kind in kinds]


def test_the_whole_state_is_saved(tmp_path):
    """As much as training saves: for SGD with momentum, one array of momentum per parameter."""
    items = state(SETTINGS)
    checkpoints = Checkpoints(tmp_path, writes=True)
    checkpoints.save(1, items)
    _, restored = checkpoints.restore({'params': items['params'], 'stats': items['stats']})
    jax.tree.map(np.testing.assert_array_equal, restored['params'], items['params'])
    momentum = [leaf for leaf in jax.tree.leaves(items['opt']) if leaf.ndim]
    assert sum(leaf.size for leaf in momentum) > sum(leaf.size for leaf in jax.tree.leaves(items['params'])) / 2
