"""A finished run whose files are damaged ends, when the same command is given again, as it had ended."""

import io
import re
import shutil

import chex
import jax
import pytest
from damages import DAMAGES, flip
from rich.console import Console

from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.run import load_run
from ssanet_jax.training.train import train

pytestmark = pytest.mark.slow

LAST = 'part_tuning'


def bulk(workdir, step, stage=LAST):
    files = (workdir / stage / 'checkpoints' / str(step) / 'params').rglob('*')
    return max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size)


def network(workdir):
    return jax.device_get(split_model(load_run(workdir).model)[1:])


def last(workdir):
    flip(bulk(workdir, 8))


def all_of_the_stage(workdir):
    for step in (6, 8):
        flip(bulk(workdir, step))


def hand_over(workdir):
    """The last stage is lost as well, so that it starts from the damaged one."""
    shutil.rmtree(workdir / LAST)
    flip(bulk(workdir, 8, 'oriented_pooling'))


def foreign(workdir):
    shutil.copytree(workdir / LAST / 'checkpoints' / '6', workdir / LAST / 'checkpoints' / '999')


@pytest.mark.parametrize(
    ('harm', 'said'),
    [
        (last, 'the last checkpoint of .*part_tuning is damaged: it goes on from step 6, 2 lost'),
        (all_of_the_stage, 'no checkpoint of .* is whole: it starts again, 8 steps are lost'),
        (hand_over, 'the last checkpoint of .*oriented_pooling is damaged'),
        (foreign, '999 of .* is damaged .it belongs to step 6., set aside as 999.damaged'),
        (lambda workdir: DAMAGES['truncate'](workdir / LAST / 'evaluation.json'), 'the stage is evaluated again'),
        (lambda workdir: DAMAGES['garbage'](workdir / LAST / 'predictions.npz'), 'the stage is evaluated again'),
        (lambda workdir: DAMAGES['zeros'](workdir / 'config.json'), 'its copy config_backup.json is used'),
    ],
)
def test_the_same_end(workdir, tiny_config, harm, said, caplog):
    expected = network(workdir)
    harm(workdir)
    results = train(tiny_config, workdir, Console(file=io.StringIO()))
    chex.assert_trees_all_equal(network(workdir), expected)
    assert any(re.search(said, message) for message in caplog.messages)
    assert all('\n' not in message for message in caplog.messages)
    caplog.clear()
    assert train(tiny_config, workdir, Console(file=io.StringIO())) == results and not caplog.messages


def test_readers_say_what_they_use(workdir, caplog):
    flip(bulk(workdir, 8))
    network(workdir)
    [said] = caplog.messages
    assert 'part_tuning/checkpoints is damaged' in said and 'checkpoint 6 is used, 2 steps earlier' in said
    flip(bulk(workdir, 6))
    with pytest.raises(UserError, match='part_tuning/checkpoints is whole') as error:
        network(workdir)
    assert '\n' not in str(error.value)
    assert sorted(path.name for path in (workdir / LAST / 'checkpoints').iterdir()) == ['6', '8']
