"""Vision transformers: published numbers of parameters, parity with transformers, names of weights, positions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from test_backbones import assert_close, parameters

from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.positions import apply_rotary, bicubic_weights, rotary_angles
from ssanet_jax.models.backbones.registry import BACKBONES, build_backbone
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer
from ssanet_jax.pretrained.load import load_pretrained, read_tensors
from ssanet_jax.pretrained.names import FAMILIES, map_names

PATCH, GRID, WIDTH, HEADS, DEPTH = 4, 3, 16, 2, 2
TINY = partial(VisionTransformer, WIDTH, DEPTH, HEADS, patch_size=PATCH)
KINDS = {
    'dinov2': partial(TINY, positions='learned', grid=GRID),
    'dinov2, gated': partial(TINY, positions='learned', grid=GRID, gated=True, hidden=48),
    'dinov2, registers': partial(TINY, positions='learned, antialiased', grid=GRID, num_registers=3),
    'dinov3': partial(TINY, positions='rotary', num_registers=4, hidden=40, epsilon=1e-5),
    'dinov3, gated': partial(TINY, positions='rotary', num_registers=4, hidden=24, gated=True, epsilon=1e-5),
}
LIKE = {
    'dinov2': 'vit_small_patch14_dinov2',
    'dinov2, gated': 'vit_giant_patch14_dinov2',
    'dinov2, registers': 'vit_small_patch14_reg4_dinov2',
    'dinov3': 'vit_small_patch16_dinov3',
    'dinov3, gated': 'vit_small_plus_patch16_dinov3',
}


@pytest.fixture
def tiny(monkeypatch):
    """Adds the small transformers of `KINDS` to the registry."""
    for kind, build in KINDS.items():
        monkeypatch.setitem(BACKBONES, kind, build)
        monkeypatch.setitem(FAMILIES, kind, FAMILIES[LIKE[kind]])


def build_torch(kind):
    """The network of transformers, with random weights that exercise each layer, in float64."""
    torch = pytest.importorskip('torch', reason='needs torch: pip install -e .[torch-parity]')
    library = pytest.importorskip('transformers', reason='needs transformers: pip install -e .[torch-parity]')
    sizes = dict(hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, patch_size=PATCH)
    sizes |= dict(image_size=PATCH * GRID)
    v2, v3 = dict(sizes, mlp_ratio=4), dict(sizes, num_register_tokens=4)
    model = {
        'dinov2': lambda: library.Dinov2Model(library.Dinov2Config(**v2)),
        # SwiGLU keeps 2 / 3 of 4 * 16 + 8 channels, rounded up to a multiple of 8: 48.
        'dinov2, gated': lambda: library.Dinov2Model(library.Dinov2Config(**v2, use_swiglu_ffn=True)),
        'dinov2, registers': lambda: library.Dinov2WithRegistersModel(
            library.Dinov2WithRegistersConfig(**v2, num_register_tokens=3)
        ),
        'dinov3': lambda: library.DINOv3ViTModel(library.DINOv3ViTConfig(**v3, intermediate_size=40)),
        'dinov3, gated': lambda: library.DINOv3ViTModel(
            library.DINOv3ViTConfig(**v3, intermediate_size=24, use_gated_mlp=True, hidden_act='silu')
        ),
    }[kind]().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            one_is_usual = ('norm' in name and name.endswith('weight')) or 'scale' in name
            parameter.copy_(1 + 0.3 * values if one_is_usual else 0.3 * values)
    return torch, model


TRAINED, LARGER, NARROW = (12, 12), (20, 28), (8, 32)  # heights and widths; learned positions are of the first


@pytest.mark.parametrize(
    'kind, size',
    [
        ('dinov2', TRAINED),
        ('dinov2', NARROW),
        ('dinov2, gated', TRAINED),
        ('dinov2, registers', LARGER),
        ('dinov2, registers', NARROW),
        ('dinov3', LARGER),
        ('dinov3, gated', LARGER),
    ],
)
def test_equals_transformers(tiny, kind, size, tmp_path):
    torch, model = build_torch(kind)
    model.save_pretrained(tmp_path)
    module = nnx.eval_shape(lambda: build_backbone(kind, nnx.Rngs(0)))
    load_pretrained(module, kind, str(tmp_path / 'model.safetensors'))

    images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float64, requires_grad=True)
    hidden = model.double()(pixels).last_hidden_state
    count = size[0] * size[1] // PATCH**2
    expected = torch.cat([hidden[:, :1], hidden[:, -count:]], 1)  # the class token and the patches
    direction = np.random.default_rng(2).normal(size=expected.shape).astype(np.float32)
    (expected * torch.from_numpy(direction)).sum().backward()

    graph, params, rest = nnx.split(module, nnx.Param, ...)

    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def run(params, images):
        (level,) = nnx.merge(graph, params, rest).pyramid(images)
        tokens = jnp.concatenate([level.token[:, None], level.map.reshape(2, count, WIDTH)], 1)
        return (tokens * direction).sum(), tokens

    (_, tokens), (gradients, image_gradient) = jax.jit(run)(params, images)
    assert_close(tokens, expected.detach().numpy(), 1e-4, 'tokens')
    assert_close(image_gradient, pixels.grad.permute(0, 2, 3, 1).numpy(), 1e-4, 'gradient of the images')

    # The gradients go the way of the weights: through a file, and through the table of names.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    model.float().save_pretrained(tmp_path / 'gradients')
    ours = {'.'.join(map(str, key)): value.get_value() for key, value in nnx.to_flat_state(gradients)}
    shapes = {path: value.shape for path, value in ours.items()}
    theirs = map_names(read_tensors(tmp_path / 'gradients/model.safetensors').tensors, FAMILIES[kind], shapes, 'torch')
    # Rounding leaves a tiny gradient of the keys' bias, which the softmax removes.
    least = 0.01 * max(np.abs(value).max() for value in theirs.values())
    for path, value in theirs.items():
        assert_close(ours[path], value, 1e-4, path, least)


def to_timm(tensors, kind, *, biases):
    """The tensors of transformers -> under timm's names; DINOv3 with biases, or without them where they are zero."""
    given, renamed = dict(tensors), {}
    take = lambda name: given.pop(name)
    dinov3 = kind.startswith('dinov3')
    position = None if dinov3 else take('embeddings.position_embeddings')
    class_token = take('embeddings.cls_token')
    if kind == 'dinov2, registers':
        class_token, position = class_token + position[:, :1], position[:, 1:]
    if position is not None:
        renamed['pos_embed'] = position
    renamed['cls_token'] = class_token
    take('embeddings.mask_token')
    if 'embeddings.register_tokens' in given:
        renamed['reg_token'] = take('embeddings.register_tokens')
    for name in ('weight', 'bias'):
        renamed[f'patch_embed.proj.{name}'] = take(
            f'embeddings.patch_embeddings{"" if dinov3 else ".projection"}.{name}'
        )
        renamed[f'norm.{name}'] = take(f'{"norm" if dinov3 else "layernorm"}.{name}')
        for index in range(DEPTH):
            old, new = f'{"" if dinov3 else "encoder."}layer.{index}', f'blocks.{index}'
            for norm in ('norm1', 'norm2'):
                renamed[f'{new}.{norm}.{name}'] = take(f'{old}.{norm}.{name}')
            q, k, v = (
                'q_proj k_proj v_proj'.split() if dinov3 else (f'attention.{x}' for x in ('query', 'key', 'value'))
            )
            if name == 'weight' or not dinov3:
                qkv = [take(f'{old}.attention.{x}.{name}') for x in (q, k, v)]
                renamed[f'{new}.attn.qkv.{name}'] = np.concatenate(qkv)
            elif biases:
                renamed[f'{new}.attn.q_bias'] = take(f'{old}.attention.{q}.bias')
                renamed[f'{new}.attn.v_bias'] = take(f'{old}.attention.{v}.bias')
            else:
                assert not take(f'{old}.attention.{q}.bias').any() and not take(f'{old}.attention.{v}.bias').any()
            output = 'o_proj' if dinov3 else 'output.dense'
            renamed[f'{new}.attn.proj.{name}'] = take(f'{old}.attention.{output}.{name}')
            mlp = {
                'dinov2': dict(fc1='fc1', fc2='fc2'),
                'dinov2, registers': dict(fc1='fc1', fc2='fc2'),
                'dinov2, gated': dict(weights_in='fc1', weights_out='fc2'),
                'dinov3': dict(up_proj='fc1', down_proj='fc2'),
                'dinov3, gated': dict(gate_proj='fc1_g', up_proj='fc1_x', down_proj='fc2'),
            }[kind]
            for theirs, timm in mlp.items():
                renamed[f'{new}.mlp.{timm}.{name}'] = take(f'{old}.mlp.{theirs}.{name}')
            if name == 'weight':
                for number in (1, 2):
                    scale = f'gamma_{number}' if dinov3 else f'ls{number}.gamma'
                    renamed[f'{new}.{scale}'] = take(f'{old}.layer_scale{number}.lambda1')
    assert not given
    return {name: np.ascontiguousarray(value) for name, value in renamed.items()}


