"""Memory of programs whose memory is known."""

import jax
import jax.numpy as jnp

from benchmarks.memory import Memory, memory_of

KIB = 2**10


def compiled(function, *shapes, **options):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function, **options).lower(*shapes).compile()


def test_peak():
    assert Memory(arguments=100, results=30, temporary=7, reused=20).peak == 117


def test_arguments_and_results_of_a_product():
    memory = memory_of(compiled(jnp.matmul, (64, 128), (128, 32)))
    assert (memory.arguments, memory.results, memory.reused) == (4 * (64 * 128 + 128 * 32), 4 * 64 * 32, 0)
    assert memory.peak == memory.arguments + memory.results + memory.temporary


def test_a_donated_argument_counts_once():
    step = lambda weights, gradient: weights - gradient
    shape = (16, KIB)
    kept = memory_of(compiled(step, shape, shape))
    donated = memory_of(compiled(step, shape, shape, donate_argnums=0))
    assert kept.peak == 3 * 64 * KIB
    assert donated.reused == 64 * KIB and donated.peak == 2 * 64 * KIB


def test_an_intermediate_array_is_temporary():
    twice = lambda x: (x @ x.T) @ x  # [KIB, KIB] in between
    memory = memory_of(compiled(twice, (KIB, 2)))
    assert 4 * KIB * KIB <= memory.temporary < 2 * 4 * KIB * KIB
