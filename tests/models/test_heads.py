"""Each baseline head against an independent oracle: slow NumPy, PyTorch, or another module of the project."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssanet_jax.models import regions as resampling
from ssanet_jax.models.backbones.base import Level
from ssanet_jax.models.groups import GROUPS, PART_HEAD
from ssanet_jax.models.heads import SPP_BINS, Regions, build_head, spatial_pyramid
from ssanet_jax.models.scale_mining import ScaleMining, circular_response
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model

B, K, S, C, N, SIDE = 3, 2, 5, 6, 4, 64
HEADS = ('gap', 'gmp', 'spp', 'fpn', 'dsm_fixed', 'dsm_1', 'concat')
LEVELS = ((4, 4), (8, 5), (16, C))  # stride and channels


@pytest.fixture
def regions():
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
    levels = [Level(draw(B, SIDE // stride, SIDE // stride, width), stride, stride / 2) for stride, width in LEVELS]
    boxes = jnp.float32([[8, 8, 36, 36], [0, 4, 60, 64]])  # of 28 pixels, and of 60
    return Regions(draw(B, C), draw(B, K, S, C), draw(B, K, 7, 7, C), jnp.tile(boxes, (B, 1, 1)), levels)


def head(name):
    """A head with weights of ordinary size: its initial weights are near zero."""
    built = build_head(name, [width for _, width in LEVELS], K, S, N, rngs=nnx.Rngs(0))
    random = np.random.default_rng(1)
    for parameter in jax.tree.leaves(nnx.state(built, nnx.Param), is_leaf=lambda x: isinstance(x, nnx.Variable)):
        parameter[...] = jnp.asarray(random.normal(size=parameter.shape), jnp.float32)
    return built


def parts_times_filters(pooled, built):
    """The sum over parts of the responses of the filters, element by element."""
    weights, bias = np.float64(built.weights[...]), np.float64(built.bias[...])
    logits = np.tile(bias, (B, 1))
    for b, k, n in itertools.product(range(B), range(K), range(N)):
        logits[b, n] += sum(weights[k, d, n] * pooled[b, k, d] for d in range(weights.shape[1]))
    return logits


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_gap_classifies_the_averages_of_the_parts(regions):
    built = head('gap')
    regions = regions._replace(pooled=regions.maps.mean((2, 3))[:, :, None])
    averages = np.float64(regions.maps).reshape(B, K, 49, C).sum(2) / 49
    close(built(regions), parts_times_filters(averages, built))


def test_gap_is_scale_mining_with_one_scale(regions):
    built = head('gap')
    mining = ScaleMining(K, 1, C, N, rngs=nnx.Rngs(0))
    mining.weights[...] = built.weights[...].transpose(0, 2, 1)[:, :, None]
    mining.bias[...] = built.bias[...]
    one = regions._replace(pooled=regions.pooled[:, :, :1])
    close(built(one), mining(one.pooled).logits)


def test_gmp_classifies_the_maxima_of_the_parts(regions):
    built = head('gmp')
    maxima = [[[max(part[..., c].ravel()) for c in range(C)] for part in image] for image in np.asarray(regions.maps)]
    close(built(regions), parts_times_filters(np.float64(maxima), built))


def test_spatial_pyramid_by_hand():
    """7 rows in 4 bins: 0-1, 1-3, 3-5, 5-6; if values grow to the lower right, the maxima lie in that corner."""
    grown = np.arange(49, dtype=np.float32).reshape(7, 7, 1)
    last = [1, 3, 5, 6]
    expected = [7 * y + x for y in last for x in last] + [7 * y + x for y in (2, 4, 6) for x in (2, 4, 6)]
    expected += [7 * y + x for y in (3, 6) for x in (3, 6)] + [48]
    assert np.asarray(spatial_pyramid(jnp.asarray(grown))).tolist() == expected


def test_spatial_pyramid_against_pytorch(regions):
    torch = pytest.importorskip('torch')
    maps = torch.from_numpy(np.asarray(regions.maps).reshape(B * K, 7, 7, C).transpose(0, 3, 1, 2).copy())
    cells = [torch.nn.functional.adaptive_max_pool2d(maps, n).flatten(2) for n in SPP_BINS]  # [B * K, C, n * n]
    expected = torch.cat(cells, 2).transpose(1, 2).reshape(B, K, -1).numpy()
    np.testing.assert_array_equal(spatial_pyramid(regions.maps), expected)


def test_spp_classifies_the_pyramid(regions):
    built = head('spp')
    assert built.weights.shape == (K, 30 * C, N)
    close(built(regions), parts_times_filters(np.float64(spatial_pyramid(regions.maps)), built))


def test_fixed_scales_are_the_circulant_without_its_shifts(regions):
    built = head('dsm_fixed')
    weights = built.weights[...].reshape(K, S, C, N).transpose(0, 3, 1, 2)  # [K, N, S, C]
    unshifted = sum(circular_response(regions.pooled[:, k], weights[k], 'circulant')[..., 0] for k in range(K))
    close(built(regions), unshifted + built.bias[...])


def test_best_scale_tries_each(regions):
    built = head('dsm_1')
    pooled, weights = np.float64(regions.pooled), np.float64(built.weights[...])
    expected = np.tile(np.float64(built.bias[...]), (B, 1))
    for b, k, n in itertools.product(range(B), range(K), range(N)):
        expected[b, n] += max(float(pooled[b, k, s] @ weights[k, :, n]) for s in range(S))
    close(built(regions), expected)


def test_every_part_reads_the_level_of_its_size(regions):
    """Laterals and smoothing are set so that level l has a constant value: the sum of the numbers from l up."""
    built = head('fpn')
    numbers = [1.0, 10.0, 100.0]
    for lateral, smooth, number in zip(built.pyramid.laterals, built.pyramid.outputs, numbers, strict=True):
        lateral.kernel[...] = jnp.zeros_like(lateral.kernel[...])
        lateral.bias[...] = jnp.full_like(lateral.bias[...], number)
        smooth.kernel[...] = jnp.zeros_like(smooth.kernel[...]).at[1, 1].set(jnp.eye(smooth.kernel.shape[-1]))
        smooth.bias[...] = jnp.zeros_like(smooth.bias[...])
    inside = jnp.float32([[16, 16, 44, 44], [0, 0, 64, 64]])  # 28 pixels: stride 2, the finest; 64: stride 4 too
    finest = built(regions._replace(boxes=jnp.tile(inside[:1], (B, K, 1))))
    close(finest, parts_times_filters(np.full((B, K, C), 111.0), built))
    wide = jnp.tile(jnp.float32([-41, -41, 105, 105]), (B, K, 1))  # 146 pixels: stride 8; 64 x 64 lie in the image
    middle = np.float64(built(regions._replace(boxes=wide)) - built.bias[...])
    share = middle / (parts_times_filters(np.full((B, K, C), 110.0), built) - np.float64(built.bias[...]))
    # 6 of the 14 sampling points along each axis lie in the image.
    np.testing.assert_allclose(share, (6 / 14) ** 2, atol=1e-3)


def test_concatenation_of_image_and_parts(regions):
    built = head('concat')
    both = np.concatenate([np.asarray(regions.image), *np.asarray(regions.pooled[:, :, 0]).transpose(1, 0, 2)], 1)
    kernel, bias = (np.float64(x[...]) for x in (built.classifier.kernel, built.classifier.bias))
    close(built(regions), both @ kernel + bias)


def test_dropout_in_training_only(regions):
    built = head('concat')
    wide = jax.tree.map(jnp.ones_like, regions)._replace(dropout=None)
    dropped = lambda seed: built(wide._replace(dropout=jax.random.key(seed)))
    assert not np.allclose(dropped(0), dropped(1)) and not np.allclose(dropped(0), built(wide))
    np.testing.assert_array_equal(built(wide), built(wide))
    many = np.mean([dropped(seed) for seed in range(2000)], (0, 1))
    deviation = float(jnp.linalg.norm(built.classifier.kernel[...], axis=0).max())
    np.testing.assert_allclose(many, np.asarray(built(wide))[0], atol=5 * deviation / np.sqrt(2000 * B))


def test_unknown_head():
    with pytest.raises(ValueError, match="unknown part_head 'gpa': choose one of gap, gmp"):
        head('gpa')


# The heads within the network.
SETTINGS = dict(backbone='resnet_tiny', num_parts=K, num_proposals=3, num_scales=3, crop_size=56)


def network(name, **changes):
    model = SSANet(N, SIDE, **SETTINGS | changes, part_head=name, rngs=nnx.Rngs(0))
    model.eval()
    return model


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(3).integers(0, 256, (B, SIDE, SIDE, 3), np.uint8)


def run(model, images, active, **arguments):
    graph, params, stats = split_model(model)
    call = lambda params, stats, images: merge_model(graph, params, stats)(images, active=active, **arguments)
    return jax.jit(call)(params, stats, images)


@pytest.mark.parametrize('sharing', ['none', 'part', 'image'])
@pytest.mark.parametrize('name', HEADS)
def test_the_head_makes_the_prediction(name, sharing, images):
    if name == 'fpn' and sharing != 'image':
        with pytest.raises(ValueError, match="needs sharing='image'"):
            network(name, sharing=sharing)
        return
    model = nnx.eval_shape(lambda: network(name, sharing=sharing))
    graph, params, stats = split_model(model)
    groups = {'backbone', 'proposals', 'part_classifier', 'image_classifier', PART_HEAD}
    call = lambda *weights: lambda x: merge_model(graph, *weights)(x, active=groups, training=True)
    both = lambda params, stats, x: (outputs := call(params, stats)(x), outputs.logits)
    outputs, logits = jax.eval_shape(both, params, stats, jax.ShapeDtypeStruct(images.shape, jnp.uint8))
    chex.assert_shape([outputs.head_logits, logits], (B, N))
    assert outputs.scale_logits is None and outputs.oriented_logits is None
    chex.assert_shape(outputs.part_logits, (B, 3, N))


def test_the_head_gets_the_maps_of_the_parts(images):
    """GMP of each box, cut from the backbone's map without the network."""
    model = network('gmp', sharing='image')
    model.part_head.weights[...] = jax.random.normal(jax.random.key(0), model.part_head.weights.shape)
    outputs = run(model, images, {'proposals', PART_HEAD})
    normalised = (images.astype(np.float32) - np.array(model.backbone.mean)) / np.array(model.backbone.std)
    maps = model.backbone(jnp.asarray(normalised, jnp.float32))
    cut = lambda x, boxes: resampling.resample(x, boxes, 7, 8, 2, model.backbone.center(SIDE), clamp=True)
    pooled = jax.vmap(cut)(maps, outputs.boxes[:, :K]).max((2, 3))  # [B, K, C]
    expected = jnp.einsum('bkc,kcn->bn', pooled, model.part_head.weights[...])
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-3, atol=1e-3)


