"""The compiled step: FLOPs computed by hand, shapes without weights, and the memory of a step that does not fit."""

import json
import math
from functools import partial
from inspect import signature

import jax
import pytest
from commands import run_python

from configs import common
from ssanet_jax.distributed import sharding
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer
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


def test_flops_of_a_vision_transformer(monkeypatch):
    """Per token, 12 width^2 products of the layers of a block, and 2 width per other token in attention."""
    width, depth, tokens, patch = 256, 2, 1 + 14**2, 16
    build = partial(VisionTransformer, width, depth, 4, patch_size=patch, positions='rotary')
    monkeypatch.setitem(BACKBONES, 'vit', build)
    config = common.get_config()
    config.stages = common.global_pooling()
    config.data.update(image_size=224, resize=224)
    config.model.backbone = 'vit'
    step = compilation.make_step(config, 0, 10, 2, compilation.make_mesh(config, 2, jax.devices()[:1]))
    result = step.run.trace(step.state, step.batch).lower(lowering_platforms=('cuda',)).cost_analysis()
    blocks = depth * tokens * (12 * width**2 + 2 * tokens * width)
    patches = (tokens - 1) * 3 * patch**2 * width  # of which the images need no gradient
    assert result['flops'] == pytest.approx(2 * 2 * (3 * blocks + 2 * patches), rel=0.05)


CROPS = """
import json
import sys

sys.path += ['tests', '.']
import jax

jax.config.update('jax_num_cpu_devices', 2)
import tiny_config

from ssanet_jax.preflight.analysis import analyze
from ssanet_jax.preflight.chips import parse_topology

config = tiny_config.get_config()
config.model.update(sharing='none', crop_size=56)
config.stages = config.stages[1:2]  # the backbone is frozen: no backward pass
config.stages[0].train.proposals = 0.2
nothing = lambda *_: None
found = {}
for name in ('h100x1', 'h100x2'):
    topology = parse_topology(f'gpu:{name}')
    devices = jax.devices()[: topology.devices]
    report = analyze(config, 16, 8, topology, devices, largest=False, on_start=nothing, on_end=nothing)
    found[name] = report.stages[0].result.flops
print(json.dumps(found))
"""


@pytest.mark.slow
def test_each_of_two_gpus_has_half_of_the_work():
    """Also of the crops, which each device passes through the backbone for itself (`candidate_map`)."""
    done = run_python(('-c', CROPS))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found['h100x2'] == pytest.approx(found['h100x1'] / 2, rel=0.01)


def test_number_of_prefetched_batches():
    assert signature(sharding.prefetch_to_device).parameters['size'].default == compilation.PREFETCHED


def test_no_weights_are_created():
    """Weights of a large network would take seconds, and memory."""
    config = common.get_config()
    config.model.backbone = 'resnet34'
    config.stages = config.stages[:1]
    step = compilation.make_step(config, 0, 200, 8, compilation.make_mesh(config, 8, jax.devices()[:1]))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(step.state))
