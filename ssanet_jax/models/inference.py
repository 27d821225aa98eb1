"""Optimization of a trained network for prediction: values that depend only on its weights are precomputed."""

from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.batch_norm import fold_norms
from ssanet_jax.models.backbones.depthwise import DepthwiseConv
from ssanet_jax.models.ssanet import SSANet


def optimize_for_inference(model: SSANet) -> SSANet:
    """A copy of a network that makes the same predictions with fewer operations.

    BatchNorm is folded into the convolutions, the filters of the backbone are cast to its computation dtype, the
    filters of scale mining are replaced by their spectrum, and the weights of oriented pooling are transposed. The
    copy cannot be trained, and its `split_model` parts do not fit those of the original.

    Args:
      model: a trained network; it is not changed.
    """
    model = nnx.clone(model)
    model.eval()
    backbone = cast(nnx.Module, model.backbone)  # the protocol cannot say that every backbone is an NNX module
    fold_norms(backbone, jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32))
    for _, module in nnx.iter_modules(backbone):
        if isinstance(module, nnx.Conv | nnx.Linear | DepthwiseConv):
            module.kernel.set_value(module.kernel[...].astype(module.dtype))
    model.scale_mining.precompute_spectrum()
    model.oriented_pooling.transpose_weights()
    return model
