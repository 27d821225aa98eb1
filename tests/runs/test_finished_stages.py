"""A finished stage whose files are damaged is not finished: it goes on from its newest whole checkpoint."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from damages import DAMAGES, flip
from run_samples import image_predictions

from ssanet_jax.runs.checkpoints import Checkpoints, checkpoint_dir
from ssanet_jax.runs.files import write_json
from ssanet_jax.runs.finished_stages import finished_result, has_whole_checkpoint, restart_stage
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, write_predictions
from ssanet_jax.runs.results import StageResult


@pytest.fixture
def workdir(tmp_path):
    """A stage of 6 steps with checkpoints of steps 3 and 6."""
    checkpoints = Checkpoints(checkpoint_dir(tmp_path, 'one'), writes=True)
    for step in (3, 6):
        checkpoints.save(step, {'params': {'w': jnp.full(4, float(step))}})
    checkpoints.close()
    write_predictions(tmp_path / 'one' / PREDICTIONS_FILE, image_predictions(np.array([True, False])))
    result = StageResult(
        accuracy=0.5,
        examples=2,
        heads={'sum': 0.5},
        unreadable=[],
        step=6,
        stage='one',
        split='test',
        epochs=2,
        steps=6,
        wall_seconds=1.0,
    )
    write_json(tmp_path / 'one' / 'evaluation.json', result.to_dict())
    return tmp_path


def read(workdir, **kwargs):
    return finished_result(workdir, 'one', **{'passes_on': True, **kwargs})


def bulk(workdir, step):
    return next(checkpoint_dir(workdir, 'one').glob(f'{step}/params/ocdbt.process_0/d/*'))


def test_a_whole_stage_is_finished(workdir, caplog):
    assert read(workdir).accuracy == 0.5 and caplog.messages == []
    assert finished_result(workdir, 'two', passes_on=True) is None and caplog.messages == []


@pytest.mark.parametrize('damage', ['truncate', 'empty', 'garbage', 'zeros'])
@pytest.mark.parametrize('name', ['evaluation.json', PREDICTIONS_FILE])
def test_damaged_results_are_set_aside(workdir, name, damage, caplog):
    DAMAGES[damage](workdir / 'one' / name)
    assert read(workdir) is None
    [said] = caplog.messages
    assert name in said and 'the stage is evaluated again' in said and '\n' not in said
    assert (workdir / 'one' / f'{name}.damaged').exists() and not (workdir / 'one' / 'evaluation.json').exists()


def test_the_result_of_another_stage_is_set_aside(workdir, caplog):
    shutil.copytree(workdir / 'one', workdir / 'two')
    assert finished_result(workdir, 'two', passes_on=True) is None
    assert 'two/evaluation.json is that of stage one: the stage is evaluated again' in caplog.text
    assert (workdir / 'two' / 'evaluation.json.damaged').exists()


def test_predictions_of_another_step_are_noticed(workdir, caplog):
    write_predictions(workdir / 'one' / PREDICTIONS_FILE, image_predictions(np.array([True, True])))
    assert read(workdir) is None and 'disagree: the stage is evaluated again' in caplog.text


def test_every_flipped_digit_of_a_result_is_noticed(workdir):
    """Without a checksum, 0.5 becomes 0.7 in silence."""
    path = workdir / 'one' / 'evaluation.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {'accuracy': 0.7}))
    assert read(workdir) is None


def test_results_of_early_versions_have_no_checksum(workdir, caplog):
    path = workdir / 'one' / 'evaluation.json'
    content = json.loads(path.read_text())
    del content['checksum']
    path.write_text(json.dumps(content))
    assert read(workdir).accuracy == 0.5 and caplog.messages == []


def test_a_damaged_last_checkpoint_is_trained_again(workdir, caplog):
    flip(bulk(workdir, 6))
    assert read(workdir, passes_on=False) is not None  # the next stage has its own checkpoints
    assert read(workdir) is None
    assert 'is damaged: it goes on from step 3, 3 lost' in caplog.text
    assert has_whole_checkpoint(workdir, 'one')
    flip(bulk(workdir, 3))
    assert not has_whole_checkpoint(workdir, 'one')


def test_a_stage_that_starts_again_is_kept_aside(workdir, caplog):
    restart_stage(workdir, 'one', 'its selection is lost')
    assert 'its selection is lost: stage one starts again, 6 steps are lost' in caplog.text
    assert (workdir / 'one.damaged' / 'checkpoints' / '6').is_dir() and not (workdir / 'one').exists()
