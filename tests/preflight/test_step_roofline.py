"""The roofline, against times computed by hand."""

import pytest

from ssanet_jax.preflight.chips import parse_topology
from ssanet_jax.preflight.collectives import Collective
from ssanet_jax.preflight.compilation import CompiledStep, Memory
from ssanet_jax.preflight.roofline import roofline


def test_roofline_by_hand():
    memory = Memory(1, 1, 1, 1, 1)
    step = CompiledStep(
        memory, 1.97e12, 8.19e9, [Collective('all-reduce', 10**9, 16), Collective('all-gather', 16, 16)]
    )
    times = roofline(step, parse_topology('v5e:4x4'), 'float32')
    assert times.compute == pytest.approx(0.01) and times.memory == pytest.approx(0.01)
    # 2 x 15/16 GB at 100 GB/s; the gather is so small that its time is six hops of a microsecond.
    assert times.collectives == pytest.approx(0.01875 + 6e-6)
    assert times.step == pytest.approx(0.028756) and times.efficiency == pytest.approx(0.01 / 0.028756)
    # A kernel time of 1.5e7 cycles at 1.5 GHz.
    estimated = roofline(step._replace(cycles=1.5e7), parse_topology('v5e:4x4'), 'float32')
    assert estimated.compiler_step == pytest.approx(0.028756) and estimated.step == times.step
    # Float32 runs as TF32 on an H100, at half the rate of bfloat16.
    h100 = parse_topology('gpu:h100x8')
    single = roofline(step, h100, 'float32')
    assert single.compute == pytest.approx(1.97e12 / 494.7e12)
    assert roofline(step, h100, 'bfloat16').compute == pytest.approx(single.compute / 2)
    assert single.collectives == pytest.approx((2 * 15 / 16 * 1e9 + 15) / 450e9)


def test_one_device_has_perfect_efficiency():
    assert (
        roofline(CompiledStep(Memory(1, 1, 1, 1, 1), 1e9, 1e9, []), parse_topology('v5e:1x1'), 'float32').efficiency
        == 1
    )
