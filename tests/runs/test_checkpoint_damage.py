"""Damaged checkpoints: each kind of damage to each file is noticed, said, and made up for by the one before."""

import logging
import os
import random
import shutil
import signal
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_samples import forget_checksums
from damages import DAMAGES, flip, swap

from ssanet_jax import terminal
from ssanet_jax.errors import UserError
from ssanet_jax.runs import checkpoints as module
from ssanet_jax.runs.checkpoints import Checkpoints, DamagedCheckpoints, restore
from ssanet_jax.runs.checksums import CHECKSUMS_FILE, METADATA_FILE, find_damage

LIKE = {'params': None, 'stats': None, 'position': None}


def items(step):
    values = np.random.default_rng(step).standard_normal(3000).astype(np.float32)
    return {
        'params': {'backbone': {'kernel': jnp.asarray(values)}},
        'stats': {'backbone': {'mean': jnp.full(8, float(step))}},
        'position': {'seconds': 0.5 * step},
    }


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp('whole') / 'checkpoints'
    checkpoints = Checkpoints(directory, writes=True)
    for step in (4, 5):
        checkpoints.save(step, items(step))
    checkpoints.close()
    return directory


@pytest.fixture
def directory(whole, tmp_path):
    """Checkpoints of steps 4 and 5."""
    return shutil.copytree(whole, tmp_path / 'run' / 'checkpoints')


def files(checkpoint):
    return sorted(path for path in checkpoint.rglob('*') if path.is_file())


def bulk(checkpoint):
    """The file that holds most of the parameters."""
    return max(files(checkpoint / 'params'), key=lambda path: path.stat().st_size)


def is_whole(found, step):
    number, loaded = found
    expected = items(step)
    assert number == step
    chex.assert_trees_all_equal(loaded, jax.tree.map(np.asarray, expected))


def place(checkpoint, name):
    """A file of a checkpoint by its role."""
    return bulk(checkpoint) if name == 'bulk' else checkpoint / name


@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize(
    'name', ['bulk', 'params/manifest.ocdbt', 'stats/_METADATA', METADATA_FILE, CHECKSUMS_FILE, 'commit_success.txt']
)
def test_the_table_of_damages(directory, name, damage, caplog):
    DAMAGES[damage](place(directory / '5', name))
    if find_damage(directory / '5') == '':
        pytest.skip('bytes of the same value')  # zeros over zeros
    is_whole(restore(directory, LIKE), 4)  # a reader
    [said] = caplog.messages
    assert said.startswith(f'checkpoint 5 of {directory} is damaged (')
    assert said.endswith('): checkpoint 4 is used, 1 step earlier') and '\n' not in said
    assert (directory / '5').is_dir()  # readers rename nothing
    caplog.clear()
    is_whole(restore(directory, LIKE, writes=True), 4)  # the run
    [said] = caplog.messages
    assert said.endswith('set aside as 5.damaged: going on from checkpoint 4, 1 step lost')
    assert (directory / '5.damaged').is_dir() and not (directory / '5').exists()
    caplog.clear()
    is_whole(restore(directory, LIKE, writes=True), 4)
    assert caplog.messages == []


@pytest.mark.parametrize('name', ['stats', 'params', 'position', 'bulk', METADATA_FILE, CHECKSUMS_FILE])
def test_parts_of_another_step_are_noticed(directory, name, caplog):
    """TensorStore loads the statistics of step 4 in step 5 without an error."""
    if name == 'bulk':
        shutil.copyfile(bulk(directory / '4'), bulk(directory / '5'))
    else:
        swap(directory / '5' / name, directory / '4' / name)
    is_whole(restore(directory, LIKE), 4)
    assert 'checkpoint 5' in caplog.text


@pytest.mark.parametrize('name', ['x', 'params/d/x', 'params/ocdbt.process_1/manifest.ocdbt'])
def test_extra_files_are_noticed(directory, name, caplog):
    (directory / '5' / name).parent.mkdir(exist_ok=True)
    (directory / '5' / name).write_text('x')
    is_whole(restore(directory, LIKE), 4)
    assert f'{name} does not belong to it' in caplog.text


@pytest.mark.parametrize('name', ['.DS_Store', 'params/Thumbs.db'])
def test_files_of_file_managers_do_no_harm(directory, name, caplog):
    (directory / '5' / name).write_text('x')
    is_whole(restore(directory, LIKE), 5)
    assert caplog.messages == []


def foreign(directory):
    (directory / '999').mkdir()
    (directory / '999' / 'notes.txt').write_text('mine')


def copied(directory):
    shutil.copytree(directory / '5', directory / '999')


def swapped(directory):
    (directory / '4').rename(directory / '6')


