"""How near prediction comes to what this machine could do at best.

    python -m benchmarks.floor --batch=1 --batch=16     # ResNet-50 at 448, in the three ways, and the bare backbone

The floor of a program is max(FLOPs / matrix rate, bytes / copy rate). FLOPs and bytes are the compiler's count of
the program that ran (`compiled.cost_analysis()`); the rates are measured in the same turns as the networks: a large
matrix product in float32 at JAX's default precision (on accelerators in bfloat16 too, for information: the networks
compute in float32), and a copy of a large array into memory that is already there, which reads and writes each byte
once. The fraction reached is the floor over the measured time.

What the numbers are not:

* Bytes are the sum over the kernels of what each reads and writes. What one leaves in a cache for the next counts as
  if it went through memory, so the floor by bytes is too high where maps fit into a cache, as those of one image do.
  Some backends count before they fuse kernels; then it is much too high. A fraction above 1 says so.
* FLOPs are those of the plain algorithm. A library that multiplies less (Winograd's convolution) can beat the floor,
  and what a backend calls by name alone, or repeats in a loop, it may count as nothing or once: then it is too low.
* A matrix product of this size is the best case. No network is one.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from rich.table import Table

from benchmarks import alone, sharing
from benchmarks.alone import setting
from benchmarks.comparisons import Comparison, Findings, machine, milliseconds
from ssanet_jax.experiments.timing import Say, Timed, silent, take_turns

MATRIX, COPY, BFLOAT16 = 'matrix product, float32', 'copy', 'matrix product, bfloat16'


@dataclasses.dataclass(frozen=True)
class Settings(sharing.Settings):
    """What is compared, and with what."""

    side: int = setting(0, 'Side of the matrices; 0: 2048 on a CPU, 8192 elsewhere.', least=0)
    copied: int = setting(0, 'Size of the array that is copied, MiB; 0: 256 on a CPU, 1024 elsewhere.', least=0)


class Rates(NamedTuple):
    """What the machine does at best."""

    matrix: float  # FLOP/s
    copy: float  # bytes/s, read and written


class Floor(NamedTuple):
    """The least time of a program, by either rate, seconds."""

    compute: float
    memory: float

    @property
    def seconds(self) -> float:
        """The higher of the two."""
        return max(self.compute, self.memory)

    @property
    def bound(self) -> str:
        """Which of the two it is."""
        return 'compute' if self.compute >= self.memory else 'memory'


def floor(cost: Mapping[str, float], rates: Rates) -> Floor | None:
    """The floor of a program, from what `cost_analysis` says of it; None where that says nothing."""
    if not cost.get('flops') or not cost.get('bytes accessed'):
        return None
    return Floor(cost['flops'] / rates.matrix, cost['bytes accessed'] / rates.copy)


def measure(settings: Settings, say: Say = silent) -> Findings:
    """The networks as `sharing` compares them, and each against its floor."""
    probes, works = machine_rates(settings)
    table = Table('batch', 'what', title='Floor', caption=machine(), caption_justify='left')
    for name in sharing.NETWORKS:
        table.add_column(name, justify='right')
    found, figures = [], []
    for batch in settings.batch:
        programs = sharing.load_all(settings, batch, say)
        runs = {name: program.run for name, program in programs.items()}
        times = take_turns(runs | probes, sharing.rounds_at(settings, batch), say)
        speeds = {name: works[name] / times[name] for name in probes}
        rates = Rates(speeds[MATRIX], speeds[COPY])
        floors = {name: floor(program.cost, rates) for name, program in programs.items()}
        found += sharing.comparisons(times, _plain(settings), batch)
        found += [_compared(name, times[name], floors[name], settings, batch) for name in programs]
        costs = {name: program.cost for name, program in programs.items()}
        _add(table, batch, costs, floors, times, speeds)
        figures.append({'batch': batch, 'rates': speeds} | _figures(costs, floors, times))
    return Findings(found, table, figures)


def machine_rates(settings: Settings) -> tuple[dict[str, Timed], dict[str, float]]:
    """What measures the machine: competitors, and the FLOPs or bytes of one call of each."""
    host = jax.default_backend() == 'cpu'
    side = settings.side or (2048 if host else 8192)
    size = (settings.copied or (256 if host else 1024)) * 2**20
    probes: dict[str, Timed] = {MATRIX: _product(side, jnp.float32), COPY: _copy(size)}
    works = {MATRIX: 2.0 * side**3, COPY: 2.0 * size}
    if not host:
        probes[BFLOAT16], works[BFLOAT16] = _product(side, jnp.bfloat16), works[MATRIX]
    return probes, works


def _product(side: int, dtype: jnp.dtype) -> Timed:
    a, b = (jax.random.normal(jax.random.key(seed), (side, side)).astype(dtype) for seed in (0, 1))
    multiply = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(multiply(a, b))


def _copy(size: int) -> Timed:
    # The result takes the place of the one before: fresh memory would have to be had from the system page by page.
    into = jax.jit(lambda x, old: jnp.copy(x), donate_argnums=1, keep_unused=True)
    source = jnp.ones((size // 4,), jnp.float32)
    target = jnp.zeros_like(source)

    def once() -> jax.Array:
        nonlocal target
        target = jax.block_until_ready(into(source, target))
        return target

    return once


def _compared(name: str, seconds: float, least: Floor | None, settings: Settings, batch: int) -> Comparison:
    where = str(sharing.size_of(settings, batch))
    command = alone.command_line('floor', dataclasses.replace(settings, batch=(batch,)))
    if least is None:
        return Comparison(name, 'its floor', where, command, remark='the compiler does not count its FLOPs and bytes')
    remark = f'{100 * least.seconds / seconds:.0f} % of the {least.bound} rate reached'
    details = {'floor_compute': least.compute, 'floor_memory': least.memory}
    return Comparison(name, 'its floor', where, command, (seconds, least.seconds), None, remark, details)


def _add(table, batch, costs, floors, times, speeds) -> None:
    """The rows of one batch; a column a network."""

    def row(what: str, cell: Callable[[str], str]) -> None:
        table.add_row('', what, *map(cell, sharing.NETWORKS))

    known = lambda name, text: text(floors[name]) if floors[name] else ''
    table.add_section()
    rates = f'{speeds[MATRIX] / 1e9:.4g} GFLOP/s float32, '
    if BFLOAT16 in speeds:
        rates += f'{speeds[BFLOAT16] / 1e9:.4g} GFLOP/s bfloat16, '
    table.add_row(str(batch), f'measured rates: {rates}{speeds[COPY] / 1e9:.3g} GB/s')
    row('GFLOP', lambda name: f'{costs[name].get("flops", 0) / 1e9:.4g}')
    row('GB to and from memory', lambda name: f'{costs[name].get("bytes accessed", 0) / 1e9:.3g}')
    row('floor by FLOPs', lambda name: known(name, lambda least: milliseconds(least.compute)))
    row('floor by bytes', lambda name: known(name, lambda least: milliseconds(least.memory)))
    row('measured', lambda name: milliseconds(times[name]))
    row('fraction reached', lambda name: known(name, lambda least: f'{least.seconds / times[name]:.2f}'))


def _figures(costs, floors, times) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            'flops': cost.get('flops'),
            'bytes': cost.get('bytes accessed'),
            'seconds': times[name],
            'floor_compute': floors[name] and floors[name].compute,
            'floor_memory': floors[name] and floors[name].memory,
            'fraction': floors[name] and floors[name].seconds / times[name],
        }
        for name, cost in costs.items()
    }


def _plain(settings: Settings) -> sharing.Settings:
    names = [field.name for field in dataclasses.fields(sharing.Settings)]
    return sharing.Settings(**{name: getattr(settings, name) for name in names})


if __name__ == '__main__':
    alone.run('floor', Settings, measure)
