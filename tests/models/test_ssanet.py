"""The assembled network: its shapes, its active groups, and its paths against slow loops."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from flax import nnx

from ssanet_jax.models import candidates, regions
from ssanet_jax.models.groups import GROUPS, UPRIGHT
from ssanet_jax.models.ssanet import REGION_SIDE, SSANet, merge_model, split_model

SIZE, CLASSES, B, K, M, S, C = 64, 5, 3, 2, 3, 3, 48
SETTINGS = dict(backbone='resnet_tiny', num_parts=K, num_proposals=M, num_scales=S, crop_size=56)
SHARINGS, FEATURES = ('none', 'part', 'image'), ('pooled', 'flat')


@functools.cache
def build(**changes):
    """The network with random weights in evaluation mode; its statistics differ from the initial 0 and 1."""
    model = jax.jit(lambda: split_model(SSANet(CLASSES, SIZE, **SETTINGS | changes, rngs=nnx.Rngs(0)))[1:])
    params, stats = model()
    stats = jax.tree.map(lambda x: x * 1.5 + 0.05, stats)
    structure = abstract(**changes)
    structure.eval()
    return split_model(structure)[0], params, stats


def abstract(**changes):
    """The network without weights: fast, and enough for errors and shapes."""
    return nnx.eval_shape(lambda: SSANet(CLASSES, SIZE, **SETTINGS | changes, rngs=nnx.Rngs(0)))


def forward(graph, **arguments):
    return lambda params, stats, images: merge_model(graph, params, stats)(images, **arguments)


@pytest.fixture(scope='module')
def images():
    """Blobs at random places, uint8."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(B, SIZE // 8, SIZE // 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.uint8(np.clip(128 + 50 * noise, 0, 255))


@pytest.fixture(scope='module')
def image_network():
    return build(sharing='image')


@pytest.fixture(scope='module')
def image_outputs(image_network, images):
    graph, params, stats = image_network
    return jax.jit(forward(graph, training=True))(params, stats, images)


def shapes(outputs):
    return {name: value.shape for name, value in outputs._asdict().items() if value is not None}


EVERY = dict(
    image_logits=(B, CLASSES),
    scores=(B, M),
    boxes=(B, M, 4),
    aligned_boxes=(B, K, 4),
    aligned_scale=(B, K),
    scale_logits=(B, CLASSES),
    orientation=(B, K),
    oriented_logits=(B, CLASSES),
)
TRAINING = dict(part_features=(B, M, C), part_logits=(B, M, CLASSES))


def traced(model, **arguments):
    graph, params, stats = split_model(model)
    run = lambda *inputs: (outputs := forward(graph, **arguments)(*inputs), outputs.logits)
    return jax.eval_shape(run, params, stats, jax.ShapeDtypeStruct((B, SIZE, SIZE, 3), jnp.uint8))


@pytest.mark.parametrize('features', FEATURES)
@pytest.mark.parametrize('sharing', SHARINGS)
@pytest.mark.parametrize('training', [False, True])
def test_shapes(sharing, features, training):
    outputs, logits = traced(abstract(sharing=sharing, features=features), training=training)
    assert shapes(outputs) == (EVERY | TRAINING if training else EVERY)
    chex.assert_shape(logits, (B, CLASSES))
    chex.assert_type([outputs.aligned_scale, outputs.orientation], jnp.int32)
    floats = [
        value
        for name, value in outputs._asdict().items()
        if value is not None and name not in ('aligned_scale', 'orientation')
    ]
    chex.assert_type(floats, jnp.float32)


def test_only_the_backbone_computes_in_half_precision():
    model = abstract(dtype='bfloat16')
    outputs, logits = traced(model, training=True)
    assert shapes(outputs) == EVERY | TRAINING
    chex.assert_type([outputs.scores, outputs.part_features, logits], jnp.float32)
    chex.assert_type(jax.tree.leaves(split_model(model)[1]), jnp.float32)


def test_length_of_the_features_of_scale_mining():
    length = {features: abstract(features=features).scale_mining.weights.shape[-1] for features in FEATURES}
    assert length == {'pooled': C, 'flat': REGION_SIDE * REGION_SIDE * C}


PARTS = ('scores', 'boxes', 'aligned_boxes', 'aligned_scale')


