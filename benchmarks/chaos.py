"""Kills a training over and over, and compares what it ends with to an uninterrupted one, bit for bit.

    python -m benchmarks.chaos                       # 120 kills and 60 failing file operations, about half an hour
    python -m benchmarks.chaos --count=8 --errors=4  # a minute or two

The training has everything that can be interrupted (`chaos_config.py`). Most kills are SIGKILLs at the n-th create,
write, sync, rename, remove, mkdir or truncate of a file (`fault_injection.py`): before it, after it, or in the middle
of a write. The others are SIGKILL, SIGTERM or SIGINT at a random time. Errors are those of a full disk, a device that
fails, a read-only file system, and missing permissions. A killed or failed training is started again by the same
command, which may be killed as well, until it ends.

An error must end the command with one line and exit code 2, or change nothing. SIGTERM must end it with exit code 75,
and SIGINT with 130, within 30 s. No start may warn of damage, and none may leave files that nobody needs. The exit code
is 1 if anything differs from that. Several of these commands may run at the same time: each has a folder of its own.
With --out, the command goes on where an earlier one was stopped.
"""

import collections
import dataclasses
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import runner
from benchmarks.fault_injection import ERRORS, KILLS, Ended, Fault, Operation, Server
from benchmarks.run_differences import copy_differences, differences, surplus_checkpoints
from benchmarks.runner import setting
from configs import common
from ssanet_jax import cli
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Log, no_log
from ssanet_jax.path_flags import define_path
from ssanet_jax.runs.checkpoints import KEEP
from ssanet_jax.training.context import OFF, ON

VARIANTS = ('', ':validation')
_FAULTS_PER_RUN = 8
_SIGNALS_PER_RUN = 3
_SIGNAL_CODES = {'SIGKILL': -signal.SIGKILL, 'SIGTERM': 75, 'SIGINT': 130}
_END_SECONDS = 30  # after SIGTERM or SIGINT
_SAME = ('seed', 'async_checkpointing')  # settings of all starts whose figures are added up
_MOST_STARTS = 40  # of one training; more are a sign that it makes no progress


@dataclasses.dataclass(frozen=True)
class Settings:
    """How often a training is interrupted."""

    count: int = setting(120, 'Number of kills.', minimum=0)
    errors: int = setting(60, 'Number of failing file operations.', minimum=0)
    seed: int = setting(0, 'Draws the kills and the errors.', minimum=0)
    async_checkpointing: str = setting(
        OFF, 'config.async_checkpointing of the trainings that are interrupted.', choices=(ON, OFF)
    )


class Place(NamedTuple):
    """Where operations happen in a run: a kind of operation on certain files."""

    files: str  # part of their path
    kind: str


@dataclasses.dataclass(frozen=True)
class Reference:
    """An uninterrupted run."""

    variant: str
    folder: Path
    operations: tuple[Operation, ...]
    seconds: float


@dataclasses.dataclass
class Findings:
    """What happened so far."""

    kills: collections.Counter = dataclasses.field(default_factory=collections.Counter)  # by (phase, how)
    errors: collections.Counter = dataclasses.field(default_factory=collections.Counter)  # by (phase, error)
    tolerated: int = 0  # errors after which the command went on to its end
    runs: int = 0
    starts: int = 0
    slowest_end: float = 0.0  # seconds after SIGTERM or SIGINT
    seconds: float = 0.0  # of all starts of the benchmark
    problems: list[str] = dataclasses.field(default_factory=list)


def files_of(path: str) -> str:
    """The file or folder to which an operation's path belongs, as a part of the path, such as '/run/fit/best'."""
    name = '/'.join(['', *path.split('/')[:3]])
    return re.sub(r'\.(partial|tfevents|\d+$).*', '', name)  # unfinished files belong to the finished one


def phase_of(path: str) -> str:
    """The part of a run, for the table of results."""
    parts = path.strip('/').split('/')
    if parts[0] == 'prepared':
        return 'preparation of the images'
    if len(parts) == 1 or parts[1] == '.lock' or parts[1].startswith('config.json'):
        return 'start of the run'
    if len(parts) == 2 and '.' in parts[1]:
        return 'end of the run'
    if len(parts) == 2:
        return f'{parts[1]}: training'
    if parts[2].startswith('evaluation.json'):
        return f'{parts[1]}: hand-over'
    return f'{parts[1]}: {"training" if parts[2] in ("checkpoints", "features") else "evaluation"}'


