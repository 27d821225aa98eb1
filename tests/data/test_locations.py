"""Where a published data set is looked for, if `config.data.dir` is not set."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from ssanet_jax.data import locations
from ssanet_jax.data.registry import find_data_dir, read_listing
from ssanet_jax.errors import UserError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> Path:
    """An empty working directory, without the variable."""
    monkeypatch.delenv(locations.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / 'images.txt').touch()
    return folder


def test_the_first_place_that_holds_anything_is_used(tmp_path, monkeypatch):
    here = fill(tmp_path / 'cub')
    assert locations.find('cub') == here
    (tmp_path / 'data/cub').mkdir(parents=True)  # empty: a place for a download that never came
    assert locations.find('cub') == here
    below = fill(tmp_path / 'data/cub/CUB_200_2011').parent
    assert locations.find('cub') == below
    shared = fill(tmp_path / 'all my data/cub')
    monkeypatch.setenv(locations.VARIABLE, str(shared.parent))
    assert locations.find('cub') == shared
    monkeypatch.setenv(locations.VARIABLE, '~/sets')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert locations.find('cub') == below  # the home folder has none
    at_home = fill(tmp_path / 'home/sets/cub')
    assert locations.find('cub') == at_home


def test_the_message_says_where_it_looked_and_how_to_get_the_data(tmp_path, monkeypatch):
    with pytest.raises(UserError) as caught:
        locations.find('cars')
    message = str(caught.value)
    assert '\n' not in message and 'SSANET_DATA_DIR is not set' in message
    for words in (tmp_path / 'data/cars', tmp_path / 'cars', 'config.data.dir', 'ssanet_jax.download cars'):
        assert str(words) in message
    monkeypatch.setenv(locations.VARIABLE, '/nowhere')
    with pytest.raises(UserError, match='/nowhere/cars, .*/data/cars, .*/cars, .*; set') as caught:
        read_listing(ConfigDict(dict(name='cars', dir='')))
    assert 'is not set' not in str(caught.value).partition('none of')[2]


def test_the_folders_of_the_publishers_archives_are_found(tmp_path, monkeypatch):
    """`tar xf CUB_200_2011.tgz` in ./data, or in the folder that the variable names, is enough."""
    here = fill(tmp_path / 'data/fgvc-aircraft-2013b')
    assert locations.find('aircraft') == here
    shared = fill(tmp_path / 'sets/fgvc-aircraft-2013b')
    monkeypatch.setenv(locations.VARIABLE, str(shared.parent))
    assert locations.find('aircraft') == shared
    monkeypatch.setenv(locations.VARIABLE, f'{shared}/')  # the set itself, in place of the folder around it
    assert locations.find('aircraft') == shared
    with pytest.raises(UserError, match='none of these folders'):
        locations.find('cub')  # no folder of another set is taken for it


def test_hidden_files_and_archives_are_not_a_data_set(tmp_path):
    """A folder with .DS_Store, or with a download that was never extracted, does not hide the next place."""
    (tmp_path / 'data/cub').mkdir(parents=True)
    (tmp_path / 'data/cub/.DS_Store').touch()
    with pytest.raises(UserError, match='none of these folders'):
        locations.find('cub')
    (tmp_path / 'data/cub/CUB_200_2011.tgz').touch()
    with pytest.raises(UserError, match=r'data/cub holds only the archive CUB_200_2011.tgz: extract it there, or run'):
        locations.find('cub')
    here = fill(tmp_path / 'CUB_200_2011')
    assert locations.find('cub') == here


def test_a_given_folder_is_never_searched_for(tmp_path, cub_folder):
    fill(tmp_path / 'cub')
    assert find_data_dir(ConfigDict(dict(name='cub', dir='elsewhere'))) == 'elsewhere'
    assert read_listing(ConfigDict(dict(name='cub', dir=str(cub_folder)))).root == cub_folder


def test_the_set_is_read_where_it_is_found(tmp_path, cub_folder):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/cub').symlink_to(cub_folder)
    assert read_listing(ConfigDict(dict(name='cub', dir=''))).root == cub_folder


def test_images_of_ones_own_have_no_usual_place(tmp_path):
    fill(tmp_path / 'folder')
    with pytest.raises(UserError, match='config.data.dir is not set'):
        read_listing(ConfigDict(dict(name='folder', dir='', csv='', split_seed=0)))
    assert find_data_dir(ConfigDict(dict(name='toy_birds'))) == ''
