"""Progress without a terminal."""

import io
import itertools

from rich.console import Console

from ssanet_jax.prediction_files import progress as module
from ssanet_jax.prediction_files.progress import PredictionProgress


def test_plain_lines_with_the_time_left(monkeypatch):
    clock = itertools.count(0, 4)  # seconds between two calls
    monkeypatch.setattr(module.time, 'monotonic', lambda: next(clock))
    text = io.StringIO()
    with PredictionProgress(Console(file=text), 1000, done=100) as progress:
        for _ in range(6):
            progress.advance(8)
    assert text.getvalue().splitlines() == [
        'predicted 124 of 1000 images  2.0 images/s  0:07:18 left',
        'predicted 148 of 1000 images  2.0 images/s  0:07:06 left',
    ]
