"""Dilated ("atrous") convolution of a stage, with unchanged weights and unchanged layers.

If a stage does not downsample, each filter behind that step must reach twice as far to see the cells that it was
trained on. Instead of dilating each filter, `a_trous` splits the map into its four phases (even and odd rows and
columns), whose cells have the spacing that the layers were trained at, and interleaves the results.

Holschneider et al., "A real-time algorithm for signal analysis with the help of the wavelet transform", 1989
(the "algorithme à trous"); in recognition networks: Yu et al., "Dilated Residual Networks", CVPR 2017.
"""

from collections.abc import Callable, Iterable

import jax


def a_trous(layers: Iterable[Callable[[jax.Array], jax.Array]], x: jax.Array) -> jax.Array:
    """Applies layers to each of the four phases of a map: atrous convolution with dilation 2.

    The result equals that of the same layers with every filter dilated by 2 and zero padding.

    Args:
      layers: each `[B, h, w, C] -> [B, h, w, C']`.
      x: `[B, H, W, C]`, H and W even.

    Returns:
      `[B, H, W, C']`. Its cells `[::2, ::2]` are the layers' result for `x[:, ::2, ::2]`.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    x = x.transpose(0, 2, 4, 1, 3, 5).reshape(4 * batch, height // 2, width // 2, channels)  # [4B, H/2, W/2, C]
    for layer in layers:
        x = layer(x)
    x = x.reshape(batch, 2, 2, height // 2, width // 2, -1)
    return x.transpose(0, 3, 1, 4, 2, 5).reshape(batch, height, width, -1)  # [B, H, W, C']
