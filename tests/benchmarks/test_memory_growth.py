"""Training and prediction keep no arrays and no objects."""

import pytest

from benchmarks.memory_growth import Sample, Settings, run, slope


def test_the_slope_of_known_samples():
    samples = [Sample(done, 2**20 * max(0, done - 500) // 100, 0, 0, 0) for done in range(0, 1001, 100)]
    assert slope(samples) == pytest.approx(10)


@pytest.mark.slow
def test_nothing_is_kept(tmp_path):
    samples = run(Settings(steps=240, predictions=480), tmp_path)
    for found in samples.values():
        middle, last = found[len(found) // 2], found[-1]
        assert last.done > 200
        assert last.arrays <= middle.arrays + 5 and last.array_bytes <= middle.array_bytes * 1.05
        assert last.objects <= middle.objects + 500, 'Python objects'
