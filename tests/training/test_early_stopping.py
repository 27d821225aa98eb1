"""Stages that stop early: when, why, and at the same step after a kill."""

import dataclasses
import io
import json

import chex
import pytest
from data_samples import write_image
from rich.console import Console

from configs import common
from ssanet_jax.errors import UserError
from ssanet_jax.runs.checkpoints import Checkpoints
from ssanet_jax.runs.results import BestResult
from ssanet_jax.training import evaluate, loop
from ssanet_jax.training import train as training
from ssanet_jax.training.early_stopping import EarlyStopping
from ssanet_jax.training.settings import check_settings
from ssanet_jax.training.stages import stage
from ssanet_jax.training.triggers import Triggers


def _simulate(accuracies, patience, eval_epochs=1):
    """Steps a stage with 3 steps per epoch, as the loop does; returns the epoch at which it ends."""
    triggers = Triggers(30, 10, len(accuracies) * eval_epochs, eval_epochs=eval_epochs)
    best = None
    for step in range(1, triggers.num_steps + 1):
        if triggers.evaluate(step):
            accuracy = accuracies[step // (3 * eval_epochs) - 1]
            if best is None or accuracy > best.accuracy:
                best = BestResult(accuracy=accuracy, examples=10, heads={}, unreadable=[], stage='one', step=step)
        if EarlyStopping(patience, triggers).reason(step, best):
            return step // 3
    return None


@pytest.mark.parametrize(
    ('accuracies', 'patience', 'end'),
    [
        ([0.5, 0.4, 0.4, 0.6, 0.7, 0.8], 0, None),
        ([0.5, 0.4, 0.4, 0.6, 0.7, 0.8], 2, 3),
        ([0.5, 0.4, 0.4, 0.6, 0.7, 0.8], 3, None),  # the fourth is better, just in time
        ([0.5, 0.5, 0.5, 0.5], 1, 2),  # as good is not better
        ([0.1, 0.2, 0.3, 0.2, 0.2], 2, None),  # at the last step there is nothing to stop
        ([0.1, 0.2, 0.3, 0.2, 0.2, 0.9], 2, 5),
    ],
)
def test_a_stage_stops_when_evaluations_cease_to_improve(accuracies, patience, end):
    assert _simulate(accuracies, patience) == end
    # Patience counts evaluations, not epochs.
    assert _simulate(accuracies, patience, eval_epochs=2) == (end and 2 * end)


def test_the_time_left_is_an_upper_limit(tmp_path):
    triggers = Triggers(10, 5, 4)
    text = io.StringIO()
    for stops_early in (False, True):
        console = Console(file=text, width=200)
        with loop.StageLogger(console, tmp_path, 'one', triggers, 'validation', stops_early=stops_early) as logger:
            for step in (1, 2):
                logger.log_metrics(step, {'loss/total': 1.0, 'accuracy': 0.5})
    one, other = [line for line in text.getvalue().splitlines() if 'left' in line]
    assert 'up to' not in one and 'images/s  up to 0:00:00 left' in other


def test_early_stopping_needs_validation_images(tiny_config):
    tiny_config.early_stopping_patience = 2
    with pytest.raises(UserError, match=r'set config.data.validation=0.1 and config.eval_epochs=1 too'):
        check_settings(tiny_config)
    tiny_config.data.validation, tiny_config.eval_epochs = 0.1, 1
    check_settings(tiny_config)
    fitted = common.prototypes()
    fitted.early_stopping_patience = 2
    with pytest.raises(UserError, match='nothing to stop early'):
        check_settings(fitted)


class Killed(Exception):
    pass


def _train(config, workdir):
    text = io.StringIO()
    results = training.train(config, workdir, Console(file=text, width=200))
    return results, text.getvalue()


def _last_items(workdir):
    checkpoints = Checkpoints(workdir / 'one' / 'checkpoints')
    found = checkpoints.restore({'params': None, 'stats': None, 'opt': None})
    checkpoints.close()
    return found


@pytest.mark.slow
def test_a_killed_run_stops_at_the_same_step(tiny_config, tmp_path, monkeypatch):
    for split, count in (('train', 8), ('test', 2)):
        for name in ('crow', 'wren'):
            for number in range(count):
                write_image(tmp_path / 'birds' / split / name / f'{name}{split}{number}.jpg')
    config = tiny_config
    config.data.update(name='folder', dir=str(tmp_path / 'birds'), prepared_dir=str(tmp_path / 'prepared'))
    config.data.update(batch_size=4, validation=0.25)  # 12 training images: 3 steps per epoch
    train = dict(backbone=1, image_classifier=1)
    config.stages = (
        stage('one', epochs=9, learning_rate=0.01, train=train),
        stage('two', epochs=1, learning_rate=0.01, train=train),
    )
    config.eval_epochs, config.early_stopping_patience, config.checkpoint_steps = 1, 2, 2

    # Accuracies by the number of steps, so that they do not depend on the data: epoch 2 is the best of the first five.
    accuracy = {3: 0.25, 6: 0.75, 9: 0.5, 12: 0.75, 15: 1.0}
    call = evaluate.Evaluator.__call__
    current = {}

    def scripted(self, *arguments):
        result, predictions = call(self, *arguments)
        return dataclasses.replace(result, accuracy=accuracy.get(current['step'], result.accuracy)), predictions

    def step_done(step, triggers):
        current['step'] = step
        if step == current.get('kill'):
            raise Killed

    monkeypatch.setattr(evaluate.Evaluator, '__call__', scripted)
    monkeypatch.setattr(loop, '_requested_stop', step_done)

    expected, text = _train(config, tmp_path / 'whole')
    one = expected.stages['one']
    assert (one.steps, one.epochs, one.step, one.accuracy) == (12, 4, 6, 0.75)
    reason = 'stopped early after epoch 4 of 9: none of the last 2 was more accurate than that after epoch 2, 0.7500'
    assert f'one: {reason}' in text and one.stopped_early == reason
    assert expected.stages['two'].stopped_early == '' and expected.stages['two'].epochs == 1
    assert 'stage 2 of 2' in text and 'up to' in text

    # Killed after the best evaluation, and again after the last one, before its checkpoint is saved.
    current['kill'] = 7
    with pytest.raises(Killed):
        _train(config, tmp_path / 'killed')
    current['kill'] = None
    save = Checkpoints.save

    def fail_at_the_end(self, step, items):
        if step == 12:
            raise Killed
        save(self, step, items)

    monkeypatch.setattr(Checkpoints, 'save', fail_at_the_end)
    with pytest.raises(Killed):
        _train(config, tmp_path / 'killed')
    monkeypatch.setattr(Checkpoints, 'save', save)
    # Killed once more when all but the result of the stage is on the disk: it trains no more.
    write_json = training.write_json
    monkeypatch.setattr(training, 'write_json', lambda *arguments: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        _train(config, tmp_path / 'killed')
    monkeypatch.setattr(training, 'write_json', write_json)
    again, text = _train(config, tmp_path / 'killed')
    assert 'going on from step 12 of 27' in text and 'one  epoch' not in text
    for field in ('steps', 'epochs', 'step', 'accuracy', 'heads', 'stopped_early'):
        for name in ('one', 'two'):
            assert getattr(again.stages[name], field) == getattr(expected.stages[name], field)
    assert again.accuracy == expected.accuracy
    (step, items), (other, found) = _last_items(tmp_path / 'whole'), _last_items(tmp_path / 'killed')
    assert step == other == 12
    chex.assert_trees_all_equal(found, items)
    content = json.loads((tmp_path / 'whole/one/evaluation.json').read_text())
    assert content['stopped_early'] == reason
