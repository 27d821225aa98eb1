"""The backbones that tests build one by one: of those that differ in size only, the small ones."""

from ssanet_jax.models.backbones.registry import BACKBONES

_LARGER = ('convnext_base', 'convnext_large')
_TRANSFORMERS = ('vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3')
NAMES = [name for name in BACKBONES if name in _TRANSFORMERS or not name.startswith(('vit_', *_LARGER))]
