"""The search for the largest batch, against memory that grows in a known way."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.preflight.batch_search import MemoryFit, activation_bytes, fit_memory, largest_batch


@settings(deadline=None)
@given(
    fixed=st.floats(0.01, 0.5),
    images=st.integers(1, 20_000),
    power=st.floats(1, 2),
    start=st.integers(1, 64),
    unspecific=st.booleans(),
    multiple=st.integers(1, 32),
)
def test_the_largest_batch_is_found(fixed, images, power, start, unspecific, multiple):
    """Memory grows as a power of the batch, and the compiler may not say by how much it is exceeded."""
    need = lambda n: fixed + (1 - fixed) * (n / images) ** power
    measure = lambda n: math.inf if unspecific and need(n) > 1 else need(n)
    points = {start: measure(start), 2 * start: measure(2 * start)}
    fits, too_large = largest_batch(points, 1.0, multiple, measure, tries=60)
    assert images * 0.9 - multiple <= fits <= images
    assert too_large is None or too_large > images


def test_linear_growth_is_found_in_two_tries():
    points = {4: 3.0, 8: 4.0}  # 2 + n / 4: 55 fit in 15.75
    assert fit_memory(points) == (2.0, 0.25)
    assert largest_batch(points, 15.75, 1, lambda n: 2 + n / 4, tries=2)[0] == 55
    assert activation_bytes(100, MemoryFit(2, 10), 4) == 40
    assert activation_bytes(30, MemoryFit(2, 10), 4) == 30
    assert largest_batch({8: 5.0}, 4.0, 8, lambda n: 5.0, tries=3) == (0, 8)