@pytest.mark.parametrize('harm', [foreign, copied, lambda directory: (directory / '999').mkdir()])
def test_a_foreign_folder_is_not_the_newest_checkpoint(directory, harm, caplog):
    harm(directory)
    is_whole(restore(directory, LIKE), 5)
    assert '999' in caplog.text
    checkpoints = Checkpoints(directory, writes=True)
    is_whole(checkpoints.restore(LIKE), 5)
    checkpoints.save(6, items(6))  # Orbax would skip it, since 999 is later
    assert checkpoints.steps == [5, 6]
    checkpoints.close()
    assert (directory / '999.damaged').is_dir()


def test_a_renamed_checkpoint_is_noticed(directory, caplog):
    swapped(directory)
    is_whole(restore(directory, LIKE), 5)
    assert 'it belongs to step 4' in caplog.text


def test_when_all_are_damaged_one_line_names_each(directory, caplog):
    for step in (4, 5):
        flip(bulk(directory / str(step)))
    with pytest.raises(DamagedCheckpoints, match=r'is whole \(5: params/.*; 4: params/.*\): restore it from') as error:
        restore(directory, LIKE, writes=True)
    assert '\n' not in str(error.value)
    assert sorted(path.name for path in directory.iterdir()) == ['4.damaged', '5.damaged']


def test_other_shapes_are_no_damage(directory):
    like = {'params': {'backbone': {'kernel': jnp.zeros(7)}}}
    with pytest.raises(UserError, match='its shapes differ') as error:
        restore(directory, like, writes=True)
    assert not isinstance(error.value, DamagedCheckpoints)
    assert sorted(path.name for path in directory.iterdir()) == ['4', '5']


def test_several_damages_in_a_row(directory, caplog):
    checkpoints = Checkpoints(directory, writes=True)
    checkpoints.save(6, items(6))
    checkpoints.close()
    flip(bulk(directory / '6'))
    is_whole(restore(directory, LIKE, writes=True), 5)
    checkpoints = Checkpoints(directory, writes=True)
    checkpoints.save(6, items(6))
    checkpoints.close()
    flip(bulk(directory / '6'))
    is_whole(restore(directory, LIKE, writes=True), 5)
    assert sorted(path.name for path in directory.iterdir()) == ['5', '6.damaged', '6.damaged-2']


def test_checkpoints_of_early_versions_are_read_without_a_word(directory, caplog):
    for step in (4, 5):
        forget_checksums(directory / str(step))
    is_whole(restore(directory, LIKE, writes=True), 5)
    assert caplog.messages == []


def test_a_checkpoint_that_is_deleted_meanwhile_is_no_damage(directory, caplog, monkeypatch):
    """A run that is training replaces its checkpoints while another command reads them."""
    check = module.find_damage

    def race(folder):
        if folder.name == '5' and folder.exists():
            writer = Checkpoints(directory)
            writer.save(6, items(6))
            writer.save(7, items(7))  # 5 is deleted
        return check(folder)

    monkeypatch.setattr(module, 'find_damage', race)
    is_whole(restore(directory, LIKE), 7)
    assert caplog.messages == []


def test_an_unfinished_save_of_another_process_is_not_read(directory, caplog):
    shutil.copytree(directory / '5', directory / '6.partial')
    is_whole(restore(directory, LIKE), 5)
    assert (directory / '6.partial').exists() and caplog.messages == []


def test_a_full_disk_leaves_no_half_checkpoint(directory, monkeypatch):
    def full(folder, step):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(module, 'write_checksums', full)
    checkpoints = Checkpoints(directory, writes=True)
    with pytest.raises(OSError, match='No space left'):
        checkpoints.save(6, items(6))
    checkpoints.close()
    assert sorted(path.name for path in directory.iterdir()) == ['4', '5']


def test_an_interrupt_while_a_checkpoint_is_read_is_no_damage(directory, monkeypatch):
    """Orbax raises an error of its own; an older checkpoint must not be used, and this one not be renamed."""

    def interrupted(self, step, abstract):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        except KeyboardInterrupt as error:
            raise ValueError(type(error).__name__) from error

    monkeypatch.setattr(Checkpoints, '_load', interrupted)
    with pytest.raises(terminal.Terminated), terminal.interruptible(resumes=True):
        restore(directory, LIKE, writes=True)
    monkeypatch.undo()
    is_whole(restore(directory, LIKE), 5)


def test_hundreds_of_random_damages(directory, whole, caplog):
    """Not one is used in silence, and not one ends with anything but a fallback."""
    caplog.set_level(logging.WARNING)
    noticed = 0
    for seed in range(300):
        generator = random.Random(seed)
        path = generator.choice([path for path in files(directory / '5') if path.stat().st_size])
        content = path.read_bytes()
        name = generator.choice(list(DAMAGES))
        DAMAGES[name](path, seed)
        damaged = not path.is_file() or path.read_bytes() != content
        problem = find_damage(directory / '5')
        assert bool(problem) == damaged, (path, name)
        noticed += damaged
        if seed % 30 == 0:  # loading takes longer than looking
            is_whole(restore(directory, LIKE), 4 if damaged else 5)
        if path.is_dir():
            path.rmdir()
        elif not path.is_file():
            path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert noticed > 250
    is_whole(restore(directory, LIKE), 5)
