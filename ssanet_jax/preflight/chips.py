"""The accelerators that preflight knows, and the slices and boxes that they come in."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssanet_jax.errors import UserError

GIB = 2**30
_TERA, _GIGA = 1e12, 1e9
# Share of a GPU's memory that a JAX process takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise
# (https://docs.jax.dev/en/latest/gpu_memory_allocation.html).
GPU_SHARE = 0.75
GPUS_A_HOST = 8


class Chip(NamedTuple):
    """One device, as its maker describes it; rates are dense (without sparsity) peaks.

    Where a spec gives the sum of both directions of a link, half of it stands here.
    """

    name: str
    kind: str  # 'tpu' or 'gpu'
    memory: float  # bytes, of the whole chip
    available: float  # bytes, of it for a program
    bfloat16: float  # FLOP/s
    float32: float  # FLOP/s of float32 arrays at JAX's default precision, which is `float32_units`
    float32_units: str
    bandwidth: float  # bytes/s, of its memory
    link: float  # bytes/s one way: of one of a TPU's links, or of a GPU to the others in its host
    network: float = 0.0  # bytes/s one way of a GPU to other hosts; 0 is not known
    dimensions: int = 0  # of a TPU's torus
    most: int = 0  # chips of the largest slice
    clock: float = 0.0  # Hz, of a TPU's cores; 0 is not known
    latency: float = 0.0  # s, of one hop between neighbours; 0 is not known
    source: str = ''


_BOOK = 'https://jax-ml.github.io/scaling-book'
_PASSES = 'bfloat16 passes'
_HOP = 1e-6  # "typically around 1us", _BOOK/sharding


def _tpu(name, memory, available, flops, bandwidth, link, dimensions, most, clock, page) -> Chip:
    # float32 products take one bfloat16 pass on a TPU, unless jax_default_matmul_precision asks for more.
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
        most=most,
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


_A100 = f'NVIDIA A100 datasheet (SXM), by way of glennklockwood.com/garden/processors/A100; links: {_BOOK}/gpus'
_H100 = f'NVIDIA H100 specification (SXM), by way of glennklockwood.com/garden/processors/h100; links: {_BOOK}/gpus'
_H200 = f'as H100, with 141 GB at 4.8 TB/s: {_BOOK}/gpus; network: docs.nvidia.com/dgx-basepod'
_B200 = (
    'NVIDIA HGX and DGX B200 (1,440 GB of 8), by way of glennklockwood.com/garden/processors/B200; links: '
    f'{_BOOK}/gpus; network: docs.nvidia.com/dgx-basepod'
)
_L4 = 'NVIDIA L4 specification (242 and 120 TFLOPS with sparsity halved, PCIe 4.0 x16 at 64 GB/s both ways)'
_T4 = 'NVIDIA T4 specification (PCIe 3.0 x16 at 32 GB/s both ways); its tensor cores know neither bfloat16 nor TF32'

# Per chip: GiB of memory; GiB for a program, which is what libtpu 0.0.52 names when one does not fit; TFLOP/s;
# GB/s of memory; GB/s of a link, one way; sides of its torus; chips of the largest slice;
# GHz, at which its 128 x 128 matrix units (of v6e the pages differ on how many) make up the FLOP/s.
# Per GPU: GB; TFLOP/s of bfloat16 and of float32, and how; GB/s of memory; GB/s within a host; GB/s between hosts.
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
# Slices of one host or more that Cloud TPU offers of the chips with a two-dimensional torus.
_FLAT_SLICES = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')


class Topology(NamedTuple):
    """Devices of one kind that train together."""

    name: str  # as it was asked for
    chip: Chip
    shape: tuple[int, ...]  # of a TPU slice, or (number of GPUs,)

    @property
    def devices(self) -> int:
        """Number of chips; JAX takes each for one device."""
        return math.prod(self.shape)

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Per side of a slice, whether its ends are linked (scaling-book, "TPU Networking")."""
        if self.chip.dimensions == 2:
            return tuple(side == 16 for side in self.shape)
        return (all(side % 4 == 0 for side in self.shape),) * len(self.shape)

    def hosts(self, devices: Sequence[Any]) -> int:
        """Number of hosts that the devices are in; a `jax.Device` of a TPU slice knows its own."""
        if self.chip.kind == 'gpu':
            return -(-self.devices // GPUS_A_HOST)
        return len({device.process_index for device in devices})

    def rate(self, group: int) -> float:
        """Bytes/s at which each device of a group sends, all of them at once.

        A group of all devices of a slice uses its links along every side, a smaller one those along one side.
        """
        if self.chip.kind == 'gpu':
            # Between hosts the GPUs of each share its network, and each sends a part of what is reduced in it.
            between = GPUS_A_HOST * self.chip.network
            return self.chip.link if self.devices <= GPUS_A_HOST else min(self.chip.link, between)
        ways = [2 if wraps else 1 for side, wraps in zip(self.shape, self.wraps) if side > 1]
        return self.chip.link * (sum(ways) if group == self.devices else 1)

    def hops(self, group: int) -> float:
        """Longest way between two devices of a group, in links; 0 for GPUs."""
        if self.chip.kind == 'gpu':
            return 0
        if group < self.devices:
            return group - 1
        return sum(side / 2 if wraps else side - 1 for side, wraps in zip(self.shape, self.wraps))


def parse_topology(text: str) -> Topology:
    """Reads 'v5e:4x4', a TPU slice, or 'gpu:h100x8', GPUs.

    Raises:
      UserError: it is neither, the chip is not known, or has no such slice.
    """
    name, _, shape = text.partition(':')
    known = {kind: ', '.join(chip.name for chip in CHIPS.values() if chip.kind == kind) for kind in ('tpu', 'gpu')}
    if name == 'gpu':
        match = re.fullmatch(r'(.+)x(\d+)', shape)
        name, count = (match[1], int(match[2])) if match else (shape, 1)
        if name not in CHIPS or CHIPS[name].kind != 'gpu':
            raise UserError(f'--topology={text}: no such GPU is known here; give gpu:NAMExCOUNT with {known["gpu"]}')
        return _checked_gpus(Topology(text, CHIPS[name], (count,)))
    if name not in CHIPS or CHIPS[name].kind != 'tpu':
        raise UserError(
            f'--topology={text}: no such chip is known here; give a TPU slice of {known["tpu"]}, such as v5e:4x4, or '
            'GPUs, such as gpu:h100x8'
        )
    if not re.fullmatch(r'\d+(x\d+)*', shape):
        raise UserError(f'--topology={text}: say which slice of {name}, such as {example(CHIPS[name])}')
    return _checked_slice(Topology(text, CHIPS[name], tuple(int(side) for side in shape.split('x'))))


def _checked_gpus(topology: Topology) -> Topology:
    count, chip = topology.devices, topology.chip
    if count < 1 or (count > GPUS_A_HOST and count % GPUS_A_HOST):
        raise UserError(
            f'--topology={topology.name}: give 1 to {GPUS_A_HOST} GPUs, or of several hosts a multiple of {GPUS_A_HOST}'
        )
    if count > GPUS_A_HOST and not chip.network:
        raise UserError(
            f'--topology={topology.name}: how fast hosts with {chip.name} are linked is not known; give at most '
            f'{GPUS_A_HOST} of them'
        )
    return topology


def _checked_slice(topology: Topology) -> Topology:
    chip, shape = topology.chip, topology.shape
    wrong = f'--topology={topology.name}: {chip.name} has no slice {"x".join(map(str, shape))}'
    if len(shape) != chip.dimensions:
        raise UserError(f'{wrong}: give {chip.dimensions} sides, such as {example(chip)}')
    if chip.dimensions == 2 and 'x'.join(map(str, sorted(shape))) not in _FLAT_SLICES:
        raise UserError(f'{wrong}: choose from {", ".join(_FLAT_SLICES)}')
    if not 1 <= topology.devices <= chip.most:
        raise UserError(f'{wrong}: the largest has {chip.most} chips')
    return topology


def example(chip: Chip) -> str:
    """A slice of a TPU chip, as --topology takes it."""
    return f'{chip.name}:{"2x4" if chip.dimensions == 2 else "2x2x1"}'
