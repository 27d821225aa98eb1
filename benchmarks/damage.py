"""Damages files of a run at random, and checks that no damage is used in silence.

    python -m benchmarks.damage                        # 400 damages to a finished and to an unfinished run
    python -m benchmarks.damage --count=40 --trains=2  # a minute or two

Each damage hits a fresh copy of the run: a flipped bit, a cut end, an empty, missing or foreign file, a block of zeros,
or a file or item of another checkpoint. What the commands read from the copy (the network, the configuration, the
results, the histories and the predictions) is then compared to what they read from the whole run. A difference must be
reported by a warning or by an error of one line. For some damages the training command is run again: it must end with
the network and the accuracy of the whole run, or with an error of one line. The exit code is 1 if anything differs from
that.
"""

import collections
import dataclasses
import hashlib
import io
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from rich.console import Console

from benchmarks import runner
from benchmarks.runner import setting
from configs import common
from ssanet_jax import cli
from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.report.result_files import damaged_histories
from ssanet_jax.runs.files import TRAIN_AGAIN, read_json, read_run
from ssanet_jax.runs.history import read_history
from ssanet_jax.runs.image_predictions import check_accuracy, read_predictions
from ssanet_jax.runs.results import BestResult, RunResults, StageResult, read_stage_result
from ssanet_jax.runs.run import load_run
from ssanet_jax.training import loop
from ssanet_jax.training import train as training
from ssanet_jax.training.stages import stage

# The count of evaluations has no other record to compare it to; TensorBoard's files and pictures are not read.
_IGNORED = ('test_evaluations.jsonl', '.lock', 'parts.png')


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is damaged."""

    count: int = setting(400, 'Number of damages.', minimum=1)
    trains: int = setting(20, 'After how many of them the training command is run again.', minimum=0)
    seed: int = setting(0, 'Draws the damages.', minimum=0)


@dataclasses.dataclass
class Findings:
    """What happened, by (file, damage): a counter of outcomes."""

    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    problems: list[str] = dataclasses.field(default_factory=list)


def get_config(validation: bool) -> Any:
    """The smallest run with two stages and several checkpoints."""
    config = common.get_config()
    config.data.update(name='toy_birds', train_count=32, test_count=16, size=64, distractors=2, seed=0, image_size=64)
    config.data.update(resize=64, batch_size=8, eval_batch_size=8, num_workers=1, prefetch=1)
    config.data.validation = 0.25 if validation else 0.0
    config.model.update(backbone='resnet_tiny', pretrained='none', num_parts=2, num_proposals=3, num_scales=3)
    train = dict(backbone=1, image_classifier=1)
    config.stages = tuple(stage(name, epochs=3, learning_rate=0.01, train=train) for name in ('one', 'two'))
    config.eval_epochs = 1
    return config


def _flip(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    position = generator.randrange(8 * len(content))
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def _zeros(content: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(content))
    stop = min(start + 512, len(content))
    return content[:start] + bytes(stop - start) + content[stop:]


CONTENTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    'flipped bit': _flip,
    'flipped bit ': _flip,  # twice as often as others
    'cut end': lambda content, generator: content[: generator.randrange(len(content))],
    'empty': lambda content, generator: b'',
    'zeros': _zeros,
    'garbage': lambda content, generator: generator.randbytes(len(content)),
    'longer': lambda content, generator: content + generator.randbytes(9),
}


def damage(workdir: Path, generator: random.Random) -> str:
    """Damages one file of a run, or exchanges files between its checkpoints; returns what was done."""
    files = sorted(
        path
        for path in workdir.rglob('*')
        if path.is_file() and path.name not in _IGNORED and 'tfevents' not in path.name and path.stat().st_size
    )
    checkpoints = [path for path in files if {'checkpoints', 'best'} & set(path.relative_to(workdir).parts)]
    others = [path for path in files if path not in checkpoints]
    path = generator.choice(checkpoints if generator.random() < 0.6 else others)
    name = generator.choice([*CONTENTS, 'missing', 'extra', 'of another checkpoint'])
    where = str(path.relative_to(workdir))
    if name == 'missing':
        path.unlink()
    elif name == 'extra':
        path.with_name('extra').write_text('x')
    elif name == 'of another checkpoint':
        same = [other for other in files if other != path and other.name == path.name]
        if not same:
            return damage(workdir, generator)
        _replace(path, generator.choice(same).read_bytes())
    else:
        _replace(path, CONTENTS[name](path.read_bytes(), generator))
    return f'{name.strip()}: {where}'


def _replace(path: Path, content: bytes) -> None:
    path.unlink()  # it is a hard link to the whole run
    path.write_bytes(content)


def read(workdir: Path, stages: Sequence[str]) -> dict[str, Any]:
    """Reads a run with these stages as the commands do. A value that they refuse is replaced by the error message."""
    found: dict[str, Any] = {}

    def put(name: str, reader: Callable[[], Any]) -> None:
        try:
            found[name] = reader()
        except UserError as error:
            found[name] = error
            if '\n' in str(error):
                raise AssertionError(f'more than one line: {error}') from error

    put('config', lambda: read_run(workdir))
    put('network', lambda: _digest(split_model(load_run(workdir).model)[1:]))
    put('results', lambda: read_json(workdir / 'results.json', TRAIN_AGAIN))
    put('predictions', lambda: _arrays(workdir / 'predictions.npz'))
    for name in stages:
        folder = workdir / name
        put(f'{name} result', partial(read_stage_result, folder / 'evaluation.json', StageResult, name, TRAIN_AGAIN))
        put(f'{name} best', partial(read_stage_result, folder / 'best.json', BestResult, name, TRAIN_AGAIN))
        put(f'{name} history', lambda name=name: read_history(workdir / name / 'history.jsonl'))
    put('damaged histories', lambda: damaged_histories(workdir, stages, [n for n in stages if found[f'{n} result']]))
    return found


def _arrays(path: Path) -> Any:
    predictions = read_predictions(path, TRAIN_AGAIN)
    if predictions is not None:
        check_accuracy(path, predictions, (path.with_name('results.json'), path.with_name('evaluation.json')), '')
    return predictions and _digest(predictions.to_arrays())


def _digest(tree: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        digest.update(str((array.dtype, array.shape)).encode())
        digest.update(array.tobytes() if array.dtype.kind != 'U' else repr(array.tolist()).encode())
    return digest.hexdigest()


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """The warnings of the block."""
    said: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler, root = Handler(logging.WARNING), logging.getLogger()
    root.addHandler(handler)
    try:
        yield said
    finally:
        root.removeHandler(handler)


def judge(expected: dict[str, Any], found: dict[str, Any], said: list[str]) -> str:
    """'harmless', 'reported', or 'SILENT' and the names of what differs without a report."""
    differs = [name for name in expected if found[name] != expected[name]]
    unsaid = [
        name
        for name in differs
        # A missing file is noticed by whoever looks for it.
        if not isinstance(found[name], UserError) and found[name] is not None and found[name] != []
    ]
    if not differs and not said:
        return 'harmless'
    if said or not unsaid or found['damaged histories']:
        return 'reported'
    return f'SILENT ({", ".join(unsaid)})'


def copy(workdir: Path, target: Path) -> Path:
    """A copy of a run whose files take no space."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(workdir, target, copy_function=os.link))


