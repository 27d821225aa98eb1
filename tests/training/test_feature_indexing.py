"""The index of training images: the same as the public predictor computes, whoever writes it."""

import dataclasses
import io
import shutil

import numpy as np
import pytest
from commands import run_python
from rich.console import Console
from test_fitting import fit_config

from ssanet_jax.data.preprocessing import boxes_of_view
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.data.transforms import RandomCropFlip
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.predictor import load
from ssanet_jax.runs.feature_index import INDEX_FILE, read_index
from ssanet_jax.runs.run import load_run
from ssanet_jax.training.feature_indexing import index_run
from ssanet_jax.training.stages import stage
from ssanet_jax.training.train import train


@pytest.fixture(scope='module')
def fitted(tmp_path_factory):
    """A fitted run whose training images are seen as they are."""
    from tiny_config import get_config

    config, workdir = fit_config(get_config()), tmp_path_factory.mktemp('index') / 'run'
    config.data.flip = False
    train(config, workdir, Console(quiet=True))
    return config, workdir


def check(index, model, source):
    """Compares an index with what the public predictor says about each training image."""
    images = [source[i]['image'] for i in range(len(source))]
    features, predictions = model.features(images), list(model.predict(images))
    assert len(index.rows) == len(source)
    # Half precision, and cosines, since sums in other batches differ in the last digits.
    np.testing.assert_allclose(index.rows['image'], features.image, rtol=2e-2, atol=2e-3)
    np.testing.assert_allclose(index.rows['parts'], features.parts, rtol=5e-2, atol=1e-2)
    np.testing.assert_array_equal(index.labels, source.labels)
    np.testing.assert_array_equal(index.rows['position'], np.arange(len(source)))
    for i, prediction in enumerate(predictions):
        height, width = images[i].shape[:2]
        boxes = index.rows['boxes'][i] * [height, width, height, width]
        np.testing.assert_allclose(boxes, prediction.boxes, atol=0.01)
        assert index.files[i] == source[i]['file']
        assert tuple(index.rows['present'][i]) == (prediction.present or (True,) * len(prediction.boxes))


def test_a_fitted_stage_keeps_what_the_predictor_computes(fitted):
    config, workdir = fitted
    model = load(workdir)
    assert model.index.stage == 'fit'
    check(model.index, model, load_dataset(config.data).train)


def test_the_command_writes_the_same(fitted, tmp_path):
    config, workdir = fitted
    copy = shutil.copytree(workdir, tmp_path / 'copy')
    (copy / 'fit' / INDEX_FILE).unlink()
    done = run_python(('-m', 'ssanet_jax'), 'index', f'--workdir={copy}')
    assert done.returncode == 0, done.stderr
    source = load_dataset(config.data).train
    assert done.stdout == f'features of {len(source)} training images: see {copy / "fit" / INDEX_FILE}\n'
    check(load(copy).index, load(copy), source)


def test_a_run_that_was_trained(workdir):
    run = load_run(workdir)
    dataset = load_dataset(run.config.data)
    path, count = index_run(run, workdir, dataset, Console(file=io.StringIO()))
    assert path == workdir / run.stage / INDEX_FILE and count == len(dataset.train)
    model = load(workdir)
    check(model.index, model, dataset.train)
    # A training image is its own nearest neighbor, and so are its parts.
    prediction = next(model.predict(dataset.train[5]['image']))
    for part in (None, *range(len(prediction.boxes))):
        first, second = model.neighbors(prediction, part, k=2)
        assert (first.row, first.label) == (5, dataset.train.labels[5]) and first.similarity > second.similarity
        assert first.similarity == pytest.approx(1, abs=1e-3)
    (other,) = model.neighbors(prediction, k=1, label=(first.label + 1) % 16)
    assert other.label == (first.label + 1) % 16


