"""Text on the terminal: names of files, classes and data sets appear as they are, whatever characters they have."""

import contextlib
from collections.abc import Iterable, Sized
from typing import Any, TypeVar

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ssanet_jax.activity import every
from ssanet_jax.printable import printable

_Item = TypeVar('_Item')

_NARROW = 72  # characters; tables that need more appear as lists on narrower terminals
_NARROWEST = 20  # rich prints nothing on terminals that claim to have none


class PlainConsole(Console):
    """A console that prints strings as they are: brackets are no markup, ':bird:' is no emoji, nothing is highlighted.

    Args:
      options: as for rich's `Console`.
    """

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        if self.width < _NARROWEST:
            self.width = _NARROWEST

    def render_str(self, text: str, **options: Any) -> Text:
        """Converts every string that is printed, in tables too."""
        options.update(markup=False, emoji=False)
        return super().render_str(printable(text, keep='\n\t'), **options)


def print_table(table: Table | Group, console: Console) -> None:
    """Prints a table; a list with a line per cell where the terminal is so narrow that cells would be cut or broken.

    Args:
      table: a table or several, whose cells are strings or `Text`.
      console: where to.
    """
    if isinstance(table, Group):
        for part in table.renderables:
            assert isinstance(part, Table)
            print_table(part, console)
        return
    unlimited = console.options.update(width=1000)
    if console.width >= min(_NARROW, table.__rich_measure__(console, unlimited).maximum):
        console.print(table)
        return
    lines = [str(table.title or '')]
    names = [' '.join(str(column.header).split()) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns)):
        first, *others = (str(cell) for cell in cells)
        lines.append(first)
        for name, text in zip(names[1:], others):
            if text.strip():
                separator = '\n    ' if '\n' in text else ' '
                lines.append(f'  {name}:{separator}' + text.strip().replace('\n', '\n    '))
    lines.append(str(table.caption or ''))
    console.print('\n'.join(filter(None, lines)), soft_wrap=True)


def text_column(template: str, style: str = 'none') -> TextColumn:
    """A column of a progress bar, such as '{task.description}', without markup."""
    return TextColumn(template, style, markup=False)


def track(
    sequence: Iterable[_Item],
    description: str,
    *,
    total: float | None = None,
    console: Console | None = None,
    transient: bool = False,
    disable: bool = False,
) -> Iterable[_Item]:
    """Shows a progress bar while a sequence is iterated, as `rich.progress.track`, but with a plain description.

    A log has a line every ten seconds instead.

    Args:
      sequence: any iterable.
      description: what is done.
      total: number of items; by default, the length of the sequence.
      console: where to; by default, stderr.
      transient: remove the bar at the end.
      disable: show no bar.
    """
    columns = (
        text_column('{task.description}', 'progress.description'),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    console = PlainConsole(stderr=True) if console is None else console
    if total is None and isinstance(sequence, Sized):
        total = len(sequence)
    done = 0
    of = '' if total is None else f' of {total:.0f}'
    log = contextlib.nullcontext()
    if not console.is_terminal and not disable:
        log = every(lambda seconds: console.print(f'{description}: {done}{of}', markup=False, soft_wrap=True))
    no_bar = disable or (transient and not console.is_terminal)  # else the log would have an empty line at the end
    with Progress(*columns, console=console, transient=transient, disable=no_bar) as progress, log:
        for item in progress.track(sequence, total=total, description=printable(description)):
            yield item
            done += 1
