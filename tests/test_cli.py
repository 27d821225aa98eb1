"""How a command ends. In processes of their own, since flags belong to a process."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from commands import ROOT, run_python

from ssanet_jax import cli

# TensorStore does not raise OSError: the cause is in the message, and Orbax raises it in its own threads.
MAINS = {
    'full': "lambda: open('/dev/full', 'w').write(100_000 * 'x')",
    'checkpoint': 'fail',
    'bug': 'lambda: 1 / 0',
    'memory': 'lambda: jax.numpy.zeros(2**42).block_until_ready()',  # 16 TiB
    'message': 'long_message',
    'cache': 'lambda: print(jax.config.jax_compilation_cache_dir)',
}
PROGRAM = """
import errno, os
{before}
import jax
from ssanet_jax import cli

def fail():
    try:
        raise ValueError(f'RESOURCE_EXHAUSTED: Failed writing: {{os.strerror(errno.ENOSPC)}} [os_error_code=28]')
    except ValueError as error:
        raise RuntimeError('the save failed') from error

def long_message():
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Received message larger than max (5000000 vs. 4194304)')

cli.run({main}, trains=True)
"""


def run(name, before='', **variables):
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'} | variables
    program = PROGRAM.format(main=MAINS[name], before=before)
    return subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize('name', ['full', 'checkpoint'])
def test_a_full_disk_is_one_line(name):
    if name == 'full' and not Path('/dev/full').exists():
        pytest.skip('this system has no /dev/full')
    done = run(name)
    assert done.returncode == 2
    assert done.stderr == (
        'error: the disk is full: free some space and run the same command again; training resumes from the last '
        'complete checkpoint\n'
    )


@pytest.mark.parametrize('processes', [1, 2])
def test_too_little_memory_is_one_line(processes):
    done = run('memory', before=f'import jax; jax.process_count = lambda: {processes}')
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: out of device memory (16384.00 GiB requested): set a smaller ')
    fields = ('data.batch_size', 'data.eval_batch_size', 'model.sharing=image', 'model.dtype=bfloat16')
    for field in (*fields, 'model.dtype=bfloat16'):
        assert f'config.{field}' in line


@pytest.mark.parametrize(
    'message, amount',
    [
        ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 13958643712 bytes.', '13.00'),
        ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 512.00MiB.', '0.50'),
        ('RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to allocate 1.50G. There are 1.22G', '1.50'),
        ('RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.12G of 15.48G hbm.', '20.12'),
        ('INTERNAL: the graph cannot be captured: RESOURCE_EXHAUSTED: out of memory', None),
    ],
)
def test_each_way_to_say_that_memory_is_short(message, amount, monkeypatch, capsys):
    def fail():
        try:
            raise jax.errors.JaxRuntimeError(message)
        except jax.errors.JaxRuntimeError as error:
            raise ValueError('of the step') from error

    monkeypatch.setattr(cli, '_parse', lambda argv: [])
    with pytest.raises(SystemExit, match='2'):
        cli.run(fail)
    requested = f' ({amount} GiB requested)' if amount else ''
    assert capsys.readouterr().err.startswith(f'error: out of device memory{requested}: set ')


@pytest.mark.parametrize('name, last', [('bug', 'ZeroDivisionError: division by zero'), ('message', 'vs. 4194304)')])
def test_other_failures_keep_their_traceback(name, last):
    done = run(name)
    assert done.returncode == 1
    assert 'Traceback' in done.stderr and done.stderr.rstrip().endswith(last)


def test_the_others_failure_is_one_line():
    done = run('message', before='import jax; jax.process_count = lambda: 2')
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: lost contact with the other processes (RESOURCE_EXHAUSTED: Received message')


NOBODY = 'import os; os.environ.pop("HOME", None); os.getuid = lambda: 2**31 - 3'
NO_FOLDER = 'os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)'


@pytest.mark.parametrize(
    'before, variables, expected',
    [
        ('', {'HOME': '{tmp}'}, '{tmp}/.cache/ssanet_jax/compiled'),
        ('', {'XDG_CACHE_HOME': '{tmp}/xdg'}, '{tmp}/xdg/ssanet_jax/compiled'),
        ('', {'XDG_CACHE_HOME': 'relative', 'HOME': '{tmp}'}, '{tmp}/.cache/ssanet_jax/compiled'),
        (NOBODY, {'XDG_CACHE_HOME': '{tmp}/xdg'}, '{tmp}/xdg/ssanet_jax/compiled'),
        (NOBODY, {}, 'None'),
        ('', {'HOME': '/dev/null'}, 'None'),
    ],
    ids=['home', 'XDG', 'relative', 'XDG alone', 'nobody', 'no folder'],
)
def test_where_programs_are_kept(before, variables, expected, tmp_path):
    variables = {'XDG_CACHE_HOME': ''} | {name: value.format(tmp=tmp_path) for name, value in variables.items()}
    done = run('cache', f'{before}\n{NO_FOLDER}', **variables)
    assert (done.stdout.strip(), done.stderr) == (expected.format(tmp=tmp_path), '')


def test_help_says_what_a_command_does_and_takes():
    asked = [sys.executable, '-m', 'ssanet_jax.measure', '--help']
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert done.stdout.startswith('Measures a trained run beyond its accuracy')
    assert '--workdir: Folder of a trained run.' in done.stdout and not done.stderr


def test_a_config_file_that_exits_is_no_help(tmp_path):
    """Its message and exit code are kept; only absl's help flags end with 0."""
    file = tmp_path / 'exits.py'
    file.write_text("import sys\ndef get_config():\n    sys.exit('the data is not here')\n")
    done = run_python(('-m', 'ssanet_jax.main'), f'--config={file}', f'--workdir={tmp_path / "run"}')
    assert (done.returncode, done.stdout, done.stderr) == (1, '', 'the data is not here\n')


