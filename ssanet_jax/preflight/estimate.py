"""From what a step takes to how long it may take, and to the largest batch that fits."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ssanet_jax.preflight.chips import Topology
from ssanet_jax.preflight.hlo import Collective
from ssanet_jax.preflight.program import Overflow, Program

CLOSE = 0.05  # how near to the largest batch is near enough
_LEAP = 16  # one guess is at most so many times the last: memory may grow faster than a line


class Roofline(NamedTuple):
    """Seconds of a step: the first three are what the device needs at its peak rates, and never less.

    After Williams, Waterman, Patterson: "Roofline: An Insightful Visual Performance Model for Multicore
    Architectures", CACM 2009, with the links of the devices as a third roof.
    """

    compute: float  # all FLOPs at the peak rate
    memory: float  # all bytes at the peak rate
    collectives: float  # all collectives, one after the other
    kernels: float = 0.0  # all kernels one after the other, as TPU's compiler reckons; 0 where it does not say

    @property
    def alone(self) -> float:
        """Of one device with the same images of its own."""
        return max(self.compute, self.memory)

    @property
    def step(self) -> float:
        """Of a step that hides none of its collectives behind other work."""
        return self.alone + self.collectives

    @property
    def efficiency(self) -> float:
        """Share of a device's speed that is left when it trains with the others, in (0, 1]."""
        return self.alone / self.step if self.step else 1.0

    @property
    def reckoned(self) -> float:
        """Of a step as TPU's compiler reckons, again with no collective hidden."""
        return self.kernels + self.collectives

    @property
    def reckoned_efficiency(self) -> float:
        """`efficiency` by these times."""
        return self.kernels / self.reckoned if self.reckoned else 1.0


def roofline(program: Program, topology: Topology, dtype: str) -> Roofline:
    """The roofline of a step.

    Args:
      program: of a device.
      topology: the devices.
      dtype: `config.model.dtype`, which says which products most FLOPs are.
    """
    return Roofline(
        program.flops / peak(topology, dtype)[0],
        program.bytes / topology.chip.bandwidth,
        sum(collective.times * seconds(collective, topology) for collective in program.collectives),
        program.cycles / topology.chip.clock if topology.chip.clock else 0.0,
    )


def peak(topology: Topology, dtype: str) -> tuple[float, str]:
    """FLOP/s of a device for arrays of a dtype at JAX's default precision, and of which units."""
    chip = topology.chip
    return (chip.bfloat16, 'bfloat16') if dtype == 'bfloat16' else (chip.float32, chip.float32_units)


def seconds(collective: Collective, topology: Topology) -> float:
    """Time of one collective: its bytes at the rate of the links, or the way that the first byte goes.

    Austin et al., "How to Scale Your Model", part 3: T = max(hops * latency, bytes / rate); a reduction of
    the whole array goes twice.
    """
    ways = 2 if collective.kind == 'all-reduce' else 1
    hops = 1 if collective.kind == 'collective-permute' else topology.hops(collective.group)
    return max(
        ways * hops * topology.chip.latency,
        collective.sent / topology.rate(collective.group),
    )


class Line(NamedTuple):
    """Bytes on a device as a function of the images of all: `fixed + image * images`."""

    fixed: float
    image: float

    def images(self, available: float) -> int:
        """The most images for which the line stays within so many bytes."""
        if self.image <= 0:
            return 0
        return max(math.floor((available - self.fixed) / self.image), 0)


def fit_line(points: Mapping[int, float]) -> Line | None:
    """The line through the two largest batches whose bytes are known; None with fewer."""
    known = sorted((images, total) for images, total in points.items() if math.isfinite(total))
    if len(known) < 2:
        return None
    (few, less), (many, more) = known[-2:]
    slope = max((more - less) / (many - few), 0.0)
    return Line(less - slope * few, slope)


def activations(temporary: int, line: Line | None, images: int) -> int | None:
    """The part of a step's temporary bytes that grows with the batch; None where that was not measured."""
    return None if line is None else int(min(line.image * images, temporary))


def second_guess(result: Program | Overflow, batch: int, available: float, unit: int) -> int:
    """A batch to try after the first: towards what would fit if all temporary memory grew with the batch.

    Args:
      result: of the first batch.
      batch: the first.
      available: bytes on a device.
      unit: batches to try are multiples of it.
    """
    if isinstance(result, Overflow) or result.memory.total > available:
        return _rounded(batch // 4, unit)
    fixed = result.memory.total - result.memory.temporary
    full = batch * (available - fixed) / max(result.memory.temporary, 1)
    return _rounded(min(max(0.9 * full, batch + unit), _LEAP * batch), unit)


def next_guess(points: Mapping[int, float], available: float, unit: int) -> int | None:
    """A batch to try next for the largest that fits; None when it is found.

    Args:
      points: batch -> bytes on a device, of all tried so far, at least one.
      available: bytes on a device.
      unit: batches to try are multiples of it.
    """
    fits, over = bounds(points, available)
    if over is None:
        if points[fits] > (1 - CLOSE) * available:
            return None
        line = fit_line(points)
        guess = line.images(available) if line and line.image else 2 * fits
        guess = min(guess, _LEAP * fits)
    elif over - fits <= max(unit, CLOSE * fits):
        return None
    elif not fits:
        guess = over // 4
    else:
        share = 0.5
        if math.isfinite(points[over]):  # a line between the two on logarithmic paper, which any power of the batch is
            share = math.log(available / points[fits]) / math.log(points[over] / points[fits])
        guess = min(max(fits * (over / fits) ** share, fits + unit), over - 1)
    guess = _rounded(guess, unit)
    return guess if fits < guess < (over or math.inf) else None


def bounds(points: Mapping[int, float], available: float) -> tuple[int, int | None]:
    """The largest batch tried that fits (0: none does), and the smallest that does not."""
    over = min((batch for batch, total in points.items() if total > available), default=None)
    return max((b for b, total in points.items() if total <= available and (not over or b < over)), default=0), over


def largest_batch(
    points: dict[int, float], available: float, unit: int, measure: Callable[[int], float], tries: int
) -> tuple[int, int | None]:
    """Looks for the largest batch that fits.

    Args:
      points: batch -> bytes on a device, of what was tried so far; what is tried now is added.
      available: bytes on a device.
      unit: batches to try are multiples of it.
      measure: batch -> bytes on a device.
      tries: calls of `measure` at most.

    Returns:
      The largest batch that was tried and fits (0: none does), and the smallest that does not.
    """
    for _ in range(tries):
        guess = next_guess(points, available, unit)
        if guess is None:
            break
        points[guess] = measure(guess)
    return bounds(points, available)


def _rounded(batch: float, unit: int) -> int:
    return max(int(batch) // unit, 1) * unit


def total_bytes(result: Program | Overflow) -> float:
    """Bytes that a step takes on each device, at least."""
    return result.memory.total if isinstance(result, Program) else result.total
