"""How tests start the commands."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TINY_CONFIG = Path(__file__).with_name('tiny_config.py')

_FIND_COMMAND = """
import importlib, inspect
from ssanet_jax import cli

def find_command(name):
    module = importlib.import_module(name)
    # A package is started by its __main__.
    return importlib.import_module(f'{name}.__main__') if hasattr(module, '__path__') else module
"""
# The beginning of a program that imports a command once and forks for every case: the real flags, output and exit code
# of a process each, at a fraction of the time. Importing starts no JAX backend (test_main.py holds it to that), so that
# there is nothing a fork could break.
FORKING_PROGRAM = f"""
import json, os, sys, traceback
{_FIND_COMMAND}
given = json.load(sys.stdin)
module = find_command(given['module'])

def run_and_exit(arguments):
    sys.argv = [given['module'], *arguments]
    try:
        cli.run(module.main, accepts_arguments=bool(inspect.signature(module.main).parameters))
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""
_SERVER = f"""
{FORKING_PROGRAM}
exec(given['before'])
codes = {{}}
for name, (arguments, stem) in given['cases'].items():
    pid = os.fork()
    if not pid:
        for descriptor, path in ((1, stem + '.out'), (2, stem + '.err')):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        run_and_exit(arguments)
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
json.dump(codes, sys.stdout)
"""


class Ended(NamedTuple):
    """The outcome of a command."""

    code: int
    stdout: str
    stderr: str


def train_command(workdir: Path, config: Path = TINY_CONFIG) -> list[str]:
    """The command that trains the tiny configuration, or another; to be run in `ROOT`."""
    return [sys.executable, '-m', 'ssanet_jax.main', f'--config={config}', f'--workdir={workdir}']


def run_python(
    program: Sequence[str], *arguments: object, environment: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Runs Python in `ROOT` on `-m module` or `-c program`, with `environment` beside what there is."""
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors='surrogateescape',  # file names may be in any code
        env=os.environ | (environment or {}),
        timeout=timeout,
    )


def changed(module: str, before: str) -> tuple[str, str]:
    """Arguments for `run_python` that run a command after Python code `before`, which may change its `module`."""
    start = f'{_FIND_COMMAND}module = find_command({module!r})\n{before}\n'
    start += 'parameters = inspect.signature(module.main).parameters\n'
    trains = module == 'ssanet_jax.main'
    return '-c', f'{start}cli.run(module.main, accepts_arguments=bool(parameters), trains={trains})'


def run_each(module: str, cases: Mapping[str, Sequence[str]], folder: Path, before: str = '') -> dict[str, Ended]:
    """Runs a command with the arguments of each case, one process per case.

    Args:
      module: the module of the command.
      cases: {name: arguments}.
      folder: the folder for the outputs.
      before: Python code that runs before the command; see `changed`.

    Returns:
      {name: outcome}.
    """
    stems = {name: str(folder / f'case{number}') for number, name in enumerate(cases)}
    given = {'module': module, 'before': before, 'cases': {name: (cases[name], stems[name]) for name in cases}}
    done = subprocess.run(
        [sys.executable, '-c', _SERVER], cwd=ROOT, input=json.dumps(given), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {
        name: Ended(code, *(Path(stems[name] + end).read_text() for end in ('.out', '.err')))
        for name, code in json.loads(done.stdout).items()
    }


def check_user_error(ended: Ended, words: Sequence[str]) -> None:
    """Holds a command to one line on stderr that has all the words, nothing on stdout, and exit code 2."""
    code, stdout, stderr = ended
    assert code == 2, stderr
    assert stdout == ''
    (line,) = stderr.splitlines()
    assert line.startswith('error: ')
    for word in words:
        assert word in line
    assert 'Traceback' not in line


# For `changed`: data that lie elsewhere, and a network without parts, as with global pooling.
MOVED_DATA_WITHOUT_PARTS = """
import dataclasses
from ssanet_jax.runs import run as runs
load, load_run = runs.load_dataset, module.load_run
def moved(config, class_names=()):
    assert config.dir == 'elsewhere'
    return load(config)
runs.load_dataset = moved
module.load_run = lambda path, **options: dataclasses.replace(load_run(path, **options), active=frozenset(
    ['backbone', 'image_classifier']))
"""
