"""Commands of users whose home folder is missing, is read-only, or is not known."""

import os
from pathlib import Path

import pytest
from commands import changed, run_each, run_python
from data_samples import write_image

# As for the user of a container without an entry in /etc/passwd.
UNKNOWN_USER = """
import os, pwd
def unknown(user):
    raise KeyError(f'getpwuid(): uid not found: {user}')
pwd.getpwuid = unknown
os.environ.pop('HOME', None)
"""
READ_ONLY = """
import os
home, real = os.environ['HOME'], os.mkdir
def mkdir(path, *arguments, **options):
    if os.fspath(path).startswith(home):
        raise OSError(30, 'Read-only file system', path)
    return real(path, *arguments, **options)
os.mkdir = mkdir
"""
HOMES = {
    'a user without a home': UNKNOWN_USER,
    'a home that is not there': "import os; os.environ['HOME'] = '/dev/null/nobody'",
    'a home that is a file': "import os; os.environ['HOME'] = '/etc/passwd'",
    'an empty home': "import os; os.environ['HOME'] = '/dev/null'",
    'a home that is read-only': "import os; os.environ['HOME'] = '{tmp}/read_only'\n" + READ_ONLY,
}
FRESH = "for name in ('XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR'): os.environ.pop(name, None)\n"


@pytest.fixture
def birds(tmp_path):
    for split, count in (('train', 4), ('test', 2)):
        for name in ('crow', 'wren'):
            for number in range(count):
                write_image(tmp_path / 'birds' / split / name / f'{name}{split}{number}.jpg')
    (tmp_path / 'read_only').mkdir()
    return tmp_path / 'birds'


@pytest.mark.parametrize('home', HOMES)
def test_the_doctor_needs_no_home(home, birds, tmp_path):
    before = HOMES[home].replace('{tmp}', str(tmp_path)) + '\n' + FRESH
    arguments = ['--dataset=folder', f'--data_dir={birds}']
    code, stdout, stderr = run_each('ssanet_jax.doctor', {'it': arguments}, tmp_path, before)['it']
    assert code == 0 and stdout.splitlines()[-1].startswith('ok: ') and 'Traceback' not in stderr
    assert not any((tmp_path / 'read_only').iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('home', ['a user without a home', 'a home that is read-only'])
def test_training_and_predictions_need_no_home(home, birds, tmp_path):
    """The copy of the data set goes to the temporary folder, with one warning; compiled programs are not kept."""
    before = HOMES[home].replace('{tmp}', str(tmp_path)) + '\n' + FRESH
    workdir, temporary = tmp_path / 'run', tmp_path / 'temporary'
    temporary.mkdir()
    start = [
        '--config=tests/one_stage.py', f'--workdir={workdir}', '--config.data.name=folder',
        f'--config.data.dir={birds}', '--config.stages[0].epochs=1', '--config.data.batch_size=4',
    ]  # fmt: skip
    run = lambda module, *arguments: run_python(
        changed(module, before), *arguments, environment={'TMPDIR': str(temporary)}
    )
    done = run('ssanet_jax.main', *start)
    assert done.returncode == 0, done.stderr
    copies = f'{temporary}/ssanet_jax-{os.getuid()}'
    warning = (
        f'warning: ~/.cache/ssanet_jax/data cannot be written, so {copies} is used, which may be emptied: set '
        'config.data.prepared_dir to keep it'
    )
    assert done.stderr.splitlines().count(warning) == 1 and 'Traceback' not in done.stderr
    assert any(Path(copies).iterdir()) and not any((tmp_path / 'read_only').iterdir())
    done = run('ssanet_jax.predict', f'--workdir={workdir}', f'--out={tmp_path / "out"}', birds)
    assert done.returncode == 0 and 'Traceback' not in done.stderr
    assert done.stdout.splitlines()[-1] == f'12 images recognized: see {tmp_path / "out"}'
