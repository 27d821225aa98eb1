"""Overrides on the command line when a run is only evaluated: applied, or refused with a cure, but never ignored."""

import pytest
from commands import run_each

from ssanet_jax.data.toy_birds import CLASS_NAMES
from ssanet_jax.errors import UserError
from ssanet_jax.runs.compatibility import changed_settings, check_overrides
from ssanet_jax.runs.files import read_run
from ssanet_jax.runs.workdir import claim_workdir


@pytest.fixture
def workdir(tiny_config, tmp_path):
    tiny_config.data.interpolation = 'bilinear'  # as the backbone asks
    claim_workdir(tmp_path / 'run', tiny_config, CLASS_NAMES)
    return tmp_path / 'run'


def changed(config, fields):
    """A configuration with fields set as the command line sets them."""
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return config


@pytest.mark.parametrize(
    'name, value', [('model.sharing', 'part'), ('model.output_stride', 4), ('model.crop_size', 56)]
)
def test_another_way_to_share_is_refused_with_the_command_that_tries_it(tiny_config, workdir, name, value):
    config = changed(tiny_config, {name: value})
    with pytest.raises(UserError) as error:
        check_overrides(workdir, config, [name])
    assert f'another config.{name},' in str(error.value) and 'leave it out' in str(error.value)
    assert f'ssanet_jax.measure --workdir={workdir} --only=sharing' in str(error.value)


def test_what_has_nothing_to_do_with_sharing_names_no_such_command(tiny_config, workdir):
    config = changed(tiny_config, {'model.num_parts': 1, 'seed': 4})
    with pytest.raises(UserError) as error:
        check_overrides(workdir, config, ['model.num_parts', 'seed'])
    assert 'another config.model.num_parts, config.seed,' in str(error.value) and 'leave them out' in str(error.value)
    assert 'measure' not in str(error.value)


def test_only_what_was_typed_counts(tiny_config, workdir):
    """Defaults of a configuration file that differ from the run are not refused."""
    config = changed(tiny_config, {'model.sharing': 'part', 'model.num_parts': 1})
    check_overrides(workdir, config, [])
    with pytest.raises(UserError, match=r'another config\.model\.num_parts,'):
        check_overrides(workdir, config, ['model.num_parts'])


def test_the_values_of_the_run_and_where_it_finds_its_data_may_be_given(tiny_config, workdir):
    config = changed(tiny_config, {'data.dir': 'elsewhere', 'data.resize': 80, 'mesh.shape': '1x1'})
    check_overrides(workdir, config, ['model.sharing', 'data.dir', 'data.resize', 'mesh.shape'])


def test_a_field_of_a_stage(tiny_config, workdir):
    tiny_config.stages[1].epochs = 7
    with pytest.raises(UserError, match=r'another config\.stages\[1\]\.epochs,'):
        check_overrides(workdir, tiny_config, ['stages[1].epochs', 'stages[0].epochs'])
    tiny_config.stages = tiny_config.stages[:2]  # stages that no longer match are another list as a whole
    with pytest.raises(UserError, match=r'another config\.stages\[0\]\.epochs,'):
        check_overrides(workdir, tiny_config, ['stages[0].epochs'])


@pytest.mark.slow
def test_the_command_says_so_in_one_line(workdir, tmp_path):
    before = sorted(workdir.rglob('*'))
    given = ['--config=tests/tiny_config.py', '--mode=evaluate', f'--workdir={workdir}']
    cases = {
        f'--workdir={workdir} --only=sharing tries every way': [*given, '--config.model.sharing=part'],
        'no checkpoint yet': [*given, '--config.model.sharing=image'],  # the run's own: the network is looked for
    }
    for message, (code, stdout, stderr) in run_each('ssanet_jax.main', cases, tmp_path).items():
        assert code == 2 and stdout == '', stderr
        (line,) = stderr.splitlines()
        assert line.startswith('error: ') and message in line
    assert sorted(workdir.rglob('*')) == before


@pytest.mark.parametrize(
    'name, value', [('model.remat', True), ('mesh.shard_heads', True), ('data.eval_batch_size', 4)]
)
def test_a_run_that_ran_out_of_memory_may_go_on_with_less(tiny_config, workdir, name, value):
    before = read_run(workdir)['config']
    assert changed_settings(before, changed(tiny_config, {name: value})) == []
    tiny_config.model.sharing = 'part'  # which trains another network
    assert changed_settings(before, tiny_config) == ['model.sharing']
