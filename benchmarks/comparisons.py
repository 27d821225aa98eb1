"""The results of a benchmark: pairs of times, targets for their ratios, and the table of both."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple

import jax
from rich.markup import escape
from rich.table import Table

from ssanet_jax.distributed.sharding import device_kind


class Target(NamedTuple):
    """A bound for a ratio."""

    sign: Literal['<=', '>=']
    bound: float

    def met(self, ratio: float) -> bool:
        """Whether the unrounded ratio is within the bound."""
        return ratio <= self.bound if self.sign == '<=' else ratio >= self.bound

    def __str__(self) -> str:
        return f'{self.sign} {self.bound:g}'


def at_most(bound: float) -> Target:
    """The target `first / second <= bound`."""
    return Target('<=', bound)


def at_least(bound: float) -> Target:
    """The target `first / second >= bound`."""
    return Target('>=', bound)


class Comparison(NamedTuple):
    """The times of two workloads, or the reason why they were not measured; the ratio is first / second."""

    first: str
    second: str  # '' if only the reason is known
    where: str  # the conditions of both: backbone, sizes, batch
    command: str  # the command that repeats this comparison
    seconds: tuple[float, float] | None = None  # medians; None if not measured
    target: Target | None = None  # the project's target at these sizes
    remark: str = ''  # the reason, or a comment
    details: Mapping[str, float] = {}  # more figures for the JSON file
    images: int = 0  # images in the time of either workload; 0 if the times are not those of images
    dtype: str = 'float32'  # type of the computation

    @property
    def name(self) -> str:
        """The title in the table."""
        return f'{self.first} / {self.second}' if self.second else self.first

    @property
    def ratio(self) -> float | None:
        """First / second; None if not measured."""
        return self.seconds[0] / self.seconds[1] if self.seconds else None

    @property
    def images_per_second(self) -> tuple[float, float] | None:
        """The rates of both workloads; None if not measured, or if the times are not those of images."""
        return (self.images / self.seconds[0], self.images / self.seconds[1]) if self.seconds and self.images else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a ratio."""
        return None if self.target is None or self.ratio is None else self.target.met(self.ratio)

    def to_json(self) -> dict[str, Any]:
        """The entry in the JSON file."""
        fields = self._asdict() | {'details': dict(self.details), 'ratio': self.ratio, 'met': self.met}
        fields |= {'images_per_second': self.images_per_second}
        return fields | {'target': str(self.target) if self.target else None}


class Findings(NamedTuple):
    """The results of a benchmark."""

    comparisons: Sequence[Comparison] = ()
    table: Table | None = None  # a table of its own, for results other than ratios
    figures: Sequence[Mapping[str, Any]] = ()  # the content of that table, for the JSON file


def compare(
    times: Mapping[str, float],
    pairs: Iterable[tuple[str, str, Target | None]],
    *,
    where: str,
    command: str,
    images: int = 0,
    dtype: str = 'float32',
) -> list[Comparison]:
    """Compares pairs of workloads.

    Args:
      times: seconds by name.
      pairs: (first, second, target); pairs that were not timed are skipped.
      where: the conditions of all pairs.
      command: the command that repeats the comparisons.
      images: images in the time of any workload; 0 if the times are not those of images.
      dtype: type of the computation.
    """
    return [
        Comparison(first, second, where, command, (times[first], times[second]), target, images=images, dtype=dtype)
        for first, second, target in pairs
        if first in times and second in times
    ]


def table_of_ratios(comparisons: Iterable[Comparison]) -> Table:
    """One row per comparison, with the command that repeats it."""
    table = Table('first / second', title='Ratios', caption=machine(), caption_justify='left')
    for heading in ('dtype', 'first', 'second', 'images/s', 'ratio', 'target', 'met'):
        table.add_column(heading, justify='right', no_wrap=True)
    for row in comparisons:
        lines = [', '.join(filter(None, (row.name, row.where))), f'[dim]{escape(row.command)}[/dim]']
        lines[0] = escape(lines[0])
        if row.remark:
            lines.append(f'[italic]{escape(row.remark)}[/italic]')
        first, second = row.seconds or (None, None)
        ratio = 'not measured' if row.ratio is None else f'{row.ratio:.3f}'
        met = {True: 'yes', False: '[bold]NO[/bold]', None: ''}[row.met]
        rates = ' / '.join(f'{rate:.3g}' if rate < 100 else f'{rate:,.0f}' for rate in row.images_per_second or ())
        times = row.dtype, milliseconds(first), milliseconds(second), rates
        table.add_row('\n'.join(lines), *times, ratio, str(row.target or ''), met)
    return table


def summary(comparisons: Sequence[Comparison]) -> str:
    """One line: the number of targets met, of rows, and of rows that were not measured."""
    wanted = [row for row in comparisons if row.target]
    met, missed = (sum(row.met is value for row in wanted) for value in (True, False))
    unmeasured = sum(row.seconds is None for row in comparisons)
    return f'{met} of {met + missed} targets met, {len(comparisons)} rows, {unmeasured} not measured'


def machine() -> str:
    """The device and the versions of the packages, in one line."""
    return ', '.join([device_kind(), *(f'{name} {number}' for name, number in versions().items())])


def versions() -> dict[str, str]:
    """Versions of the numerical packages that are installed."""
    found = {'jax': jax.__version__}
    for name in ('jaxlib', 'flax', 'numpy', 'torch', 'onnxruntime', 'openvino'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def milliseconds(seconds: float | None) -> str:
    """A time as a cell of a table; empty if not measured."""
    return '' if seconds is None else f'{1e3 * seconds:.{1 if seconds >= 1e-3 else 4}f} ms'