@pytest.mark.parametrize(
    'active, present',
    [
        (('backbone', 'image_classifier'), ()),
        (set(GROUPS) - {'oriented_pooling'}, (*PARTS, 'scale_logits')),
        (set(GROUPS) - {'scale_mining'}, (*PARTS, 'orientation', 'oriented_logits')),
        (set(GROUPS) - {'scale_mining', 'oriented_pooling'}, PARTS),
    ],
)
@pytest.mark.parametrize('sharing', SHARINGS)
def test_only_active_groups_take_part(sharing, active, present):
    outputs, _ = traced(abstract(sharing=sharing), active=active)
    assert shapes(outputs) == {name: EVERY[name] for name in ('image_logits', *present)}


def test_without_scale_mining_the_parts_keep_their_scale(image_network, image_outputs, images):
    graph, params, stats = image_network
    outputs = jax.jit(forward(graph, active=set(GROUPS) - {'scale_mining'}))(params, stats, images)
    np.testing.assert_array_equal(outputs.aligned_scale, 0)
    np.testing.assert_allclose(outputs.aligned_boxes, image_outputs.boxes[:, :K], atol=1e-4)
    chex.assert_trees_all_equal(outputs.logits, outputs.oriented_logits)


def test_the_prediction_is_the_sum_of_both_heads(image_outputs):
    np.testing.assert_allclose(
        image_outputs.logits, np.array(image_outputs.scale_logits) + np.array(image_outputs.oriented_logits), rtol=1e-6
    )
    scale_only = image_outputs._replace(oriented_logits=None)
    chex.assert_trees_all_equal(scale_only.logits, image_outputs.scale_logits)


def test_the_image_classifier_predicts_only_without_parts(image_network, image_outputs, images):
    graph, params, stats = image_network
    other = params | {
        'image_classifier': jax.tree.map(lambda x: x + 100 * jnp.arange(CLASSES), params['image_classifier'])
    }
    run = jax.jit(forward(graph, training=True))
    outputs = run(other, stats, images)
    assert np.abs(outputs.image_logits - image_outputs.image_logits).max() > 10
    chex.assert_trees_all_equal(outputs._replace(image_logits=0), image_outputs._replace(image_logits=0))
    chex.assert_trees_all_equal(outputs.logits, image_outputs.logits)
    bare = jax.jit(forward(graph, active=('backbone', 'image_classifier')))(other, stats, images)
    chex.assert_trees_all_equal(bare.logits, bare.image_logits)
    np.testing.assert_allclose(bare.image_logits, outputs.image_logits, rtol=1e-4)


def test_no_label_can_reach_the_prediction():
    names = list(inspect.signature(SSANet.__call__).parameters)
    assert names == ['self', 'images', 'active', 'training', 'map_candidates']


def test_the_aligned_box_is_the_candidate_of_the_aligned_scale(image_outputs):
    scales = np.array(image_outputs.aligned_scale)
    assert len(np.unique(scales)) > 1  # not always the original
    for b in range(B):
        boxes = candidates.scale_candidates(image_outputs.boxes[b, :K], S, 2 ** (1 / 3))
        for k in range(K):
            np.testing.assert_allclose(image_outputs.aligned_boxes[b, k], boxes[k, scales[b, k]], atol=1e-4)


def test_scores_are_those_of_the_boxes_best_first(image_network, image_outputs, images):
    scores = np.array(image_outputs.scores)
    assert (np.diff(scores) <= 0).all()
    graph, params, stats = image_network
    every = merge_model(graph, params, stats).proposals(feature_map(image_network, images))
    np.testing.assert_allclose(scores[:, 0], np.max(every, 1), rtol=1e-5)


def feature_map(network, images):
    graph, params, stats = network
    return jax.jit(lambda p, s, x: (lambda m: m.backbone(m.normalize(x)))(merge_model(graph, p, s)))(
        params, stats, images
    )


def test_pooled_features_are_the_mean_of_the_whole_roi(image_network, image_outputs, images):
    """The averages are computed without the 7 x 7 maps."""
    graph, params, stats = image_network
    maps = feature_map(image_network, images)
    whole = merge_model(graph, params, stats)._roi_align(maps, image_outputs.boxes, REGION_SIDE)
    chex.assert_shape(whole, (B, M, REGION_SIDE, REGION_SIDE, C))
    np.testing.assert_allclose(image_outputs.part_features, np.mean(whole, (2, 3)), rtol=1e-4, atol=1e-5)