class Plan:
    """Draws faults such that all places are hit before any is hit again."""

    def __init__(self, seed: str):
        self.random = random.Random(seed)
        self._decks: dict[tuple[str, bool], list[Place]] = {}

    def kills(self, reference: Reference) -> list[Fault]:
        """Faults that kill one run, in the order in which it reaches them."""
        faults = []
        for place, number in self._draw(reference, False):
            action = self.random.choice(KILLS if place.kind == 'write' else KILLS[:2])
            faults.append(Fault(action, (place.kind,), place.files, number))
        return faults

    def errors(self, reference: Reference) -> list[Fault]:
        """Faults that make operations of one run fail."""
        faults = []
        for place, number in self._draw(reference, True):
            name = self.random.choice([name for name, (_, kinds) in ERRORS.items() if place.kind in kinds])
            # From then on all operations of these kinds fail, on any file; a device may fail just once.
            action = 'fail once' if name == 'EIO' and self.random.random() < 0.5 else 'fail from'
            faults.append(Fault(action, (place.kind,), place.files, number, name))
        return faults

    def signals(self, reference: Reference) -> list[Fault]:
        """Signals at random times of one run."""
        longest = reference.seconds * 0.7
        names = self.random.choices(list(_SIGNAL_CODES), k=_SIGNALS_PER_RUN)
        return [Fault(name, seconds=self.random.uniform(0.05, longest)) for name in names]

    def _draw(self, reference: Reference, fails: bool) -> Iterator[tuple[Place, int]]:
        places = [Place(files_of(operation.path), operation.kind) for operation in reference.operations]
        deck = self._decks.setdefault((reference.variant, fails), [])
        chosen: list[int] = []
        while len(chosen) < _FAULTS_PER_RUN:
            if not deck:
                deck.extend(sorted(set(places)))
                if fails:
                    failing = {kind for _, kinds in ERRORS.values() for kind in kinds}
                    deck[:] = [place for place in deck if place.kind in failing]
                self.random.shuffle(deck)
            place = deck.pop()
            chosen.append(self.random.choice([index for index, each in enumerate(places) if each == place]))
        before = 0
        for index in sorted(chosen):
            # The process counts from its own start, about where the one before was killed.
            number = places[before : index + 1].count(places[index])
            before = index
            yield places[index], max(number, 1)