class Reader:
    """A stand-in for a head that keeps its inputs."""

    def __init__(self, multiscale):
        self.multiscale = multiscale

    def __call__(self, regions):
        self.read = regions
        return jnp.zeros((B, N))


@pytest.mark.parametrize('multiscale', [False, True])
def test_pooled_regions_are_averages(multiscale, images):
    """Crops yield 7 x 7 maps, whose average differs from any other pooling."""
    model = network('gap', sharing='none')
    graph, params, stats = split_model(model)

    def read(params, stats, images):
        merged = merge_model(graph, params, stats)
        merged.part_head = reader = Reader(multiscale)
        merged(images, active={'proposals', PART_HEAD})
        return reader.read.image, reader.read.pooled, reader.read.maps

    image, pooled, maps = jax.device_get(jax.jit(read)(params, stats, images))
    assert pooled.shape[:3] == (B, K, 3 if multiscale else 1)
    original = pooled[:, :, 1 if multiscale else 0]
    assert np.abs(maps.max((2, 3)) - maps.mean((2, 3))).mean() > 0.01
    close(original, np.float64(maps).reshape(B, K, 49, -1).sum(2) / 49)
    if multiscale:
        assert all(np.abs(pooled[:, :, scale] - original).mean() > 1e-3 for scale in (0, 2))
    normalised = (images.astype(np.float32) - np.array(model.backbone.mean)) / np.array(model.backbone.std)
    close(image, np.float64(model.backbone(jnp.asarray(normalised, jnp.float32))).mean((1, 2)))


