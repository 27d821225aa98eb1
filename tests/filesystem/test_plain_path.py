"""Links for libraries that read some characters of a path as something else."""

import os
import tempfile
from pathlib import Path

import jax.numpy as jnp
import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.plain_path import is_plain, plain_path
from ssanet_jax.runs.checkpoints import Checkpoints

PLAIN = ['run', 'my run', '100,5', 'a+b=c@d', '~', '中文', 'نماذج', 'été', '.hidden', '-flag', '7']
OTHERS = [
    'run [1]',
    '[!a]',
    'a*b',
    'a**b',
    'what?',
    'back\\slash',
    'C:\\runs\\x',
    'gs:',
    'per%20cent',
    'hash#1',
    "quo'te",
    'double"quote',
    '{a,b}',
    '$HOME',
    'a;b|c&d',
    'new\nline',
    '🐦',
    'e\u0301t',
    os.fsdecode(b'latin-1 \xe9'),
]


@pytest.mark.parametrize('name', PLAIN + OTHERS)
def test_a_checkpoint_comes_back_from_a_folder_of_any_name(name, tmp_path):
    directory = tmp_path / name / name / 'checkpoints'
    checkpoints = Checkpoints(directory, writes=True)
    for step in (1, 2, 3):
        checkpoints.save(step, {'params': {'w': jnp.full(3, float(step))}, 'position': {'seconds': 0.5}})
    checkpoints.close()
    assert is_plain(directory) == (name in PLAIN)
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing beside it
    checkpoints = Checkpoints(directory)
    step, items = checkpoints.restore({'params': {'w': jnp.zeros(3)}, 'position': None})
    assert (step, float(items['params']['w'][0]), checkpoints.steps) == (3, 3.0, [2, 3])
    checkpoints.close()


@pytest.mark.parametrize('folder, plain', [('/gs/runs', False), ('/s3/runs', False), ('/data/gs', True), ('/', False)])
def test_mount_points_that_read_like_urls(folder, plain):
    assert is_plain(Path(folder)) == plain


def test_the_link_lasts_as_long_as_the_context(tmp_path):
    folder = tmp_path / 'a [b]'
    folder.mkdir()
    (folder / 'file').touch()
    with plain_path(folder) as path:
        assert is_plain(path) and path.samefile(folder)
    assert not os.path.lexists(path) and not path.parent.exists()
    assert (folder / 'file').exists()
    with plain_path(tmp_path) as path:
        assert path == tmp_path


def test_a_temporary_folder_with_such_a_name_is_not_used(tmp_path, monkeypatch):
    folder = tmp_path / '[t]'
    folder.mkdir()
    monkeypatch.setenv('TMPDIR', str(folder))
    with plain_path(folder) as path:
        assert is_plain(path)


def test_no_folder_for_the_link(tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError

    monkeypatch.setattr(tempfile, 'TemporaryDirectory', refuse)
    with pytest.raises(UserError, match='rename it, or set TMPDIR'), plain_path(tmp_path / '[x]'):
        pass
