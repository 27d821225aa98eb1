"""The compiled step: FLOPs computed by hand, shapes without weights, and the memory of a step that does not fit."""

import math
from inspect import signature

import jax
import pytest

from configs import common
from ssanet_jax.distributed import sharding
from ssanet_jax.preflight import compilation
from ssanet_jax.preflight.chips import GIB


def test_memory_of_a_step_that_does_not_fit():
    message = (
        'RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO '
        'temporaries (230.25G) exceeds available HBM (15.75G).'
    )
    assert compilation.bytes_required(message) == 230.25 * GIB
    assert compilation.bytes_required('Ran out of memory in memory space hbm. Used 16.5G of 15.75G hbm.') == 16.5 * GIB
    assert compilation.bytes_required('RESOURCE_EXHAUSTED') == math.inf


def test_flops_of_resnet18():
    """1.81 GMAC per image of 224 pixels (He et al., CVPR 2016, table 1: 1.8e9), and twice that backward.

    The image needs no gradient, which leaves out the first convolution's: 7 x 7 x 3 x 64 x 112 x 112 products.
    """
    config = common.get_config()
    config.stages = common.global_pooling()
    config.data.update(image_size=224, resize=224)
    config.model.backbone = 'resnet18'
    step = compilation.make_step(config, 0, 1000, 2, compilation.make_mesh(config, 2, jax.devices()[:1]))
    result = step.run.trace(step.state, step.batch).lower(lowering_platforms=('cuda',)).cost_analysis()
    by_hand = 2 * 2 * (3 * 1.81e9 - 49 * 3 * 64 * 112**2)
    assert result['flops'] == pytest.approx(by_hand, rel=0.1)


def test_number_of_prefetched_batches():
    assert signature(sharding.prefetch_to_device).parameters['size'].default == compilation.PREFETCHED


def test_no_weights_are_created():
    """Weights of a large network would take seconds, and memory."""
    config = common.get_config()
    config.model.backbone = 'resnet34'
    config.stages = config.stages[:1]
    step = compilation.make_step(config, 0, 200, 8, compilation.make_mesh(config, 8, jax.devices()[:1]))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(step.state))
