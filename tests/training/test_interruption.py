"""SIGTERM and Ctrl-C: a run saves after the step in progress, and the same command goes on to the same end."""

import signal

import chex
import pytest
from commands import changed, run_python, train_command
from training.test_resume import committed, last_items

pytestmark = pytest.mark.slow

# Sends signals to the process itself, at a step of the first stage, or in an evaluation in the middle of it.
AT_STEP = """
import os, signal
from ssanet_jax.training import loop
ask = loop._requested_stop

def interrupted(step, triggers):
    if step == {step} and triggers.epochs == 2:
        for number in {numbers}:
            os.kill(os.getpid(), number)
    return ask(step, triggers)

loop._requested_stop = interrupted
"""
IN_EVALUATION = """
import os, signal
from ssanet_jax.training import loop
real = loop.Evaluator.__call__

def interrupted(self, *arguments):
    os.kill(os.getpid(), {numbers}[0])
    return real(self, *arguments)

loop.Evaluator.__call__ = interrupted
"""
# Each write of a checkpoint takes longer than the steps until the next one.
SLOW_WRITES = """
import time
from ssanet_jax.runs import checkpoints
write = checkpoints.write_checksums

def slow(*arguments):
    time.sleep(1)
    write(*arguments)

checkpoints.write_checksums = slow
"""
# A second Ctrl-C while the last checkpoint is written.
IN_WRITE = """
import os, signal, time
from ssanet_jax.runs import checkpoints
write = checkpoints.write_checksums

def interrupted(folder, step):
    if step == {step}:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    write(folder, step)

checkpoints.write_checksums = interrupted
"""


def run(workdir, *settings, before=''):
    arguments = [*train_command(workdir)[3:], *settings]
    return run_python(changed('ssanet_jax.main', before), *arguments)


def check_same_end(finished_run, workdir, again):
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == finished_run.stdout.splitlines()[-1]
    for stage in ('scale_mining', 'oriented_pooling', 'part_tuning'):
        (one, expected), (other, found) = last_items(finished_run.workdir, stage), last_items(workdir, stage)
        assert one == other
        chex.assert_trees_all_equal(found, expected)


def test_a_signal_ends_the_run_after_the_step_in_progress(finished_run, tmp_path):
    """Both signals and both ways of saving leave the same checkpoint, from which a run goes on to the same end."""
    saved = {}
    for number, code, word, saving in (
        (signal.SIGTERM, 75, 'terminated', 'on'),
        (signal.SIGINT, 130, 'interrupted', 'off'),
    ):
        workdir = tmp_path / word
        before = AT_STEP.format(step=5, numbers=[int(number)])  # checkpoints are due at 3 and 6
        ended = run(workdir, f'--config.async_checkpointing={saving}', before=before + SLOW_WRITES)
        assert ended.returncode == code, ended.stderr
        assert 'stopping: the next step is the last; a checkpoint is saved' in ended.stderr
        assert f'{word}: run the same command again; training resumes' in ended.stderr.splitlines()[-1]
        assert 'Traceback' not in ended.stderr
        assert committed(workdir, 'scale_mining') == [3, 5]
        saved[word] = last_items(workdir, 'scale_mining')
    chex.assert_trees_all_equal(saved['terminated'], saved['interrupted'])

    workdir = tmp_path / 'terminated'
    again = run(workdir)
    assert 'scale_mining: going on from step 5 of 16' in again.stderr
    check_same_end(finished_run, workdir, again)


def test_a_second_interrupt_ends_the_run_at_once(tmp_path):
    workdir = tmp_path / 'run'
    numbers = [int(signal.SIGINT)] * 2
    ended = run(workdir, before=AT_STEP.format(step=5, numbers=numbers))
    assert ended.returncode == 130 and ended.stderr.splitlines()[-1] == 'interrupted'
    assert committed(workdir, 'scale_mining') == [3]


def test_a_second_interrupt_does_not_wait_for_a_write(tmp_path):
    workdir = tmp_path / 'run'
    before = AT_STEP.format(step=5, numbers=[int(signal.SIGINT)]) + IN_WRITE.format(step=5)
    ended = run(workdir, '--config.async_checkpointing=on', before=before)
    assert ended.returncode == 130 and ended.stderr.splitlines()[-1] == 'interrupted'
    assert committed(workdir, 'scale_mining') == [3]


def test_an_evaluation_that_was_interrupted_is_made_up_for(finished_run, tmp_path):
    workdir = tmp_path / 'run'
    ended = run(workdir, '--config.eval_epochs=1', before=IN_EVALUATION.format(numbers=[int(signal.SIGTERM)]))
    assert ended.returncode == 75, ended.stderr
    assert committed(workdir, 'scale_mining') == [6, 8]  # the evaluation is due at step 8, after the first epoch

    again = run(workdir, '--config.eval_epochs=1')
    evaluations = [
        line for line in again.stderr.splitlines() if line.startswith('scale_mining') and 'accuracy:' in line
    ]
    assert len(evaluations) == 2, again.stderr  # of epochs 1 and 2
    check_same_end(finished_run, workdir, again)
