"""What a benchmark finds: two things and their times, what the project wants of their ratio, and the table of it."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple

import jax
from rich.markup import escape
from rich.table import Table

from ssanet_jax.distributed.sharding import device_kind


class Target(NamedTuple):
    """What a ratio is to be."""

    sign: Literal['<=', '>=']
    bound: float

    def met(self, ratio: float) -> bool:
        """Whether a ratio, unrounded, is on the right side."""
        return ratio <= self.bound if self.sign == '<=' else ratio >= self.bound

    def __str__(self) -> str:
        return f'{self.sign} {self.bound:g}'


def at_most(bound: float) -> Target:
    """For `first / second <= bound`: the first costs little more, or much less."""
    return Target('<=', bound)


def at_least(bound: float) -> Target:
    """For `first / second >= bound`: the second is so many times as fast."""
    return Target('>=', bound)


class Comparison(NamedTuple):
    """Two things that took turns, or the reason why they did not; the ratio is first / second."""

    first: str
    second: str  # '' where only the reason is known
    where: str  # what both were given: backbone, sizes, batch
    command: str  # that repeats it alone
    seconds: tuple[float, float] | None = None  # medians; None if it could not be measured
    target: Target | None = None  # of the project, at these sizes
    remark: str = ''  # the reason, or what else there is to say
    details: Mapping[str, float] = {}  # more figures, for the JSON file

    @property
    def name(self) -> str:
        """As it stands in the table."""
        return f'{self.first} / {self.second}' if self.second else self.first

    @property
    def ratio(self) -> float | None:
        """First / second; None if it was not measured."""
        return self.seconds[0] / self.seconds[1] if self.seconds else None

    @property
    def met(self) -> bool | None:
        """Whether the target is; None without one, or without a ratio."""
        return self.target.met(self.ratio) if self.target and self.seconds else None

    def record(self) -> dict[str, Any]:
        """All of it for the JSON file."""
        fields = self._asdict() | {'details': dict(self.details), 'ratio': self.ratio, 'met': self.met}
        return fields | {'target': str(self.target) if self.target else None}


class Findings(NamedTuple):
    """What a benchmark returns."""

    comparisons: Sequence[Comparison] = ()
    table: Table | None = None  # one of its own, for what is no ratio
    figures: Sequence[Mapping[str, Any]] = ()  # what that table shows, for the JSON file


def compare(
    times: Mapping[str, float],
    pairs: Iterable[tuple[str, str, Target | None]],
    *,
    where: str,
    command: str,
) -> list[Comparison]:
    """A comparison of each pair, by names of `times` (seconds); a pair of which one was not timed is left out."""
    return [
        Comparison(first, second, where, command, (times[first], times[second]), target)
        for first, second, target in pairs
        if first in times and second in times
    ]


def table_of_ratios(comparisons: Iterable[Comparison]) -> Table:
    """One table of all: a row a comparison, under its names the command that repeats it."""
    table = Table('first / second', title='Ratios', caption=machine(), caption_justify='left')
    for heading in ('first', 'second', 'ratio', 'target', 'met'):
        table.add_column(heading, justify='right', no_wrap=True)
    for row in comparisons:
        lines = [', '.join(filter(None, (row.name, row.where))), f'[dim]{escape(row.command)}[/dim]']
        lines[0] = escape(lines[0])
        if row.remark:
            lines.append(f'[italic]{escape(row.remark)}[/italic]')
        first, second = row.seconds or (None, None)
        ratio = 'not measured' if row.ratio is None else f'{row.ratio:.3f}'
        met = {True: 'yes', False: '[bold]NO[/bold]', None: ''}[row.met]
        table.add_row('\n'.join(lines), milliseconds(first), milliseconds(second), ratio, str(row.target or ''), met)
    return table


def summary(comparisons: Sequence[Comparison]) -> str:
    """One line: how many targets are met, missed and not measured."""
    wanted = [row for row in comparisons if row.target]
    met, missed = (sum(row.met is value for row in wanted) for value in (True, False))
    unmeasured = sum(row.seconds is None for row in comparisons)
    return f'{met} of {met + missed} targets met, {len(comparisons)} rows, {unmeasured} not measured'


def machine() -> str:
    """The device and the versions of what ran on it."""
    return ', '.join([device_kind(), *(f'{name} {number}' for name, number in versions().items())])


def versions() -> dict[str, str]:
    """Of the packages that compute; without PyTorch where it is not installed."""
    found = {'jax': jax.__version__}
    for name in ('jaxlib', 'flax', 'numpy', 'torch'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def milliseconds(seconds: float | None) -> str:
    """A cell of a table; empty for what was not measured."""
    return '' if seconds is None else f'{1e3 * seconds:.{1 if seconds >= 1e-3 else 4}f} ms'
