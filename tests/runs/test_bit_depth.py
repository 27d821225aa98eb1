"""A run on images of 16 bits per channel keeps to the bit depth that it started with."""

import io
import json

import cv2
import numpy as np
import pytest
from rich.console import Console

from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UserError
from ssanet_jax.predictor import load
from ssanet_jax.training import evaluate, train
from ssanet_jax.training.stages import stage


def _write(path, largest):
    """An image of 16 bits per channel; returns its values, RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(largest).integers(0, largest + 1, (64, 64, 3)).astype(np.uint16)
    values[0, 0] = largest
    cv2.imwrite(str(path), values[..., ::-1])
    return values


@pytest.fixture
def loaded(monkeypatch):
    """The settings and the data sets that training and evaluation load."""
    found = []

    def record(config, *arguments):
        given = config.get('bit_depth', 0)
        found.append((given, load_dataset(config, *arguments)))
        return found[-1][1]

    for module in (train, evaluate):
        monkeypatch.setattr(module, 'load_dataset', record)
    return found


@pytest.mark.slow
def test_training_evaluation_and_predictions_use_the_recorded_depth(tiny_config, tmp_path, loaded):
    config, workdir, console = tiny_config, tmp_path / 'run', Console(file=io.StringIO(), width=200)
    config.data.update(
        name='folder',
        dir=str(tmp_path / 'set'),
        prepared_dir=str(tmp_path / 'prepared'),
        batch_size=4,
        eval_batch_size=4,
    )
    config.stages = (stage('one', epochs=1, learning_rate=0.05, train=dict(backbone=1, image_classifier=1)),)
    for label, name in enumerate(('crow', 'wren')):
        for number in range(4):
            _write(tmp_path / f'set/train/{name}/{number}.png', 4000 + 4 * label + number)
        _write(tmp_path / f'set/test/{name}/0.png', 3000 + label)
        dark = _write(tmp_path / f'dark/test/{name}/0.png', 1000 + label)  # 10 bits would hold them
    train.train(config, workdir, console)
    recorded = lambda: json.loads((workdir / 'config.json').read_text())['config']['data']['bit_depth']
    assert recorded() == 12 and loaded[-1][0] == 0, 'measured'

    train.train(config, workdir, console)  # resumes
    assert loaded[-1][0] == 12 and recorded() == 12
    config.data.bit_depth = 16
    with pytest.raises(UserError, match='holds a run with another data.bit_depth'):
        train.train(config, workdir, console)
    with pytest.raises(UserError, match='the run has another config.data.bit_depth'):
        evaluate.evaluate_run(config, workdir, console)

    config.data.update(bit_depth=0, dir=str(tmp_path / 'dark'))
    evaluate.evaluate_run(config, workdir, console)
    given, dataset = loaded[-1]
    assert given == dataset.bit_depth == 12
    np.testing.assert_array_equal(dataset.test[1]['image'], dark >> 4)
    assert 'their values are read as 12 bits (config.data.bit_depth)' in console.file.getvalue()

    model = load(workdir)
    path = tmp_path / 'dark/test/wren/0.png'
    of_file, as_expected, too_bright = model.predict([path, *((dark >> bits).astype(np.uint8) for bits in (4, 2))])
    np.testing.assert_array_equal(of_file.probabilities, as_expected.probabilities)
    assert not np.array_equal(of_file.probabilities, too_bright.probabilities)
