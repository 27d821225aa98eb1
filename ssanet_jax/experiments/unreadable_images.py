"""Test images that could not be read, in one line beside the results of measurements, tables and comparisons."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssanet_jax.experiments.measurements import MEASUREMENTS
from ssanet_jax.runs.files import RESULTS_FILE, TRAIN_AGAIN, read_json
from ssanet_jax.runs.image_predictions import ImagePredictions
from ssanet_jax.runs.results import unreadable_line

_LISTED = 3  # runs that a message names


def measurement_line(name: str, content: Mapping[str, Any]) -> str:
    """The line of a measurement: how many of its images could not be read; '' if all could.

    Args:
      name: a key of `MEASUREMENTS`.
      content: of the measurement's file.
    """
    problems = _problems(content)
    examples = content.get('examples')
    if examples is None:  # key points count the images that were measured
        examples = content.get('images', 0) + content.get('without_keypoints', 0) + len(problems)
    return unreadable_line(problems, examples, treatment=MEASUREMENTS[name].unreadable)


def result_lines(workdirs: Sequence[Path], measured: Sequence[str]) -> list[str]:
    """The lines of several runs: of their final accuracies and of their measurements, one for all runs that agree.

    Args:
      workdirs: the work directories of finished runs.
      measured: the measurements that are printed, keys of `MEASUREMENTS`.

    Raises:
      UserError: a file is damaged.
    """
    lines: dict[Path, list[str]] = {}
    for workdir in workdirs:
        result = read_json(workdir / RESULTS_FILE, TRAIN_AGAIN) or {}
        lines[workdir] = [unreadable_line(_problems(result), result.get('examples', 0))]
        for name in measured:
            content = read_json(workdir / f'{name}.json', TRAIN_AGAIN) or {}
            lines[workdir].append(measurement_line(name, content))
    return _by_line(lines)


def prediction_lines(predictions: Mapping[Path, ImagePredictions], split: str) -> list[str]:
    """The lines of the predictions of several runs, one for all runs that agree.

    Args:
      predictions: by work directory.
      split: 'test' or 'validation'.

    Raises:
      UserError: a file is damaged.
    """
    lines = {}
    for workdir, found in predictions.items():
        count = int(found.unreadable.sum())
        problems = _recorded_problems(workdir, split, count) if count else []
        lines[workdir] = [unreadable_line(problems, len(found.labels), count=count)]
    return _by_line(lines)


def _recorded_problems(workdir: Path, split: str, count: int) -> list[str]:
    """The messages about unreadable images that a run has recorded; none if their number is not that of now."""
    if split == 'test':
        files = [workdir / name for name in ('evaluation.json', RESULTS_FILE)]
    else:
        files = sorted(workdir.glob('*/evaluation.json'))
    for path in files:
        problems = _problems(read_json(path, TRAIN_AGAIN) or {})
        if len(problems) == count:
            return problems
    return []


def _problems(content: Mapping[str, Any]) -> list[str]:
    problems = content.get('unreadable')
    return [str(problem) for problem in problems] if isinstance(problems, list) else []


def _by_line(lines: Mapping[Path, Sequence[str]]) -> list[str]:
    """Each distinct line once, after the runs that it is about."""
    runs: dict[str, list[Path]] = {}
    for workdir, of_run in lines.items():
        for line in dict.fromkeys(filter(None, of_run)):
            runs.setdefault(line, []).append(workdir)
    return [f'{"all runs" if len(found) == len(lines) else _listed(found)}: {line}' for line, found in runs.items()]


def _listed(workdirs: Sequence[Path]) -> str:
    more = len(workdirs) - _LISTED
    return ', '.join(map(str, workdirs[:_LISTED])) + (f' and {more} more' if more > 0 else '')
