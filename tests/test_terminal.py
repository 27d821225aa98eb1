"""Ctrl-C at any moment, pipes that nobody reads, closed streams, and characters that a terminal lacks."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import ROOT

from ssanet_jax import terminal


def interrupt(program, delay=0.0, **options):
    """Starts Python on a program that prints 'ready', interrupts it after a delay, and returns how it ended."""
    process = subprocess.Popen(
        [sys.executable, *program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    assert process.stdout.readline() == 'ready\n'
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


@pytest.mark.parametrize('module', ['ssanet_jax', 'ssanet_jax.main'])
@pytest.mark.parametrize('delay', [0.0, 0.3, 0.8])
def test_an_interrupt_during_the_imports_is_one_line(module, delay, tmp_path):
    (tmp_path / 'jax').mkdir()  # an import that takes long, and would swallow a KeyboardInterrupt
    (tmp_path / 'jax' / '__init__.py').write_text(
        'import time\ntry:\n    print("ready", flush=True)\n    time.sleep(30)\nexcept BaseException:\n    pass\n'
    )
    arguments = ['doctor'] if module == 'ssanet_jax' else ['--config=configs/demo.py']
    environment = os.environ | {'PYTHONPATH': str(tmp_path)}
    code, stdout, stderr = interrupt(['-m', module, *arguments], delay, env=environment)
    assert (code, stdout, stderr) == (130, '', 'interrupted\n')


# What pip writes for the entry point of pyproject.toml.
SCRIPT = """
import re
import sys
from ssanet_jax.__main__ import main
if __name__ == '__main__':
    sys.exit(main())
"""


@pytest.mark.parametrize('start', ['ssanet_jax', 'ssanet_jax.main', 'ssanet_jax.doctor', 'script'])
def test_an_interrupt_during_the_first_import_is_one_line(start, tmp_path):
    """The imports of the package itself, which come before those of the command."""
    (tmp_path / 'typing.py').write_text('import time\nprint("ready", flush=True)\ntime.sleep(30)\n')
    script = tmp_path / 'ssanet'
    script.write_text(SCRIPT)
    program = [str(script), 'doctor'] if start == 'script' else ['-m', start]
    environment = os.environ | {'PYTHONPATH': f'{tmp_path}:{ROOT}'}
    assert interrupt(program, env=environment) == (130, '', 'interrupted\n')


@pytest.mark.parametrize('start', ['-m ssanet_jax.main --help', 'script'])
@pytest.mark.parametrize('milliseconds', range(0, 200, 20))
def test_an_interrupt_shows_a_traceback_only_before_the_package_is_imported(start, milliseconds, tmp_path):
    """Until `startup` is imported, which `__init__` does first, Python shows a traceback: nothing can prevent it."""
    script = tmp_path / 'ssanet'
    script.write_text(SCRIPT)
    program = [str(script), 'doctor'] if start == 'script' else start.split()
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    time.sleep(milliseconds / 1000)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT, 1)  # 1 while Python imports `site`
    assert process.returncode != 130 or stderr == 'interrupted\n'
    assert set(re.findall(r'/ssanet_jax/(\w+\.py)", line', stderr)) <= {'__init__.py', 'startup.py'}
    assert 'import importlib' not in stderr  # the next import of `__init__`


RUN = """
import time
from ssanet_jax import terminal

with terminal.standard_streams(), terminal.interruptible():
    try:
        print('ready', flush=True)
        time.sleep({first})
    except {caught}:
        time.sleep(300)  # longer than `interrupt` waits
