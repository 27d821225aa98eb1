"""Packed runs: small, the same network bit for bit, and nothing written for a run that is unfinished or damaged."""

import contextlib
import shutil

import jax
import numpy as np
import pytest
from commands import check_user_error, run_each
from rich.console import Console

from ssanet_jax.errors import UserError
from ssanet_jax.experiments.measurements import MEASUREMENTS
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.predictor import load
from ssanet_jax.runs.checkpoints import Checkpoints, best_dir, checkpoint_dir, stage_steps
from ssanet_jax.runs.files import read_json, write_arrays, write_json
from ssanet_jax.runs.packing import MEASURED, pack_run
from ssanet_jax.runs.run import load_run
from ssanet_jax.training.evaluate import evaluate_run
from ssanet_jax.training.train import train

LAST = 'part_tuning'


def test_a_packed_run_is_small_and_predicts_the_same_bits(finished_run, tmp_path, tiny_config):
    packed = pack_run(finished_run.workdir, tmp_path / 'packed')
    size = sum(path.stat().st_size for path in (tmp_path / 'packed').rglob('*') if path.is_file())
    assert packed.num_bytes == size < packed.original_bytes / 3
    assert (packed.stage, packed.step) == (LAST, stage_steps(finished_run.workdir, LAST)[-1])
    assert [path.name for path in tmp_path.iterdir()] == ['packed']
    assert not [path for path in (tmp_path / 'packed').rglob('*') if path.name in ('opt', 'index.npz', 'parts.png')]

    original, copy = (load(folder) for folder in (finished_run.workdir, tmp_path / 'packed'))
    assert copy.digest() == original.digest()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    for one, two in zip(original.outputs(images), copy.outputs(images)):
        np.testing.assert_array_equal(one, two)

    result = evaluate_run(tiny_config, tmp_path / 'packed', Console(quiet=True))
    assert result.accuracy == read_json(finished_run.workdir / 'results.json', '')['accuracy']
    with pytest.raises(UserError, match='holds a packed run, whose training cannot go on'):
        train(tiny_config, tmp_path / 'packed', Console(quiet=True))


def test_the_network_that_validation_images_selected_is_packed(workdir, tmp_path):
    run = load_run(workdir)
    _, params, stats = split_model(run.model)
    selected = jax.tree.map(lambda x: x + 1, params)
    with contextlib.closing(Checkpoints(best_dir(workdir, LAST), writes=True)) as checkpoints:
        checkpoints.save(3, {'params': selected, 'stats': stats})
    result = read_json(workdir / LAST / 'evaluation.json', '') | {'split': 'validation', 'step': 3}
    write_json(workdir / LAST / 'evaluation.json', result)
    write_json(workdir / LAST / 'best.json', result)
    packed = pack_run(workdir, tmp_path / 'packed')
    assert packed.step == 3
    found = split_model(load_run(tmp_path / 'packed').model)[1]
    jax.tree.map(np.testing.assert_array_equal, found, selected)
    shutil.rmtree(best_dir(workdir, LAST))
    with pytest.raises(UserError, match='at step 3 is damaged or missing'):
        pack_run(workdir, tmp_path / 'again')


def lose_results(workdir):
    (workdir / 'results.json').unlink()


def lose_the_last_stage(workdir):
    (workdir / LAST / 'evaluation.json').unlink()


def flip_a_bit_of_the_network(workdir):
    for step in stage_steps(workdir, LAST):
        data = max((checkpoint_dir(workdir, LAST) / str(step)).rglob('*'), key=lambda path: path.stat().st_size)
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)


def damage_the_newest_checkpoint(workdir):
    """The one before is whole, and is another network."""
    newest = checkpoint_dir(workdir, LAST) / str(stage_steps(workdir, LAST)[-1])
    (newest / 'params/manifest.ocdbt').write_bytes(b'')


def damage_the_predictions(workdir):
    (workdir / 'predictions.npz').write_bytes(b'PK no archive')


def damage_the_held_out_predictions(workdir):
    write_arrays(workdir / LAST / 'held_out.npz', {'labels': np.zeros(3, np.int32)})


def change_the_accuracy(workdir):
    path = workdir / 'results.json'
    path.write_text(path.read_text().replace('"accuracy": 0', '"accuracy": 1', 1))


REFUSED = {
    lose_results: 'is not over',
    lose_the_last_stage: 'is not over',
    flip_a_bit_of_the_network: 'damaged or missing',
    damage_the_newest_checkpoint: 'damaged or missing',
    damage_the_predictions: 'predictions.npz is damaged',
    damage_the_held_out_predictions: 'held_out.npz is damaged',
    change_the_accuracy: 'results.json is damaged',
}


@pytest.mark.parametrize('damage', REFUSED)
def test_an_unfinished_or_damaged_run_is_refused(damage, workdir, tmp_path):
    damage(workdir)
    with pytest.raises(UserError, match=REFUSED[damage]) as caught:
        pack_run(workdir, tmp_path / 'packed')
    assert '\n' not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ['run']


def test_the_command_refuses_in_one_line(finished_run, tmp_path):
    workdir, out = f'--workdir={finished_run.workdir}', f'--out={tmp_path / "packed"}'
    cases = {
        'index.npz is missing': [workdir, out, '--index'],
        'is not empty': [workdir, f'--out={finished_run.workdir}'],
        'holds no run': [f'--workdir={tmp_path}', out],
    }
    for words, ended in run_each('ssanet_jax.pack', cases, tmp_path).items():
        check_user_error(ended, [words])
    assert not list(tmp_path.glob('packed*'))


def test_every_measurement_is_packed():
    assert set(MEASURED) == set(MEASUREMENTS)
