"""A run that is killed and started again ends where an uninterrupted one ends; a finished one stays as it is."""

import json
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import chex
import pytest
from commands import ROOT, train_command
from rich.console import Console

from ssanet_jax.runs.checkpoints import Checkpoints
from ssanet_jax.training.evaluate import evaluate_run

pytestmark = pytest.mark.slow

EPOCH_STEPS = 8
PATIENCE = 600  # seconds; only a hang takes as long


def committed(workdir: Path, stage: str) -> list[int]:
    """Steps that are there under their final names, read without Orbax."""
    folder = workdir / stage / 'checkpoints'
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def last_items(workdir: Path, stage: str):
    checkpoints = Checkpoints(workdir / stage / 'checkpoints')
    step, items = checkpoints.restore({'params': None, 'stats': None, 'opt': None})
    checkpoints.close()
    return step, items


def snapshot(workdir: Path) -> dict[str, int]:
    """Every file of the checkpoints and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in workdir.glob('*/checkpoints/**/*') if path.is_file()}


def kill_after_a_checkpoint(workdir: Path) -> int:
    """Starts a run and kills it as soon as it has a checkpoint; returns the step of its last one."""
    with tempfile.TemporaryFile('w+') as log:
        process = subprocess.Popen(train_command(workdir), cwd=ROOT, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            while not committed(workdir, 'scale_mining'):
                assert process.poll() is None and time.monotonic() < deadline, log.seek(0) or log.read()
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL
    return committed(workdir, 'scale_mining')[-1]


def test_a_killed_run_goes_on_to_the_same_end(finished_run, tmp_path):
    for attempt in range(5):  # a busy machine may look away until an epoch is over
        workdir = tmp_path / f'run{attempt}'
        step = kill_after_a_checkpoint(workdir)
        if step % EPOCH_STEPS:  # in the middle of an epoch
            break
    assert step % EPOCH_STEPS and not (workdir / 'scale_mining' / 'evaluation.json').exists()

    again = subprocess.run(train_command(workdir), cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f'scale_mining: going on from step {step} of 16' in again.stderr
    assert again.stdout.splitlines()[-1] == finished_run.stdout.splitlines()[-1]
    for stage in ('scale_mining', 'oriented_pooling', 'part_tuning'):
        (one, expected), (other, found) = last_items(finished_run.workdir, stage), last_items(workdir, stage)
        assert one == other
        chex.assert_trees_all_equal(found, expected)


def test_what_a_run_leaves(finished_run, tiny_config):
    workdir, stdout = finished_run
    last = re.fullmatch(r'accuracy (0\.\d{4}|1\.0000) on 30 images', stdout.splitlines()[-1])
    assert last, stdout
    results = json.loads((workdir / 'results.json').read_text())
    assert {'accuracy', 'examples', 'stages', 'seed', 'wall_seconds'} <= results.keys()
    assert f'{results["accuracy"]:.4f}' == last[1]
    assert results['examples'] == 30 and results['seed'] == 0
    assert list(results['stages']) == ['scale_mining', 'oriented_pooling', 'part_tuning']
    assert [stage['steps'] for stage in results['stages'].values()] == [16, 8, 8]
    assert all(stage['examples'] == 30 for stage in results['stages'].values())
    # Of 30 images, so that the two copies that fill the last batch count for nothing.
    for stage in results['stages'].values():
        for accuracy in (stage['accuracy'], *stage['heads'].values()):
            assert abs(accuracy * 30 - round(accuracy * 30)) < 1e-9
    assert results['accuracy'] == results['stages']['part_tuning']['accuracy']
    assert results['wall_seconds'] == sum(stage['wall_seconds'] for stage in results['stages'].values())
    # The head of oriented pooling is random until its own stage, and is neither asked nor summed before.
    assert results['stages']['scale_mining']['heads'].keys() == {'image_classifier', 'scale_mining'}
    assert results['heads'].keys() == {'image_classifier', 'scale_mining', 'oriented_pooling'}

    content = json.loads((workdir / 'config.json').read_text())
    # As the backbone asks.
    tiny_config.data.update(interpolation='bilinear', mean=(127.5,) * 3, std=(127.5,) * 3)
    tiny_config.model.geometry = 'standard'
    assert content['config'] == json.loads(tiny_config.to_json_best_effort()) and len(content['class_names']) == 16
    assert [committed(workdir, name) for name in results['stages']] == [[15, 16], [6, 8], [6, 8]]
    assert all(list((workdir / name).glob('events.out.tfevents*')) for name in results['stages'])
    assert not list(workdir.rglob('*.partial'))


def test_frozen_groups_pass_through_the_stages_unchanged(finished_run):
    (_, mining), (_, pooling), (_, tuning) = (
        last_items(finished_run.workdir, stage) for stage in ('scale_mining', 'oriented_pooling', 'part_tuning')
    )
    for group in ('backbone', 'proposals', 'part_classifier', 'scale_mining'):
        chex.assert_trees_all_equal(mining['params'][group], pooling['params'][group])
    chex.assert_trees_all_equal(mining['stats'], pooling['stats'])
    for group in ('image_classifier', 'scale_mining', 'oriented_pooling'):
        chex.assert_trees_all_equal(pooling['params'][group], tuning['params'][group])


def test_a_finished_run_trains_no_more(finished_run, workdir):
    before, results = snapshot(workdir), (workdir / 'results.json').read_text()
    again = subprocess.run(train_command(workdir), cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == finished_run.stdout.splitlines()[-1]
    assert 'epoch' not in again.stderr
    assert snapshot(workdir) == before
    assert (workdir / 'results.json').read_text() == results


def test_evaluation_gives_the_accuracy_of_training(workdir, tiny_config):
    before = snapshot(workdir)
    results = json.loads((workdir / 'results.json').read_text())
    evaluation = evaluate_run(tiny_config, workdir, Console(stderr=True))
    assert (evaluation.accuracy, evaluation.examples, evaluation.heads) == (
        results['accuracy'],
        30,
        results['heads'],
    )
    assert evaluation.stage == 'part_tuning'
    assert snapshot(workdir) == before
    # Another size of batch pads otherwise, and is nobody's business but the machine's.
    tiny_config.data.eval_batch_size = 7
    assert evaluate_run(tiny_config, workdir, Console(stderr=True)).heads == results['heads']
