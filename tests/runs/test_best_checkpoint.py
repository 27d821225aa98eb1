"""A run with validation images, and with images that cannot be read."""

import io
import itertools
import json
import shutil

import chex
import jax
import numpy as np
import pytest
from damages import DAMAGES, flip, swap
from data_samples import write_image
from rich.console import Console

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation import accuracy
from ssanet_jax.runs.best_checkpoint import BestCheckpoint, restore_network
from ssanet_jax.runs.checkpoints import Checkpoints, DamagedCheckpoints, checkpoint_dir
from ssanet_jax.runs.evaluation_count import num_test_evaluations
from ssanet_jax.runs.files import write_json
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, SUM, ImagePredictions, read_predictions
from ssanet_jax.runs.results import EvaluationResult, StageResult
from ssanet_jax.training import evaluate
from ssanet_jax.training.stages import stage
from ssanet_jax.training.train import train


def _items(value):
    return {'params': {'w': np.full(3, value, np.float32)}, 'stats': {'m': np.full(2, value, np.float32)}}


def _passed_on(workdir):
    params, stats = restore_network(workdir, 'one', **jax.device_put(_items(0)), groups={'w'})
    return {'params': params, 'stats': stats}


def _update(best, step, accuracy):
    predictions = ImagePredictions(
        labels=np.zeros(1, np.int32),
        unreadable=np.zeros(1, bool),
        classes={SUM: np.array([step], np.int32)},
        log_probabilities={},
    )
    result = EvaluationResult(accuracy=accuracy, examples=10, heads={}, unreadable=[])
    best.update(step, result, predictions, **_items(step))


def _predicted(workdir):
    """The class that was predicted for the only image, which is the step of the network."""
    return int(read_predictions(workdir / 'one' / PREDICTIONS_FILE, '').classes[SUM][0])


def test_the_first_of_the_best_goes_on(tmp_path):
    best = BestCheckpoint(tmp_path, 'one', selects=True)
    for step, value in ((10, 0.4), (20, 0.7), (30, 0.7)):
        _update(best, step, value)
    # A later start knows what was best before it.
    again = BestCheckpoint(tmp_path, 'one', selects=True)
    _update(again, 40, 0.6)
    assert (again.result.accuracy, again.result.step) == (0.7, 20)
    chex.assert_trees_all_equal(_passed_on(tmp_path), _items(20))
    assert _predicted(tmp_path) == 20


def test_without_a_choice_the_last_goes_on(tmp_path):
    checkpoints = Checkpoints(checkpoint_dir(tmp_path, 'one'), writes=True)
    best = BestCheckpoint(tmp_path, 'one', selects=False)
    for step, value in ((10, 0.9), (20, 0.1)):
        checkpoints.save(step, _items(step))
        _update(best, step, value)
    checkpoints.close()
    assert (best.result.accuracy, best.result.step) == (0.1, 20)
    chex.assert_trees_all_equal(_passed_on(tmp_path), _items(20))
    assert _predicted(tmp_path) == 20


@pytest.fixture
def selected(tmp_path):
    """A stage that selected step 20 of 10, 20 and 30, of which the checkpoints 20 and 30 are there."""
    checkpoints = Checkpoints(checkpoint_dir(tmp_path, 'one'), writes=True)
    best = BestCheckpoint(tmp_path, 'one', selects=True)
    for step, value in ((10, 0.4), (20, 0.7), (30, 0.6)):
        checkpoints.save(step, _items(step))
        _update(best, step, value)
    checkpoints.close()
    return tmp_path


def _bulk(checkpoint):
    return next(path for path in sorted(checkpoint.glob('params/ocdbt.process_0/d/*')))


def _repair(workdir, first_step=30):
    best = BestCheckpoint(workdir, 'one', selects=True)
    best.repair(first_step, **jax.device_put(_items(0)))


@pytest.mark.parametrize(
    'harm',
    [
        lambda folder: flip(_bulk(folder / 'best' / '20')),
        lambda folder: shutil.rmtree(folder / 'best' / '20'),
        lambda folder: shutil.rmtree(folder / 'best'),
        lambda folder: swap(folder / 'best' / '20', folder / 'best' / '10'),
    ],
)
def test_a_damaged_selection_is_replaced_by_the_checkpoint_with_the_same_network(selected, harm, caplog):
    harm(selected / 'one')
    chex.assert_trees_all_equal(_passed_on(selected), _items(20))  # for readers
    assert f'{selected}/one/checkpoints/20, the same network, is used' in caplog.text
    _repair(selected)  # in the run, before it deletes that checkpoint
    shutil.rmtree(selected / 'one' / 'checkpoints')
    caplog.clear()
    chex.assert_trees_all_equal(_passed_on(selected), _items(20))
    assert caplog.messages == []