def test_a_multiscale_head_sees_the_scales_in_order(images):
    """With a filter for the original scale only, DSM(fixed) equals GAP; with one for another scale, it does not."""
    gap, fixed = network('gap'), network('dsm_fixed')
    weights = jax.random.normal(jax.random.key(0), gap.part_head.weights.shape)  # [K, C, N]
    gap.part_head.weights[...] = weights
    expected = run(gap, images, {'proposals', PART_HEAD}).logits
    length = weights.shape[1]
    for scale in range(3):
        place = jnp.zeros_like(fixed.part_head.weights[...]).at[:, scale * length : (scale + 1) * length].set(weights)
        fixed.part_head.weights[...] = place
        same = np.allclose(run(fixed, images, {'proposals', PART_HEAD}).logits, expected, atol=1e-3)
        assert same == (scale == 1)


@pytest.mark.parametrize('name', HEADS)
def test_all_weights_of_a_head_are_used_and_trained(name, images):
    """Each step merges the network from arrays: the head must not keep the weights that it was built with."""
    model = network(name)
    random = np.random.default_rng(5)
    filled = jax.tree.map(
        lambda x: jnp.asarray(random.normal(size=x.shape) / x.shape[0], jnp.float32), split_model(model)[1][PART_HEAD]
    )
    structure = nnx.eval_shape(lambda: network(name))
    structure.eval()
    graph, (_, params, stats) = split_model(structure)[0], split_model(model)

    def total(head, images):
        logits = merge_model(graph, {**params, PART_HEAD: head}, stats)(images, active={'proposals', PART_HEAD}).logits
        return (logits * jnp.arange(1.0, N + 1)).sum(), logits

    gradient, logits = jax.jit(jax.grad(total, has_aux=True))(filled, images)
    unread = 4 if name == 'fpn' else 0  # the smoothing of two levels, since all parts read the third
    assert sum(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(gradient)) <= unread
    nnx.update(model.part_head, nnx.State(filled))
    directly = run(model, images, {'proposals', PART_HEAD}).logits
    np.testing.assert_allclose(logits, directly, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', HEADS)
def test_initial_weights_of_other_groups_do_not_depend_on_the_head(name):
    plain = split_model(SSANet(N, SIDE, **SETTINGS, rngs=nnx.Rngs(0)))[1]
    params = split_model(network(name))[1]
    assert params.keys() == {*GROUPS, PART_HEAD}
    chex.assert_trees_all_equal({group: params[group] for group in GROUPS}, plain)


@pytest.mark.parametrize('name', ['gap', 'gmp', 'spp', 'fpn', 'dsm_fixed', 'dsm_1'])
def test_part_logits_add_up_to_the_logits(regions, name):
    built = head(name)
    close(built.part_logits(regions).sum(1) + built.bias[...], built(regions))


def test_part_logits_of_concat_leave_the_share_of_the_image(regions):
    built = head('concat')
    kernel = built.classifier.kernel[...]
    image = np.float64(regions.image) @ np.float64(kernel[: regions.image.shape[1]])
    close(built.part_logits(regions).sum(1) + built.bias[...] + image, built(regions))
