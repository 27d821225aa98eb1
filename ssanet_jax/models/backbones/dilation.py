"""Layers at twice the resolution that they were trained at, with the same weights ("à trous").

Where a stage no longer steps, every filter behind it must reach twice as far to see what it saw before. Instead
of dilating each filter, the map is dealt out into its four phases (even and odd rows and columns), each of which
has the spacing that the layers know, and gathered again at the end. Holschneider et al., "A real-time algorithm
for signal analysis with the help of the wavelet transform", 1989; for networks that recognise: Yu et al.,
"Dilated Residual Networks", CVPR 2017.
"""

from collections.abc import Callable, Iterable

import jax


def a_trous(layers: Iterable[Callable[[jax.Array], jax.Array]], x: jax.Array) -> jax.Array:
    """Passes each phase of a map through layers that keep its size.

    Equals the layers with every filter dilated by 2, zeros outside the map included.

    Args:
      layers: each `[B, h, w, C] -> [B, h, w, C']`.
      x: `[B, H, W, C]`, H and W even.

    Returns:
      `[B, H, W, C']`. Its cells [::2, ::2] are what the layers make of `x[:, ::2, ::2]`.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    x = x.transpose(0, 2, 4, 1, 3, 5).reshape(4 * batch, height // 2, width // 2, channels)  # [4B, H/2, W/2, C]
    for layer in layers:
        x = layer(x)
    x = x.reshape(batch, 2, 2, height // 2, width // 2, -1)
    return x.transpose(0, 3, 1, 4, 2, 5).reshape(batch, height, width, -1)  # [B, H, W, C']
