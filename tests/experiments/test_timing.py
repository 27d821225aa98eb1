"""The order of calls and the medians, with a fake clock."""

import pytest

from ssanet_jax.experiments import timing


def test_median_of_second_calls(monkeypatch):
    now, order = [0.0], []
    # The warm-up and the first call of each round are not counted.
    took = {'quick': iter([90, 7, 1, 8, 2, 3, 9]), 'slow': iter([80, 8, 5, 4, 70, 9, 6])}

    def work(name):
        order.append(name)
        now[0] += next(took[name])

    monkeypatch.setattr(timing.time, 'perf_counter', lambda: now[0])
    found = timing.time_interleaved({name: lambda name=name: work(name) for name in took}, rounds=3)
    assert found == pytest.approx({'quick': 2, 'slow': 6})
    assert order == ['quick', 'slow'] + ['quick', 'quick', 'slow', 'slow'] * 3
