"""The floor: the arithmetic, the compiler's count on a known program, and what measures the machine."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import floor
from benchmarks.floor import Floor, Rates
from benchmarks.programs import Program

RATES = Rates(matrix=100e9, copy=10e9)


@pytest.mark.parametrize(
    'flops, bytes_, seconds, bound',
    [
        (200e9, 1e9, 2.0, 'compute'),  # 2 s of products, 0.1 s of copies
        (10e9, 5e9, 0.5, 'memory'),  # 0.1 s of products, 0.5 s of copies
    ],
)
def test_floor_is_the_slower_of_both_rates(flops, bytes_, seconds, bound):
    least = floor.floor({'flops': flops, 'bytes accessed': bytes_}, RATES)
    assert (least.seconds, least.bound) == (pytest.approx(seconds), bound)


@pytest.mark.parametrize('cost', [{}, {'flops': 1.0}, {'bytes accessed': 1.0}, {'flops': 0.0, 'bytes accessed': 1.0}])
def test_without_a_count_there_is_no_floor(cost):
    assert floor.floor(cost, RATES) is None
    row = floor._compared('image', 1.0, None, floor.Settings(), 1)
    assert row.ratio is None and 'does not count' in row.remark


def test_comparison_says_what_is_reached():
    row = floor._compared('image', 0.8, Floor(compute=0.2, memory=0.1), floor.Settings(), 16)
    assert row.seconds == (0.8, 0.2) and row.ratio == pytest.approx(4)
    assert row.remark == '25 % of the compute rate reached'
    assert row.command == 'python -m benchmarks.floor --batch=16'


def test_cost_of_a_product():
    a, b = jnp.ones((8, 16)), jnp.ones((16, 4))
    compiled = jax.jit(jnp.matmul).lower(a, b).compile()
    cost = Program(lambda: None, compiled).cost
    assert cost['flops'] == 2 * 8 * 16 * 4
    assert cost['bytes accessed'] == 4 * (8 * 16 + 16 * 4 + 8 * 4)


def test_probes_do_the_work_that_they_are_credited_with():
    probes, works = floor.machine_rates(floor.Settings(side=32, copied=1))
    assert works[floor.MATRIX] == 2 * 32**3 and works[floor.COPY] == 2 * 2**20
    assert probes[floor.MATRIX]().shape == (32, 32)
    copies = [probes[floor.COPY]() for _ in range(2)]
    assert copies[0].is_deleted()  # its place was used again
    assert copies[1].nbytes == 2**20 and bool((copies[1] == 1).all())  # the zeros have been written over
