"""Reads and checks the result files of a run, so that a damaged file is reported before any work starts.

Unlike `runs.results`, this needs only the fields that the report shows, so that it reads the runs of early versions.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ssanet_jax.errors import UserError
from ssanet_jax.runs.files import TRAIN_AGAIN, read_json
from ssanet_jax.runs.history import HISTORY_FILE, num_damaged_lines, read_history

MEASURE_AGAIN = 'move it away, or measure again'


class FieldCheck(NamedTuple):
    """A requirement on the value of a field: in words for the error message, and as a function."""

    description: str
    is_valid: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _dict_of(check: 'FieldCheck') -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(check.is_valid, value.values()))


_SHARE = FieldCheck('a number between 0 and 1', lambda value: _is_number(value) and 0 <= value <= 1)
_SECONDS = FieldCheck('a time in seconds', lambda value: _is_number(value) and value >= 0)
_COUNT = FieldCheck('a positive integer', lambda value: _is_number(value) and value == int(value) >= 1)
_INTEGER = FieldCheck('an integer', lambda value: _is_number(value) and value == int(value))
_TEXT = FieldCheck('a string', lambda value: isinstance(value, str))
_ACCURACIES = FieldCheck('an accuracy for each head', _dict_of(_SHARE))
_PROBLEMS = FieldCheck('a list of messages', lambda value: isinstance(value, list) and all(map(_TEXT.is_valid, value)))
_VERSIONS = FieldCheck('a version for each package', _dict_of(_TEXT))

_CHECKS = {
    'accuracy': _SHARE,
    'examples': _COUNT,
    'heads': _ACCURACIES,
    'steps': _COUNT,
    'epochs': _COUNT,
    'step': _COUNT,
    'wall_seconds': _SECONDS,
    'seed': _INTEGER,
    'device': _TEXT,
    'split': _TEXT,
    'stage': _TEXT,
    'unreadable': _PROBLEMS,
    'stopped_early': _TEXT,
    'versions': _VERSIONS,
}


@dataclass(frozen=True)
class StageSummary:
    """The fields of a stage's `evaluation.json` that the report shows."""

    accuracy: float  # accuracy of the prediction, the sum of the fused heads
    examples: int
    heads: Mapping[str, float]  # accuracy of each head
    steps: int
    wall_seconds: float
    stage: str = ''  # files of early versions lack it
    split: str = 'test'  # 'test' or 'validation'; files written before validation existed lack it
    unreadable: Sequence[str] = ()  # one message per image that could not be read; files of early versions lack it
    epochs: int = 0
    stopped_early: str = ''  # why it stopped before its last epoch; '' if it did not


@dataclass(frozen=True)
class RunSummary:
    """The fields of a run's `results.json` that the report shows: the final evaluation on the test set."""

    accuracy: float
    examples: int
    heads: Mapping[str, float]
    wall_seconds: float
    seed: int
    device: str
    unreadable: Sequence[str] = ()  # one message per image that could not be read
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # files of early versions lack it


@dataclass(frozen=True)
class BestStep:
    """`best.json` of a stage: the step with the highest validation accuracy so far."""

    step: int


Summary = TypeVar('Summary', StageSummary, RunSummary, BestStep)


def read_summary(path: Path, kind: type[Summary]) -> Summary | None:
    """Reads a result file into its dataclass; fields the dataclass does not have are ignored.

    Args:
      path: the file.
      kind: `StageSummary`, `RunSummary` or `BestStep`.

    Returns:
      An instance of `kind`, or None if the file does not exist.

    Raises:
      UserError: the file is damaged.
    """
    content = read_json(path, TRAIN_AGAIN)
    if content is None:
        return None
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in content:
            check = _CHECKS[field.name]
            if not check.is_valid(content[field.name]):
                raise UserError(f'{path} is damaged, {field.name!r} is not {check.description}: {TRAIN_AGAIN}')
            values[field.name] = content[field.name]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f'{path} is damaged, {field.name!r} is missing: {TRAIN_AGAIN}')
    return kind(**values)


def read_stage_summaries(workdir: Path, stages: Sequence[str]) -> dict[str, StageSummary]:
    """Reads the results of the finished stages.

    Args:
      workdir: the run's work directory.
      stages: names of all stages.

    Raises:
      UserError: a file is damaged, or that of another stage.
    """
    found: dict[str, StageSummary] = {}
    for name in stages:
        path = workdir / name / 'evaluation.json'
        if (summary := read_summary(path, StageSummary)) is None:
            continue
        if summary.stage not in (name, ''):
            raise UserError(f'{path} is that of stage {summary.stage}: {TRAIN_AGAIN}')
        found[name] = summary
    return found


def damaged_histories(workdir: Path, stages: Sequence[str], finished: Collection[str]) -> list[str]:
    """Lists what is unreadable in the history files, such as '3 lines of mac/history.jsonl'.

    The report is still written; its curves lack these points.

    Args:
      workdir: the run's work directory.
      stages: names of the stages.
      finished: those that are finished. The history of another one may end early, and in half a line.
    """
    damaged: list[str] = []
    for stage in stages:
        name, path = f'{stage}/{HISTORY_FILE}', workdir / stage / HISTORY_FILE
        if not path.exists():  # as in runs of earlier versions
            continue
        lines_read = read_history(path)  # which refuses what is no regular file
        if stage not in finished:
            if count := num_damaged_lines(path):
                damaged.append(f'{_lines(count)} of {name}')
            continue
        lines = sum(bool(line.strip()) for line in path.read_bytes().split(b'\n'))
        valid = len(lines_read)
        steps = (read_json(workdir / stage / 'evaluation.json', TRAIN_AGAIN) or {}).get('steps', 0)
        if not valid:
            damaged.append(f'all of {name}')
        elif lines > valid:
            damaged.append(f'{_lines(lines - valid)} of {name}')
        elif lines_read[-1]['step'] < steps:
            damaged.append(f'the end of {name}')
    return damaged


def _lines(count: int) -> str:
    return f'{count} line{"s" if count > 1 else ""}'
