"""Starts of real processes, timed up to their first predictions."""

import time

import pytest

from benchmarks import startup
from benchmarks.startup import Settings, seconds_to_first_batch, write_run
from ssanet_jax.errors import UserError

pytestmark = pytest.mark.slow
TINY = Settings(backbone='resnet_tiny', size=64, batch=4, rounds=1)


def test_a_start_is_timed_and_fills_the_cache(tmp_path):
    config, cache = write_run(TINY, tmp_path / 'run'), tmp_path / 'cache'
    start = time.monotonic()
    seconds = seconds_to_first_batch(config, tmp_path / 'run', cache)
    assert 0 < seconds < time.monotonic() - start
    assert any((cache / 'ssanet_jax/compiled').iterdir()), 'later starts find compiled programs'
    for name in ('config.json', 'config_backup.json'):
        (tmp_path / 'run' / name).unlink()
    with pytest.raises(UserError, match='did not start: .*holds no run'):
        seconds_to_first_batch(config, tmp_path / 'run', cache)


def test_first_and_later_starts_are_compared(monkeypatch):
    answers = iter([9.0, 3.0, 5.0, 4.0])
    monkeypatch.setattr(startup, 'write_run', lambda *_: None)
    monkeypatch.setattr(startup, 'seconds_to_first_batch', lambda *_: next(answers))
    (row,) = startup.measure(TINY.__class__(rounds=3)).comparisons
    assert row.seconds == (9, 4) and row.command == 'python -m benchmarks.startup'