class Chaos:
    """Runs trainings with faults below one folder."""

    def __init__(self, server: Server, folder: Path, findings: Findings, log: Log, async_checkpointing: str):
        self._server, self._folder, self._log = server, folder, log
        self._async_checkpointing = async_checkpointing
        self._images = folder / 'images'
        _draw_images(self._images)
        self._references: dict[str, Reference] = {}
        self.findings = findings

    def reference(self, variant: str) -> Reference:
        """A training without faults that waits for its checkpoints, which is run when it is asked for first.

        Raises:
          UserError: it fails.
        """
        if variant not in self._references:
            self._log(f'the uninterrupted run{variant}')
            folder = self._folder / f'reference{variant.replace(":", "_")}'
            ended = self._server.run(self._arguments(variant, folder, OFF), folder)
            if ended.code:
                raise UserError(f'the uninterrupted run failed: {ended.stderr.strip()[-500:]}')
            self._references[variant] = Reference(variant, folder, ended.operations, ended.seconds)
        return self._references[variant]

    def run(self, reference: Reference, faults: Sequence[Fault], most: int) -> None:
        """Runs a training with one fault after the other, until it ends without, and compares it.

        Args:
          reference: the same training without faults.
          faults: what happens, in this order.
          most: faults that may still happen.
        """
        found, folder = self.findings, self._folder / f'run{self.findings.runs}'
        found.runs += 1
        arguments = self._arguments(reference.variant, folder, self._async_checkpointing)
        history, remaining, happened = [], list(faults), 0
        for _ in range(_MOST_STARTS):
            fault = remaining.pop(0) if remaining and happened < most else None
            ended = self._server.run(arguments, folder, fault)
            found.starts += 1
            history.append(f'{fault or "no fault"} -> {ended.code}')
            for problem in self._judge(fault, ended):
                found.problems.append(f'{problem} [{"; ".join(history)}; see {folder}]')
            surplus = list(surplus_checkpoints(folder / 'run', KEEP + 1)) if (folder / 'run').exists() else []
            found.problems.extend(f'{problem} [{"; ".join(history)}; see {folder}]' for problem in surplus)
            if fault and (ended.hit or fault.seconds):
                happened += ended.code != 0 or bool(ended.hit)
            if fault is None or (ended.code == 0 and not ended.hit):
                break
            if ended.code not in (0, 2, *_SIGNAL_CODES.values()):
                return
        if fault is not None:
            ended = self._server.run(arguments, folder)
        if ended.code:
            found.problems.append(f'the last start ended with {ended.code} [{"; ".join(history)}; see {folder}]')
            return
        different = [
            *differences(reference.folder / 'run', folder / 'run'),
            *copy_differences(reference.folder / 'prepared', folder / 'prepared'),
        ]
        if any(fault.error and fault.kinds == ('remove',) for fault in faults):
            different = [problem for problem in different if not problem.endswith('is left over')]
        found.problems.extend(f'{problem} [{"; ".join(history)}; see {folder}]' for problem in different)
        if not any(str(folder) in problem for problem in found.problems):
            shutil.rmtree(folder)

    def _arguments(self, variant: str, folder: Path, async_checkpointing: str) -> list[str]:
        return [
            f'--config=benchmarks/chaos_config.py{variant}',
            f'--workdir={folder}/run',
            f'--config.data.dir={self._images}',
            f'--config.data.prepared_dir={folder}/prepared',
            f'--config.async_checkpointing={async_checkpointing}',
        ]

    def _judge(self, fault: Fault | None, ended: Ended) -> Iterator[str]:
        """Counts what happened in one start, and yields what was wrong with it."""
        found, lines = self.findings, ended.stderr.splitlines()
        errors = [line for line in lines if line.startswith('error: ')]
        if 'Traceback' in ended.stderr:
            yield f'a traceback that ends with {lines[-1]!r}'
        elif fault and fault.error and ended.hit:
            found.errors[phase_of(ended.hit.path), fault.error] += 1
            found.tolerated += not ended.code
            if ended.code not in (0, 2) or len(errors) != (ended.code == 2) or (errors and lines[-1] != errors[0]):
                yield f'{fault}: ended with {ended.code} and the lines {lines[-3:]}'
            return
        elif fault and fault.seconds:
            if ended.code:
                found.kills[_phase_at(ended), fault.action] += 1
                found.slowest_end = max(found.slowest_end, ended.seconds_to_end)
            if ended.code not in (0, _SIGNAL_CODES[fault.action]):
                yield f'{fault}: ended with {ended.code}'
            if ended.seconds_to_end > _END_SECONDS and fault.action != 'SIGKILL':
                yield f'{fault}: ended after {ended.seconds_to_end:.0f} s'
        elif fault and ended.hit:
            found.kills[phase_of(ended.hit.path), ended.hit.kind] += 1
        elif ended.code:
            yield f'ended with {ended.code} without a fault: {lines[-1] if lines else ""}'
        if told := [line for line in lines if line.startswith(('warning: ', 'error: '))]:
            yield f'{fault}: said {told[0]!r}'


def _phase_at(ended: Ended) -> str:
    """The part of a run in which a signal ended it, by its last operation."""
    return phase_of(ended.operations[-1].path) if ended.operations else 'before the first file'


def _draw_images(folder: Path) -> None:
    """Writes drawn birds as a folder of images."""
    config = common.get_config()
    config.data.update(name='toy_birds', train_count=32, test_count=10, size=48, distractors=1, seed=0)
    dataset = load_dataset(config.data)
    for split, source in (('train', dataset.train), ('test', dataset.test)):
        for index in range(len(source)):
            example: dict[str, Any] = source[index]
            path = folder / split / f'{int(example["label"]) % 4}' / f'{index:03d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(example['image']).save(path)


