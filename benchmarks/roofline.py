"""How close prediction comes to the roofline of this machine.

    python -m benchmarks.roofline --batch=1 --batch=16     # ResNet-50 at 448, all values of `sharing`, and the backbone

The roofline time of a program is max(FLOPs / matrix rate, bytes / copy rate). FLOPs and bytes are the compiler's count
for the program that ran (`compiled.cost_analysis()`). The rates are measured, interleaved with the networks: a large
matrix product at JAX's default precision, in the type of the networks (`--dtype`; on accelerators always also in
bfloat16, for information), and a copy of a large array into preallocated memory, which reads and writes each byte once.
The fraction reached is the roofline time over the measured time.

Limitations:

* Bytes are the sum over all kernels of what each reads and writes. Data that stays in a cache between two kernels is
  counted as memory traffic, so the bound by bytes is too high where maps fit into a cache, as those of one image do.
  Some backends count before kernels are fused, and the bound is much too high. A fraction above 1 indicates this.
* FLOPs are those of the direct algorithm. A library that multiplies less (Winograd convolution) can beat the bound.
  Custom calls may count as nothing, and the body of a loop only once: then the bound is too low.
* A matrix product of this size is the best case, which no network reaches.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from rich.table import Table

from benchmarks import runner, sharing
from benchmarks.comparisons import Comparison, Findings, machine, milliseconds
from benchmarks.runner import setting
from ssanet_jax.experiments.timing import Log, Workload, no_log, time_interleaved

MATRIX, COPY, BFLOAT16 = 'matrix product, float32', 'copy', 'matrix product, bfloat16'


@dataclasses.dataclass(frozen=True)
class Settings(sharing.Settings):
    """The sizes of the comparison."""

    side: int = setting(0, 'Side of the matrices; 0: 2048 on a CPU, 8192 elsewhere.', minimum=0)
    copied: int = setting(0, 'Size of the array that is copied, MiB; 0: 256 on a CPU, 1024 elsewhere.', minimum=0)


class Rates(NamedTuple):
    """The measured peak rates of the machine."""

    matrix: float  # FLOP/s
    copy: float  # bytes/s, reads and writes together


class Roofline(NamedTuple):
    """Lower bounds of a program's time, seconds."""

    compute: float
    memory: float

    @property
    def seconds(self) -> float:
        """The higher bound."""
        return max(self.compute, self.memory)

    @property
    def limit(self) -> str:
        """The rate that gives the higher bound."""
        return 'compute' if self.compute >= self.memory else 'memory'


def roofline(cost: Mapping[str, float], rates: Rates) -> Roofline | None:
    """The roofline of a program, from its `cost_analysis`; None if that lacks FLOPs or bytes."""
    if not cost.get('flops') or not cost.get('bytes accessed'):
        return None
    return Roofline(cost['flops'] / rates.matrix, cost['bytes accessed'] / rates.copy)


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The comparisons of `sharing`, and each network against its roofline."""
    probes, work = machine_probes(settings)
    table = Table('batch', 'quantity', title='Roofline', caption=machine(), caption_justify='left')
    for name in sharing.NETWORKS:
        table.add_column(name, justify='right')
    found, figures = [], []
    for batch in settings.batch:
        programs = sharing.load_all(settings, batch, log)
        runs = {name: program.run for name, program in programs.items()}
        times = time_interleaved(runs | probes, sharing.rounds_at(settings, batch), log)
        speeds = {name: work[name] / times[name] for name in probes}
        rates = Rates(speeds[BFLOAT16 if settings.dtype == 'bfloat16' else MATRIX], speeds[COPY])
        rooflines = {name: roofline(program.cost, rates) for name, program in programs.items()}
        found += sharing.comparisons(times, _sharing_settings(settings), batch)
        found += [_comparison(name, times[name], rooflines[name], settings, batch) for name in programs]
        costs = {name: program.cost for name, program in programs.items()}
        _add(table, batch, costs, rooflines, times, speeds)
        figures.append({'batch': batch, 'rates': speeds} | _figures(costs, rooflines, times))
    return Findings(found, table, figures)


def machine_probes(settings: Settings) -> tuple[dict[str, Workload], dict[str, float]]:
    """Workloads that measure the machine's rates, and the FLOPs or bytes of one call of each."""
    host = jax.default_backend() == 'cpu'
    side = settings.side or (2048 if host else 8192)
    size = (settings.copied or (256 if host else 1024)) * 2**20
    probes: dict[str, Workload] = {MATRIX: _product(side, jnp.float32), COPY: _copy(size)}
    work = {MATRIX: 2.0 * side**3, COPY: 2.0 * size}
    if not host or settings.dtype == 'bfloat16':
        probes[BFLOAT16], work[BFLOAT16] = _product(side, jnp.bfloat16), work[MATRIX]
    return probes, work


