"""NaN or infinity in the loss: the run stops with one line and goes on at a lower rate, or skips the update."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from configs import common
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.checkpoints import Checkpoints
from ssanet_jax.runs.history import read_history
from ssanet_jax.runs.run import build_model
from ssanet_jax.training import nonfinite, settings, step
from ssanet_jax.training.nonfinite import NonfiniteSteps, nonfinite_metric
from ssanet_jax.training.train import train


class Source:
    labels = np.zeros(3, np.int32)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {'file': f'birds/{index}.jpg'}


def test_a_hugely_too_large_rate_stops_the_run_which_goes_on_at_a_lower_rate(tiny_config, tmp_path, caplog):
    # The first step of the warm-up has rate zero: its checkpoint is good. The next ones are not.
    tiny_config.stages = common.global_pooling(epochs=1, learning_rate=1e30, warmup_epochs=1)
    tiny_config.checkpoint_steps = 1
    workdir = tmp_path / 'run'
    with pytest.raises(
        UserError, match=r'(loss|norm)/\w+ became (nan|inf) at step \d of stage global_pooling'
    ) as error:
        train(tiny_config, workdir, Console(stderr=True))
    assert 'lower the learning_rate' in str(error.value) and '\n' not in str(error.value)

    checkpoints = Checkpoints(workdir / 'global_pooling' / 'checkpoints')
    kept, items = checkpoints.restore({'params': None, 'stats': None, 'opt': None})
    checkpoints.close()
    assert f'checkpoint {kept} is kept' in str(error.value)
    leaves = jax.tree.leaves(items)
    assert len(leaves) > 50 and all(np.isfinite(leaf).all() for leaf in leaves)
    assert not (workdir / 'results.json').exists()
    assert not (workdir / 'global_pooling' / 'evaluation.json').exists()

    recorded = json.loads((workdir / 'global_pooling' / nonfinite.FILE).read_text())['steps']
    assert recorded[0]['step'] == kept + 1 and len(recorded[0]['images']) == tiny_config.data.batch_size
    assert recorded[0]['images'][0] in str(error.value)

    tiny_config.stages[0].learning_rate = 0.01
    results = train(tiny_config, workdir, Console(stderr=True))
    assert np.isfinite(results.accuracy)
    assert 'config.stages[0].learning_rate from 1e+30 to 0.01' in caplog.text
    content = json.loads((workdir / 'config.json').read_text())
    (change,) = content['changes']
    assert change == {
        'steps': {'global_pooling': kept},
        'settings': {'stages[0].learning_rate': [1e30, 0.01]},
    }
    assert content['config']['stages'][0]['learning_rate'] == 0.01

    tiny_config.stages[0].learning_rate = 0.02  # of a stage that is finished
    with pytest.raises(UserError, match=r'holds a run with another stages\[0\].learning_rate'):
        train(tiny_config, workdir, Console(stderr=True))


def spoil(monkeypatch, is_bad):
    """Makes the loss NaN for the batches whose labels `is_bad`."""
    compute = step.compute_losses

    def spoilt(outputs, labels, names, loss):
        values = compute(outputs, labels, names, loss)
        return {name: value * jnp.where(is_bad(labels), jnp.nan, 1.0) for name, value in values.items()}

    monkeypatch.setattr(step, 'compute_losses', spoilt)


def test_updates_are_skipped_and_counted(tiny_config, tmp_path, monkeypatch, capsys):
    tiny_config.stages = common.global_pooling(epochs=1, learning_rate=0.01)
    tiny_config.on_nonfinite = 'skip'
    spoil(monkeypatch, lambda labels: labels[0] % 2 == 0)
    workdir = tmp_path / 'run'
    results = train(tiny_config, workdir, Console(width=300))
    assert np.isfinite(results.accuracy)
    recorded = json.loads((workdir / 'global_pooling' / nonfinite.FILE).read_text())['steps']
    assert 0 < len(recorded) < 8 and recorded[0]['loss/image'] == 'nan'
    line = f'{len(recorded)} of 8 updates were skipped'
    assert line in ' '.join(capsys.readouterr().out.split())
    epochs = [line for line in read_history(workdir / 'global_pooling' / 'history.jsonl') if line['kind'] == 'epoch']
    assert sum(line['skipped'] for line in epochs) + sum(line['steps'] for line in epochs) == 8
    assert all(np.isfinite(list(line['values'].values())).all() for line in epochs)


def one_stage_step(config, devices, steps_per_epoch=8):
    stage, active = config.stages[0], active_groups(config.stages, 0)
    model = build_model(config, 12)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    optimizer, run = step.make_train_step(model, stage, active, config, steps_per_epoch, mesh)
    _, params, stats = jax.tree.map(np.array, split_model(model))
    state = step.TrainState(params, stats, optimizer.init(params), np.int32(0))
    batch = {
        'image': np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8),
        'label': np.arange(8, dtype=np.int32),
    }
    return sharding.replicate(state, mesh), lambda state, first=0: run(state, batch | {'label': batch['label'] + first})


def without_schedules(opt):
    is_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)
    return jax.tree.map(lambda node: None if is_schedule(node) else node, opt, is_leaf=is_schedule)


@pytest.mark.parametrize('optimizer, rate', [('sgd', 0.05), ('adamw', 1e-6)])
def test_a_skipped_update_changes_nothing_and_others_are_as_without_skipping(tiny_config, monkeypatch, optimizer, rate):
    spoil(monkeypatch, lambda labels: labels[0] == 4)
    tiny_config.optimizer.name = optimizer
    tiny_config.stages[0].learning_rate = rate  # AdamW's updates have the size of the rate even if they are all noise
    states = {}
    for action in ('stop', 'skip'):
        tiny_config.on_nonfinite = action
        state, run = one_stage_step(tiny_config, devices=1)
        for _ in range(2):
            state, metrics = run(state)
        assert not nonfinite_metric(metrics)
        states[action] = jax.device_get(state)
        state, metrics = run(state, 4)
        assert nonfinite_metric(jax.device_get(metrics)).startswith('loss/')
        spoilt = jax.device_get(state)
        if action == 'skip':
            before, after = (state._replace(opt=without_schedules(state.opt)) for state in (states['skip'], spoilt))
            assert len(jax.tree.leaves(before.opt)) > 30, 'the moments'
            chex.assert_trees_all_equal(after._replace(step=2), before)
            assert spoilt.step == 3
        else:
            assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(spoilt.params))
    # Another program, which the compiler may round in another way.
    chex.assert_trees_all_close(states['stop'], states['skip'], rtol=1e-4, atol=1e-5)


def test_skipped_updates_do_not_delay_the_learning_rate(tiny_config, monkeypatch):
    """Of plain gradient descent, the rate used is the norm of the update over that of the gradient."""
    spoil(monkeypatch, lambda labels: labels[0] == 4)
    tiny_config.on_nonfinite = 'skip'
    tiny_config.optimizer.update(momentum=0.0, weight_decay=0.0)
    tiny_config.stages = common.global_pooling(epochs=2, learning_rate=0.01, milestones=(1,))
    state, run = one_stage_step(tiny_config, devices=1, steps_per_epoch=5)
    used, logged = [], []
    for number in range(8):
        state, metrics = run(state, 4 if number == 2 else 0)
        used.append(metrics['update_norm/backbone'] / metrics['gradient_norm/backbone'])
        logged.append(metrics['learning_rate/backbone'])
    assert np.isnan(used.pop(2)) and logged.pop(2) == np.float32(0.01)
    np.testing.assert_allclose(used, logged, rtol=1e-4)
    np.testing.assert_allclose(used, [0.01] * 4 + [0.001] * 3, rtol=1e-4)


def steps_in(folder, action='stop', first_step=0):
    return NonfiniteSteps(folder, 'joint', Source(), action, first_step)


BAD = {
    'accuracy': np.float32(0),
    'gradient_norm/backbone': np.float32('nan'),
    'loss/mac': np.float32('nan'),
    'loss/image': np.float32(2),
}
GOOD = {name: np.float32(1) for name in BAD}


def test_the_message_names_the_loss_first_and_the_images(tmp_path):
    steps = steps_in(tmp_path)
    with pytest.raises(
        UserError,
        match=r'^loss/mac became nan at step 7 of stage joint \(no checkpoint had been written; images of the batch: '
        r'birds/0.jpg, birds/2.jpg, all in .*nonfinite.json\).*on_nonfinite=skip$',
    ):
        steps.check(7, BAD, np.array([2, 0]), list)
    assert not steps_in(tmp_path).check(7, GOOD, np.array([0]), list)
    infinite = GOOD | {'update_norm/backbone': np.float32('inf')}
    with pytest.raises(UserError, match=r'^update_norm/backbone became inf at step 9 .*\(checkpoint 8 is kept'):
        steps_in(tmp_path).check(9, infinite, np.array([1]), lambda: [4, 8])


def test_many_skips_in_a_row_stop_the_run(tmp_path):
    steps = steps_in(tmp_path, 'skip')
    for number in range(1, nonfinite.MAX_CONSECUTIVE):
        assert steps.check(number, BAD, np.array([1]), list)
    assert not steps.check(20, GOOD, np.array([1]), list)  # the count starts again
    for number in range(21, 20 + nonfinite.MAX_CONSECUTIVE):
        assert steps.check(number, BAD, np.array([1]), list)
    with pytest.raises(UserError, match='step 40 of stage joint, the 20th in a row'):
        steps.check(40, BAD, np.array([1]), list)
    assert steps_in(tmp_path, 'skip', first_step=30).count == 19 + 10  # those of an earlier start, up to its checkpoint


@pytest.mark.parametrize('damage', ['{"steps": 3}', '{"steps": [1, {"step": "x"}]}', '{}'])
def test_a_damaged_record_counts_nothing(damage, tmp_path):
    (tmp_path / nonfinite.FILE).write_text(damage)
    assert steps_in(tmp_path, 'skip', 10).count == 0


def test_another_action_is_refused(tiny_config):
    tiny_config.on_nonfinite = 'ignore'
    with pytest.raises(UserError, match='config.on_nonfinite=ignore: set it to stop or skip'):
        settings.check_settings(tiny_config)