def measure(settings: Settings, folder: Path, found: Findings, log: Log = no_log) -> Iterator[Findings]:
    """Interrupts trainings until there are enough kills and errors.

    Args:
      settings: how many.
      folder: for the trainings; those with problems stay there.
      found: what was found so far, by an earlier start.
      log: called with the progress.

    Yields:
      What was found, after each training.

    Raises:
      UserError: faults cannot be injected here, or a training fails without any.
    """
    plan = Plan(f'{settings.seed} {found.runs}')
    with Server(folder) as server:
        chaos = Chaos(server, folder, found, log, settings.async_checkpointing)
        while not _is_stuck(found):
            kills, errors = settings.count - found.kills.total(), settings.errors - found.errors.total()
            if kills <= 0 and errors <= 0:
                return
            reference = chaos.reference(VARIANTS[found.runs // 2 % len(VARIANTS)])
            if kills <= 0:
                chaos.run(reference, plan.errors(reference), errors)
            else:
                faults = plan.signals(reference) if found.runs % 5 == 3 else plan.kills(reference)
                chaos.run(reference, faults, kills)
            log(_progress(settings, found))
            yield found


def _is_stuck(found: Findings) -> bool:
    return len(found.problems) > 50


def _progress(settings: Settings, found: Findings) -> str:
    return (
        f'{found.kills.total()} of {settings.count} kills, {found.errors.total()} of {settings.errors} errors, '
        f'{len(found.problems)} problems'
    )


def table_of_hits(title: str, hits: collections.Counter) -> Table:
    """How often each part of a run was hit in each way."""
    ways = sorted({way for _, way in hits})
    table = Table('part of the run', *ways, 'all', title=title)
    for phase in sorted({phase for phase, _ in hits}):
        counts = [hits[phase, way] for way in ways]
        table.add_row(phase, *(str(count or '') for count in counts), str(sum(counts)))
    table.add_row('all', *(str(sum(n for (_, w), n in hits.items() if w == way)) for way in ways), str(hits.total()))
    return table


def show(settings: Settings, found: Findings) -> None:
    """Prints the tables, the problems and a summary."""
    console = Console(width=140)
    for title, hits in (('kills', found.kills), ('errors', found.errors)):
        if hits:
            console.print(table_of_hits(title, hits))
    for problem in found.problems:
        console.print(f'problem: {problem}', markup=False, highlight=False, soft_wrap=True)
    outcome = f'{len(found.problems)} problems' if found.problems else 'no problem, all bit-identical'
    console.print(
        f'seed {settings.seed}: {found.kills.total()} kills and {found.errors.total()} errors '
        f'({found.tolerated} harmless) in {found.runs} runs and {found.starts} starts, {found.seconds / 60:.0f} '
        f'minutes; at most {found.slowest_end:.1f} s from SIGTERM or SIGINT to the end: {outcome}',
        highlight=False,
        soft_wrap=True,
    )


def read_findings(path: Path, settings: Settings) -> Findings:
    """Reads the results of an earlier start with this seed and way of saving; empty if there was none."""
    try:
        content = json.loads(path.read_text())
        for name in _SAME:
            if content.pop(name) != getattr(settings, name):
                raise UserError(f'{path} has the figures of another --{name}: give another --out, or the same --{name}')
        for name in ('kills', 'errors'):
            content[name] = collections.Counter({(phase, way): count for phase, way, count in content[name]})
        return Findings(**content)
    except FileNotFoundError:
        return Findings()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f'{path} cannot be read ({error}): give another --out') from error


def write_findings(path: Path, settings: Settings, found: Findings) -> None:
    """Writes what `read_findings` reads."""
    content = {**{name: getattr(settings, name) for name in _SAME}, **dataclasses.asdict(found)}
    for name in ('kills', 'errors'):
        content[name] = [[*key, count] for key, count in sorted(getattr(found, name).items())]
    cli.write_out(path, json.dumps(content, indent=2) + '\n')


def main() -> None:
    """Runs the benchmark; the exit code is 1 if there was a problem."""
    settings = Settings(**{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Settings)})
    out, start, found = flags.FLAGS.out, time.monotonic(), Findings()
    if out:
        cli.check_out(out)
        found = read_findings(out, settings)
    folder, before = Path(tempfile.mkdtemp(prefix='chaos-')).resolve(), found.seconds
    with runner.progress() as log:
        for _ in measure(settings, folder, found, log):
            found.seconds = before + time.monotonic() - start
            if out:
                write_findings(out, settings, found)
    show(settings, found)
    if found.problems:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == '__main__':
    for field in dataclasses.fields(Settings):
        runner.define_flag(field)
    define_path('out', None, 'JSON file for the figures; the same command goes on from it.')
    cli.run(main)
