"""Search for the largest batch that fits, with few compilations."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ssanet_jax.preflight.compilation import CompiledStep, OutOfMemory

TOLERANCE = 0.05  # relative distance to the largest batch at which the search ends
_MAX_GROWTH = 16  # largest ratio of successive guesses: memory may grow faster than linearly


class MemoryFit(NamedTuple):
    """Bytes on a device as a linear function of the global batch size: `fixed + per_image * batch`."""

    fixed: float
    per_image: float

    def max_batch(self, available: float) -> int:
        """The largest batch that needs at most `available` bytes."""
        if self.per_image <= 0:
            return 0
        return max(math.floor((available - self.fixed) / self.per_image), 0)


def fit_memory(points: Mapping[int, float]) -> MemoryFit | None:
    """The line through the two largest batches with known memory; None with fewer.

    Args:
      points: batch -> bytes on a device; infinity where unknown.
    """
    known = sorted((batch, total) for batch, total in points.items() if math.isfinite(total))
    if len(known) < 2:
        return None
    (small, small_total), (large, large_total) = known[-2:]
    slope = max((large_total - small_total) / (large - small), 0.0)
    return MemoryFit(small_total - slope * small, slope)


def activation_bytes(temporary: int, fit: MemoryFit | None, batch: int) -> int | None:
    """The part of a step's temporary bytes that grows with the batch; None if that was not measured."""
    return None if fit is None else int(min(fit.per_image * batch, temporary))


def second_guess(result: CompiledStep | OutOfMemory, batch: int, available: float, multiple: int) -> int:
    """The batch to try after the first: close to what would fit if all temporary memory grew with the batch.

    Args:
      result: result of the first batch.
      batch: the first batch.
      available: bytes on a device.
      multiple: all batches to try are multiples of it.
    """
    if isinstance(result, OutOfMemory) or result.memory.total > available:
        return _rounded(batch // 4, multiple)
    fixed = result.memory.total - result.memory.temporary
    full = batch * (available - fixed) / max(result.memory.temporary, 1)
    return _rounded(min(max(0.9 * full, batch + multiple), _MAX_GROWTH * batch), multiple)


def next_guess(points: Mapping[int, float], available: float, multiple: int) -> int | None:
    """The batch to try next; None when the search is over.

    Args:
      points: batch -> bytes on a device, of all batches tried so far, at least one.
      available: bytes on a device.
      multiple: all batches to try are multiples of it.
    """
    fits, too_large = bounds(points, available)
    if too_large is None:
        if points[fits] > (1 - TOLERANCE) * available:
            return None
        fit = fit_memory(points)
        guess = fit.max_batch(available) if fit and fit.per_image else 2 * fits
        guess = min(guess, _MAX_GROWTH * fits)
    elif too_large - fits <= max(multiple, TOLERANCE * fits):
        return None
    elif not fits:
        guess = too_large // 4
    else:
        share = 0.5
        if math.isfinite(points[too_large]):  # log-log interpolation, exact for any power of the batch
            share = math.log(available / points[fits]) / math.log(points[too_large] / points[fits])
        guess = min(max(fits * (too_large / fits) ** share, fits + multiple), too_large - 1)
    guess = _rounded(guess, multiple)
    return guess if fits < guess < (too_large or math.inf) else None


def bounds(points: Mapping[int, float], available: float) -> tuple[int, int | None]:
    """The largest batch tried that fits (0 if none does), and the smallest that does not."""
    too_large = min((batch for batch, total in points.items() if total > available), default=None)
    fits = [batch for batch, total in points.items() if total <= available and (not too_large or batch < too_large)]
    return max(fits, default=0), too_large


def largest_batch(
    points: dict[int, float], available: float, multiple: int, measure: Callable[[int], float], tries: int
) -> tuple[int, int | None]:
    """Searches for the largest batch that fits.

    Args:
      points: batch -> bytes on a device, of the batches tried so far; new ones are added.
      available: bytes on a device.
      multiple: all batches to try are multiples of it.
      measure: batch -> bytes on a device.
      tries: maximum number of calls of `measure`.

    Returns:
      The largest batch tried that fits (0 if none does), and the smallest that does not.
    """
    for _ in range(tries):
        guess = next_guess(points, available, multiple)
        if guess is None:
            break
        points[guess] = measure(guess)
    return bounds(points, available)


def _rounded(batch: float, multiple: int) -> int:
    return max(int(batch) // multiple, 1) * multiple
