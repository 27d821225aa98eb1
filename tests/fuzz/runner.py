"""Damages files by the thousand and reads each: a file is read, or refused by a `UserError`, and nothing else.

    python tests/fuzz/runner.py --count=10000 --seed=0 [--only=TARGET] [--keep=FOLDER]

Runs the readers in child processes, so that a crash, a hang or too much memory is a finding, too. `--keep` writes the
files that found something.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == '__main__':
    ROOT = Path(__file__).parents[2]
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from targets import TARGETS, Target

from ssanet_jax.errors import UserError

_CPU_SECONDS = 20  # per input
_WALL_SECONDS = 120
_MEMORY = 3 * 2**30  # bytes, beyond what the process has before
_CHUNK = 200  # inputs per process
# Events of Python's audit hooks that no reader has a reason for.
_FORBIDDEN = ('os.system', 'os.exec', 'os.fork', 'os.posix_spawn', 'subprocess.Popen', 'pty.spawn', 'socket.connect')


@dataclass(frozen=True)
class Finding:
    """An input that was neither read nor refused properly."""

    target: str
    index: int
    file: str
    problem: str
    content: bytes


class _Hang(BaseException):
    """The reader takes too long. Not an Exception, which readers catch."""


def damaged_input(name: str, target: Target, folder: Path, seed: int, index: int) -> tuple[str, bytes]:
    """The file to damage and its damaged content; the same for the same seed and index."""
    rng = random.Random(f'{name}/{seed}/{index}')
    files = sorted({path for pattern in target.files for path in folder.glob(pattern) if path.is_file()})
    path = rng.choice(files)
    return path.relative_to(folder).as_posix(), target.mutate(path.read_bytes(), rng)


def run_target(name: str, count: int, seed: int) -> tuple[collections.Counter, list[Finding]]:
    """Reads `count` damaged files of a target.

    Returns:
      How many were read and how many refused; and the findings.
    """
    target, counts, findings = TARGETS[name], collections.Counter(), []
    with tempfile.TemporaryDirectory() as temporary:
        good = Path(temporary) / 'good'
        good.mkdir()
        target.make(good)
        index = 0
        while index < count:
            log = Path(temporary) / 'log.jsonl'
            log.unlink(missing_ok=True)
            end = min(index + _CHUNK, count)
            _run_child(name, target, good, Path(temporary), log, seed, range(index, end))
            for line in map(json.loads, log.read_text().splitlines() if log.exists() else []):
                index = line['index'] + 1
                if problem := line.get('problem'):
                    findings.append(Finding(name, line['index'], *_input(name, target, good, seed, line, problem)))
                else:
                    counts[line['outcome']] += 1
            if index < end:  # the process died at this input
                line = {'index': index}
                findings.append(Finding(name, index, *_input(name, target, good, seed, line, 'the process died')))
                index += 1
    return counts, findings


def _input(name: str, target: Target, good: Path, seed: int, line: dict[str, Any], problem: str):
    file, content = damaged_input(name, target, good, seed, line['index'])
    return file, problem, content


def _run_child(name: str, target: Target, good: Path, temporary: Path, log: Path, seed: int, indices: range) -> None:
    """Reads the inputs in a child process, which writes a line per input to `log`."""
    pid = os.fork()
    if pid:
        _wait(pid, log)
        return
    code = 1
    try:
        # Libraries in C report damaged files on stderr by themselves.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        usage = int(Path('/proc/self/statm').read_text().split()[0]) * os.sysconf('SC_PAGE_SIZE')
        resource.setrlimit(resource.RLIMIT_AS, (usage + _MEMORY, usage + _MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
        with open(log, 'a') as out:
            for index in indices:
                out.write(json.dumps({'index': index, **_read(name, target, good, temporary, seed, index)}) + '\n')
                out.flush()
        code = 0
    finally:
        os._exit(code)


def _wait(pid: int, log: Path) -> None:
    """Waits for a child, and kills it if an input takes longer than `_WALL_SECONDS`."""
    size, since = -1, time.monotonic()
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(0.02)
        now = log.stat().st_size if log.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > _WALL_SECONDS:
            os.kill(pid, signal.SIGKILL)


def _read(name: str, target: Target, good: Path, temporary: Path, seed: int, index: int) -> dict[str, str]:
    """Reads one damaged file; `{'outcome': 'read' or 'refused'}`, or `{'problem': ...}`."""
    folder = temporary / 'work'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    file, content = damaged_input(name, target, good, seed, index)
    (folder / file).write_bytes(content)
    os.chdir(folder)
    try:
        with _watched():
            try:
                target.read(folder / file if target.single else folder)
                outcome = {'outcome': 'read'}
            except UserError as error:
                message = str(error)
                outcome = {'outcome': 'refused'}
                if not message.strip() or len(message) > 3000 or 'Traceback' in message:
                    outcome = {'problem': f'a message of {len(message)} characters: {message[:200]!r}'}
    except BaseException as error:
        frames = [f'{Path(f.filename).name}:{f.lineno}' for f in traceback.extract_tb(error.__traceback__)]
        outcome = {'problem': f'{type(error).__name__}: {str(error)[:200]} at {" ".join(frames[-4:])}'}
    if (folder / 'owned').exists() or (temporary / 'owned').exists():
        outcome = {'problem': 'the file ran code'}
    return outcome


_heard: list[str] | None = None


def _hook(event: str, arguments: Any) -> None:
    if _heard is not None and event in _FORBIDDEN:
        _heard.append(event)


sys.addaudithook(_hook)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Ends what takes too long; raises if code of the file ran, or numbers overflowed."""
    global _heard

    def too_long(*_: Any) -> None:
        raise _Hang(f'more than {_CPU_SECONDS} seconds')

    signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
    _heard = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            warnings.simplefilter('error', RuntimeWarning)
            yield
        assert not _heard, f'the reader used {_heard}'
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _heard = None


def shares(count: int) -> dict[str, int]:
    """How many inputs each target gets of `count`."""
    total = sum(target.share for target in TARGETS.values())
    found = {name: int(count * target.share / total) for name, target in TARGETS.items()}
    found['images'] += count - sum(found.values())
    return found


def main() -> None:
    """Prints a line per target and one per finding; exit code 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--count', type=int, default=10_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', choices=TARGETS)
    parser.add_argument('--keep', type=Path)
    given = parser.parse_args()
    counts = {given.only: given.count} if given.only else shares(given.count)
    total, found = collections.Counter(), []
    for name, count in counts.items():
        started = time.monotonic()
        outcome, findings = run_target(name, count, given.seed)
        total += outcome
        found += findings
        seconds = time.monotonic() - started
        print(
            f'{name:20} {count:6} inputs: {outcome["read"]:5} read, {outcome["refused"]:5} refused, '
            f'{len(findings):3} findings, {seconds:.0f} s',
            flush=True,
        )
        for finding in findings:
            print(f'  {finding.index} {finding.file}: {finding.problem}', flush=True)
            if given.keep:
                given.keep.mkdir(parents=True, exist_ok=True)
                path = f'{name}-{finding.index}-{finding.file}'.replace('/', '_').replace(' ', '_')
                (given.keep / path).write_bytes(finding.content)
    print(f'{sum(counts.values())} inputs: {total["read"]} read, {total["refused"]} refused, {len(found)} findings')
    sys.exit(bool(found))


if __name__ == '__main__':
    main()
