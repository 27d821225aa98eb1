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
