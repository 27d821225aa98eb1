"""The measure command, on the finished tiny run."""

import dataclasses
import json
import re

import numpy as np
import pytest
from commands import MOVED_DATA_WITHOUT_PARTS, changed, run_each, run_python

from ssanet_jax.data import toy_birds
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.evaluation.keypoint_layout import keypoint_layout
from ssanet_jax.evaluation.keypoints import annotations_in_input_pixels
from ssanet_jax.evaluation.part_statistics import Annotations, LocatedParts, part_statistics
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.image_predictions import read_predictions
from ssanet_jax.runs.run import load_run

pytestmark = pytest.mark.slow

MODULE = 'ssanet_jax.measure'
# Another data set than the run's.
CHANGED_DATA = """
import dataclasses
from ssanet_jax.runs import run as runs
load = runs.load_dataset
runs.load_dataset = lambda config, names=(): dataclasses.replace(load(config, names), {changes})
"""


def measure(*arguments, program=('-m', MODULE)):
    return run_python(program, *arguments)


def test_measures_robustness_and_key_points(workdir):
    done = measure(f'--workdir={workdir}', '--seed=3')
    assert done.returncode == 0, done.stderr
    robustness, keypoints = (json.loads((workdir / f'{name}.json').read_text()) for name in ('robustness', 'keypoints'))
    results = json.loads((workdir / 'results.json').read_text())

    assert robustness['accuracy']['original'] == results['accuracy']
    assert robustness['examples'] == results['examples'] == keypoints['images'] == 30
    predictions = read_predictions(workdir / 'robustness.npz', '')
    assert predictions.image_set == read_predictions(workdir / 'predictions.npz', '').image_set
    assert robustness['accuracy'] == {name: predictions.correct(name).mean() for name in robustness['accuracy']}
    assert robustness['seed'] == 3 and robustness['unreadable'] == keypoints['unreadable'] == []
    assert robustness['dataset'] == 'toy_birds' and robustness['stage'] == keypoints['stage'] == 'part_tuning'
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f'accuracy {results["accuracy"]:.4f} on 30 images, rotated by 90 ')
    for name, accuracy in robustness['accuracy'].items():
        assert f'{accuracy:.4f}' in done.stdout and name in done.stdout
    row = r'  crown +│ +\d+[ *] +\d+[ *] +│ +\d+[ *] +\d+[ *] +│ +\d+ │ +\d+ │ +\d+ │'
    assert re.search(row, done.stdout), 'two parts, in one line; controls'

    # The parts after scale mining, image by image.
    run = load_run(workdir)
    test = load_dataset(run.config.data).test
    images = [test[i]['image'] for i in range(30)]
    boxes = np.stack([found.input_boxes for found in Predictor.from_run(run).predict(images)])
    annotations = [annotations_in_input_pixels(test[i], run.config.data) for i in range(30)]
    truth = Annotations(*(np.stack(column) for column in zip(*annotations)), 64)
    layout = keypoint_layout(toy_birds.KEYPOINT_NAMES, toy_birds.KEYPOINT_GROUPS)
    expected = part_statistics(LocatedParts(boxes), truth, layout)
    after = keypoints['boxes']['after scale mining']
    for name in ('distance', 'distance_share', 'inside'):
        assert after[name] == pytest.approx(getattr(expected, name), abs=0.02)
    assert np.shape(after['nearest']) == (run.config.model.num_parts, len(keypoints['keypoint_names']))
    controls = ['centre of the image', 'random points in the object', 'random boxes']
    assert list(keypoints['boxes']) == ['before scale mining', 'after scale mining', *controls]
    assert keypoints['controls'] == controls and keypoints['group_names'] == ['head']
    middle = LocatedParts(np.tile([[0, 0, 64, 64]], (30, 1, 1)))
    assert keypoints['boxes']['centre of the image'] == dataclasses.asdict(part_statistics(middle, truth, layout))
    with np.load(workdir / 'keypoints.npz') as arrays:
        assert arrays['index'].tolist() == list(range(30))
        for name, statistics in keypoints['boxes'].items():
            assert arrays[f'{name}/distance'].mean() == pytest.approx(statistics['distance'])
            assert arrays[f'{name}/head'].shape == arrays[f'{name}/distance'].shape
    assert f'parts {after["distance"]:.2f} pixels from the nearest key point in 30 images' in last


def test_without_key_points_robustness_is_measured_alone(workdir):
    program = changed(MODULE, CHANGED_DATA.format(changes='keypoint_names=()'))
    done = measure(f'--workdir={workdir}', program=program)
    assert done.returncode == 0, done.stderr
    assert 'key points are left out: toy_birds has no key points' in done.stderr
    assert (workdir / 'robustness.json').exists() and not (workdir / 'keypoints.json').exists()
    done = measure(f'--workdir={workdir}', '--only=keypoints', program=program)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr == 'error: toy_birds has no key points to measure the parts by: cub and toy_birds have\n'


def test_errors_are_one_line(workdir, tmp_path):
    other_classes = CHANGED_DATA.format(changes="class_names=('wren',)")
    cases = {
        '--workdir is missing: Folder of a trained run': [],
        'holds no run': [f'--workdir={tmp_path / "nothing"}'],
        "unexpected argument 'more'": [f'--workdir={workdir}', 'more'],
        'robustness|keypoints': [f'--workdir={workdir}', '--only=speed'],
        '--seed=-1': [f'--workdir={workdir}', '--seed=-1'],
        'trained on other classes than toy_birds has: check --data_dir': [f'--workdir={workdir}'],
    }
    for message, (code, _, stderr) in run_each(MODULE, cases, tmp_path, other_classes).items():
        assert code == 2 and message in stderr and 'Traceback' not in stderr, stderr
        assert len(stderr.strip().splitlines()) == 1


def test_a_run_without_parts_and_data_that_moved(workdir):
    """Like a run with global pooling: without proposals, only robustness can be measured."""
    done = measure(f'--workdir={workdir}', '--data_dir=elsewhere', program=changed(MODULE, MOVED_DATA_WITHOUT_PARTS))
    assert done.returncode == 0, done.stderr
    assert 'key points are left out: the network of stage part_tuning has no parts' in done.stderr
    accuracy = json.loads((workdir / 'robustness.json').read_text())['accuracy']['original']
    heads = json.loads((workdir / 'results.json').read_text())['heads']
    assert accuracy == heads['image_classifier']
