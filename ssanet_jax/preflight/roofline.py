"""A lower bound of a step's time: its FLOPs, bytes and collectives at the peak rates of the devices."""

from typing import NamedTuple

from ssanet_jax.preflight.chips import Topology
from ssanet_jax.preflight.collectives import Collective
from ssanet_jax.preflight.compilation import CompiledStep


class Roofline(NamedTuple):
    """Seconds of a step; the first three are lower bounds, at the device's peak rates.

    After Williams, Waterman, Patterson: "Roofline: An Insightful Visual Performance Model for Multicore
    Architectures", CACM 2009, with the links between devices as a third roof.
    """

    compute: float  # all FLOPs at the peak rate
    memory: float  # all bytes at the peak rate
    collectives: float  # all collectives, one after the other
    kernels: float = 0.0  # the TPU compiler's estimate for all kernels, one after the other; 0 if it gives none

    @property
    def single_device(self) -> float:
        """Seconds of the step on one device that does not communicate."""
        return max(self.compute, self.memory)

    @property
    def step(self) -> float:
        """Seconds of the step if no collective overlaps with other work."""
        return self.single_device + self.collectives

    @property
    def efficiency(self) -> float:
        """Scaling efficiency: the speed of a device that communicates over that of one that does not, in (0, 1]."""
        return self.single_device / self.step if self.step else 1.0

    @property
    def compiler_step(self) -> float:
        """`step` with the compiler's estimate for the kernels."""
        return self.kernels + self.collectives

    @property
    def compiler_efficiency(self) -> float:
        """`efficiency` with the compiler's estimate for the kernels."""
        return self.kernels / self.compiler_step if self.compiler_step else 1.0


def roofline(step: CompiledStep, topology: Topology, dtype: str) -> Roofline:
    """The roofline of a step.

    Args:
      step: the step on one device.
      topology: the devices.
      dtype: `config.model.dtype`, which decides the type of most products.
    """
    return Roofline(
        step.flops / peak_flops(topology, dtype)[0],
        step.bytes / topology.chip.bandwidth,
        sum(collective.count * collective_seconds(collective, topology) for collective in step.collectives),
        step.cycles / topology.chip.clock if topology.chip.clock else 0.0,
    )


def peak_flops(topology: Topology, dtype: str) -> tuple[float, str]:
    """Peak FLOP/s of a device for arrays of a dtype at JAX's default precision, and the units that reach it."""
    chip = topology.chip
    return (chip.bfloat16, 'bfloat16') if dtype == 'bfloat16' else (chip.float32, chip.float32_units)


def collective_seconds(collective: Collective, topology: Topology) -> float:
    """Seconds of one collective: the time of its bytes at the rate of the links, or the latency if that is larger.

    Austin et al., "How to Scale Your Model", part 3: T = max(hops * latency, bytes / rate). An all-reduce crosses the
    devices twice.
    """
    passes = 2 if collective.kind == 'all-reduce' else 1
    hops = 1 if collective.kind == 'collective-permute' else topology.hops(collective.group)
    return max(
        passes * hops * topology.chip.latency,
        collective.sent / topology.rate(collective.group),
    )
