"""tpu_vm.sh: it performs only the missing steps, and the training on a worker survives the loss of the connection."""

import os
import signal
import subprocess
import sys

import pytest
from launch_sandbox import CONFIG, DIR, TPU, Sandbox, wait_until

# Prints the next line of the files `queued` and `node`, repeating the last; `ssh` exits with the next line of `ssh`.
FAKE_GCLOUD = """
next() {
  [[ -f $1 ]] || return 0
  mapfile -t lines <"$1"
  echo "${lines[0]}"
  ((${#lines[@]} == 1)) || printf '%s\\n' "${lines[@]:1}" >"$1"
}
case "$*" in
  *'queued-resources list'*) [[ ! -f $DIR/broken ]] || exit 1; next "$DIR/queued" ;;
  *'tpu-vm list'*) next "$DIR/node" ;;
  *'tpu-vm ssh'*'on_worker run'*) exit "$(next "$DIR/ssh")" ;;
esac
"""
STEPS = {
    'list': 'queued-resources list',
    'create': 'queued-resources create',
    'delete': 'queued-resources delete',
    'copy': 'tpu-vm scp',
    'install': 'on_worker install',
    'run': 'on_worker run',
}
FULL = ['copy', 'install', 'run']

# Name -> (step, queued states, node states, exit codes of the training, expected steps, expected exit code)
SLICES = {
    'fresh': (
        [],
        ['', 'WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'],
        ['CREATING', 'READY'],
        [0],
        ['create', *FULL],
        0,
    ),
    'already there': ([], ['ACTIVE'], ['READY'], [0], FULL, 0),
    'still waiting': ([], ['WAITING_FOR_RESOURCES', 'ACTIVE'], ['READY'], [0], FULL, 0),
    'suspended': ([], ['SUSPENDED', '', 'ACTIVE'], ['READY'], [0], ['delete', 'create', *FULL], 0),
    'being suspended': ([], ['SUSPENDING', '', 'ACTIVE'], ['READY'], [0], ['delete', 'create', *FULL], 0),
    'preempted': ([], ['ACTIVE', '', 'ACTIVE'], ['PREEMPTED', 'READY'], [0], ['delete', 'create', *FULL], 0),
    'once failed': ([], ['FAILED', '', 'ACTIVE'], ['READY'], [0], ['delete', 'create', *FULL], 0),
    'fails': ([], ['', 'FAILED'], [''], [0], ['create'], 2),
    'preempted while training': (
        [],
        ['ACTIVE', 'SUSPENDED', 'SUSPENDED', 'DELETING', '', 'ACTIVE'],
        ['READY'],
        [255, 0],
        [*FULL, 'delete', 'create', *FULL],
        0,
    ),
    'training fails': ([], ['ACTIVE'], ['READY'], [3], FULL, 3),
    'only create': (['create'], ['', 'ACTIVE'], ['READY'], [0], ['create'], 0),
    'only create, there': (['create'], ['ACTIVE'], ['READY'], [0], [], 0),
    'delete': (['delete'], ['ACTIVE'], ['READY'], [0], ['delete'], 0),
    'delete what is gone': (['delete'], [''], [''], [0], [], 0),
}


@pytest.mark.parametrize('case', SLICES)
def test_tpu_performs_the_missing_steps(case, sandbox):
    step, queued, node, codes, expected, code = SLICES[case]
    for name, answers in (('queued', queued), ('node', node), ('ssh', codes)):
        (sandbox.folder / name).write_text('\n'.join(map(str, answers)) + '\n')
    sandbox.real('sleep')
    sandbox.tool('git')
    sandbox.tool('gcloud', FAKE_GCLOUD)
    done = sandbox.run('tpu_vm.sh', *step, CONFIG, DIR, **TPU, DIR=str(sandbox.folder))
    assert done.returncode == code, done.stderr
    calls = [' '.join(call) for call in sandbox.calls()]
    steps = [name for call in calls for name, words in STEPS.items() if words in call]
    assert [name for name in steps if name != 'list'] == expected
    assert ('error: ' in done.stderr) == (code == 2)


def test_tpu_stops_if_gcloud_fails(sandbox):
    (sandbox.folder / 'broken').touch()
    sandbox.tool('git')
    sandbox.tool('gcloud', FAKE_GCLOUD)
    done = sandbox.run('tpu_vm.sh', CONFIG, DIR, **TPU, DIR=str(sandbox.folder))
    assert done.returncode == 2 and 'gcloud auth login' in done.stderr
    assert len(sandbox.calls()) == 1


@pytest.fixture
def worker(sandbox) -> Sandbox:
    """The copied repository on a worker, with a training that takes two seconds and exits with 3."""
    sandbox.copy_repository()
    sandbox.real('nohup', 'setsid', 'bash', 'rm', 'tail', 'sleep')
    python = sandbox.tool('python', 'echo begins; sleep 2; echo ends; exit 3')
    (sandbox.folder / '.venv/bin').mkdir(parents=True)
    python.rename(sandbox.folder / '.venv/bin/python')
    return sandbox


def on_worker(worker: Sandbox, *flags: str) -> subprocess.Popen:
    return worker.start('tpu_vm.sh', 'on_worker', 'run', *flags, cwd=worker.folder)


@pytest.mark.skipif(sys.platform != 'linux', reason='setsid and tail --pid exist only on Linux')
def test_training_survives_its_connection_and_can_be_reattached(worker):
    first = on_worker(worker, CONFIG, DIR)
    wait_until(lambda: (worker.folder / 'run.pid').exists() and len(worker.calls()) == 1)
    os.killpg(first.pid, signal.SIGKILL)  # the connection and all its processes
    first.communicate()

    other = on_worker(worker, CONFIG, '--workdir=shared/other')
    assert 'another training' in other.communicate(timeout=30)[1] and other.returncode == 2

    stdout, stderr = (again := on_worker(worker, CONFIG, DIR)).communicate(timeout=30)
    assert again.returncode == 3, stderr
    assert stdout == 'begins\nends\n'
    assert worker.calls() == [['python', '-m', 'ssanet_jax.main', '--cluster=gcetpu', CONFIG, DIR]]  # started once

    on_worker(worker, CONFIG, DIR).communicate(timeout=30)
    assert len(worker.calls()) == 2  # a finished training is started again


@pytest.mark.skipif(sys.platform != 'linux', reason='TPU workers run Linux')
def test_worker_installs_only_missing_tools(sandbox):
    sandbox.copy_repository()
    sandbox.real('bash', 'mkdir')
    for name in ('mountpoint', 'gcsfuse', 'curl', 'sudo', 'apt-get'):
        sandbox.tool(name, 'exit 1' if name == 'mountpoint' else '')
    for path in ('.local/bin', '.venv/bin'):
        (sandbox.folder / path).mkdir(parents=True)
    sandbox.tool('uv').rename(sandbox.folder / '.local/bin/uv')

    def install() -> list[str]:
        sandbox.log.write_text('')
        done = sandbox.run('tpu_vm.sh', 'on_worker', 'install', 'birds-runs', cwd=sandbox.folder)
        assert done.returncode == 0, done.stderr
        return [' '.join(call) for call in sandbox.calls() if call[0] != 'mountpoint']

    venv = 'uv venv --python 3.12 .venv'
    packages = 'uv pip install --quiet --python .venv/bin/python --editable .[tpu,lite0]'
    assert install() == ['gcsfuse --implicit-dirs birds-runs shared', venv, packages]
    sandbox.tool('python').rename(sandbox.folder / '.venv/bin/python')
    sandbox.tool('mountpoint')
    assert install() == [packages]