@pytest.mark.parametrize('flag', ['-?', '--helpshort', '--helpfull', '--helpxml'])
def test_each_help_flag_ends_with_zero(flag):
    done = run_python(('-m', 'ssanet_jax.measure'), flag)
    assert done.returncode == 0 and 'workdir' in done.stdout


@pytest.mark.parametrize('name', ['model.dilate=true', 'stages[0].statistics=running'])
def test_an_old_override_without_a_config_file_is_one_line(name):
    done = run_python(('-m', 'ssanet_jax.main'), f'--config.{name}')
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: --config is missing')


SSANET = (sys.executable, '-m', 'ssanet_jax')


def ssanet(*arguments):
    return subprocess.run([*SSANET, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_ssanet_lists_its_commands():
    done = ssanet('--help')
    assert done.returncode == 0 and not done.stderr
    for name in ('train', 'evaluate', 'predict', 'doctor', 'report', 'measure', 'ablate', 'preflight'):
        assert f'\n  {name} ' in done.stdout


@pytest.mark.parametrize('arguments', [('dance',), ()])
def test_an_unknown_command_is_one_line(arguments):
    done = ssanet(*arguments)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: ') and 'train, evaluate, download, predict' in line and 'ssanet --help' in line


def test_a_command_of_ssanet_has_the_help_and_flags_of_its_module():
    found, expected = (
        ssanet('measure', '--help'),
        subprocess.run(
            [sys.executable, '-m', 'ssanet_jax.measure', '--help'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        ),
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, expected.stdout, '')
    assert '--workdir: Folder of a trained run.' in found.stdout


def test_train_and_evaluate_are_modes_of_main(tmp_path):
    tiny = '--config=tests/tiny_config.py'
    done = ssanet('evaluate', tiny, f'--workdir={tmp_path / "nothing"}')
    assert done.returncode == 2 and 'holds no run' in done.stderr
    done = ssanet('train', tiny, '--config.model.backbone=vgg', f'--workdir={tmp_path / "nothing"}')
    assert done.returncode == 2 and "'vgg'" in done.stderr
    done = ssanet('train', tiny, 'more')
    assert done.returncode == 2 and done.stderr == "error: unexpected argument 'more': see --help\n"


def test_a_working_directory_that_was_deleted(tmp_path):
    program = (
        'import os, sys\nfrom ssanet_jax import cli\n'
        f'os.mkdir({str(tmp_path / "gone")!r})\nos.chdir({str(tmp_path / "gone")!r})\nos.rmdir(os.getcwd())\n'
        'sys.argv = ["x"]\ncli.run(lambda: print("not reached"))'
    )
    done = run_python(('-c', program))
    message = 'error: the working directory cannot be read (No such file or directory): cd to another folder\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, '', message)


def test_warnings_have_one_form_whatever_libraries_configure():
    program = (
        'import logging, sys\nfrom ssanet_jax import cli\nlogging.basicConfig(format="[%(levelname)s] %(message)s")\n'
        'sys.argv = ["x"]\ncli.run(lambda: logging.warning("late"))'
    )
    assert run_python(('-c', program)).stderr == 'warning: late\n'


def test_garbage_is_collected_after_the_imports_of_a_command():
    program = (
        'import gc, sys\nfrom ssanet_jax import startup\nstartup.prepare_command()\nprint(gc.isenabled())\n'
        'from ssanet_jax import cli\nsys.argv = ["x"]\n'
        'cli.run(lambda: print(gc.isenabled(), gc.get_freeze_count() > 10_000))'
    )
    assert run_python(('-c', program)).stdout == 'False\nTrue True\n'
