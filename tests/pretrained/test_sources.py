"""Sources of weights other than files: another run, a package, the hub."""

import builtins
import hashlib
import sys
import types

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.registry import build_backbone
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.pretrained.checkpoint_info import CHECKPOINTS, architecture_info, checkpoint_info
from ssanet_jax.pretrained.hub import CONFIG_FILE, WEIGHTS_FILE
from ssanet_jax.pretrained.load import get_weights, load_pretrained
from ssanet_jax.runs.checkpoints import Checkpoints, checkpoint_dir
from ssanet_jax.runs.run import build_model
from ssanet_jax.runs.workdir import claim_workdir

CLASSES = ('a', 'b', 'c')
COMMIT = 'c' * 40


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The work directory of a finished run, without training: all its weights are 0.5."""
    import tiny_config

    config, workdir = tiny_config.get_config(), tmp_path_factory.mktemp('runs') / 'earlier'
    claim_workdir(workdir, config, CLASSES)
    _, *items = split_model(build_model(config, len(CLASSES)))
    params, stats = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), items)
    checkpoints = Checkpoints(checkpoint_dir(workdir, config.stages[-1].name), writes=True)
    checkpoints.save(1, jax.tree.map(jax.numpy.asarray, {'params': params, 'stats': stats}))
    checkpoints.close()
    return workdir


@pytest.mark.parametrize('prefix', ['', 'workdir:'])
def test_the_backbone_of_another_run_is_taken_over(run, prefix, tiny_config):
    tiny_config.model.pretrained = f'{prefix}{run}'
    model = build_model(tiny_config, 7)  # another number of classes
    weights = get_weights(model.backbone)
    assert any(path.endswith('.var') for path in weights) and any(path.endswith('.kernel') for path in weights)
    assert all((np.asarray(array) == 0.5).all() for array in weights.values())
    assert not (np.asarray(model.image_classifier.kernel[...]) == 0.5).any()


def test_another_backbone_is_refused_with_all_that_differs(run, tiny_config):
    tiny_config.model.update(backbone='resnet18', pretrained=f'workdir:{run}')
    with pytest.raises(
        UserError, match=r'it is resnet_tiny, not resnet18; \d+ missing .*; 30 wrongly shaped'
    ) as caught:
        build_model(tiny_config, len(CLASSES))
    assert '\n' not in str(caught.value)


def test_a_directory_that_is_no_run_is_named(tmp_path, tiny_config):
    tiny_config.model.pretrained = str(tmp_path)
    with pytest.raises(UserError, match='config.model.pretrained=.*holds no run'):
        build_model(tiny_config, len(CLASSES))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache with one repository, offline."""
    constants = pytest.importorskip('huggingface_hub.constants', reason='needs huggingface_hub')
    folder = tmp_path / 'models--timm--tiny'
    (folder / 'refs').mkdir(parents=True)
    (folder / 'refs/main').write_text(COMMIT)
    (folder / 'snapshots' / COMMIT).mkdir(parents=True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    return folder / 'snapshots' / COMMIT / WEIGHTS_FILE


@pytest.mark.parametrize('revision', ['', '@main', f'@{COMMIT}'])
def test_a_repository_in_the_cache_is_read_and_its_sha256_shown(hub, revision, capsys):
    from test_names import resnet18_weights

    weights = resnet18_weights()
    save_file(weights, hub)
    module = nnx.eval_shape(lambda: build_backbone('resnet18', nnx.Rngs(0)))
    load_pretrained(module, 'resnet18', f'hub:timm/tiny{revision}')
    np.testing.assert_array_equal(module.stem_norm.mean[...], weights['bn1.running_mean'])
    shown = capsys.readouterr()
    assert shown.out == ''
    assert hashlib.sha256(hub.read_bytes()).hexdigest() in shown.err and COMMIT in shown.err


@pytest.mark.parametrize(
    'source, words',
    [
        ('hub:timm/another', 'not in the cache'),
        ('hub:timm/tiny', 'not in the cache'),  # the repository is there, its file is not
        ('hub:timm/tiny@v2', 'not in the cache'),
        ('hub:no owner/at all', 'no repository'),
    ],
)
def test_what_the_hub_cannot_give_is_one_clear_line(hub, source, words):
    module = nnx.eval_shape(lambda: build_backbone('resnet18', nnx.Rngs(0)))
    with pytest.raises(UserError, match=words) as caught:
        load_pretrained(module, 'resnet18', source)
    assert '\n' not in str(caught.value)


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    """Stands in for huggingface_hub: {file name: content, or the name of the error that its download raises}."""
    module, errors = types.ModuleType('huggingface_hub'), types.ModuleType('huggingface_hub.errors')
    for name, base in {
        'EntryNotFoundError': Exception,
        'LocalEntryNotFoundError': 'EntryNotFoundError',
        'RepositoryNotFoundError': Exception,
        'GatedRepoError': 'RepositoryNotFoundError',
        'RevisionNotFoundError': Exception,
        'HFValidationError': ValueError,
    }.items():
        setattr(errors, name, type(name, (getattr(errors, base) if isinstance(base, str) else base,), {}))
    files = {}

    def hf_hub_download(name, file, revision=None, local_files_only=False):
        content = files.get(file, 'LocalEntryNotFoundError')
        if isinstance(content, bytes):
            (tmp_path / file).write_bytes(content)
            return str(tmp_path / file)
        raise (getattr(errors, content, None) or getattr(builtins, content))(f'no {file}')

    module.errors, module.hf_hub_download = errors, hf_hub_download
    monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
    monkeypatch.setitem(sys.modules, 'huggingface_hub.errors', errors)
    return files


@pytest.mark.parametrize('error', ['EntryNotFoundError', 'LocalEntryNotFoundError'])
@pytest.mark.parametrize('source, is_known', [('hub:a/b', False), ('hub:timm/tf_efficientnet_lite0.in1k', True)])
def test_weights_without_a_config_have_known_or_default_preprocessing(fake_hub, error, source, is_known, capsys):
    fake_hub.update({CONFIG_FILE: error, WEIGHTS_FILE: b'weights'})
    info = checkpoint_info(source, 'efficientnet_lite0')
    assert info == (CHECKPOINTS[source] if is_known else architecture_info('efficientnet_lite0'))
    shown = capsys.readouterr().err
    assert shown.count('\n') == (0 if is_known else 1)
    if not is_known:
        for words in (source, 'could not be read', 'defaults of efficientnet_lite0', 'config.data.mean'):
            assert words in shown


@pytest.mark.parametrize(
    'error, words',
    [
        ('LocalEntryNotFoundError', 'check the network'),  # neither file is in the cache
        ('ConnectionError', 'try again'),
        ('RepositoryNotFoundError', 'no repository'),
    ],
)
@pytest.mark.parametrize('source', ['hub:a/b', 'hub:timm/resnet50.tv_in1k'])
def test_a_failed_download_does_not_decide_the_preprocessing(fake_hub, source, error, words):
    fake_hub[CONFIG_FILE] = error
    with pytest.raises(UserError, match=words) as caught:
        checkpoint_info(source, 'resnet50')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('content', [b'{"mean": [0.5', b'[1, 2]', b'\xff'])
def test_a_damaged_config_is_not_taken_for_none(fake_hub, content):
    fake_hub.update({CONFIG_FILE: content, WEIGHTS_FILE: b'weights'})
    with pytest.raises(UserError, match=CONFIG_FILE):
        checkpoint_info('hub:a/b', 'resnet50')


def test_a_gated_repository_says_how_to_get_access(fake_hub, capsys):
    fake_hub[WEIGHTS_FILE] = 'GatedRepoError'
    name = 'facebook/dinov3-convnext-tiny-pretrain-lvd1689m'
    module = nnx.eval_shape(lambda: build_backbone('convnext_tiny', nnx.Rngs(0)))
    with pytest.raises(UserError, match=f'{name} is gated: accept its license at .*{name}, then run `hf auth login`'):
        load_pretrained(module, 'convnext_tiny', f'hub:{name}')
    # The license is shown before the download.
    assert 'dinov3-license' in capsys.readouterr().err
    fake_hub[WEIGHTS_FILE] = 'LocalEntryNotFoundError'
    with pytest.raises(UserError):
        load_pretrained(module, 'convnext_tiny', 'hub:timm/convnext_tiny.fb_in1k')
    assert 'license' not in capsys.readouterr().err


def test_a_config_of_transformers_leaves_the_facts_to_the_table(fake_hub):
    fake_hub[CONFIG_FILE] = b'{"model_type": "dinov3_vit", "image_size": 224}'
    info = checkpoint_info('hub:facebook/dinov3-vitl16-pretrain-sat493m', 'vit_large_patch16_dinov3')
    assert info.mean[0] == 0.430 * 255 and info.interpolation == 'bilinear' and info.license == 'LicenseRef-DINOv3'


def test_without_its_package_the_hub_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    module = nnx.eval_shape(lambda: build_backbone('resnet18', nnx.Rngs(0)))
    with pytest.raises(UserError, match='run: pip install huggingface_hub, or give config.model.pretrained'):
        load_pretrained(module, 'resnet18', 'hub:timm/resnet18.tv_in1k')


def test_the_hub_is_imported_only_when_asked_for():
    import subprocess

    code = 'import sys, ssanet_jax.runs.run; sys.exit("huggingface_hub" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
