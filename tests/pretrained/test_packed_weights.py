"""Weights as training programs save them: with prefixes, inside checkpoints, in any file; always the same network."""

import gzip

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file
from torch_pickles import text, tuple_of, write_torch_file

from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.registry import build_backbone
from ssanet_jax.pretrained.load import get_weights, load_pretrained, read_tensors


def _torch_weights(seed=0):
    """A ResNet-18 in torchvision's names and shapes, made from the module that must receive it."""
    rng, weights = np.random.default_rng(seed), {}
    norm = {'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
    for path, array in get_weights(nnx.eval_shape(_build)).items():
        path = path.replace('stem_norm', 'bn1').replace('stem.', 'conv1.').replace('shortcut_norm', 'downsample.1')
        path = path.replace('shortcut.', 'downsample.0.').replace('norm', 'bn')
        head, _, kind = path.rpartition('.')
        if head.startswith('stages.'):
            _, stage, rest = head.split('.', 2)
            head = f'layer{int(stage) + 1}.{rest}'
        shape = tuple(array.shape)
        if kind == 'kernel':
            shape = shape[::-1][:2] + (shape[:2] if len(shape) == 4 else (1, 1))
        weights[f'{head}.{norm.get(kind, "weight")}'] = rng.standard_normal(shape).astype(np.float32)
    return weights | {'bn1.num_batches_tracked': np.array(7), 'fc.weight': np.ones((9, 512), np.float32)}


def _build():
    return build_backbone('resnet18', nnx.Rngs(0))


WEIGHTS = _torch_weights()
WITHOUT_HEAD = {name: array for name, array in WEIGHTS.items() if not name.startswith('fc')}


def _prefixed(prefix, weights=WEIGHTS):
    return {prefix + name: array for name, array in weights.items()}


def _load(path):
    backbone = nnx.eval_shape(_build)
    load_pretrained(backbone, 'resnet18', str(path))
    return backbone


def _check_loaded(backbone, weights=WEIGHTS):
    np.testing.assert_array_equal(backbone.stem.kernel[...], weights['conv1.weight'].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(backbone.stages[3][1].norm2.var[...], weights['layer4.1.bn2.running_var'])


@pytest.mark.parametrize(
    'prefix', ['module.', 'backbone.', 'model.', '_orig_mod.', 'encoder.', 'module._orig_mod.backbone.', 'a.b_2.c.']
)
def test_any_prefix_is_found_and_reported(prefix, tmp_path, capsys):
    other = {'head.fc.weight': np.ones((9, 512), np.float32), 'temperature': np.ones(1, np.float32)}
    _check_loaded(_load(write_torch_file(tmp_path / 'x.pth', _prefixed(prefix) | other)))
    line = capsys.readouterr().err
    assert line.count('\n') == 1 and f'with the prefix {prefix}; not used: {prefix}fc.weight, head.fc.weight' in line
    assert 'temperature' in line and 'num_batches_tracked' not in line


OTHER = {'epoch': 3, 'arch': 'resnet18', 'optimizer': {'state': {0: {'momentum': np.zeros(3, np.float32)}}}}


@pytest.mark.parametrize(
    'keys, name',
    [
        ('state_dict', 'x.pth.tar'),
        ('model', 'x.pth'),
        ('net', 'x.bin'),
        ('state_dict_ema', 'x.ckpt'),
        ('model_ema', 'x'),
        ('model.state_dict', 'x.pt'),
        ('my_network', 'x.model'),
    ],
)
def test_a_nested_dictionary_is_found_in_a_file_of_any_name(keys, name, tmp_path, capsys):
    content = _prefixed('module.', WITHOUT_HEAD)
    for key in reversed(keys.split('.')):
        content = {key: content} | OTHER
    _check_loaded(_load(write_torch_file(tmp_path / name, content)))
    assert f'under the key {keys}, with the prefix module.\n' in capsys.readouterr().err


def test_averaged_weights_are_used_only_if_there_are_no_others(tmp_path, capsys):
    content = {'state_dict_ema': _torch_weights(1), 'epoch': 3, 'state_dict': WEIGHTS}
    _check_loaded(_load(write_torch_file(tmp_path / 'x.pth', content)))
    assert 'under the key state_dict; not used: state_dict_ema, fc.weight' in capsys.readouterr().err


def test_plain_weights_without_a_head_need_no_line(tmp_path, capsys):
    _check_loaded(_load(write_torch_file(tmp_path / 'x.pt', WITHOUT_HEAD)))
    assert not capsys.readouterr().err


@pytest.mark.parametrize('name', ['x.safetensors', 'x.bin', 'model'])
def test_safetensors_are_recognized_by_content(name, tmp_path):
    # Headers of many lengths, whose first byte is that of other kinds of files, too.
    for padding in range(0, 256, 9):
        save_file({'weight': np.ones(2, np.float32)}, tmp_path / name, {'x': 'y' * padding})
        assert read_tensors(tmp_path / name).tensors['weight'].tolist() == [1, 1]


@pytest.mark.parametrize('dtype', [np.float16, np.float64, ml_dtypes.bfloat16])
def test_precision_is_that_of_the_network(dtype, tmp_path):
    weights = {name: a.astype(dtype) if a.dtype == np.float32 else a for name, a in WEIGHTS.items()}
    path = tmp_path / 'x.safetensors'
    save_file({k: np.ascontiguousarray(v) for k, v in weights.items()}, path)
    backbone = _load(path)
    assert backbone.stem.kernel[...].dtype == np.float32
    _check_loaded(backbone, {name: array.astype(np.float32) for name, array in weights.items()})


def _omitted(name, *arguments):
    return f'c{name.replace(" ", chr(10))}\n'.encode() + tuple_of(*arguments)


SETTINGS = {
    'args': _omitted('argparse Namespace') + b'\x81}' + text('lr') + text('0.1') + b'sb',
    'path': _omitted('pathlib PosixPath', text('/etc/passwd')) + b'R',
    'device': _omitted('torch device', text('cuda')) + b'R',
    'score': _omitted('numpy.core.multiarray scalar', _omitted('numpy dtype', text('f8')) + b'R', text('x')) + b'R',
    'dtype': b'ctorch\nfloat16\n',
}


def test_settings_beside_the_weights_are_not_needed(tmp_path):
    _check_loaded(_load(write_torch_file(tmp_path / 'x.ckpt', SETTINGS | {'state_dict': WEIGHTS})))


@pytest.mark.parametrize(
    'code', ['posix system', 'builtins eval', 'argparse ArgumentParser', 'pathlib Path', 'torch load']
)
@pytest.mark.parametrize('call', [b'R', b'\x81'])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(code, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {'state_dict': WEIGHTS, 'args': _omitted(code, text('touch owned')) + call}
    with pytest.raises(UserError, match=f'refused: it uses {code.replace(" ", ".")}'):
        _load(write_torch_file(tmp_path / 'x.pth', content))
    assert not (tmp_path / 'owned').exists()


NAN = WEIGHTS | {'bn1.bias': np.full(64, np.nan, np.float32)}
DEEPER = WEIGHTS | {'layer1.2.conv1.weight': np.ones((64, 64, 3, 3), np.float32)}


@pytest.mark.parametrize(
    'content, words',
    [
        (_prefixed('encoder_q.') | _prefixed('encoder_k.'), r'2 networks .* encoder_q.\*, encoder_k.\*; save'),
        ({'student': WEIGHTS, 'teacher': WEIGHTS}, r'several sets of tensors \(student, teacher\)'),
        (NAN, r'NaN or infinite in 1 tensors \(bn1.bias\)'),
        (_prefixed('module.', DEEPER), r'1 unexpected \(layer1.2.conv1.weight\)'),
        ({'state_dict': {'epoch': 3}}, 'does not contain named tensors'),
        (_prefixed('module.', {'conv1.weight': WEIGHTS['conv1.weight']}), '99 missing'),
    ],
    ids=range(6),
)
def test_weights_that_cannot_be_chosen_or_do_not_fit_are_refused(content, words, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        _load(write_torch_file(tmp_path / 'x.pth', content))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'data, words',
    [
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git lfs pull'),
        (b'\n<!DOCTYPE html><html>not found</html>', 'a web page'),
        (b'{"weight_map": {}}', 'JSON'),
        (b'\x89HDF\r\n\x1a\n' + bytes(99), 'HDF5'),
        (gzip.compress(b'x' * 99), 'unpack it'),
        (b'', 'empty'),
        (b'conv1.weight 0.1 0.2', 'convert it'),
    ],
    ids=range(7),
)
@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
def test_other_files_are_named(data, words, name, tmp_path):
    if data.startswith(b'conv1') and name.endswith('safetensors'):
        words = 'damaged'
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=words):
        _load(tmp_path / name)
