"""Turns and medians, by a clock that is wound by hand."""

import pytest

from ssanet_jax.experiments import timing


def test_the_median_of_turns_without_the_first_two_calls(monkeypatch):
    now, order = [0.0], []
    took = {'quick': iter([90, 7, 1, 2, 9]), 'slow': iter([80, 8, 5, 70, 6])}  # the first two are not counted

    def work(name):
        order.append(name)
        now[0] += next(took[name])

    monkeypatch.setattr(timing.time, 'perf_counter', lambda: now[0])
    found = timing.take_turns({name: lambda name=name: work(name) for name in took}, rounds=3)
    assert found == pytest.approx({'quick': 2, 'slow': 6})
    assert order == ['quick'] * 2 + ['slow'] * 2 + ['quick', 'slow'] * 3
