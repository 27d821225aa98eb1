"""A training that is killed at its file operations, and the library that kills it."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import pytest

from benchmarks import chaos
from benchmarks.chaos import Findings, Place, Settings, files_of, measure, phase_of, read_findings, write_findings
from benchmarks.fault_injection import ACTIONS, KINDS, compile_shim
from benchmarks.run_differences import differences, remains
from ssanet_jax.errors import UserError

# Writes files in the ways that programs do, below its first argument; the rest is for the shim.
PROGRAM = """
import ctypes, os, sys
folder, *fault, log = sys.argv[1:]
values = [value if not value.lstrip('-').isdecimal() else int(value) for value in fault]
coded = [value.encode() if isinstance(value, str) else value for value in values]
ctypes.CDLL(os.environ['LD_PRELOAD']).arm_faults(f'{folder}/'.encode(), *coded, log.encode())
os.chdir(folder)
os.mkdir('a')
for number in range(3):
    with open(f'a/{number}.partial', 'wb', buffering=0) as file:
        file.write(b'12345678')
        os.fsync(file.fileno())
    os.replace(f'a/{number}.partial', f'{folder}/a/{number}')
os.unlink('a/0')
with open(os.devnull, 'wb') as file:
    file.write(b'not counted')
print('end')
"""


@pytest.fixture(scope='module')
def shim(tmp_path_factory):
    try:
        return compile_shim(tmp_path_factory.mktemp('shim'))
    except UserError as error:
        pytest.skip(str(error))


def inject(shim, tmp_path, action, kinds=KINDS, part='', number=1, error=0):
    folder = tmp_path / 'folder'
    folder.mkdir()
    mask = sum(1 << KINDS.index(kind) for kind in kinds)
    arguments = [folder, part, mask, number, ACTIONS.index(action), error, tmp_path / 'log']
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, *map(str, arguments)],
        env=os.environ | {'LD_PRELOAD': str(shim)},
        capture_output=True,
        text=True,
    )
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    return done, found, [line.split('\t')[:2] for line in (tmp_path / 'log').read_text().splitlines()]


def test_operations_are_counted(shim, tmp_path):
    done, found, log = inject(shim, tmp_path, 'nothing')
    assert done.stdout == 'end\n' and set(found) == {'a/1', 'a/2'}
    each = ['create', 'write', 'sync', 'rename']
    assert [kind for _, kind in log] == ['mkdir', *each * 3, 'remove']


@pytest.mark.parametrize(
    'action, kinds, number, expected',
    [
        ('before', ['rename'], 2, {'a/0': b'12345678', 'a/1.partial': b'12345678'}),
        ('after', ['rename'], 2, {'a/0': b'12345678', 'a/1': b'12345678'}),
        ('torn', ['write'], 2, {'a/0': b'12345678', 'a/1.partial': b'1234'}),
        ('before', ['write', 'sync'], 2, {'a/0.partial': b'12345678'}),
        ('before', ['mkdir'], 1, {}),
    ],
)
def test_the_process_ends_at_the_operation(action, kinds, number, expected, shim, tmp_path):
    done, found, log = inject(shim, tmp_path, action, kinds, number=number)
    assert done.returncode == -signal.SIGKILL and found == expected
    assert log[-1][0] == 'killed' and log[-1][1] in kinds


@pytest.mark.parametrize('action, left', [('fail once', 1), ('fail from', 1)])
def test_the_operation_fails(action, left, shim, tmp_path):
    done, found, log = inject(shim, tmp_path, action, ['rename'], 'a/', 2, errno.ENOSPC)
    assert done.returncode == 1 and os.strerror(errno.ENOSPC) in done.stderr
    assert set(found) == {'a/0', 'a/1.partial'} and ['failed', 'rename'] in log


def test_faults_can_be_limited_to_files(shim, tmp_path):
    done, found, _ = inject(shim, tmp_path, 'before', ['write'], '/a/2', 1)
    assert done.returncode == -signal.SIGKILL and found['a/2.partial'] == b''


def test_parts_of_a_run():
    paths = {
        'prepared/images-0/records/incomplete.x_2.0.0/features.json': 'preparation of the images',
        'run': 'start of the run',
        'run/config.json.partial': 'start of the run',
        'run/fit': 'fit: training',
        'run/fit/checkpoints/2.orbax-checkpoint-tmp/params/d/1': 'fit: training',
        'run/fit/predictions.npz.partial': 'fit: evaluation',
        'run/fit/best/3/params/d/1': 'fit: evaluation',
        'run/fit/evaluation.json': 'fit: hand-over',
        'run/results.json.partial': 'end of the run',
    }
    assert {path: phase_of(path) for path in paths} == paths
    assert all(files_of(path) in f'/{path}' for path in paths)
    assert files_of('run/fit/checkpoints/2/params/d/1') == '/run/fit/checkpoints'
    assert files_of('run/fit/best.json.partial') == '/run/fit/best.json'


def test_all_places_are_hit_before_any_is_hit_again():
    operations = [
        chaos.Operation(kind, f'run/{stage}/{name}')
        for stage in ('fit', 'tuning')
        for name in ('history.jsonl', 'evaluation.json.partial', 'predictions.npz')
        for kind in ('create', 'write', 'rename')
    ]
    reference, plan = chaos.Reference('', None, tuple(operations), 1.0), chaos.Plan('0')
    drawn = [plan.kills(reference) for _ in range(3)]
    places = [Place(fault.below, fault.kinds[0]) for faults in drawn for fault in faults]
    assert len(set(places[:16])) == 16 and len(places) == 24
    order = {Place(files_of(each.path), each.kind): index for index, each in enumerate(operations)}
    for faults in drawn:
        numbers = [order[Place(fault.below, fault.kinds[0])] for fault in faults]
        assert numbers == sorted(numbers)


def test_figures_are_taken_up_again(tmp_path):
    found = Findings(runs=3, starts=7, problems=['one'])
    found.kills['fit: training', 'rename'] += 2
    settings = Settings(seed=4)
    write_findings(tmp_path / 'out.json', settings, found)
    assert read_findings(tmp_path / 'out.json', settings) == found
    for other, name in (
        (Settings(seed=5), 'seed'),
        (Settings(seed=4, async_checkpointing='on'), 'async_checkpointing'),
    ):
        with pytest.raises(UserError, match=f'another --{name}'):
            read_findings(tmp_path / 'out.json', other)
    (tmp_path / 'out.json').write_text('{}')
    with pytest.raises(UserError, match='cannot be read'):
        read_findings(tmp_path / 'out.json', settings)


@pytest.mark.slow
def test_a_few_kills_and_errors(shim, tmp_path, monkeypatch):
    monkeypatch.setattr(chaos, '_FAULTS_PER_RUN', 3)
    found = Findings()
    # The checkpoints of the fitted stage and of `best` are saved before the run goes on, those of the other two not.
    for _ in measure(Settings(count=3, errors=1, async_checkpointing='on'), tmp_path, found):
        pass
    assert not found.problems
    assert found.kills.total() >= 3 and found.errors.total() >= 1


@pytest.mark.slow
def test_differences_are_found(finished_run, tmp_path):
    copy = shutil.copytree(finished_run.workdir, tmp_path / 'run')
    assert not list(differences(finished_run.workdir, copy))
    shutil.rmtree(copy / 'part_tuning/checkpoints/8')
    (copy / 'parts.png').write_bytes(b'')
    text = (copy / 'results.json').read_text()
    (copy / 'results.json').write_text(text.replace('"seed": 0', '"seed": 1'))
    (copy / 'predictions.npz').unlink()
    (copy / 'part_tuning/history.jsonl').write_text('')
    (copy / 'results.json.partial').write_text('')
    assert list(differences(finished_run.workdir, copy)) == [
        'results.json differs',
        'predictions.npz differs',
        'part_tuning/history.jsonl differs',
        'parts.png differs',
        'part_tuning/checkpoints ends at step 6 instead of 8',
        'results.json.partial is left over',
    ]
    assert list(remains(copy)) == ['results.json.partial is left over']