def test_image_sharing_by_a_slow_loop(image_network, image_outputs, images):
    """RoIAlign one box at a time, then the heads on the collected maps."""
    graph, params, stats = image_network
    model = merge_model(graph, params, stats)
    maps = feature_map(image_network, images)
    align = jax.jit(lambda x, box: regions.resample(x, box[None], REGION_SIDE, 8, 2, center=2.5, clamp=True)[0])
    region_map = lambda b, box: align(maps[b], box)
    check_heads(model, image_outputs, region_map)


def test_no_sharing_by_a_slow_loop(images):
    """Each region by itself: cropped from the normalized image, then passed through the backbone."""
    network = build(sharing='none')
    graph, params, stats = network
    outputs = jax.jit(forward(graph, training=True))(params, stats, images)
    model = merge_model(graph, params, stats)
    mean, std = model.backbone.mean, model.backbone.std
    crop = jax.jit(
        lambda x, box: regions.resample((x.astype(jnp.float32) - jnp.array(mean)) / jnp.array(std), box[None], 56)
    )
    backbone = jax.jit(lambda p, s, x: merge_model(graph, p, s).backbone(x)[0])
    region_map = lambda b, box: backbone(params, stats, crop(images[b], box))
    check_heads(model, outputs, region_map)


@pytest.mark.parametrize('dilated', [False, True])
def test_part_sharing_by_a_slow_loop(images, dilated):
    """The largest candidate of a part is cropped; RoIAlign cuts all of its candidates from the map of that crop."""
    graph, params, stats = build(sharing='part', output_stride=4 if dilated else 0)
    outputs = jax.jit(forward(graph, training=True))(params, stats, images)
    model = merge_model(graph, params, stats)
    crop_of = {}
    key = lambda b, box: (b, *np.round(np.array(box), 2).tolist())
    for b in range(B):
        for part in candidates.scale_candidates(outputs.boxes[b, :K], S, 2 ** (1 / 3)):
            largest = part[np.argmax([(box[2] - box[0]) * (box[3] - box[1]) for box in part])]
            crop_of |= {key(b, box): largest for box in part}
        for box in np.array(outputs.boxes[b, K:]):  # no candidates: enlarged about its center to the largest of S = 3
            middle, grow = np.tile((box[:2] + box[2:]) / 2, 2), 2 ** (1 / 3)
            crop_of[key(b, box)] = middle + (box - middle) * grow
    stride = 4 if dilated else 8

    @jax.jit
    def cut(image, box, crop):
        image = (image.astype(jnp.float32) - jnp.array(model.backbone.mean)) / jnp.array(model.backbone.std)
        maps = merge_model(graph, params, stats).backbone(regions.resample(image, crop[None], 56))
        corner, size = jnp.tile(crop[:2], 2), jnp.tile(crop[2:] - crop[:2], 2)
        boxes = ((box - corner) * 56 / size)[None]
        return regions.resample(maps[0], boxes, REGION_SIDE, stride, 2, center=2.5, clamp=True)[0]

    check_heads(model, outputs, lambda b, box: cut(images[b], box, jnp.asarray(crop_of[key(b, box)])))


