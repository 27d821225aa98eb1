"""Settings of a run that are refused before it starts, and what a stage derives from them."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console

from ssanet_jax.distributed import processes, sharding
from ssanet_jax.errors import UserError
from ssanet_jax.training.context import StageContext
from ssanet_jax.training.settings import check_settings
from ssanet_jax.training.train import train


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('seed', -1),
        ('seed', 2**32),
        ('eval_epochs', -1),
        ('checkpoint_steps', -3),
        ('early_stopping_patience', -1),
        ('async_checkpointing', 'always'),
    ],
)
def test_settings_of_the_run_that_make_no_sense(tiny_config, field, value):
    tiny_config[field] = value
    with pytest.raises(UserError, match=f'config.{field}={value}'):
        check_settings(tiny_config)


def test_several_processes_do_not_save_asynchronously(tiny_config, monkeypatch):
    monkeypatch.setattr(processes, 'current', lambda: processes.Process(0, 2))
    check_settings(tiny_config)
    tiny_config.async_checkpointing = 'on'
    with pytest.raises(UserError, match='config.async_checkpointing=on: several processes .* set it to auto'):
        check_settings(tiny_config)


@pytest.mark.parametrize(
    'setting, platform, count, expected',
    [
        ('auto', 'cpu', 1, False),
        ('auto', 'gpu', 1, True),
        ('auto', 'tpu', 1, True),
        ('auto', 'gpu', 2, False),
        ('on', 'cpu', 1, True),
        ('off', 'gpu', 1, False),
    ],
)
def test_when_a_stage_saves_asynchronously(setting, platform, count, expected, tiny_config, monkeypatch):
    monkeypatch.setattr(processes, 'current', lambda: processes.Process(0, count))
    tiny_config.async_checkpointing = setting
    mesh = SimpleNamespace(devices=np.array([[SimpleNamespace(platform=platform)]]))
    context = StageContext(tiny_config, 0, None, None, None, mesh, None)
    assert context.saves_asynchronously is expected


def test_a_configuration_without_the_field_does_as_its_default(tiny_config):
    with tiny_config.unlocked():
        del tiny_config.async_checkpointing
    check_settings(tiny_config)
    mesh = sharding.make_mesh(jax.devices()[:1])
    assert not StageContext(tiny_config, 0, None, None, None, mesh, None).saves_asynchronously  # on a CPU


def test_stages_are_checked_before_their_epochs_are_scaled(tiny_config, tmp_path):
    tiny_config.epochs = 5
    tiny_config.stages[1].epochs = 0
    with pytest.raises(UserError, match="stage 'oriented_pooling' has 0 epochs: give it at least 1, or remove it"):
        train(tiny_config, tmp_path / 'run', Console(quiet=True))
