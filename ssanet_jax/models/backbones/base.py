"""What every backbone offers."""

from typing import NamedTuple

import jax


class Level(NamedTuple):
    """One map of a backbone, and where its cells lie: plain numbers, unless a compiled function returned them.

    One centre serves both axes: images are square.
    """

    map: jax.Array  # [B, h, w, C]
    stride: int  # pixels from one cell to the next
    centre: float  # the input's pixel over which the first cell is centred


def is_dilated(output_stride: int, stride: int) -> bool:
    """Whether a backbone with this stride is asked for half of it.

    Raises:
      ValueError: it is asked for something else.
    """
    if output_stride not in (0, stride, stride // 2):
        raise ValueError(f'output_stride must be {stride} or {stride // 2}; got {output_stride}')
    return output_stride == stride // 2
