"""The interface of a backbone: what the rest of the network relies on."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax

# Per channel, in 0..255: the statistics with which torchvision and timm normalize images.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


class Level(NamedTuple):
    """One map of a backbone and its geometry. Images are square, so one center serves both axes.

    `stride` and `center` are Python numbers, unless a compiled function returned them.
    """

    map: jax.Array  # [B, h, w, C]
    stride: int  # input pixels from one cell to the next
    center: float  # input pixel that the first cell describes, see `Backbone.center`
    token: jax.Array | None = None  # [B, C], the class token of a vision transformer, with the last map


class Backbone(Protocol):
    """A Flax NNX module that maps normalized images to feature maps.

    BatchNorm, if the family has it, is switched by `train()` and `eval()`, as in every NNX module. `mean`, `std` and
    `interpolation` must be attributes of the class: `pretrained.checkpoint_info` reads them without building a network.
    """

    num_features: int  # channels of the last map
    stride: int  # input pixels per cell of the last map
    dilated: bool  # whether `stride` is half of the backbone's usual one (see `dilation.py`)
    pyramid_features: tuple[int, ...]  # channels of each level of `pyramid`, finest first
    mean: tuple[float, float, float]  # in 0..255; the network expects (pixel - mean) / std
    std: tuple[float, float, float]  # in 0..255
    interpolation: str  # 'bilinear' or 'bicubic': how the images of the public weights were resized
    remat: bool  # whether the backward pass recomputes the blocks (see `remat.py`); False unless set from outside
    has_class_token: bool  # whether the last level has a `token`
    measured_centers: bool  # see `center`; True unless set from outside (`config.model.geometry`)

    def center(self, image_size: int) -> float:
        """The input pixel that the first cell of the last map describes, for square images of this size.

        Padding puts the receptive field's center somewhere, but trained filters may weigh one side of the field more
        and so move what a cell describes. Where that has been measured on trained weights, `measured_centers` counts
        it. False yields the center of the receptive field, as in version 0.1.0.

        To measure: `tests/models/backbones/test_centers.py` compares the maps of photos and of their mirror images.
        """
        ...

    def pyramid(self, images: jax.Array) -> list[Level]:
        """Float `[B, H, W, 3]`, normalized -> a level for each resolution, finest first.

        A level is the last map before a downsampling step of 2. The last level is the map that `__call__` returns.
        A dilated backbone has the same levels; its last two then have the same stride.
        """
        ...

    def __call__(self, images: jax.Array) -> jax.Array:
        """Float `[B, H, W, 3]`, normalized -> the last map `[B, H / stride, W / stride, num_features]`."""
        ...

    def layer_index(self, path: Sequence[str | int]) -> int:
        """The layer, from 0, that a parameter belongs to.

        A layer is all blocks of one resolution, as `layer4` of a ResNet, or one block of a vision transformer.

        Args:
          path: the keys of the parameter in the backbone's tree, such as `('blocks', 3, 'expand', 'kernel')`.
        """
        ...

    def train(self, **attributes: bool) -> None:
        """Switches to training mode: BatchNorm uses and updates the statistics of the batch."""
        ...

    def eval(self, **attributes: bool) -> None:
        """Switches to evaluation mode: BatchNorm uses its running statistics."""
        ...


def is_dilated(output_stride: int, stride: int) -> bool:
    """Whether `output_stride` asks for half of the backbone's usual stride.

    Args:
      output_stride: the requested stride in pixels; 0 means the usual one.
      stride: the backbone's usual stride in pixels.

    Raises:
      ValueError: `output_stride` is not 0, `stride` or `stride / 2`.
    """
    if output_stride not in (0, stride, stride // 2):
        raise ValueError(f'output_stride must be {stride} or {stride // 2}; got {output_stride}')
    return output_stride == stride // 2
