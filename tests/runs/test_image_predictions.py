"""`predictions.npz`: what is written is read, and other files end with one line."""

import pickle

import numpy as np
import pytest
from run_samples import image_predictions

from ssanet_jax.errors import UserError
from ssanet_jax.runs.files import write_json
from ssanet_jax.runs.image_predictions import (
    SUM,
    ImagePredictions,
    check_accuracy,
    read_predictions,
    write_predictions,
)

CURE = 'evaluate again'


def predictions(count=5):
    random = np.random.default_rng(0)
    classes = {name: random.integers(0, 3, count).astype(np.int32) for name in ('image_classifier', SUM)}
    return ImagePredictions(
        labels=random.integers(0, 3, count).astype(np.int32),
        unreadable=np.arange(count) == 1,
        classes=classes,
        log_probabilities={name: random.normal(size=count).astype(np.float32) for name in classes},
        image_set='the images',
    )


@pytest.fixture
def path(tmp_path):
    write_predictions(tmp_path / 'predictions.npz', predictions())
    return tmp_path / 'predictions.npz'


def test_what_is_written_is_read(path):
    expected, found = predictions(), read_predictions(path, CURE)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.unreadable, expected.unreadable)
    assert found.image_set == 'the images' and list(found.classes) == ['image_classifier', SUM]
    for head in expected.classes:
        np.testing.assert_array_equal(found.classes[head], expected.classes[head])
        np.testing.assert_array_equal(found.log_probabilities[head], expected.log_probabilities[head])
    assert not list(path.parent.glob('*.partial'))


def test_equal_predictions_make_equal_files(path, tmp_path):
    write_predictions(tmp_path / 'again.npz', predictions())
    assert (tmp_path / 'again.npz').read_bytes() == path.read_bytes()


def test_an_unreadable_image_is_wrong():
    found = predictions()
    found.classes[SUM][:] = found.labels
    assert found.correct().tolist() == [True, False, True, True, True]


def test_no_file(tmp_path):
    assert read_predictions(tmp_path / 'nowhere.npz', CURE) is None


class Attack:
    def __reduce__(self):
        return pytest.fail, ('the file was run',)


def _with(**arrays):
    """A function that writes the predictions with other arrays."""

    def write(path):
        with np.load(path) as archive:
            content = dict(archive) | arrays
        np.savez(path, **{name: value for name, value in content.items() if value is not None})

    return write


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_text('{"accuracy": 1}'),
        lambda path: path.write_bytes(pickle.dumps(Attack())),
        _with(classes=np.array([Attack()], object)),
        lambda path: path.write_bytes(b'\x93NUMPY' + path.read_bytes()),
        _with(labels=None),
        _with(labels=np.zeros(4, np.int32)),
        _with(labels=np.zeros(5)),
        _with(labels=np.zeros(0, np.int32), unreadable=np.zeros(0, bool)),
        _with(heads=np.array(['image_classifier', 'other'])),
        _with(heads=np.array('sum')),
        _with(image_set=np.array(3)),
    ],
)
def test_other_files_end_with_one_line(path, damage):
    damage(path)
    with pytest.raises(UserError, match=r'predictions.npz is damaged, it holds no predictions: evaluate again$'):
        read_predictions(path, CURE)


def test_a_folder_in_its_place(tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
        read_predictions(tmp_path, CURE)


def test_damaged_bytes_are_refused_or_harmless(path):
    """Each byte in turn is changed; whatever is still read has the right form."""
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        try:
            found = read_predictions(path, CURE)
        except UserError:
            continue
        assert all(len(classes) == len(found.labels) for classes in found.classes.values())


def test_predictions_of_another_network_are_noticed(tmp_path):
    """Their file is whole: only the accuracy tells."""
    found = image_predictions([True, False])
    results = [tmp_path / 'results.json', tmp_path / 'evaluation.json']
    check_accuracy(tmp_path / 'x.npz', found, results, 'cure')  # nothing to compare with
    write_json(results[0], {'accuracy': 0.75})
    with pytest.raises(UserError, match='x.npz is damaged, its accuracy 0.5000 is not that of the results: cure'):
        check_accuracy(tmp_path / 'x.npz', found, results, 'cure')
    write_json(results[1], {'accuracy': 0.5})  # of a later evaluation
    check_accuracy(tmp_path / 'x.npz', found, results, 'cure')