def check_heads(model, outputs, region_map):
    """Compares all outputs of the parts with the heads on `region_map(image number, box) -> [7, 7, C]`."""
    pooled, aligned = np.zeros((B, K, S, C), np.float32), np.zeros((B, K, REGION_SIDE, REGION_SIDE, C), np.float32)
    features = np.zeros((B, M, C), np.float32)
    for b in range(B):
        for m in range(M):
            features[b, m] = np.mean(region_map(b, outputs.boxes[b, m]), (0, 1))
        boxes = candidates.scale_candidates(outputs.boxes[b, :K], S, 2 ** (1 / 3))
        for k in range(K):
            for s in range(S):
                region = region_map(b, boxes[k, s])
                chex.assert_shape(region, (REGION_SIDE, REGION_SIDE, C))
                pooled[b, k, s] = np.mean(region, (0, 1))
                if s == outputs.aligned_scale[b, k]:
                    aligned[b, k] = region
    np.testing.assert_allclose(outputs.part_features, features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(outputs.part_logits, model.part_classifier(features), rtol=1e-3, atol=1e-3)
    response = model.scale_mining(pooled)
    np.testing.assert_allclose(outputs.scale_logits, response.logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(outputs.aligned_scale, (S // 2 - np.array(response.shift)) % S)
    oriented = model.oriented_pooling(aligned)
    np.testing.assert_allclose(outputs.oriented_logits, oriented.logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(outputs.orientation, oriented.orientation)


def test_flat_features_are_the_whole_map(images):
    network = build(sharing='image', features='flat')
    graph, params, stats = network
    outputs = jax.jit(forward(graph))(params, stats, images)
    model = merge_model(graph, params, stats)
    maps = feature_map(network, images)
    boxes = jax.vmap(lambda x: candidates.scale_candidates(x, S, 2 ** (1 / 3)))(outputs.boxes[:, :K])
    whole = model._roi_align(maps, boxes.reshape(B, K * S, 4), REGION_SIDE).reshape(B, K, S, -1)
    response = model.scale_mining(whole)
    np.testing.assert_allclose(outputs.scale_logits, response.logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(outputs.aligned_scale, (S // 2 - np.array(response.shift)) % S)


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(0, 2)
    def test_outputs_do_not_depend_on_the_rest_of_the_batch(self, number):
        graph, params, stats = build(sharing='image')
        images = np.uint8(np.random.default_rng(1).integers(0, 256, (B, 8, 8, 3)).repeat(8, 1).repeat(8, 2))
        batch = jax.jit(forward(graph, training=True))(params, stats, images)
        single = self.variant(forward(graph, training=True))(params, stats, images[number : number + 1])
        chex.assert_trees_all_close(single, jax.tree.map(lambda x: x[number : number + 1], batch), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(num_parts=0), 'num_parts must lie between 1 and num_proposals = 3; got 0'),
        (dict(num_parts=4), 'num_parts must lie between 1 and num_proposals = 3; got 4'),
        (dict(num_proposals=10_000), 'num_proposals must be at most 516, the boxes of an image of 64; got 10000'),
        (dict(sharing='all'), "sharing must be one of none, part, image; got 'all'"),
        (dict(sharing='none', output_stride=4), "output_stride is for sharing='part' and 'image': remove it"),
        (dict(sharing='part', crop_size=60), 'crop_size must be a multiple of 8 for resnet_tiny; got 60'),
        (dict(sharing='part', crop_size=0), 'crop_size must be a multiple of 8 for resnet_tiny; got 0'),
        (dict(features='square'), "features must be one of pooled, flat, covariance; got 'square'"),
        (dict(num_scales=4), 'num_scales must be odd'),
        (dict(alpha=0.5), 'alpha must be greater than 1'),
        (dict(backbone='resnet51'), "unknown backbone 'resnet51': choose one of resnet18"),
        (
            dict(sharing='none', crop_size=64),
            'crop_size must be a multiple of 56, 7 cells of resnet_tiny; got 64',
        ),
        (dict(class_token=True), 'resnet_tiny has no class token: set class_token=False'),
        (dict(solver='laplace'), "solver must be 'fourier' or 'circulant'"),
        (dict(orientation='north'), "orientation must be 'literal' or 'exact'"),
        (dict(patch=4), 'do not tile a map of 7 x 7'),
        (dict(patch=9, grid=1), 'do not tile a map of 7 x 7'),
    ],
)
def test_inconsistent_arguments_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        abstract(**changes)


def test_an_image_smaller_than_a_cell_raises():
    with pytest.raises(ValueError, match='image_size 4 is smaller than the stride 8'):
        nnx.eval_shape(lambda: SSANet(CLASSES, 4, **SETTINGS, rngs=nnx.Rngs(0)))


def test_split_and_merge_keep_everything_by_group(image_network):
    graph, params, stats = image_network
    assert params.keys() == set(GROUPS) and stats.keys() == {'backbone'}
    again, *arrays = split_model(merge_model(graph, params, stats))
    chex.assert_trees_all_equal(tuple(arrays), (params, stats))
    assert again == graph


def test_fusion_adds_the_image_classifier_to_the_same_parts(image_network, image_outputs, images):
    _, params, stats = image_network
    structure = abstract(fusion='global+parts')
    structure.eval()
    outputs = jax.jit(forward(split_model(structure)[0], training=True))(params, stats, images)
    chex.assert_trees_all_close(outputs._replace(global_logits=None), image_outputs, rtol=1e-5)
    expected = image_outputs.image_logits + image_outputs.scale_logits + image_outputs.oriented_logits
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5)
    assert not np.allclose(outputs.logits, image_outputs.logits)


def test_a_size_whose_border_the_backbone_drops_raises():
    with pytest.raises(ValueError, match='multiple of 8 for resnet_tiny; got 60'):
        SSANet(3, 60, backbone='resnet_tiny', rngs=nnx.Rngs(0))
    SSANet(3, 64, backbone='resnet_tiny', rngs=nnx.Rngs(0))


@pytest.mark.parametrize('dtype', ['int32', 'float16', 'float64', 'foo'])
def test_other_types_raise(dtype):
    with pytest.raises(ValueError, match=f"dtype must be one of float32, bfloat16; got '{dtype}'"):
        SSANet(3, 64, backbone='resnet_tiny', dtype=dtype, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(('field', 'value'), [('nms_iou', 0), ('patch', 0), ('grid', 0), ('alpha', float('nan'))])
def test_invalid_settings_raise(field, value):
    with pytest.raises(ValueError, match=f'{field}'):
        SSANet(3, 64, backbone='resnet_tiny', **{field: value}, rngs=nnx.Rngs(0))


class TestUpright(chex.TestCase):
    """A network that turns images upright does not depend on quarter turns of its input."""

    def outputs(self, images, **changes):
        graph, params, stats = build(upright=4, upright_size=32, **changes)
        return jax.jit(forward(graph, active=(*GROUPS, UPRIGHT)))(params, stats, images)

    @parameterized.parameters(dict(sharing='image'), dict(sharing='none', proposal='prototypes'))
    def test_quarter_turns_of_the_image_change_nothing_but_the_boxes(self, **changes):
        images = np.random.default_rng(0).integers(0, 256, (B, SIZE, SIZE, 3), np.uint8)
        given = self.outputs(images, **changes)
        for turns in (1, 2, 3):
            turned = self.outputs(np.rot90(images, turns, (1, 2)).copy(), **changes)
            np.testing.assert_allclose(turned.logits, given.logits, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(turned.image_angle, (given.image_angle + 90 * turns) % 360)
            for field in ('boxes', 'aligned_boxes'):
                expected = np.asarray(getattr(given, field))
                for _ in range(turns):
                    y0, x0, y1, x1 = np.moveaxis(expected, -1, 0)
                    expected = np.stack([SIZE - x1, y0, SIZE - x0, y1], -1)
                np.testing.assert_allclose(getattr(turned, field), expected, atol=1e-3)

    def test_is_the_plain_network_on_upright_images(self):
        images = np.random.default_rng(0).integers(0, 256, (B, SIZE, SIZE, 3), np.uint8)
        outputs = self.outputs(images, sharing='image')
        turns = np.asarray(outputs.image_angle).astype(int) // 90
        upright = np.stack([np.rot90(image, -k) for image, k in zip(images, turns)])
        plain = jax.jit(forward(build(sharing='image')[0]))(*build(sharing='image')[1:], upright)
        np.testing.assert_allclose(outputs.logits, plain.logits, rtol=1e-5, atol=1e-6)
        assert plain.image_angle is None

    def test_leaves_images_as_they_are_until_it_is_active(self):
        images = np.random.default_rng(0).integers(0, 256, (B, SIZE, SIZE, 3), np.uint8)
        graph, params, stats = build(upright=4, upright_size=32, sharing='image')
        outputs = jax.jit(forward(graph))(params, stats, images)
        plain = jax.jit(forward(build(sharing='image')[0]))(*build(sharing='image')[1:], images)
        np.testing.assert_array_equal(outputs.logits, plain.logits)
        assert outputs.image_angle is None

    @parameterized.parameters(
        (dict(upright=6), 'multiple of 4'), (dict(upright=4, upright_size=SIZE + 1), 'upright_size')
    )
    def test_rejects(self, changes, message):
        with pytest.raises(ValueError, match=message):
            abstract(**changes)