def _product(side: int, dtype: jnp.dtype) -> Workload:
    a, b = (jax.random.normal(jax.random.key(seed), (side, side)).astype(dtype) for seed in (0, 1))
    multiply = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(multiply(a, b))


def _copy(size: int) -> Workload:
    # Reuses the memory of the previous result: fresh memory would be allocated page by page.
    into = jax.jit(lambda x, old: jnp.copy(x), donate_argnums=1, keep_unused=True)
    source = jnp.ones((size // 4,), jnp.float32)
    target = jnp.zeros_like(source)

    def copy() -> jax.Array:
        nonlocal target
        target = jax.block_until_ready(into(source, target))
        return target

    return copy


def _comparison(name: str, seconds: float, bound: Roofline | None, settings: Settings, batch: int) -> Comparison:
    where = str(sharing.size_of(settings, batch))
    command = runner.command_line('roofline', dataclasses.replace(settings, batch=(batch,)))
    if bound is None:
        return Comparison(name, 'its roofline', where, command, remark='the compiler does not count FLOPs and bytes')
    remark = f'{bound.seconds / seconds:.0%} of the {bound.limit} rate reached'
    details = {'roofline_compute': bound.compute, 'roofline_memory': bound.memory}
    return Comparison(name, 'its roofline', where, command, (seconds, bound.seconds), None, remark, details)


def _add(table, batch, costs, rooflines, times, speeds) -> None:
    """Adds the rows of one batch; one column per network."""

    def row(quantity: str, cell: Callable[[str], str]) -> None:
        table.add_row('', quantity, *map(cell, sharing.NETWORKS))

    if_known = lambda name, text: text(rooflines[name]) if rooflines[name] else ''
    table.add_section()
    rates = f'{speeds[MATRIX] / 1e9:.4g} GFLOP/s float32, '
    if BFLOAT16 in speeds:
        rates += f'{speeds[BFLOAT16] / 1e9:.4g} GFLOP/s bfloat16, '
    table.add_row(str(batch), f'measured rates: {rates}{speeds[COPY] / 1e9:.3g} GB/s')
    row('GFLOP', lambda name: f'{costs[name].get("flops", 0) / 1e9:.4g}')
    row('GB of memory traffic', lambda name: f'{costs[name].get("bytes accessed", 0) / 1e9:.3g}')
    row('roofline by FLOPs', lambda name: if_known(name, lambda bound: milliseconds(bound.compute)))
    row('roofline by bytes', lambda name: if_known(name, lambda bound: milliseconds(bound.memory)))
    row('measured', lambda name: milliseconds(times[name]))
    row('fraction reached', lambda name: if_known(name, lambda bound: f'{bound.seconds / times[name]:.2f}'))


def _figures(costs, rooflines, times) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            'flops': cost.get('flops'),
            'bytes': cost.get('bytes accessed'),
            'seconds': times[name],
            'roofline_compute': rooflines[name] and rooflines[name].compute,
            'roofline_memory': rooflines[name] and rooflines[name].memory,
            'fraction': rooflines[name] and rooflines[name].seconds / times[name],
        }
        for name, cost in costs.items()
    }


def _sharing_settings(settings: Settings) -> sharing.Settings:
    names = [field.name for field in dataclasses.fields(sharing.Settings)]
    return sharing.Settings(**{name: getattr(settings, name) for name in names})


if __name__ == '__main__':
    runner.run('roofline', Settings, measure)
