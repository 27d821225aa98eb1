"""Finished runs are compared image by image, and only if they were evaluated on the same images."""

import dataclasses

import numpy as np
import pytest
from run_samples import image_predictions, write_finished_run

from ssanet_jax.data.registry import load_dataset
from ssanet_jax.data.splits import image_set
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.paired_comparison import McNemar, compare_predictions
from ssanet_jax.experiments.run_comparison import check_same_images, compare_runs, load_predictions
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, write_predictions


def test_series_of_runs_by_hand():
    first, second = [[1, 1, 1, 0], [1, 1, 0, 0]], [[1, 0, 0, 0], [1, 0, 1, 0]]
    found = compare_runs([image_predictions(run) for run in first], [image_predictions(run) for run in second])
    assert found.comparison == compare_predictions(100 * (np.array(first, float) - second))
    assert found.comparison.difference.mean == 25
    assert found.single == (McNemar(2, 0, 0.5), McNemar(1, 1, 1.0))


def test_one_image_is_too_few():
    with pytest.raises(UserError, match='one image is too few'):
        compare_runs([image_predictions([1])], [image_predictions([0])])


def test_other_images_are_refused(tmp_path):
    first, second = tmp_path / 'a', tmp_path / 'b'
    same = image_predictions([1, 0])
    check_same_images({first: same, second: image_predictions([0, 0])})
    others = (
        image_predictions([1, 0], 'others'),
        dataclasses.replace(same, labels=np.ones(2, np.int32)),
        image_predictions([1]),
    )
    for other in others:
        with pytest.raises(UserError, match=r'a and .*b were evaluated on different images'):
            check_same_images({first: same, second: other})


def test_test_and_validation_images_of_a_run(tiny_config, tmp_path):
    tiny_config.data.validation = 0.2
    workdir = write_finished_run(tmp_path / 'run', tiny_config)
    write_predictions(workdir / PREDICTIONS_FILE, image_predictions([1, 0]))
    write_predictions(workdir / 'part_tuning' / PREDICTIONS_FILE, image_predictions([1, 1, 1]))
    assert len(load_predictions(workdir, 'test').labels) == 2
    assert len(load_predictions(workdir, 'validation').labels) == 3


def test_what_is_missing_ends_with_one_line(tiny_config, tmp_path):
    with pytest.raises(UserError, match='holds no run'):
        load_predictions(tmp_path, 'test')
    unfinished = write_finished_run(tmp_path / 'unfinished', tiny_config, finished=False)
    with pytest.raises(UserError, match='not finished: give the command that trains it again'):
        load_predictions(unfinished, 'test')
    old = write_finished_run(tmp_path / 'old', tiny_config)
    with pytest.raises(UserError, match=r'predictions.npz is missing, .*--mode=evaluate'):
        load_predictions(old, 'test')
    with pytest.raises(UserError, match='has no validation images: compare on --split=test'):
        load_predictions(old, 'validation')


def test_sets_of_images_are_told_apart(tiny_config):
    """By their digest, their settings if they are generated, the split, and the validation images drawn."""
    tiny_config.data.validation = 0.2
    tiny_config.data.split_seed = 0
    dataset = load_dataset(tiny_config.data)
    sets = {'test': image_set(dataset, 'test'), 'validation': image_set(dataset, 'validation')}
    sets['digest'] = image_set(dataclasses.replace(dataset, digest='1'), 'test')
    for field, value in (('size', 72), ('seed', 5), ('test_count', 20), ('distractors', 3)):
        config = tiny_config.copy_and_resolve_references()
        config.data[field] = value
        sets[field] = image_set(load_dataset(config.data), 'test')
    config = tiny_config.copy_and_resolve_references()
    config.data.split_seed = 1
    sets['draw'] = image_set(load_dataset(config.data), 'validation')
    assert len(set(sets.values())) == len(sets)
    config.data.image_size = 32  # the network's business
    assert image_set(load_dataset(config.data), 'test') == sets['test']
