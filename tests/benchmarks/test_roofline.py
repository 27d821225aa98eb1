"""The roofline: its arithmetic, the compiler's count for a known program, and the probes of the machine."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import roofline
from benchmarks.programs import Program
from benchmarks.roofline import Rates, Roofline

RATES = Rates(matrix=100e9, copy=10e9)


@pytest.mark.parametrize(
    'flops, bytes_, seconds, limit',
    [
        (200e9, 1e9, 2.0, 'compute'),  # 2 s of products, 0.1 s of copies
        (10e9, 5e9, 0.5, 'memory'),  # 0.1 s of products, 0.5 s of copies
    ],
)
def test_roofline_is_the_slower_of_both_rates(flops, bytes_, seconds, limit):
    bound = roofline.roofline({'flops': flops, 'bytes accessed': bytes_}, RATES)
    assert (bound.seconds, bound.limit) == (pytest.approx(seconds), limit)


@pytest.mark.parametrize('cost', [{}, {'flops': 1.0}, {'bytes accessed': 1.0}, {'flops': 0.0, 'bytes accessed': 1.0}])
def test_without_a_count_there_is_no_roofline(cost):
    assert roofline.roofline(cost, RATES) is None
    row = roofline._comparison('image', 1.0, None, roofline.Settings(), 1)
    assert row.ratio is None and 'does not count' in row.remark


def test_comparison_gives_the_fraction_reached():
    row = roofline._comparison('image', 0.8, Roofline(compute=0.2, memory=0.1), roofline.Settings(), 16)
    assert row.seconds == (0.8, 0.2) and row.ratio == pytest.approx(4)
    assert row.remark == '25% of the compute rate reached'
    assert row.command == 'python -m benchmarks.roofline --batch=16'


def test_cost_of_a_product():
    a, b = jnp.ones((8, 16)), jnp.ones((16, 4))
    compiled = jax.jit(jnp.matmul).lower(a, b).compile()
    cost = Program(lambda: None, compiled).cost
    assert cost['flops'] == 2 * 8 * 16 * 4
    assert cost['bytes accessed'] == 4 * (8 * 16 + 16 * 4 + 8 * 4)


def test_probes_do_the_stated_work():
    probes, work = roofline.machine_probes(roofline.Settings(side=32, copied=1))
    assert work[roofline.MATRIX] == 2 * 32**3 and work[roofline.COPY] == 2 * 2**20
    assert probes[roofline.MATRIX]().shape == (32, 32)
    copies = [probes[roofline.COPY]() for _ in range(2)]
    assert copies[0].is_deleted()  # its memory was reused
    assert copies[1].nbytes == 2**20 and bool((copies[1] == 1).all())  # the zeros were overwritten