@pytest.mark.parametrize('kind, biases', [*((kind, True) for kind in KINDS), ('dinov3', False)])
def test_timms_names_are_the_same_network(tiny, kind, biases, tmp_path):
    _, model = build_torch(kind)
    if not biases:
        for name, parameter in model.named_parameters():
            if name.endswith(('q_proj.bias', 'v_proj.bias')):
                parameter.data.zero_()
    model.save_pretrained(tmp_path)
    file = tmp_path / 'model.safetensors'
    save_file(to_timm(load_file(file), kind, biases=biases), tmp_path / 'timm.safetensors')
    shapes = shapes_of(kind)
    ours, theirs = (
        map_names(read_tensors(path).tensors, FAMILIES[kind], shapes, 'a file')
        for path in (file, tmp_path / 'timm.safetensors')
    )
    if kind == 'dinov2, registers':  # the position of the class token is part of it
        for weights in (ours, theirs):
            weights['class_token'] = weights['class_token'] + weights['positions'][0]
            weights['positions'] = weights['positions'][1:]
    assert ours.keys() == theirs.keys() == shapes.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(theirs[path], value)


def shapes_of(kind):
    """Path -> shape of each parameter."""
    state = nnx.state(nnx.eval_shape(lambda: build_backbone(kind, nnx.Rngs(0))))
    return {'.'.join(map(str, key)): value.get_value().shape for key, value in nnx.to_flat_state(state)}