def test_a_selection_that_no_checkpoint_holds_is_refused(selected):
    """The selection before it, of step 10, is another network."""
    flip(_bulk(selected / 'one' / 'best' / '20'))
    shutil.rmtree(selected / 'one' / 'checkpoints' / '20')
    with pytest.raises(DamagedCheckpoints, match='stage one selected at step 20 is lost') as error:
        _passed_on(selected)
    assert '\n' not in str(error.value)
    with pytest.raises(DamagedCheckpoints):
        _repair(selected)


def test_the_record_of_another_stage_is_noticed(selected):
    content = json.loads((selected / 'one' / 'best.json').read_text())
    write_json(
        selected / 'one' / 'best.json',
        {name: value for name, value in content.items() if name != 'checksum'} | {'stage': 'two'},
    )
    for read in (_passed_on, _repair):
        with pytest.raises(UserError, match=r'best\.json is that of stage two'):
            read(selected)


@pytest.mark.parametrize('damage', ['flip', 'truncate', 'empty', 'missing', 'garbage'])
def test_a_damaged_record_of_the_selection_is_noticed(selected, damage):
    DAMAGES[damage](selected / 'one' / 'best.json')
    with pytest.raises(UserError, match=r'best\.json is (damaged|missing)'):
        _passed_on(selected)
    with pytest.raises(DamagedCheckpoints, match=r'best\.json is (damaged|missing)'):
        _repair(selected)


def test_the_result_of_a_finished_stage_also_knows_the_selection(selected):
    result = BestCheckpoint(selected, 'one', selects=True).result.to_dict()
    finished = StageResult(**result, split='validation', epochs=1, steps=30, wall_seconds=1.0)
    write_json(selected / 'one' / 'evaluation.json', finished.to_dict())
    (selected / 'one' / 'best.json').unlink()
    chex.assert_trees_all_equal(_passed_on(selected), _items(20))


def test_a_run_that_was_killed_at_its_first_selection_goes_on(tmp_path):
    """It had saved the network, and not yet its record."""
    best = BestCheckpoint(tmp_path, 'one', selects=True)
    _update(best, 10, 0.4)
    (tmp_path / 'one' / 'best.json').unlink()
    _repair(tmp_path, first_step=8)
    chex.assert_trees_all_equal(_passed_on(tmp_path), _items(10))


@pytest.fixture
def birds(tmp_path):
    """A folder of 24 training and 7 test images of two classes."""
    for split, count in (('train', 12), ('test', 4)):
        for name in ('crow', 'wren'):
            for number in range(count):
                write_image(tmp_path / 'birds' / split / name / f'{name}{split}{number}.jpg')
    (tmp_path / 'birds/test/wren/wrentest3.jpg').unlink()
    return tmp_path / 'birds'


@pytest.fixture
def config(tiny_config, birds, tmp_path):
    config = tiny_config
    config.data.update(name='folder', dir=str(birds), prepared_dir=str(tmp_path / 'prepared'), batch_size=4)
    train = dict(backbone=1, image_classifier=1)
    config.stages = (
        stage('one', epochs=3, learning_rate=0.05, train=train),
        stage('two', epochs=1, learning_rate=0.01, train=train),
    )
    config.eval_epochs = 1
    return config


def _train(config, workdir):
    text = io.StringIO()
    results = train(config, workdir, Console(file=text, width=200))
    return results, text.getvalue()


