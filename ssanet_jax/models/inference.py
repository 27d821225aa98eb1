"""A trained network made ready to predict: what depends on its weights alone is computed once."""

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.batch_norm import fold_norms
from ssanet_jax.models.ssanet import SSANet


def optimize_for_inference(model: SSANet) -> SSANet:
    """The same predictions by fewer operations a call.

    BatchNorm is folded into the convolutions, the backbone's filters are rounded to the type that it computes in,
    scale mining has the spectrum of its weights, and oriented pooling has its own in the order that reads quickest.
    What comes out cannot be trained, nor given to `split_model` together with statistics of the old one.

    Args:
      model: a trained network; it stays as it is.
    """
    model = nnx.clone(model)
    model.eval()
    fold_norms(model.backbone, jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32))
    for _, module in nnx.iter_modules(model.backbone):
        if hasattr(module, 'kernel') and hasattr(module, 'dtype'):
            module.kernel.set_value(module.kernel[...].astype(module.dtype))
    model.scale_mining.transform()
    model.oriented_pooling.lay_out()
    return model