def original_dinov3(tensors):
    """timm's tensors with biases -> the names of the original repository, whose bias of the keys is masked."""
    renamed = {}
    for name, value in tensors.items():
        name = (
            name.replace('reg_token', 'storage_tokens').replace('gamma_1', 'ls1.gamma').replace('gamma_2', 'ls2.gamma')
        )
        if name.endswith('q_bias'):
            values = [value, np.full_like(value, 7), tensors[name.replace('q_bias', 'v_bias')]]
            name, value = name.replace('q_bias', 'qkv.bias'), np.concatenate(values)
            renamed[name + '_mask'] = np.repeat(np.float32([1, 0, 1]), len(value) // 3)
        if not name.endswith('v_bias'):
            renamed[name] = value
    return renamed | {'rope_embed.periods': np.ones(2, np.float32), 'mask_token': np.zeros((1, WIDTH), np.float32)}


def test_the_names_of_the_original_repository(tiny, tmp_path):
    _, model = build_torch('dinov3')
    model.save_pretrained(tmp_path)
    timm = to_timm(load_file(tmp_path / 'model.safetensors'), 'dinov3', biases=True)
    ours, theirs = (
        map_names(names, FAMILIES['dinov3'], shapes_of('dinov3'), 'a file') for names in (timm, original_dinov3(timm))
    )
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(theirs[path], value)


def test_one_missing_bias_is_not_taken_for_zero(tiny, tmp_path):
    _, model = build_torch('dinov3')
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / 'model.safetensors')
    del tensors['layer.1.attention.v_proj.bias']
    save_file(tensors, tmp_path / 'weights.safetensors')
    with pytest.raises(UserError, match=r'1 missing \(blocks.1.attention.value.bias\)'):
        load_pretrained(
            nnx.eval_shape(lambda: build_backbone('dinov3', nnx.Rngs(0))),
            'dinov3',
            str(tmp_path / 'weights.safetensors'),
        )


