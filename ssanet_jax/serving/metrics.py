"""Measurements of a server in Prometheus' text format, version 0.0.4."""

import bisect
from collections.abc import Callable, Iterator, Sequence

CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'


class Counter:
    """Counts events by the values of labels.

    Args:
      name: ends with '_total'.
      help: one line.
      labels: names of the labels.
    """

    kind = 'counter'

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()):
        self.name, self.help, self._labels = name, help, labels
        self._counts: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, *values: str, count: int = 1) -> None:
        """Adds events with these values of the labels."""
        self._counts[values] = self._counts.get(values, 0) + count

    def samples(self) -> Iterator[str]:
        """The lines of the values."""
        for values, count in sorted(self._counts.items()):
            yield f'{self.name}{_labels(zip(self._labels, values))} {count}'


class Gauge:
    """A value that goes up and down.

    Args:
      name: the name.
      help: one line.
      read: returns the value.
    """

    kind = 'gauge'

    def __init__(self, name: str, help: str, read: Callable[[], float]):
        self.name, self.help, self._read = name, help, read

    def samples(self) -> Iterator[str]:
        """The line of the value."""
        yield f'{self.name} {self._read():g}'


class Histogram:
    """Counts values by their size.

    Args:
      name: the name.
      help: one line.
      bounds: the upper bounds of the buckets, ascending.
    """

    kind = 'histogram'

    def __init__(self, name: str, help: str, bounds: Sequence[float]):
        self.name, self.help, self._bounds = name, help, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Adds a value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self) -> Iterator[str]:
        """The lines of the buckets, which count all values up to their bound, of the sum and of the number."""
        total = 0
        for bound, count in zip((*(f'{bound:g}' for bound in self._bounds), '+Inf'), self._counts):
            total += count
            yield f'{self.name}_bucket{_labels([("le", bound)])} {total}'
        yield f'{self.name}_sum {self._sum!r}'
        yield f'{self.name}_count {total}'


def render(metrics: Sequence[Counter | Gauge | Histogram]) -> str:
    """The page that Prometheus reads."""
    lines = []
    for metric in metrics:
        lines += [f'# HELP {metric.name} {metric.help}', f'# TYPE {metric.name} {metric.kind}', *metric.samples()]
    return '\n'.join(lines) + '\n'


def _labels(pairs) -> str:
    """Labels in braces. The values are ours, and need no escapes."""
    listed = ','.join(f'{name}="{value}"' for name, value in pairs)
    return f'{{{listed}}}' if listed else ''
