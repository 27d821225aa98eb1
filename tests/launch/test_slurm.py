"""slurm.sbatch: it submits itself with the given options, and is requeued before its time limit."""

import re
import shutil
import signal

from launch_sandbox import CONFIG, DIR, FLAG, GOOD, LAUNCH, TRAIN, wait_until


def test_slurm_submits_itself(sandbox):
    sandbox.tool('sbatch')
    python = str(sandbox.tool('python'))
    done = sandbox.run('slurm.sbatch', CONFIG, DIR, FLAG, PYTHON=python, NODES='3')
    assert done.returncode == 0, done.stderr
    assert sandbox.calls()[1:] == [['sbatch', '--nodes=3', 'launch/slurm.sbatch', CONFIG, DIR, FLAG]]


def test_slurm_runs_a_copy_from_another_folder(sandbox):
    spool = sandbox.folder / 'slurm_script'
    shutil.copy(LAUNCH / 'slurm.sbatch', spool)
    sandbox.tool('srun', 'exit 4')
    python = str(sandbox.tool('python'))
    variables = {'PYTHON': python, 'SLURM_JOB_ID': '77'}
    done = sandbox.run(str(spool), CONFIG, DIR, FLAG, **variables)
    assert done.returncode == 4, done.stderr
    assert sandbox.calls()[-1][0] == 'srun' and sandbox.calls()[-1][-len(TRAIN) :] == TRAIN

    calls = len(sandbox.calls())
    done = sandbox.run(str(spool), CONFIG, DIR, FLAG, cwd=sandbox.folder, **variables)  # submitted from another folder
    assert done.returncode == 2 and len(sandbox.calls()) == calls
    assert re.fullmatch(r'error: .*start this from the root of the repository\n', done.stderr), done.stderr


def test_slurm_options_of_script_and_variables_agree():
    # The defaults in the comment are those of the directives, with one task per GPU.
    text = (LAUNCH / 'slurm.sbatch').read_text()
    options = dict(re.findall(r'^#SBATCH --([\w-]+)=(\S+)$', text, re.MULTILINE))
    assert options['ntasks-per-node'] == options['gpus-per-node']
    for variable, option in (
        ('NODES', 'nodes'),
        ('GPUS_PER_NODE', 'gpus-per-node'),
        ('CPUS_PER_TASK', 'cpus-per-task'),
        ('TIME_LIMIT', 'time'),
    ):
        assert re.search(rf'^#   {variable} .*\({options[option]}\)$', text, re.MULTILINE), variable
    assert '\n#SBATCH --requeue\n' in text
    directives = [m.start() for m in re.finditer('^#SBATCH', text, re.MULTILINE)]
    assert max(directives) < text.index('set -euo pipefail')  # sbatch ignores directives after the first command


def test_slurm_job_is_requeued_before_its_time_limit(sandbox):
    sandbox.real('sleep')
    sandbox.tool('scontrol')
    sandbox.tool('scancel')
    sandbox.tool('srun', 'sleep 2; exit 75')
    python = str(sandbox.tool('python'))
    process = sandbox.start('slurm.sbatch', *GOOD, PYTHON=python, SLURM_JOB_ID='77')
    wait_until(lambda: any(call[0] == 'srun' for call in sandbox.calls()))
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    calls = sandbox.calls()
    # The tasks are told to save, and the job is requeued when they have done so.
    assert calls[-2:] == [['scancel', '--signal=TERM', '77'], ['scontrol', 'requeue', '77']]
    assert process.returncode == 75  # it waited for the tasks