def train(config: Any, workdir: Path) -> RunResults:
    """Trains in this process, as the command does."""
    return training.train(config, workdir, Console(file=io.StringIO()))


def try_damages(config: Any, whole: Path, final: Path, count: int, trains: int, seed: int, found: Findings) -> None:
    """Damages copies of a run.

    Args:
      config: its configuration.
      whole: the run.
      final: the finished run that its training ends as.
      count: number of damages.
      trains: after how many of them to train.
      seed: draws the damages.
      found: changed in place.
    """
    stages = [stage.name for stage in config.stages]
    expected, end = read(whole, stages), read(final, stages)
    generator = random.Random(seed)
    for number in range(count):
        workdir = copy(whole, whole.with_name('copy'))
        done = damage(workdir, generator)
        with _warnings() as said:
            try:
                outcome = judge(expected, read(workdir, stages), said)
            except Exception as error:
                outcome = f'TRACEBACK ({type(error).__name__}: {error})'
        found.outcomes[outcome.split(' (')[0]] += 1
        if outcome[0].isupper():
            found.problems.append(f'{done}: {outcome}')
        if number * trains // count == (number + 1) * trains // count:
            continue
        outcome = 'trained to the same end'
        with _warnings():
            try:
                results = train(config, workdir)
                again = read(workdir, stages)
                same = again['network'] == end['network'] and results.accuracy == end['results']['accuracy']
                outcome = outcome if same else 'OTHER END'
            except UserError:
                outcome = 'refused to train'
            except Exception as error:
                outcome = f'TRACEBACK ({type(error).__name__}: {error})'
        found.outcomes[outcome.split(' (')[0]] += 1
        if outcome[0].isupper():
            found.problems.append(f'{done}: training: {outcome}')


class _Killed(Exception):
    """Ends a training early."""


def train_until(config: Any, workdir: Path, saves: int) -> None:
    """Trains until so many checkpoints have been saved, then stops as a killed process does."""
    original, left = loop.Checkpoints.save, [saves]

    def save(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        left[0] -= 1
        if not left[0]:
            raise _Killed

    loop.Checkpoints.save = save
    try:
        train(config, workdir)
    except _Killed:
        pass
    finally:
        loop.Checkpoints.save = original


def main() -> None:
    """Prints how often each outcome happened, and each problem."""
    settings = Settings(**{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Settings)})
    started = time.monotonic()
    found = Findings()
    with tempfile.TemporaryDirectory() as folder:
        for validation in (False, True):
            config = get_config(validation)
            finished, unfinished = (Path(folder, str(validation), name) for name in ('finished', 'unfinished'))
            train(config, finished)
            train_until(config, unfinished, saves=5 if not validation else 8)
            for whole in (finished, unfinished):
                count, trains, seed = settings.count // 4, settings.trains // 4, settings.seed + validation
                try_damages(config, whole, finished, count, trains, seed, found)
    for outcome, count in sorted(found.outcomes.items()):
        print(f'{count:5} {outcome}')
    for problem in found.problems:
        print(problem)
    print(f'seed {settings.seed}, {time.monotonic() - started:.0f} s')
    sys.exit(bool(found.problems))


if __name__ == '__main__':
    for field in dataclasses.fields(Settings):
        runner.define_flag(field)
    cli.run(main)
