"""How tests start commands on terminals of any width."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from commands import FORKING_PROGRAM, ROOT

# Each case is on a terminal of its own.
_SERVER = (
    FORKING_PROGRAM
    + """
import fcntl, pty, select, struct, termios
ended = {}
for name, case in given['cases'].items():
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack('HHHH', 24, case['columns'], 0, 0))
    pipe, written = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(inside, 0)
        os.dup2(written if case['piped'] else inside, 1)
        os.dup2(inside, 2)
        sys.stdout, sys.stderr = (open(descriptor, 'w', closefd=False) for descriptor in (1, 2))
        for variable in ('COLUMNS', 'LINES', 'NO_COLOR', 'FORCE_COLOR', 'TTY_COMPATIBLE', 'TTY_INTERACTIVE'):
            os.environ.pop(variable, None)
        os.environ.update({'TERM': 'xterm-256color'} | case['environment'])
        run_and_exit(case['arguments'])
    os.close(inside)
    os.close(written)
    read = {terminal: b'', pipe: b''}
    open_ends = list(read)
    while open_ends:
        for end in select.select(open_ends, [], [])[0]:
            try:
                part = os.read(end, 1 << 16)
            except OSError:  # of a terminal that no process has open any more
                part = b''
            read[end] += part
            if not part:
                open_ends.remove(end)
    texts = [read[end].decode(errors='surrogateescape').replace('\\r\\n', '\\n') for end in (terminal, pipe)]
    ended[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *texts
    os.close(terminal)
    os.close(pipe)
json.dump(ended, sys.stdout)
"""
)


class Started(NamedTuple):
    """How a command is started; with `piped`, its stdout is a pipe (`| less`)."""

    arguments: Sequence[str]
    columns: int = 80
    environment: Mapping[str, str] = {}
    piped: bool = False


class Shown(NamedTuple):
    """The outcome of a command: what the terminal received, with the codes that it obeys, and what the pipe did."""

    code: int
    terminal: str
    pipe: str


def run_on_terminals(module: str, cases: Mapping[str, Started]) -> dict[str, Shown]:
    """Runs a command on a terminal per case; returns the outcome of each."""
    given = {'module': module, 'cases': {name: case._asdict() for name, case in cases.items()}}
    done = subprocess.run(
        [sys.executable, '-c', _SERVER],
        cwd=ROOT,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    return {name: Shown(*outcome) for name, outcome in json.loads(done.stdout).items()}
