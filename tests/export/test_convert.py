"""Operations of JAX as graphs of ONNX, against JAX itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

onnxruntime = pytest.importorskip('onnxruntime', reason="needs onnxruntime: pip install -e '.[export]'")
pytest.importorskip('onnx', reason="needs onnx: pip install -e '.[export]'")

from ssanet_jax.export.call import Unsupported  # noqa: E402
from ssanet_jax.export.convert import to_onnx  # noqa: E402
from ssanet_jax.export.program import batch_spec  # noqa: E402

WEIGHTS = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
KERNEL = np.random.default_rng(2).normal(size=(3, 3, 4, 6)).astype(np.float32)
DEPTHWISE = np.random.default_rng(3).normal(size=(3, 3, 1, 4)).astype(np.float32)
STACK = np.random.default_rng(4).normal(size=(3, 7, 4)).astype(np.float32)


def conv(x, kernel, strides=(1, 1), padding='SAME', **options):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, **options)


def window(x, init, operation, size, strides, padding='SAME'):
    return jax.lax.reduce_window(x, init, operation, (1, *size, 1), (1, *strides, 1), padding)


def filtered(z):
    return jnp.fft.irfft(jax.lax.complex(2 * z.real, z.imag - z.real), n=5, axis=1)


def grow(x):
    return jax.lax.fori_loop(0, 3, lambda i, y: (y | jnp.roll(y, 1, 1)) & (x[..., 0] > -1), x[..., 0] > 0.5)


# Functions of an array [B, 6, 8, 4].
FUNCTIONS = {
    'elementwise': lambda x: jnp.exp(-jnp.abs(x)) + jnp.sqrt(jnp.square(x) + 1) / 3 - jnp.tanh(x) * jnp.sign(x),
    'activations': lambda x: jax.nn.relu6(x) + jax.nn.sigmoid(x) + jax.nn.silu(x),
    'gelu': lambda x: jax.nn.gelu(x, approximate=False) + jax.lax.erfc(x),
    'powers': lambda x: x**3 + jax.lax.rsqrt(x**2 + 1) + jax.nn.softmax(x, -1) + jax.nn.log_softmax(x, 1),
    'integers': lambda x: (x * 10).astype(jnp.int32) % 7 + (x * 10).astype(jnp.int32) // 4,
    'choices': lambda x: jnp.where(x > 0, jnp.clip(x, -0.5, 0.5), jnp.where(jnp.isin(jnp.sign(x), 1), 1.0, x)),
    'booleans': lambda x: jnp.where(x[..., :1] > 0, x > 1, x < 0.2) & ~(x == 0) | (x != x),
    'any and all': lambda x: (x > 1).any(1)[:, :6] ^ (x > -1).all(2),
    'reductions': lambda x: x.sum((1, 2)) + x.max((1, 2)) - x.min((1, 2)) + x.mean((1, 2)),
    'argmax': lambda x: jnp.stack([jnp.round(x).argmax(1), x.argmin(1), (x > 0).argmax(1)]),
    'shapes': lambda x: jnp.moveaxis(x.reshape(x.shape[0], 48, 4), 1, 0)[::-1, :, None] + jnp.arange(4.0),
    'merged batch': lambda x: jnp.tanh(x.reshape(-1, 8, 4)).reshape(x.shape).swapaxes(1, 2),
    'broadcast': lambda x: jnp.broadcast_to(x.mean((1, 2))[:, None, None], x.shape) * jnp.ones((x.shape[0], 1, 1, 1)),
    'broadcast, then reshape': lambda x: jnp.broadcast_to(x[:, :1], x.shape).reshape(x.shape[0], -1),
    'broadcast, then transpose': lambda x: jnp.broadcast_to(x[:, :, :1], x.shape).swapaxes(1, 3),
    'concatenate': lambda x: jnp.concatenate([x, x[:, :0], jnp.zeros((x.shape[0], 1, 8, 4)), x[:, 1:3]], 1),
    'stack and split': lambda x: jnp.stack([a * i for i, a in enumerate(jnp.split(x, 3, 1))], 2),
    'pad and roll': lambda x: jnp.roll(jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=2), 2, 1),
    'rotate': lambda x: jnp.rot90(x, 1, (1, 2)).sum(1) + jnp.rot90(x, 3, (1, 2)).sum(1),
    'slices': lambda x: x[:, 1:5:2, 3] + x[:, -2:, 0],
    'matmul': lambda x: x @ WEIGHTS,
    'matmul of vectors': lambda x: jnp.einsum('bhwc,cn->bn', x, WEIGHTS) + x[:, 0, 0] @ WEIGHTS,
    'batched matmul': lambda x: jnp.einsum('bhwc,bhvc->bhwv', x, x * 2),
    'constant first': lambda x: jnp.einsum('nkc,bhkc->nbhk', STACK[:, :6], x.swapaxes(1, 2)),
    'constant first, shared axis': lambda x: jnp.einsum('kdc,bkc->kbd', STACK, x[:, 0, :3]),
    'convolution': lambda x: conv(x, KERNEL, (2, 1)) + conv(x, KERNEL, (2, 1), ((0, 2), (1, 1))),
    'depthwise': lambda x: conv(x, DEPTHWISE, feature_group_count=4, rhs_dilation=(1, 2)),
    'max pool': lambda x: window(x, -jnp.inf, jax.lax.max, (3, 3), (2, 2)),
    'sums of windows': lambda x: window(x, 0.0, jax.lax.add, (3, 2), (1, 2)),
    'fft': lambda x: filtered(jnp.fft.rfft(x[:, :5], axis=1)),
    'fft of even length': lambda x: jnp.fft.rfft(x, axis=2).imag[:, :, 1:]
    + jnp.fft.irfft(jnp.fft.rfft(x, axis=1), 6, 1)[:, :, :4],
    'take rows': lambda x: jnp.take(WEIGHTS, x[:, :, 0].argmax(-1), 0),
    'take with constant indices': lambda x: x[:, :, np.array([3, 1, 1])] + x[:, :, ::-1][:, :, :3],
    'take along': lambda x: jnp.take_along_axis(x, x.argmax(2)[:, :, None], 2),
    'take per image': lambda x: jax.vmap(lambda y, i: jnp.take(y, i, 0))(x, x[:, :, 0].argmax(1)[:, None]),
    'take pairs': lambda x: jax.vmap(lambda y: y[y[:, 0, 0].argmax(), y[0].argmax(0)])(x),
    'loop': grow,
    'platforms': lambda x: jax.lax.platform_dependent(x, tpu=jnp.sin, default=jnp.cos),
    'constants': lambda x: x + jnp.asarray(jnp.linalg.norm(WEIGHTS)) * jnp.sin(jnp.arange(4.0)),
    'switch': lambda x: jax.vmap(lambda i, y: jax.lax.switch(i, [jnp.sin, jnp.cos, jnp.tanh], y))(
        x[:, 0, :3, 0].argmax(1), x
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', FUNCTIONS)
def test_the_graph_computes_what_jax_does(name):
    function = lambda x: {'y': FUNCTIONS[name](x)}
    model = to_onnx(function, batch_spec((6, 8, 4), np.float32), 'x')
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    for batch in (1, 3):  # the graph is the same for every batch
        x = np.random.default_rng(batch).normal(size=(batch, 6, 8, 4)).astype(np.float32)
        (found,) = session.run(None, {'x': x})
        expected = np.asarray(function(x)['y'])
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ('function', 'words'),
    [
        (lambda x: jnp.sort(x, 1), 'the operation sort'),
        (lambda x: jax.lax.while_loop(lambda y: y.sum() > 1, lambda y: y / 2, x), 'a loop'),
        (lambda x: jax.lax.scan(lambda y, row: (y + row, None), x[:, 0], STACK[:, 0])[0], 'a loop'),
        (lambda x: jax.lax.scan(lambda y, _: (y + 1, y), x, length=3)[1], 'a loop'),
        (lambda x: jnp.fft.fft(x).real, 'fft of kind FFT'),
        (partial(jnp.cumsum, axis=1), 'the operation cumsum'),
        (lambda x: jax.lax.conv_transpose(x, KERNEL, (2, 2), 'SAME'), 'transposed'),
    ],
)
def test_what_has_no_rule_is_named(function, words):
    with pytest.raises(Unsupported, match=words):
        to_onnx(lambda x: {'y': function(x)}, batch_spec((6, 8, 4), np.float32), 'x')


def test_a_graph_keeps_only_what_its_outputs_need():
    def function(x):
        _ = jnp.sin(x) @ WEIGHTS
        return {'y': x + 1, 'z': x + 1}

    model = to_onnx(function, batch_spec((4,), np.float32), 'x')
    assert [node.op_type for node in model.graph.node] == ['Add', 'Identity', 'Identity']
    assert [tensor.dims for tensor in model.graph.initializer] == [[]]


def test_bias_and_relu6_join_their_convolution():
    """onnxruntime can then fuse them; the maps stay in its own layout."""
    function = lambda x: {'y': jnp.clip(x @ WEIGHTS + WEIGHTS[0], 0, 6)}
    model = to_onnx(function, batch_spec((6, 8, 4), np.float32), 'x')
    assert [node.op_type for node in model.graph.node] == ['Transpose', 'Conv', 'Transpose', 'Clip', 'Identity']
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 4)).astype(np.float32) * 3
    np.testing.assert_allclose(session.run(None, {'x': x})[0], function(x)['y'], rtol=1e-5, atol=1e-5)
