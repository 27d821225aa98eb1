"""A run is read back whole: evaluation, prediction and the report agree with the figure that training printed last.

Checked after each stage of each shipped kind of configuration. The backbone starts from trained weights, so a run
whose stages never train it (as `heads` of configs/cub.py) shows whether frozen weights come back too.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from configs import common, cub, demo
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.predictor import Predictor
from ssanet_jax.report.predictions import predict_test_set
from ssanet_jax.runs import run
from ssanet_jax.runs.checkpoints import Checkpoints
from ssanet_jax.runs.run import build_model, dataset_of, load_run
from ssanet_jax.training.evaluate import evaluate_run
from ssanet_jax.training.stages import stage
from ssanet_jax.training.train import train

QUIET = Console(quiet=True)
KINDS = {
    'cub': cub.lite0().stages,  # and configs/folder.py
    'ablation': common.ablation(),
    'joint': common.joint(),
    'global_pooling': common.global_pooling(),
    'demo': demo.get_config().stages,  # and configs/cub.py:paper, cars.py, aircraft.py
    'heads_only': (
        stage('heads', epochs=1, learning_rate=1e-3, train=dict(image_classifier=1, scale_mining=1, proposals=1)),
    ),
}


@pytest.fixture(scope='module', params=KINDS)
def trained(request, finished_run, tmp_path_factory):
    """(kind, work directory, configuration) of a run of that kind, on tiny images, one epoch per stage."""
    import tiny_config

    config = tiny_config.get_config()
    config.model.pretrained = f'workdir:{finished_run.workdir}'
    config.model.fusion = 'global+parts'
    config.stages = KINDS[request.param]
    for row in config.stages:
        row.epochs, row.warmup_epochs, row.milestones = 1, 0.0, ()
    workdir = tmp_path_factory.mktemp('kinds') / request.param
    train(config, workdir, QUIET)
    return request.param, workdir, config


def after(workdir: Path, stages: list[str], target: Path) -> Path:
    """A copy of a run as it was when the last of these stages had ended."""
    target.mkdir()
    shutil.copy(workdir / 'config.json', target)
    for name in stages:
        shutil.copytree(workdir / name, target / name)
    return target


@pytest.mark.slow
def test_every_reader_agrees_with_training_after_each_stage(trained, tmp_path):
    kind, workdir, config = trained
    names = [row.name for row in config.stages]
    for count, name in enumerate(names, 1):
        said = json.loads((workdir / name / 'evaluation.json').read_text())
        part = after(workdir, names[:count], tmp_path / name)

        evaluated = evaluate_run(config, part, QUIET)
        assert evaluated.heads == said['heads'], f'{kind}: evaluation after {name}'

        run = load_run(part)
        assert run.stage == name
        test = load_dataset(run.config.data).test
        images = [test[i]['image'] for i in range(len(test))]
        labels = [found.class_index for found in Predictor.from_run(run).predict(images)]
        assert np.mean(np.array(labels) == test.labels) == said['accuracy'], f'{kind}: prediction after {name}'

        predictions = predict_test_set(run, dataset_of(run, part), sharding.make_mesh(images=8), QUIET)
        assert np.mean(predictions.predicted == predictions.labels) == said['accuracy'], f'{kind}: report after {name}'


@pytest.mark.slow
def test_a_backbone_that_no_stage_has_trained_comes_back(trained, finished_run):
    _, workdir, config = trained
    if any('backbone' in row.train for row in config.stages):
        pytest.skip('its stages train the backbone')
    expected, found = (run.split_model(load_run(path).model)[1]['backbone'] for path in (finished_run.workdir, workdir))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))


@pytest.mark.slow
def test_another_run_may_start_from_a_backbone_that_no_stage_has_trained(trained, finished_run, tiny_config):
    _, workdir, config = trained
    if any('backbone' in row.train for row in config.stages):
        pytest.skip('its stages train the backbone')
    tiny_config.model.pretrained = str(workdir)
    expected = run.split_model(load_run(finished_run.workdir).model)[1]['backbone']
    found = run.split_model(build_model(tiny_config, 16))[1]['backbone']
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))


@pytest.mark.slow
@pytest.mark.parametrize('group', ['backbone', 'oriented_pooling'])
def test_a_checkpoint_that_lacks_a_group_is_refused(finished_run, tmp_path, group):
    """Trained by then or not: a network filled in part would give wrong answers without a word."""
    workdir = after(finished_run.workdir, ['scale_mining'], tmp_path / 'run')
    checkpoints = Checkpoints(workdir / 'scale_mining' / 'checkpoints', writes=True)
    for step in checkpoints.steps:
        _, items = checkpoints.restore({'params': None, 'stats': None})
        del items['params'][group]
        checkpoints.save(step, items)
    checkpoints.close()
    with pytest.raises(UserError, match=f'it lacks params/{group}'):
        load_run(workdir)
