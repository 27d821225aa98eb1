"""Exported networks say what JAX says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip('onnxruntime', reason="needs onnxruntime: pip install -e '.[export]'")
pytest.importorskip('onnx', reason="needs onnx: pip install -e '.[export]'")

from exported_networks import ALL, NAMES, SIDE, make_predictor, open_content, random_images

from ssanet_jax import UserError
from ssanet_jax.artifact.outputs import OUTPUTS
from ssanet_jax.export import onnx_export
from ssanet_jax.export.checking import Difference, compare, require_same
from ssanet_jax.export.onnx_export import export_onnx
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer

PROTOTYPES = dict(proposal='prototypes', standardize=True, num_scales=1, sharing='none')
SETTINGS = {
    'ranking, image': (ALL, {}),
    'prototypes': (ALL[:3], PROTOTYPES | dict(fusion='global+parts')),
    'prototypes at a smaller size': (ALL[:3], PROTOTYPES | dict(global_size=32, num_scales=3)),
    'ranking, crops': (ALL, dict(sharing='none')),
    'ranking, crops of parts': (ALL, dict(sharing='part', solver='circulant', orientation='exact')),
    'covariances': (ALL[:3], PROTOTYPES | dict(features='covariance')),
    'upright': ((*ALL, 'upright'), dict(upright=4, upright_size=32)),
    'no parts': (('backbone', 'image_classifier'), {}),
    'a baseline of NTS-Net': (('backbone', 'proposals', 'part_head'), dict(part_head='concat')),
    'a feature pyramid': (('backbone', 'proposals', 'part_head'), dict(part_head='fpn')),
    'a vision transformer': (
        ALL[:3],
        PROTOTYPES | dict(backbone='vit_learned', crop_size=112, class_token=True, fusion='global+parts'),
    ),
    'flat features': (ALL[:3], dict(features='flat', geometry='legacy')),
}
FAST = ('ranking, image', 'prototypes')


@pytest.fixture(autouse=True)
def tiny_transformers(monkeypatch):
    """Adds vision transformers with the parts of those of DINOv2 and DINOv3 to the registry.

    At its initial weights, the blocks have no effect, and the last norm makes the mean of each cell 0.
    """

    def build(rngs, dtype, output_stride, **settings):
        module = VisionTransformer(8, 2, 2, rngs, dtype, patch_size=16, num_registers=2, **settings)
        module.norm.scale.set_value(jax.random.normal(jax.random.key(0), (8,)))
        for block in module.blocks:
            block.scale1.set_value(jnp.ones(8))
            block.scale2.set_value(jnp.ones(8))
        return module

    monkeypatch.setitem(BACKBONES, 'vit_learned', partial(build, positions='learned, antialiased', grid=5))
    monkeypatch.setitem(BACKBONES, 'vit_rotary', partial(build, positions='rotary', gated=True))


@pytest.mark.parametrize('name', [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in SETTINGS])
def test_exported_networks_say_what_jax_says(name):
    active, settings = SETTINGS[name]
    predictor, images = make_predictor(active, held_out=40, **settings), random_images()
    data, difference = export_onnx(predictor, 'birds', 'float32', images)
    assert difference.probability < 1e-5 and difference.parts == difference.classes == 0
    exported = open_content(data)
    found = exported.run(images.inputs[:3])
    assert {name for name, output in OUTPUTS.items() if output.required} <= found.keys()
    for key, array in found.items():
        assert array.dtype == OUTPUTS[key].dtype
        assert len(array) == 3
    # The terms add up, and features and whole predictions are the same.
    parts = found.get('part_logits', np.zeros((3, 0, 0, 1))).sum((1, 2))
    np.testing.assert_allclose(found['image_logits'] + found['bias_logits'] + parts, found['logits'], atol=1e-4)
    photos = list(np.random.default_rng(0).integers(0, 256, (3, 90, 70, 3), np.uint8))
    for ours, theirs in zip(predictor.features(photos), exported.features(photos)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    for one, other in zip(predictor.predict(photos), exported.predict(photos), strict=True):
        assert one.label == other.label and one.orientations == other.orientations and one.present == other.present
        assert one.evidence.runner_up == other.evidence.runner_up
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
        np.testing.assert_allclose(one.scales, other.scales, rtol=1e-6)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
        np.testing.assert_allclose(one.evidence.parts, other.evidence.parts, atol=1e-4)
        assert one.angle == other.angle and abs(one.novelty - other.novelty) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize('backbone', ['efficientnet_lite0', 'convnext_tiny', 'resnet18', 'vit_rotary'])
def test_backbones(backbone):
    settings = dict(backbone=backbone, num_scales=1, sharing='image')
    _, difference = export_onnx(make_predictor(ALL[:3], **settings), 'birds', 'float32', random_images(2))
    assert difference.probability < 1e-5 and not difference.parts


@pytest.fixture(scope='module')
def small():
    """A network, and the content of its file."""
    predictor = make_predictor(ALL, held_out=40)
    return predictor, export_onnx(predictor, 'birds', 'float32', random_images(2))[0]


def test_the_file_says_what_it_is(small):
    predictor, content = small
    metadata = open_content(content).metadata
    assert metadata.class_names == NAMES
    assert metadata.preprocessing == predictor.inputs
    assert (metadata.preprocessing.resize, metadata.preprocessing.image_size) == (72, SIDE)
    assert metadata.calibration is not None and metadata.calibration.temperature == 1.5
    assert metadata.parts.num_parts == 2 and metadata.parts.heads == ('oriented_pooling', 'scale_mining')
    np.testing.assert_allclose(metadata.parts.scales, [2 ** (-1 / 3), 1, 2 ** (1 / 3)], rtol=1e-6)
    assert metadata.provenance.digest == predictor.digest()
    assert metadata.provenance.config['model']['backbone'] == 'resnet_tiny'
    assert metadata.provenance.checked_on.startswith('2 noise: probabilities within')


def test_weights_of_16_bits_halve_the_file(small):
    predictor, full = small
    half, difference = export_onnx(predictor, 'birds', 'float16', random_images(2))
    assert len(half) < 0.65 * len(full)
    assert 0 < difference.probability < 0.01
    assert open_content(half).metadata.provenance.weights == 'float16'


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(proposal='random'), 'config.model.proposal=random'),
        (dict(dtype='bfloat16'), 'config.model.dtype=bfloat16'),
    ],
)
def test_what_cannot_be_exported_is_named(settings, words):
    with pytest.raises(UserError, match=words):
        export_onnx(make_predictor(**settings), 'birds', 'float32', random_images(2))


def test_a_network_that_differs_is_refused(small, monkeypatch):
    """A rule that is a little wrong must not get into a file."""
    predictor, content = small
    again, _ = export_onnx(predictor, 'birds', 'float32', random_images(2))
    assert again == content  # the same network gives the same file
    convert = onnx_export.to_onnx

    def wrong(*arguments):
        model = convert(*arguments)
        for tensor in model.graph.initializer:
            if len(tensor.dims) == 4:
                array = np.frombuffer(tensor.raw_data, np.float32) * np.float32(1.05)
                tensor.raw_data = array.tobytes()
        return model

    monkeypatch.setattr(onnx_export, 'to_onnx', wrong)
    with pytest.raises(UserError, match='not written: the exported network differs from the run'):
        export_onnx(predictor, 'birds', 'float32', random_images(2))


@pytest.mark.parametrize(
    ('difference', 'weights', 'refused'),
    [
        (Difference(9e-5, 0, 8, 0), 'float32', False),
        (Difference(2e-4, 0, 8, 0), 'float32', True),
        (Difference(0.0, 1, 8, 0), 'float32', True),
        (Difference(0.01, 1, 8, 0), 'float16', False),
        (Difference(0.06, 0, 8, 0), 'float16', True),
        (Difference(float('nan'), 0, 8, 0), 'float32', True),
    ],
)
def test_what_is_refused(difference, weights, refused):
    if refused:
        with pytest.raises(UserError, match='not written'):
            require_same(difference, weights)
    else:
        require_same(difference, weights)


def test_differences_are_counted(small):
    predictor, _ = small
    outputs = predictor.outputs

    class Other:
        def outputs(self, inputs):
            found = outputs(inputs)
            boxes = found.boxes.copy()
            boxes[0, 0, 0] += 1
            return found._replace(boxes=boxes, probabilities=found.probabilities + 0.25, logits=-found.logits)

    difference = compare(predictor, Other(), random_images(4).inputs)
    assert difference.parts == 1 and difference.num_parts == 8
    assert abs(difference.probability - 0.25) < 1e-6 and difference.classes == 4
