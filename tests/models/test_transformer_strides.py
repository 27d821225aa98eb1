"""Parts, scale mining and oriented pooling on maps of stride 14 and 16, against slow loops over the regions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_ssanet import CLASSES, SETTINGS, B, C, K, S, check_heads

from ssanet_jax.models import candidates, regions
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer
from ssanet_jax.models.ssanet import REGION_SIDE, SSANet, merge_model, split_model


@pytest.mark.slow
@pytest.mark.parametrize('patch, sharing', [(14, 'image'), (14, 'none'), (16, 'part')])
def test_regions_by_a_slow_loop(monkeypatch, patch, sharing):
    size, crop_size = 4 * patch, 7 * patch
    build = partial(VisionTransformer, C, 1, 2, patch_size=patch, positions='rotary')
    monkeypatch.setitem(BACKBONES, 'vit', build)
    settings = SETTINGS | dict(backbone='vit', sharing=sharing, crop_size=crop_size)
    network = lambda: SSANet(CLASSES, size, **settings, rngs=nnx.Rngs(0))
    params, stats = jax.jit(lambda: split_model(network())[1:])()
    # At the initial scale of its layers, a transformer's blocks have no effect.
    params['backbone']['blocks'] = jax.tree.map(lambda x: x + 0.3, params['backbone']['blocks'])
    graph, *_ = split_model(nnx.eval_shape(network))
    noise = np.random.default_rng(0).normal(size=(B, size // 2, size // 2, 3)).repeat(2, 1).repeat(2, 2)
    images = np.uint8(np.clip(128 + 50 * noise, 0, 255))
    outputs = jax.jit(lambda *x: merge_model(graph, *x[:2])(x[2], training=True))(params, stats, images)
    model = merge_model(graph, params, stats)
    read = jax.jit(lambda pixels: merge_model(graph, params, stats).backbone(pixels[None])[0])
    normalized = (images - np.array(model.mean)) / np.array(model.std)
    cut = jax.jit(lambda x, box: regions.resample(x, box[None], crop_size)[0])
    # The first cell of a map is the first patch, whose center is half a patch from the border.
    align = jax.jit(
        lambda maps, box: regions.resample(maps, box[None], REGION_SIDE, patch, 2, center=patch / 2, clamp=True)[0]
    )

    def region_map(b, box):
        if sharing == 'image':
            return align(read(normalized[b]), box)
        if sharing == 'none':
            return read(cut(normalized[b], box))
        crop = largest[b, *np.round(np.array(box), 2).tolist()]
        corner, side = np.tile(crop[:2], 2), np.tile(crop[2:] - crop[:2], 2)
        return align(read(cut(normalized[b], jnp.asarray(crop))), (box - corner) * crop_size / side)

    largest = {}  # image number and box -> the crop that it is cut from
    for b in range(B):
        for scales in np.array(candidates.scale_candidates(outputs.boxes[b, :K], S, 2 ** (1 / 3))):
            largest |= {(b, *np.round(box, 2).tolist()): scales[-1] for box in scales}
        for box in np.array(outputs.boxes[b, K:]):
            middle = np.tile((box[:2] + box[2:]) / 2, 2)
            largest[b, *np.round(box, 2).tolist()] = middle + (box - middle) * 2 ** (1 / 3)
    check_heads(model, outputs, region_map)