"""


@pytest.mark.parametrize('caught', ['ValueError', 'BaseException'])
def test_an_interrupt_is_raised_again_where_a_library_swallows_it(caught):
    code, stdout, stderr = interrupt(['-c', RUN.format(first=300, caught=caught)])
    assert code in (-signal.SIGINT, 130) and 'KeyboardInterrupt' in stderr and not stdout


@terminal.interruptible(resumes=True)
def run_library(number):
    """Raises an error of its own where a signal interrupts it; without a signal, another error."""
    if number is None:
        raise ValueError('no signal')
    try:
        os.kill(os.getpid(), number)
        time.sleep(30)
    except KeyboardInterrupt as error:
        raise ValueError('cannot read the checkpoint') from error


@pytest.mark.parametrize(
    'number, expected',
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, terminal.Terminated), (None, ValueError)],
)
def test_an_error_that_a_library_makes_of_an_interrupt_is_the_interrupt(number, expected):
    with pytest.raises(expected) as raised:
        run_library(number)
    assert type(raised.value) is expected


def test_a_second_interrupt_ends_at_once():
    program = RUN.format(first=30, caught='BaseException')
    program = program.replace('time.sleep(300)', 'print("caught", flush=True)\n        time.sleep(1.5)')
    process = subprocess.Popen(
        [sys.executable, '-c', program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in ('ready\n', 'caught\n'):
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ('', 'interrupted\n') and process.returncode == 130


def test_a_job_in_the_background_still_ignores_interrupts():
    """A shell starts `command &` with SIGINT ignored."""
    program = 'from ssanet_jax import startup, terminal\nstartup.prepare_command()\nwith terminal.interruptible():\n'
    program += '    print("ready", flush=True)\n    import time\n    time.sleep(1)\nprint("done")'
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert interrupt(['-c', program], preexec_fn=ignore) == (0, 'done\n', '')


def test_a_library_user_keeps_the_handlers_of_python():
    program = 'import signal, ssanet_jax\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler'
    assert subprocess.run([sys.executable, '-c', program], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize('command', ['-m ssanet_jax --help', '-m ssanet_jax dance', '-m ssanet_jax.compare --helpfull'])
def test_a_pipe_that_nobody_reads_ends_the_command_quietly(command):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, timeout=60
    )
    os.close(write)
    assert done.returncode in (0, 2, terminal.CLOSED_PIPE)  # absl itself ends its help with 0
    assert b'Traceback' not in done.stderr and b'ignored' not in done.stderr


PRINT = """
import sys
from rich.console import Console
from ssanet_jax import terminal
with terminal.standard_streams():
    {statement}
"""


@pytest.mark.parametrize(
    'statement',
    [
        'print("x")',
        'print("x" * 100_000)',
        'Console().print("x")',
        'Console(stderr=True).print("x")',
        'print("x", file=sys.stderr)',
        'raise SystemExit(print("x"))',
    ],
)
def test_nobody_reads_stdout_or_stderr(statement):
    read, write = os.pipe()
    os.close(read)
    program = [sys.executable, '-c', PRINT.format(statement=statement)]
    done = subprocess.run(program, cwd=ROOT, stdout=write, stderr=write, timeout=60)
    os.close(write)
    assert done.returncode == terminal.CLOSED_PIPE


def test_closed_streams_are_opened_on_nothing(tmp_path):
    """Otherwise the next file would be stdout, and receive what is printed."""
    program = (
        'from ssanet_jax import startup, terminal\nstartup.prepare_command()\nimport os, sys\n'
        f'file = open({str(tmp_path / "file")!r}, "w")\nprint("out")\nprint("err", file=sys.stderr)\n'
        'os.write(1, b"out")\nos.write(2, b"err")\nassert file.fileno() > 2'
    )
    close = lambda: [os.close(descriptor) for descriptor in range(3)]
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, preexec_fn=close, timeout=60)
    assert done.returncode == 0 and (tmp_path / 'file').read_text() == ''


@pytest.mark.parametrize(
    'encoding, shown', [('utf-8', '中é\\udcff'), ('latin-1', '\\u4e2dé\\udcff'), ('ascii', '\\u4e2d\\xe9\\udcff')]
)
def test_characters_that_the_terminal_lacks(encoding, shown):
    program = 'from ssanet_jax import terminal\nwith terminal.standard_streams():\n    print("中é\\udcff")'
    environment = os.environ | {'PYTHONIOENCODING': encoding}
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stdout.decode(encoding) == shown + '\n'
