"""Properties of every backbone, and the comparison with torch that the tests of each family use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backbone_names import NAMES
from flax import nnx

from ssanet_jax.models.backbones.registry import BACKBONES, build_backbone, list_backbones
from ssanet_jax.pretrained.load import load_pretrained
from ssanet_jax.pretrained.names import FAMILIES, map_names


def parameters(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def random_weights(shapes):
    """Weights by torch name that keep the activations of a deep network bounded, and exercise each layer."""
    random = np.random.default_rng(0)
    weights = {}
    for key, shape in shapes.items():
        if key.endswith('num_batches_tracked'):
            weights[key] = np.zeros(shape, np.int64)
        elif len(shape) in (2, 4):
            weights[key] = random.normal(scale=np.prod(shape[1:]) ** -0.5, size=shape).astype(np.float32)
        else:
            low, high = (-0.2, 0.2) if key.endswith(('bias', 'mean')) else (0.5, 1.5)
            weights[key] = random.uniform(low, high, shape).astype(np.float32)
    return weights


def assert_equals_torch(name, weights, forward, tmp_path, *, training, backward, tolerance=1e-4, size=(64, 96)):
    """A backbone in float32 equals torch in float64, within `tolerance` of the largest value of each array.

    With `backward`, a second pair of images is tried if the first one differs.

    Args:
      name: name of the backbone.
      weights: torch name -> array; the backbone loads them from a file written by torch.
      forward: (torch, {name: tensor}, images [B, 3, H, W]) -> map [B, C, h, w]. In training it updates the
        running statistics in its tensors.
      training: whether BatchNorm uses the statistics of the batch; the new running statistics are then compared too.
      backward: whether to compare the gradients of all parameters and of the images.
      tolerance: the largest relative error.
      size: height and width of the images.
    """
    torch = pytest.importorskip('torch', reason='needs torch: pip install -e .[torch-parity]')
    torch.save({key: torch.from_numpy(value) for key, value in weights.items()}, tmp_path / 'weights.pth')
    module = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0)))
    load_pretrained(module, name, str(tmp_path / 'weights.pth'))
    module.train() if training else module.eval()

    for seed in (1, 3) if backward else (1,):
        try:
            return _compare(torch, name, module, weights, forward, backward, tolerance, size, seed)
        except AssertionError as error:
            # If the input of a rectifier rounds to the other side of zero, as some CPUs round it, the gradient differs.
            # That depends on the image; a mistake does not.
            problem = error
    raise problem


def _compare(torch, name, module, weights, forward, backward, tolerance, size, seed):
    images = np.random.default_rng(seed).normal(size=(2, *size, 3)).astype(np.float32)
    moves = lambda key: key.endswith(('running_mean', 'running_var'))
    tensors = {
        key: torch.tensor(value, dtype=torch.float64, requires_grad=backward and not moves(key))
        for key, value in weights.items()
        if value.dtype.kind == 'f'
    }
    pixels = torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float64, requires_grad=backward)
    expected = forward(torch, tensors, pixels)
    direction = np.random.default_rng(2).normal(size=expected.detach().permute(0, 2, 3, 1).shape).astype(np.float32)
    graph, params, stats = nnx.split(module, nnx.Param, ...)

    def run(params, images):
        module = nnx.merge(graph, params, stats, copy=True)
        features = module(images)
        return (features * direction).sum(), (features, nnx.state(module, nnx.BatchStat))

    if not backward:
        _, (features, new_stats) = jax.jit(run)(params, images)
        gradients = {}
    else:
        step = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
        (_, (features, new_stats)), (gradients, image_gradient) = step(params, images)
        (expected * torch.from_numpy(direction.transpose(0, 3, 1, 2))).sum().backward()
        assert_close(image_gradient, pixels.grad.permute(0, 2, 3, 1).numpy(), tolerance, 'gradient of the images')
    assert_close(features, expected.detach().permute(0, 2, 3, 1).numpy(), tolerance, 'features')

    # The table of names that maps the weights also maps torch's gradients and statistics to our paths.
    theirs = {key: value if moves(key) else value.grad for key, value in tensors.items()}
    theirs = {key: value.numpy() for key, value in theirs.items() if value is not None}
    ours = {'.'.join(map(str, key)): v.get_value() for key, v in nnx.to_flat_state(new_stats)}
    if backward:
        ours |= {'.'.join(map(str, key)): v.get_value() for key, v in nnx.to_flat_state(gradients)}
    shapes = {path: value.shape for path, value in ours.items()}
    theirs = map_names(theirs, FAMILIES[name], shapes, 'torch')
    learns = lambda path: not path.endswith(('.mean', '.var'))
    # A bias that the next BatchNorm removes has gradient zero, and rounding leaves a tiny value instead.
    least = 0.01 * max((np.abs(value).max() for path, value in theirs.items() if learns(path)), default=0)
    for path, value in theirs.items():
        assert_close(ours[path], value, tolerance, path, least if learns(path) else 0)


def assert_close(actual, expected, tolerance, what, least=0):
    error = np.abs(np.asarray(actual, np.float64) - expected).max() / max(np.abs(expected).max(), least)
    assert error <= tolerance, f'{what} is off by {error:.1e} of its largest value'


@pytest.mark.parametrize('name', NAMES)
def test_implements_the_protocol(name):
    module = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0), jnp.bfloat16))
    graph, state = nnx.split(module)
    images = jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float32)
    features = jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, images)
    assert features.shape == (2, 96 // module.stride, 64 // module.stride, module.num_features)
    assert features.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype('float32')}
    assert len(module.mean) == len(module.std) == 3
    assert module.interpolation in ('bilinear', 'bicubic')
    assert module.remat is False and module.dilated is False
    assert module.pyramid_features[-1] == module.num_features


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(ValueError, match="unknown backbone 'resnet51': choose one of .*resnet50.*efficientnet_lite0"):
        build_backbone('resnet51', nnx.Rngs(0))


def test_the_list_of_backbones_is_sorted_and_complete():
    assert list_backbones() == sorted(BACKBONES)