@pytest.mark.slow
def test_validation_chooses_and_the_test_set_is_read_once(config, tmp_path, monkeypatch):
    config.data.validation = 0.25  # 3 of 12 images per class
    seen = []
    original = accuracy.evaluate
    sizes = lambda *arguments: seen.append(original(*arguments)) or seen[-1]
    monkeypatch.setattr(evaluate, 'evaluate', sizes)
    results, text = _train(config, tmp_path / 'run')
    assert '18 training, 6 validation, 7 test images' in text
    assert [result.examples for result in seen] == [6, 6, 6, 6, 7]  # three epochs, one epoch, the end
    assert results.accuracy == seen[-1].accuracy and results.examples == 7
    for name, evaluations in (('one', seen[:3]), ('two', seen[3:4])):
        best = max(result.accuracy for result in evaluations)
        assert results.stages[name].accuracy == best and results.stages[name].split == 'validation'
    assert 'test accuracy' not in text and 'validation accuracy' in text

    # A second start evaluates nothing again.
    again, _ = _train(config, tmp_path / 'run')
    assert again == results and len(seen) == 5
    assert 'test images evaluated 1 time in this work directory' in text
    assert num_test_evaluations(tmp_path / 'run') == 1

    # The predictions belong to the networks that the results belong to.
    for path, result, size in (('', results, 7), ('one', results.stages['one'], 6), ('two', results.stages['two'], 6)):
        predictions = read_predictions(tmp_path / 'run' / path / PREDICTIONS_FILE, '')
        assert len(predictions.labels) == size and predictions.correct().mean() == result.accuracy

    # A stage that is trained again makes another network, whose accuracy is not that of the first.
    (tmp_path / 'run/two').rename(tmp_path / 'run/two.before')
    config.stages[1].learning_rate = 0.02
    _, text = _train(config, tmp_path / 'run')
    assert 'test.json is the result of another network: the run is evaluated again' in text
    assert [result.examples for result in seen[5:]] == [6, 7] and num_test_evaluations(tmp_path / 'run') == 2


@pytest.mark.slow
def test_without_validation_every_evaluation_is_counted(config, tmp_path):
    results, text = _train(config, tmp_path / 'run')
    assert 'test images evaluated 4 times in this work directory' in text
    predictions = read_predictions(tmp_path / 'run' / PREDICTIONS_FILE, '')
    assert predictions.correct().mean() == results.accuracy
    (tmp_path / 'run' / PREDICTIONS_FILE).unlink()
    console = io.StringIO()
    evaluate.evaluate_run(config, tmp_path / 'run', Console(file=console, width=200))
    assert 'test images evaluated 5 times in this work directory' in console.getvalue()
    again = read_predictions(tmp_path / 'run' / PREDICTIONS_FILE, '')
    np.testing.assert_array_equal(again.classes[SUM], predictions.classes[SUM])
    assert again.image_set == predictions.image_set != ''


@pytest.mark.slow
def test_unreadable_images_are_named_and_counted(config, birds, tmp_path):
    broken = ['train/crow/crowtrain5.jpg', 'test/wren/wrentest0.jpg']
    for name in broken:
        path = birds / name
        path.write_bytes(path.read_bytes()[:300])
    results, text = _train(config, tmp_path / 'run')
    listed = [line for line in text.splitlines() if 'skipped' in line]
    assert len(listed) == 4 and all(broken[0] in line for line in listed)  # once in each of four epochs
    (problem,) = results.unreadable
    assert broken[1] in problem and results.examples == 7
    assert results.accuracy <= 6 / 7
    assert json.loads((tmp_path / 'run/results.json').read_text())['unreadable'] == [problem]
    lines = text.splitlines()
    pairs = itertools.pairwise(lines)
    printed = [line for line, following in pairs if 'test accuracy:' in line and broken[1] in following]
    assert len(printed) == 4 and '1 of 7 images cannot be read and count as wrong' in text  # with every accuracy


@pytest.mark.slow
def test_a_run_keeps_to_its_images(config, birds, tmp_path):
    """Images that change between two starts would move others between training and test, or mix two sets."""
    config.stages = config.stages[:1]
    config.stages[0].epochs = 1
    _train(config, tmp_path / 'run')
    write_image(birds / 'train/crow/another.jpg')
    with pytest.raises(UserError, match='other images or another split'):
        _train(config, tmp_path / 'run')
    (birds / 'train/crow/another.jpg').unlink()
    moved = birds.rename(birds.with_name('moved'))
    config.data.dir = str(moved)
    again, _ = _train(config, tmp_path / 'run')
    assert again.examples == 7

    evaluated = evaluate.evaluate_run(config, tmp_path / 'run', Console(file=io.StringIO()))
    assert evaluated.accuracy == again.accuracy
    config.data.resize = 80
    with pytest.raises(UserError, match='another config.data.resize'):
        evaluate.evaluate_run(config, tmp_path / 'run', Console(file=io.StringIO()))
