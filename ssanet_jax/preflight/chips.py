"""Specifications of the supported accelerators, and the slices and hosts in which they are available."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssanet_jax.errors import UserError

GIB = 2**30
_TERA, _GIGA = 1e12, 1e9
# Share of a GPU's memory that a JAX process allocates, unless XLA_PYTHON_CLIENT_MEM_FRACTION is set
# (https://docs.jax.dev/en/latest/gpu_memory_allocation.html).
GPU_SHARE = 0.75
GPUS_PER_HOST = 8


class Chip(NamedTuple):
    """The specification of one device; rates are dense (without sparsity) peaks.

    Link rates are one-way: half of the rate where the specification gives the sum of both directions.
    """

    name: str
    kind: str  # 'tpu' or 'gpu'
    memory: float  # bytes of the whole chip
    available: float  # bytes that a program can use
    bfloat16: float  # FLOP/s
    float32: float  # FLOP/s of float32 arrays at JAX's default precision
    float32_units: str  # the units that reach it
    bandwidth: float  # bytes/s of its memory
    link: float  # bytes/s one way: of one link of a TPU, or of a GPU to the others in its host
    network: float = 0.0  # bytes/s one way of a GPU to other hosts; 0: unknown
    dimensions: int = 0  # dimensions of a TPU's torus
    max_chips: int = 0  # chips in the largest slice
    clock: float = 0.0  # Hz of a TPU's cores; 0: unknown
    latency: float = 0.0  # s per hop between neighbors; 0: unknown
    source: str = ''


_BOOK = 'https://jax-ml.github.io/scaling-book'
_PASSES = 'bfloat16 passes'
_HOP = 1e-6  # "typically around 1us", _BOOK/sharding


def _tpu(name, memory, available, flops, bandwidth, link, dimensions, max_chips, clock, page) -> Chip:
    # On a TPU float32 products take one bfloat16 pass, unless jax_default_matmul_precision is higher.
    return Chip(
        name,
        'tpu',
        memory * GIB,
        available * GIB,
        flops * _TERA,
        flops * _TERA,
        _PASSES,
        bandwidth * _GIGA,
        link * _GIGA,
        dimensions=dimensions,
        max_chips=max_chips,
        clock=clock * _GIGA,
        latency=_HOP,
        source=f'https://cloud.google.com/tpu/docs/{page}; links: {_BOOK}/tpus',
    )


def _gpu(name, memory, bfloat16, float32, units, bandwidth, link, network, source) -> Chip:
    memory *= _GIGA
    return Chip(
        name,
        'gpu',
        memory,
        memory * GPU_SHARE,
        bfloat16 * _TERA,
        float32 * _TERA,
        units,
        bandwidth * _GIGA,
        link * _GIGA,
        network * _GIGA,
        source=source,
    )


_A100 = f'NVIDIA A100 datasheet (SXM), via glennklockwood.com/garden/processors/A100; links: {_BOOK}/gpus'
_H100 = f'NVIDIA H100 specification (SXM), via glennklockwood.com/garden/processors/h100; links: {_BOOK}/gpus'
_H200 = f'as H100, with 141 GB at 4.8 TB/s: {_BOOK}/gpus; network: docs.nvidia.com/dgx-basepod'
_B200 = (
    'NVIDIA HGX and DGX B200 (1,440 GB of 8), via glennklockwood.com/garden/processors/B200; links: '
    f'{_BOOK}/gpus; network: docs.nvidia.com/dgx-basepod'
)
_L4 = 'NVIDIA L4 specification (242 and 120 TFLOPS with sparsity halved, PCIe 4.0 x16 at 64 GB/s both ways)'
_T4 = 'NVIDIA T4 specification (PCIe 3.0 x16 at 32 GB/s both ways); its tensor cores support neither bfloat16 nor TF32'

# TPU: GiB of memory; GiB available to a program, as libtpu 0.0.52 reports it when a program does not fit; TFLOP/s;
# GB/s of memory; GB/s of a link, one way; dimensions of the torus; chips in the largest slice; GHz at which its
# 128 x 128 matrix units reach the FLOP/s (unknown for v6e: the sources disagree on the number of units).
# GPU: GB; TFLOP/s of bfloat16 and of float32, and its units; GB/s of memory; GB/s within a host; GB/s between hosts.
CHIPS = {
    chip.name: chip
    for chip in (
        _tpu('v4', 32, 30.75, 275, 1200, 45, 3, 4096, 1.05, 'v4'),
        _tpu('v5e', 16, 15.75, 197, 819, 50, 2, 256, 1.5, 'v5e'),
        _tpu('v5p', 95, 95.73, 459, 2765, 100, 3, 6144, 1.75, 'v5p'),
        _tpu('v6e', 32, 31.24, 918, 1600, 100, 2, 256, 0, 'v6e'),
        _gpu('a100-40', 40, 312, 156, 'TF32', 1555, 300, 25, _A100),
        _gpu('a100-80', 80, 312, 156, 'TF32', 2039, 300, 25, _A100),
        _gpu('h100', 80, 989.4, 494.7, 'TF32', 3350, 450, 50, _H100),
        _gpu('h200', 141, 989.4, 494.7, 'TF32', 4800, 450, 50, _H200),
        _gpu('b200', 180, 2250, 1100, 'TF32', 8000, 900, 50, _B200),
        _gpu('l4', 24, 121, 60, 'TF32', 300, 32, 0, _L4),
        _gpu('t4', 16, 8.1, 8.1, 'float32', 320, 16, 0, _T4),
    )
}
# Slices that Cloud TPU offers of the chips with a two-dimensional torus.
_2D_SLICES = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')


class Topology(NamedTuple):
    """Devices of one kind that train together."""

    name: str  # as the user gave it
    chip: Chip
    shape: tuple[int, ...]  # shape of a TPU slice, or (number of GPUs,)

    @property
    def devices(self) -> int:
        """Number of chips; each is one JAX device."""
        return math.prod(self.shape)

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Whether the ends of each side of a slice are linked (scaling-book, "TPU Networking")."""
        if self.chip.dimensions == 2:
            return tuple(side == 16 for side in self.shape)
        return (all(side % 4 == 0 for side in self.shape),) * len(self.shape)

    def hosts(self, devices: Sequence[Any]) -> int:
        """Number of hosts of these devices.

        Args:
          devices: the `jax.Device` objects of a TPU slice, which know their host; ignored for GPUs.
        """
        if self.chip.kind == 'gpu':
            return -(-self.devices // GPUS_PER_HOST)
        return len({device.process_index for device in devices})

    def rate(self, group: int) -> float:
        """Bytes/s at which each device of a group sends when all send at once.

        A group of all devices of a slice uses the links along every side, a smaller group those along one side.
        """
        if self.chip.kind == 'gpu':
            # The GPUs of a host share its network, and each sends a part of what the host has reduced.
            between_hosts = GPUS_PER_HOST * self.chip.network
            return self.chip.link if self.devices <= GPUS_PER_HOST else min(self.chip.link, between_hosts)
        links = [2 if wraps else 1 for side, wraps in zip(self.shape, self.wraps) if side > 1]
        return self.chip.link * (sum(links) if group == self.devices else 1)

    def hops(self, group: int) -> float:
        """Longest distance between two devices of a group, in links; 0 for GPUs."""
        if self.chip.kind == 'gpu':
            return 0
        if group < self.devices:
            return group - 1
        return sum(side / 2 if wraps else side - 1 for side, wraps in zip(self.shape, self.wraps))


def parse_topology(text: str) -> Topology:
    """Parses a TPU slice such as 'v5e:4x4', or GPUs such as 'gpu:h100x8'.

    Raises:
      UserError: for another format, an unknown chip, or a slice that the chip does not have.
    """
    name, _, shape = text.partition(':')
    known = {kind: ', '.join(chip.name for chip in CHIPS.values() if chip.kind == kind) for kind in ('tpu', 'gpu')}
    if name == 'gpu':
        match = re.fullmatch(r'(.+)x(\d+)', shape)
        name, count = (match[1], int(match[2])) if match else (shape, 1)
        if name not in CHIPS or CHIPS[name].kind != 'gpu':
            raise UserError(f'--topology={text}: unknown GPU; give gpu:NAMExCOUNT with {known["gpu"]}')
        return _checked_gpus(Topology(text, CHIPS[name], (count,)))
    if name not in CHIPS or CHIPS[name].kind != 'tpu':
        raise UserError(
            f'--topology={text}: unknown chip; give a TPU slice of {known["tpu"]}, such as v5e:4x4, or '
            'GPUs, such as gpu:h100x8'
        )
    if not re.fullmatch(r'\d+(x\d+)*', shape):
        raise UserError(f'--topology={text}: give a slice of {name}, such as {example(CHIPS[name])}')
    return _checked_slice(Topology(text, CHIPS[name], tuple(int(side) for side in shape.split('x'))))


def _checked_gpus(topology: Topology) -> Topology:
    count, chip = topology.devices, topology.chip
    if count < 1 or (count > GPUS_PER_HOST and count % GPUS_PER_HOST):
        raise UserError(
            f'--topology={topology.name}: give 1 to {GPUS_PER_HOST} GPUs, or for several hosts a multiple of '
            f'{GPUS_PER_HOST}'
        )
    if count > GPUS_PER_HOST and not chip.network:
        raise UserError(
            f'--topology={topology.name}: the network rate of hosts with {chip.name} is unknown; give at most '
            f'{GPUS_PER_HOST}'
        )
    return topology


def _checked_slice(topology: Topology) -> Topology:
    chip, shape = topology.chip, topology.shape
    wrong = f'--topology={topology.name}: {chip.name} has no slice {"x".join(map(str, shape))}'
    if len(shape) != chip.dimensions:
        raise UserError(f'{wrong}: give {chip.dimensions} sides, such as {example(chip)}')
    if chip.dimensions == 2 and 'x'.join(map(str, sorted(shape))) not in _2D_SLICES:
        raise UserError(f'{wrong}: choose from {", ".join(_2D_SLICES)}')
    if not 1 <= topology.devices <= chip.max_chips:
        raise UserError(f'{wrong}: the largest has {chip.max_chips} chips')
    return topology


def example(chip: Chip) -> str:
    """An example of a slice of a TPU chip, in the format of --topology."""
    return f'{chip.name}:{"2x4" if chip.dimensions == 2 else "2x2x1"}'
