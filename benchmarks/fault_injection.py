"""Commands that end or fail at a chosen file operation, in processes of their own.

`fault_injection.c` is compiled and loaded into a server process (LD_PRELOAD), which imports the command once and forks
for every start: a real process each, without the seconds of the imports. In a forked process it counts the file
operations below one folder, of Python and of C++ libraries alike.
"""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ssanet_jax.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
_SOURCE = Path(__file__).with_suffix('.c')
KINDS = ('create', 'write', 'sync', 'rename', 'remove', 'mkdir', 'truncate')  # bit i of a mask stands for kind i
ACTIONS = ('nothing', 'before', 'after', 'torn', 'fail once', 'fail from')  # as in the enum of the C file
KILLS = ('before', 'after', 'torn')
# The operations that fail with each error, as file systems have it.
ERRORS = {
    'ENOSPC': (errno.ENOSPC, ('create', 'write', 'mkdir')),
    'EIO': (errno.EIO, ('create', 'write', 'sync', 'rename', 'mkdir')),
    'EROFS': (errno.EROFS, ('create', 'rename', 'remove', 'mkdir', 'truncate')),
    'EACCES': (errno.EACCES, ('create', 'rename', 'remove', 'mkdir')),
}
# Forks for each line on stdin, and prints the process's id, then its exit status. It ends with its parent, and its
# children with it.
_SERVER = """
import ctypes, json, os, signal, sys, traceback
end_with_parent = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)
end_with_parent()
shim = ctypes.CDLL(os.environ.pop('LD_PRELOAD'))
import grain, orbax.checkpoint, tensorflow_datasets
from ssanet_jax import cli, main
signal.signal(signal.SIGINT, signal.default_int_handler)
for line in sys.stdin:
    given = json.loads(line)
    pid = os.fork()
    if not pid:
        end_with_parent()
        for descriptor, path in ((0, os.devnull), (1, given['stdout']), (2, given['stderr'])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666), descriptor)
        if given['user']:
            os.setgroups([])
            os.setgid(given['user'])
            os.setuid(given['user'])
        shim.arm_faults(*(value.encode() if isinstance(value, str) else value for value in given['fault']))
        sys.argv = ['ssanet_jax.main', *given['arguments']]
        try:
            cli.run(main.main, trains=True)
            code = 0
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One file operation of a process."""

    kind: str  # of KINDS
    path: str  # within the folder whose operations are counted


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens to a process: at its n-th operation of some kinds below a path, or a signal after some seconds."""

    action: str = 'nothing'  # of ACTIONS, or 'SIGKILL', 'SIGTERM' or 'SIGINT'
    kinds: tuple[str, ...] = KINDS
    below: str = ''  # part of the path
    number: int = 1  # the n-th such operation
    error: str = ''  # of ERRORS
    seconds: float = 0.0  # before a signal

    def __str__(self) -> str:
        if self.seconds:
            return f'{self.action} after {self.seconds:.2f} s'
        kinds = 'operation' if len(self.kinds) > 1 else self.kinds[0]
        return f'{self.error} {self.action} {kinds} {self.number} below {self.below or "/"}'.strip()


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int  # negative for a signal
    stdout: str
    stderr: str
    operations: tuple[Operation, ...]
    hit: Operation | None  # at which it was killed, or which failed
    seconds: float  # that it took
    seconds_to_end: float  # after the signal, if one was sent


def compile_shim(folder: Path) -> Path:
    """Compiles the library that is loaded with LD_PRELOAD, and returns its path.

    Raises:
      UserError: it cannot be compiled here.
    """
    shim = folder / 'fault_injection.so'
    compiler = next(filter(None, map(shutil.which, ('cc', 'gcc', 'clang'))), None)
    if sys.platform != 'linux' or compiler is None:
        raise UserError('faults are injected with a C compiler on Linux: install one, such as gcc')
    done = subprocess.run(
        [compiler, '-O2', '-shared', '-fPIC', '-o', shim, _SOURCE, '-ldl'], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f'{_SOURCE.name} cannot be compiled: {done.stderr.strip()[-300:]}')
    return shim


class Server:
    """Starts `ssanet_jax.main` with faults. Use it as a context manager.

    Args:
      folder: for the files of the server; it must exist.

    Raises:
      UserError: the shim cannot be compiled here.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        shim = compile_shim(folder)
        self._process = subprocess.Popen(
            [sys.executable, '-c', _SERVER],
            cwd=ROOT,
            env=os.environ | {'LD_PRELOAD': str(shim), 'JAX_PLATFORMS': 'cpu'},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C ends this process, which then ends the server
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, arguments: Sequence[str], folder: Path, fault: Fault | None = None, user: int = 0) -> Ended:
        """Runs the command to its end.

        Args:
          arguments: its flags.
          folder: file operations below this folder count.
          fault: what happens to it.
          user: id of the user that runs it; 0 for the current one.
        """
        fault = fault or Fault()
        stdout, stderr, log = (self._folder / name for name in ('stdout', 'stderr', 'operations'))
        log.unlink(missing_ok=True)
        log.touch()
        log.chmod(0o666)
        mask = sum(1 << KINDS.index(kind) for kind in fault.kinds)
        action = ACTIONS.index(fault.action) if fault.action in ACTIONS else 0
        number = ERRORS[fault.error][0] if fault.error else 0
        given = {
            'arguments': list(arguments),
            'stdout': str(stdout),
            'stderr': str(stderr),
            'fault': [f'{folder}/', fault.below, mask, fault.number, action, number, str(log)],
            'user': user,
        }
        assert self._process.stdin and self._process.stdout
        start = time.monotonic()
        self._process.stdin.write(json.dumps(given) + '\n')
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        sent = 0.0
        if fault.seconds:
            time.sleep(fault.seconds)
            sent = time.monotonic()
            # Not reaped before its code is read below, unless it has ended.
            if self._is_running(pid):
                os.kill(pid, signal.Signals[fault.action])
        code = int(self._process.stdout.readline())
        end = time.monotonic()
        operations, hit = [], None
        for line in log.read_text(errors='surrogateescape').splitlines():
            mark, kind, path = line.split('\t', 2)
            operation = Operation(kind, path.removeprefix(f'{folder}/'))
            if mark:
                hit = operation
            else:
                operations.append(operation)
        return Ended(
            code=code,
            stdout=stdout.read_text(errors='replace'),
            stderr=stderr.read_text(errors='replace'),
            operations=tuple(operations),
            hit=hit,
            seconds=end - start,
            seconds_to_end=end - sent if sent else 0.0,
        )

    def _is_running(self, pid: int) -> bool:
        try:
            return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
        except OSError:
            return False