def test_parts_that_no_classifier_reads_are_left_out(tmp_path):
    """A stage that finds the parts, but classifies images by the whole alone: its fits are kept, and indexed."""
    from tiny_config import get_config

    config, workdir = fit_config(get_config()), tmp_path / 'run'
    config.data.flip = False
    config.stages = (stage('fit', epochs=1, fit=True, train=dict(proposals=1, image_classifier=1)),)
    train(config, workdir, Console(quiet=True))
    source, model = load_dataset(config.data).train, load(workdir)
    by_stage = model.index
    path, _ = index_run(load_run(workdir), tmp_path, load_dataset(config.data), Console(quiet=True))
    expected = model.features([source[i]['image'] for i in range(len(source))]).image
    for index in (by_stage, read_index(path, '')):
        assert index.num_parts == 0 and index.rows['boxes'].shape == (len(source), 0, 4)
        np.testing.assert_allclose(index.rows['image'], expected, rtol=2e-2, atol=2e-3)
    prediction = next(model.predict(source[5]['image']))
    assert len(prediction.boxes) == config.model.num_parts
    assert model.neighbors(prediction, k=1)[0].row == 5


def test_an_index_of_another_network_is_refused(fitted, tmp_path):
    workdir = shutil.copytree(fitted[1], tmp_path / 'copy')
    path = workdir / 'fit' / INDEX_FILE
    with np.load(path) as arrays:
        found = dict(arrays)
    np.savez(path, **(found | {'network': np.array('0' * 32)}))
    with pytest.raises(UserError, match=r'index\.npz is that of another network \(stage fit\): ssanet index'):
        _ = load(workdir).index
    np.savez(path, **(found | {'stage': np.array('joint')}))
    with pytest.raises(UserError, match=r'is that of another network \(stage joint\)'):
        _ = load(workdir).index
    found['rows']['label'][3] = 99
    np.savez(path, **found)
    with pytest.raises(UserError, match='its classes are not those of the run'):
        _ = load(workdir).index
    path.unlink()
    with pytest.raises(UserError, match=r'index\.npz is missing: ssanet index --workdir=') as caught:
        _ = load(workdir).index
    assert '\n' not in str(caught.value)


def test_images_that_cannot_be_read_are_left_out(fitted, tmp_path):
    config, workdir = fitted
    dataset = load_dataset(config.data)

    class Damaged:
        labels = dataset.train.labels

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, index):
            if index in (0, 7):
                raise UnreadableImage(f'cannot read {index}.jpg')
            return dataset.train[index]

    said = io.StringIO()
    run = load_run(workdir)
    changed = dataclasses.replace(dataset, train=Damaged())
    path, count = index_run(run, tmp_path, changed, Console(file=said))
    assert count == len(dataset.train) - 2 and said.getvalue().count('skipped: cannot read') == 2
    index = read_index(path, '')
    kept = [i for i in range(len(dataset.train)) if i not in (0, 7)]
    np.testing.assert_array_equal(index.rows['position'], kept)
    np.testing.assert_array_equal(index.labels, dataset.train.labels[kept])


@pytest.mark.parametrize('seed', range(6))
def test_boxes_of_a_view_lie_where_its_pixels_come_from(seed):
    """A bright rectangle in a crop of a random place, mirrored or not, is found again in the image."""
    rng = np.random.default_rng(seed)
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:52, 30:47] = 255
    found = RandomCropFlip(60, flip=True, scale_min=0.99).random_map({'image': image}, rng)
    ys, xs = np.nonzero(found['image'][..., 0] > 127)
    box = np.array([[[ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]]], float)
    whole = np.array([40, 30, 52, 47]) / 100
    seen = np.array([found['view'][0], min(found['view'][[1, 3]]), found['view'][2], max(found['view'][[1, 3]])])
    expected = np.r_[np.maximum(whole[:2], seen[:2]), np.minimum(whole[2:], seen[2:])]  # the crop may cut it
    np.testing.assert_allclose(boxes_of_view(box, found['view'][None], 60)[0, 0], expected, atol=0.02)