def test_another_patch_size_and_depth_are_reported_at_once(tiny, monkeypatch, tmp_path):
    _, model = build_torch('dinov2')
    model.save_pretrained(tmp_path)
    other = partial(VisionTransformer, WIDTH, DEPTH + 1, HEADS, patch_size=2, positions='learned', grid=GRID + 1)
    monkeypatch.setitem(BACKBONES, 'dinov2', other)
    with pytest.raises(UserError) as caught:
        load_pretrained(
            nnx.eval_shape(lambda: build_backbone('dinov2', nnx.Rngs(0))), 'dinov2', str(tmp_path / 'model.safetensors')
        )
    message = str(caught.value)
    assert '\n' not in message
    assert '18 missing (blocks.2.attention.key.bias' in message and '2 wrongly shaped' in message
    assert 'embeddings.position_embeddings (1, 10, 16) for positions (17, 16)' in message
    assert 'patch_embeddings.projection.weight (16, 3, 4, 4) for patch_embed.kernel (2, 2, 3, 16)' in message


# As published, without the mask token, which is not part of the network.
@pytest.mark.parametrize(
    'name, published',
    [
        ('vit_small_patch14_dinov2', 22_056_192),
        pytest.param('vit_giant_patch14_dinov2', 1_136_479_232, marks=pytest.mark.slow),
        ('vit_small_patch16_dinov3', 21_600_768 - 12 * 384),
    ],
)
def test_number_of_parameters(name, published):
    assert parameters(nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0)))) == published


def test_other_strides_are_refused():
    with pytest.raises(ValueError, match='output_stride must be 14, the patch of this transformer; got 7'):
        build_backbone('vit_small_patch14_dinov2', nnx.Rngs(0), output_stride=7)


def test_an_incomplete_patch_is_dropped():
    module = KINDS['dinov2'](nnx.Rngs(0))
    images = np.random.default_rng(0).normal(size=(1, 15, 13, 3)).astype(np.float32)
    run = nnx.jit(lambda module, images: module(images))
    np.testing.assert_array_equal(run(module, images), run(module, images[:, :12, :12]))


@pytest.mark.parametrize('length, size', [(37, 16), (37, 32), (16, 37), (3, 3), (5, 1)])
@pytest.mark.parametrize('antialias', [False, True])
def test_bicubic_weights_equal_torch(length, size, antialias):
    torch = pytest.importorskip('torch', reason='needs torch: pip install -e .[torch-parity]')
    identity = torch.eye(length, dtype=torch.float64)[None, :, :, None].expand(-1, -1, -1, 4)  # channel i is sample i
    resized = torch.nn.functional.interpolate(identity, (size, 4), mode='bicubic', antialias=antialias)
    np.testing.assert_allclose(bicubic_weights(length, size, antialias), resized[0, :, :, 0].T, atol=1e-6)


def test_rotary_positions_depend_on_distances_only():
    """The product of a query and a key changes with the offset between their patches, not with their place."""
    random = np.random.default_rng(0)
    query, key = (np.broadcast_to(random.normal(size=8).astype(np.float32), (1, 26, 1, 8)) for _ in range(2))
    angles = rotary_angles(5, 5, 8)
    products = np.einsum(
        'btnd,bsnd->ts', apply_rotary(jnp.asarray(query), angles), apply_rotary(jnp.asarray(key), angles)
    )
    np.testing.assert_allclose(products[0, 0], query[0, 0, 0] @ key[0, 0, 0], rtol=1e-5)  # the token without a place
    grid = products[1:, 1:].reshape(5, 5, 5, 5)
    np.testing.assert_allclose(grid[1:, 1:, 1:, 1:], grid[:-1, :-1, :-1, :-1], atol=1e-4)
    assert np.abs(grid[0, 0, 0, 0] - grid[0, 0, 0, 1]) > 0.01 and np.abs(grid[0, 0, 0, 1] - grid[0, 0, 1, 0]) > 0.01


def test_layers_for_partial_training():
    module = KINDS['dinov3'](nnx.Rngs(0))
    index = {
        ('patch_embed', 'kernel'): 0,
        ('class_token',): 0,
        ('registers',): 0,
        ('blocks', 0, 'mlp', 'expand', 'kernel'): 1,
        ('blocks', 1, 'scale2'): 2,
        ('norm', 'scale'): 2,
    }
    assert {path: module.layer_index(path) for path in index} == index
