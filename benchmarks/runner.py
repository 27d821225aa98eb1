"""Runs a benchmark as a command: its settings become flags, its findings are printed and written.

The settings of a benchmark are a dataclass rather than flags, so that `python -m benchmarks` can run several benchmarks
in one process without clashes of flag names.
"""

import contextlib
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.console import Console

from benchmarks.comparisons import Comparison, Findings, summary, table_of_ratios, versions
from ssanet_jax import cli
from ssanet_jax.cli import check_out, write_out
from ssanet_jax.distributed.sharding import device_kind
from ssanet_jax.experiments.timing import Log
from ssanet_jax.path_flags import define_path

flags.disclaim_key_flags()  # the flags defined below belong to the calling command

_WIDTH = 140  # characters of a table's width


def setting(default: Any, text: str, *, minimum: int = 1, choices: Sequence[str] = (), alias: str = '') -> Any:
    """A field of a benchmark's settings, from which a flag is defined.

    Args:
      default: an integer, a string, a boolean, or a tuple of integers or strings; the flag of a tuple may be repeated.
      text: the help text of the flag.
      minimum: lower bound of integers.
      choices: the allowed strings; required for a tuple of strings.
      alias: another name of the flag.
    """
    metadata = {'help': text, 'minimum': minimum, 'choices': choices, 'alias': alias}
    return dataclasses.field(default=default, metadata=metadata)


def run(name: str, settings: type, measure: Callable[[Any, Log], Findings]) -> None:
    """Runs one benchmark as the command `python -m benchmarks.NAME`, and exits.

    Args:
      name: the name of its module.
      settings: the dataclass of its settings, with `setting` fields.
      measure: the benchmark.
    """
    for field in dataclasses.fields(settings):
        define_flag(field)
    define_path('out', None, 'JSON file for the figures.')
    cli.run(partial(_main, name, settings, measure))


def _main(name: str, settings: type, measure: Callable[[Any, Log], Findings]) -> None:
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(settings)}
    selected = settings(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    out = flags.FLAGS.out
    if out:
        check_out(out)  # before minutes of work
    start = time.monotonic()
    with progress() as log:
        findings = measure(selected, log)
    show([findings])
    if out:
        write(out, {name: findings}, time.monotonic() - start)


def command_line(name: str, settings: Any) -> str:
    """The command that runs a benchmark with these settings."""
    words = [f'python -m benchmarks.{name}']
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            words += [shlex.quote(f'--{field.name}={one}') for one in (value if isinstance(value, tuple) else (value,))]
    return ' '.join(words)


@contextlib.contextmanager
def progress() -> Iterator[Log]:
    """Shows progress on stderr: one updated line on a terminal, else one line per message."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status('') as status:
            yield status.update
    else:
        yield lambda message: print(message, file=sys.stderr, flush=True)


def show(findings: Sequence[Findings]) -> None:
    """Prints one table of all ratios, then the benchmarks' own tables."""
    console = Console(width=_WIDTH)
    comparisons = [row for found in findings for row in found.comparisons]
    if comparisons:
        console.print(table_of_ratios(comparisons))
        console.print(summary(comparisons), highlight=False)
    for found in findings:
        if found.table:
            console.print(found.table)


def write(out: Path, findings: Mapping[str, Findings], seconds: float) -> None:
    """Writes all figures as JSON, atomically.

    Args:
      out: the file.
      findings: findings by the name of the benchmark.
      seconds: the duration of the benchmarks.
    """
    rows: list[Comparison] = [row for found in findings.values() for row in found.comparisons]
    content = {
        'device': device_kind(),
        'platform': jax.default_backend(),
        'versions': versions(),
        'wall_seconds': seconds,
        'comparisons': [row.to_json() for row in rows],
        **{name: list(found.figures) for name, found in findings.items() if found.figures},
    }
    write_out(out, json.dumps(content, indent=2) + '\n')


def define_flag(field: dataclasses.Field) -> None:
    """Defines the flag of a `setting`."""
    name, default, text = field.name, field.default, field.metadata['help']
    minimum, choices = field.metadata['minimum'], field.metadata['choices']
    if isinstance(default, bool):
        flags.DEFINE_bool(name, default, text)
    elif isinstance(default, tuple) and choices:
        flags.DEFINE_multi_enum(name, list(default), choices, text)
    elif isinstance(default, tuple):
        flags.DEFINE_multi_integer(name, list(default), text, lower_bound=minimum)
    elif choices:
        flags.DEFINE_enum(name, default, choices, text)
    elif isinstance(default, int):
        flags.DEFINE_integer(name, default, text, lower_bound=minimum)
    else:
        flags.DEFINE_string(name, default, text)
    if field.metadata['alias']:
        flags.DEFINE_alias(field.metadata['alias'], name)
