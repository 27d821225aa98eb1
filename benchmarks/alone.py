"""A benchmark as a command: its settings become flags, its findings are printed and written.

The settings of a benchmark are a dataclass, so that `python -m benchmarks` can run several of them in one process,
where flags of the same name would clash.
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
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Say

flags.disclaim_key_flags()  # those below belong to the command that asks for them

_WIDTH = 140  # of tables, characters


def setting(default: Any, text: str, *, least: int = 1, choices: Sequence[str] = ()) -> Any:
    """A field of a benchmark's settings, which as a flag has this help; a tuple may be given several times.

    Args:
      default: a number, a text, a yes or no, or a tuple of numbers or texts.
      text: the help.
      least: lower bound of numbers.
      choices: the texts that are allowed; those of a tuple must be named.
    """
    return dataclasses.field(default=default, metadata={'help': text, 'least': least, 'choices': choices})


def run(name: str, settings: type, measure: Callable[[Any, Say], Findings]) -> None:
    """Runs one benchmark as the command `python -m benchmarks.NAME`, and leaves the process.

    Args:
      name: of its module.
      settings: its dataclass, of `setting` fields.
      measure: takes one of them and returns what it finds.
    """
    for field in dataclasses.fields(settings):
        define(field)
    flags.DEFINE_string('out', None, 'JSON file for the figures.')
    cli.run(partial(_main, name, settings, measure))


def _main(name: str, settings: type, measure: Callable[[Any, Say], Findings], arguments: list[str]) -> None:
    refuse(arguments)
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(settings)}
    chosen = settings(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    out = Path(flags.FLAGS.out) if flags.FLAGS.out else None
    if out:
        check_out(out)  # before minutes of work
    began = time.monotonic()
    with progress() as say:
        findings = measure(chosen, say)
    show([findings])
    if out:
        write(out, {name: findings}, time.monotonic() - began)


def refuse(arguments: Sequence[str]) -> None:
    """Raises `UserError` for what is left of a command line."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')


def command_line(name: str, settings: Any) -> str:
    """The command that runs a benchmark with these settings."""
    words = [f'python -m benchmarks.{name}']
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            words += [shlex.quote(f'--{field.name}={one}') for one in (value if isinstance(value, tuple) else (value,))]
    return ' '.join(words)


@contextlib.contextmanager
def progress() -> Iterator[Say]:
    """Tells on stderr what is being done: one line that changes on a terminal, else a line each."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status('') as status:
            yield status.update
    else:
        yield lambda text: print(text, file=sys.stderr, flush=True)


def show(findings: Sequence[Findings]) -> None:
    """Prints one table of all ratios, then the tables that are about something else."""
    console = Console(width=_WIDTH)
    comparisons = [row for found in findings for row in found.comparisons]
    if comparisons:
        console.print(table_of_ratios(comparisons))
        console.print(summary(comparisons), highlight=False)
    for found in findings:
        if found.table:
            console.print(found.table)


def write(out: Path, findings: Mapping[str, Findings], seconds: float) -> None:
    """Writes all figures as JSON, at one stroke.

    Args:
      out: the file.
      findings: by the name of their benchmark.
      seconds: how long it took.
    """
    rows: list[Comparison] = [row for found in findings.values() for row in found.comparisons]
    content = {
        'device': device_kind(),
        'platform': jax.default_backend(),
        'versions': versions(),
        'wall_seconds': seconds,
        'comparisons': [row.record() for row in rows],
        **{name: list(found.figures) for name, found in findings.items() if found.figures},
    }
    write_out(out, json.dumps(content, indent=2) + '\n')


def define(field: dataclasses.Field) -> None:
    """Defines the flag of a `setting`."""
    name, default, text = field.name, field.default, field.metadata['help']
    least, choices = field.metadata['least'], field.metadata['choices']
    if isinstance(default, bool):
        flags.DEFINE_bool(name, default, text)
    elif isinstance(default, tuple) and choices:
        flags.DEFINE_multi_enum(name, list(default), choices, text)
    elif isinstance(default, tuple):
        flags.DEFINE_multi_integer(name, list(default), text, lower_bound=least)
    elif choices:
        flags.DEFINE_enum(name, default, choices, text)
    elif isinstance(default, int):
        flags.DEFINE_integer(name, default, text, lower_bound=least)
    else:
        flags.DEFINE_string(name, default, text)
