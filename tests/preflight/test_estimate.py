"""Estimates: times by hand, and the largest batch against memory that grows in a known way."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.preflight import estimate
from ssanet_jax.preflight.chips import parse_topology
from ssanet_jax.preflight.hlo import Collective
from ssanet_jax.preflight.program import Memory, Program


def test_roofline_by_hand():
    memory = Memory(1, 1, 1, 1, 1)
    step = Program(memory, 1.97e12, 8.19e9, [Collective('all-reduce', 10**9, 16), Collective('all-gather', 16, 16)])
    times = estimate.roofline(step, parse_topology('v5e:4x4'), 'float32')
    assert times.compute == pytest.approx(0.01) and times.memory == pytest.approx(0.01)
    # 2 x 15/16 GB at 100 GB/s; the gather is so small that it takes six hops of a microsecond.
    assert times.collectives == pytest.approx(0.01875 + 6e-6)
    assert times.step == pytest.approx(0.028756) and times.efficiency == pytest.approx(0.01 / 0.028756)
    # A kernel time of 1.5e7 cycles at 1.5 GHz.
    reckoned = estimate.roofline(step._replace(cycles=1.5e7), parse_topology('v5e:4x4'), 'float32')
    assert reckoned.reckoned == pytest.approx(0.028756) and reckoned.step == times.step
    # Float32 runs as TF32 on an H100, at half the rate of bfloat16.
    h100 = parse_topology('gpu:h100x8')
    single = estimate.roofline(step, h100, 'float32')
    assert single.compute == pytest.approx(1.97e12 / 494.7e12)
    assert estimate.roofline(step, h100, 'bfloat16').compute == pytest.approx(single.compute / 2)
    assert single.collectives == pytest.approx((2 * 15 / 16 * 1e9 + 15) / 450e9)


def test_one_device_has_perfect_efficiency():
    assert (
        estimate.roofline(Program(Memory(1, 1, 1, 1, 1), 1e9, 1e9, []), parse_topology('v5e:1x1'), 'float32').efficiency
        == 1
    )


@settings(deadline=None)
@given(
    fixed=st.floats(0.01, 0.5),
    images=st.integers(1, 20_000),
    power=st.floats(1, 2),
    start=st.integers(1, 64),
    silent=st.booleans(),
    unit=st.integers(1, 32),
)
def test_the_largest_batch_is_found(fixed, images, power, start, silent, unit):
    """Memory that grows as a power of the batch, and a compiler that may not say by how much it is exceeded."""
    need = lambda n: fixed + (1 - fixed) * (n / images) ** power
    measure = lambda n: math.inf if silent and need(n) > 1 else need(n)
    points = {start: measure(start), 2 * start: measure(2 * start)}
    most, over = estimate.largest_batch(points, 1.0, unit, measure, tries=60)
    assert images * 0.9 - unit <= most <= images
    assert over is None or over > images


def test_a_line_is_found_in_two_tries():
    points = {4: 3.0, 8: 4.0}  # 2 + n / 4: 55 fit in 15.75
    assert estimate.fit_line(points) == (2.0, 0.25)
    assert estimate.largest_batch(points, 15.75, 1, lambda n: 2 + n / 4, tries=2)[0] == 55
    assert estimate.activations(100, estimate.Line(2, 10), 4) == 40
    assert estimate.activations(30, estimate.Line(2, 10), 4) == 30
    assert estimate.largest_batch({8: 5.0}, 4.0, 8, lambda n: 5.0, tries=3) == (0, 8)
