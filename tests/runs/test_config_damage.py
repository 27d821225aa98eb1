"""A lost or damaged `config.json` is restored from its copy, and never replaced by another configuration."""

import json

import pytest
from damages import DAMAGES

from ssanet_jax.errors import UserError
from ssanet_jax.experiments.stage_reuse import reuse_stages
from ssanet_jax.runs.checkpoints import checkpoint_dir
from ssanet_jax.runs.files import CONFIG_BACKUP, CONFIG_FILE, read_run
from ssanet_jax.runs.workdir import check_config_is_there, claim_workdir, is_claimed, lock_workdir


@pytest.fixture
def run(tmp_path, tiny_config):
    """A claimed work directory with a checkpoint."""
    workdir = tmp_path / 'run'
    with lock_workdir(workdir):
        claim_workdir(workdir, tiny_config, ['a', 'b'], 'digest')
    (checkpoint_dir(workdir, 'scale_mining') / '3').mkdir(parents=True)
    return workdir


@pytest.mark.parametrize('damage', DAMAGES)
def test_the_copy_takes_its_place(run, tiny_config, damage, caplog):
    before, content = read_run(run), (run / CONFIG_FILE).read_bytes()
    DAMAGES[damage](run / CONFIG_FILE, 1)
    if damage in ('folder', 'pipe'):
        with pytest.raises(UserError, match=r'config\.json cannot be read'):
            read_run(run)
        return
    assert read_run(run) == before
    [said] = caplog.messages
    assert said.startswith(str(run / CONFIG_FILE)) and said.endswith(f'its copy {CONFIG_BACKUP} is used')
    assert is_claimed(run)
    check_config_is_there(run)
    claim_workdir(run, tiny_config, ['a', 'b'], 'digest')
    assert (run / CONFIG_FILE).read_bytes() == content
    assert (run / f'{CONFIG_FILE}.damaged').exists() == (damage != 'missing')
    caplog.clear()
    assert read_run(run) == before and caplog.messages == []


def test_another_configuration_does_not_get_in(run, tiny_config):
    (run / CONFIG_FILE).unlink()
    tiny_config.model.num_parts = 3
    with pytest.raises(UserError, match=r'another model\.num_parts'):
        claim_workdir(run, tiny_config, ['a', 'b'], 'digest')
    (run / CONFIG_BACKUP).unlink(missing_ok=True)
    (run / CONFIG_FILE).unlink(missing_ok=True)
    for check in (check_config_is_there, lambda run: reuse_stages(tiny_config, run, [], 'digest')):
        with pytest.raises(UserError, match=r'config\.json is missing, though the folder holds checkpoints') as error:
            check(run)
        assert '\n' not in str(error.value)
    assert (checkpoint_dir(run, 'scale_mining') / '3').is_dir()


def test_both_damaged_is_one_line(run):
    for name in (CONFIG_FILE, CONFIG_BACKUP):
        DAMAGES['garbage'](run / name)
    with pytest.raises(UserError, match=r'config.* is damaged.*: restore it from a copy') as error:
        read_run(run)
    assert '\n' not in str(error.value)


def test_any_changed_value_is_noticed(run, caplog):
    content = json.loads((run / CONFIG_FILE).read_text())
    content['config']['seed'] = 1
    (run / CONFIG_FILE).write_text(json.dumps(content))
    assert read_run(run)['config']['seed'] == 0 and 'differs from its checksum' in caplog.text


def test_a_folder_of_reused_stages_is_not_a_run_yet(tmp_path, tiny_config):
    workdir = tmp_path / 'row'
    (checkpoint_dir(workdir, 'scale_mining') / '3').mkdir(parents=True)
    check_config_is_there(workdir)
    with lock_workdir(workdir):
        claim_workdir(workdir, tiny_config, ['a'], 'digest')


def test_runs_of_early_versions_have_neither_copy_nor_checksum(run, caplog):
    content = json.loads((run / CONFIG_FILE).read_text())
    del content['checksum']
    (run / CONFIG_FILE).write_text(json.dumps(content))
    (run / CONFIG_BACKUP).unlink()
    assert read_run(run)['class_names'] == ['a', 'b'] and caplog.messages == []
