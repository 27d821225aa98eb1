"""Analysis of a configuration: memory grows with the batch, and the largest batch was compiled."""

import jax

from ssanet_jax.preflight import analysis
from ssanet_jax.preflight.chips import parse_topology


def test_memory_and_work_grow_with_the_batch(tiny_config):
    tiny_config.stages = tiny_config.stages[1:2]  # the smallest program
    topology = parse_topology('gpu:h100')
    topology = topology._replace(chip=topology.chip._replace(available=3 * 2**20))
    tried = []
    found = analysis.analyze(
        tiny_config,
        16,
        4,
        topology,
        jax.devices()[:1],
        largest=True,
        on_start=lambda stage, images: tried.append(images),
        on_end=lambda *_: None,
    )
    (stage,) = found.stages
    assert tried[0] == 4 and len(set(tried)) == len(tried) <= 2 + analysis.TRIES
    assert stage.fit.per_image > 3 * 64 * 64 * 3  # three batches of bytes, before anything is computed
    assert stage.result.collectives == []
    assert found.largest.stage == 'oriented_pooling' and found.largest.batch in tried
    assert found.fits == (stage.total <= 3 * 2**20)
