"""What preflight found, for a reader and as JSON."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from ssanet_jax.preflight import estimate, hlo
from ssanet_jax.preflight.chips import GIB, Topology
from ssanet_jax.preflight.examine import Report, Stage
from ssanet_jax.preflight.program import Program

_BLANK = '-'


class _Row(NamedTuple):
    label: str
    cell: Callable[[Stage], str] | None = None  # None for a heading
    overflowed: bool = False  # whether there is something to say of a step that does not compile


def table(report: Report) -> Table:
    """One column a stage; memory, work and times are those of one device."""
    result = Table(box=box.SIMPLE_HEAD, show_edge=False)
    result.add_column(f'batch {report.batch}, a device', no_wrap=True)
    for stage in report.stages:
        result.add_column(stage.name.replace('_', '_\n'), justify='right', no_wrap=True)
    for row in _rows(report):
        if row.cell is None:
            result.add_section()
            result.add_row(row.label, style='bold')
        else:
            cells = [row.cell(stage) if row.overflowed or stage.compiled else _BLANK for stage in report.stages]
            result.add_row(f'  {row.label}', *cells)
    return result


def _rows(report: Report) -> Iterator[_Row]:
    available, is_tpu = report.topology.chip.available, report.topology.chip.kind == 'tpu'
    yield _Row('memory')
    yield _Row('parameters', lambda stage: binary(stage.result.memory.parameters))
    yield _Row('optimiser', lambda stage: binary(stage.result.memory.optimizer))
    yield _Row('activations', lambda stage: _split(stage, report)[0])
    yield _Row('temporary', lambda stage: _split(stage, report)[1])
    yield _Row('batch, statistics', lambda stage: binary(stage.result.memory.inputs))
    if is_tpu:
        yield _Row('program', lambda stage: binary(stage.result.memory.code))
    yield _Row('total', lambda stage: _mark(_total(stage), stage.total <= available), True)
    fits = lambda stage: _mark('fits' if stage.total <= available else 'does not fit', stage.total <= available)
    yield _Row(f'of {binary(available)}', fits, True)

    yield _Row('work in a step')
    yield _Row('FLOPs', lambda stage: decimal(stage.result.flops, ''))
    yield _Row('memory traffic', lambda stage: decimal(stage.result.bytes, 'B'))
    for kind in dict.fromkeys(kind for stage in report.stages for kind in _collectives(stage)):
        counted = lambda stage, kind=kind: _collectives(stage).get(kind, (0, 0))
        yield _Row(kind, lambda stage, counted=counted: binary(counted(stage)[1]) if counted(stage)[0] else _BLANK)
        yield _Row('  how many', lambda stage, counted=counted: str(counted(stage)[0] or _BLANK))

    yield _Row('time, at least')
    yield _Row('compute', lambda stage: duration(stage.roofline.compute))
    yield _Row('memory traffic', lambda stage: duration(stage.roofline.memory))
    yield _Row('collectives', lambda stage: duration(stage.roofline.collectives))
    yield _Row('step', lambda stage: duration(stage.roofline.step))

    yield _Row('all devices')
    yield _Row('images/s, at most', lambda stage: f'{report.batch / stage.roofline.step:,.0f}')
    yield _Row('scaling efficiency', lambda stage: f'{stage.roofline.efficiency:.0%}')
    if any(stage.compiled and stage.roofline.kernels for stage in report.stages):
        yield _Row('by the compiler')
        yield _Row('kernels', lambda stage: duration(stage.roofline.kernels))
        yield _Row('images/s', lambda stage: f'{report.batch / stage.roofline.reckoned:,.0f}')
        yield _Row('scaling efficiency', lambda stage: f'{stage.roofline.reckoned_efficiency:.0%}')


def notes(report: Report) -> list[str]:
    """What the reader of the table must know, a line each."""
    topology, chip = report.topology, report.topology.chip
    rate, units = estimate.peak(topology, report.dtype)
    links = f', {decimal(topology.rate(topology.devices), "B/s")} to the others' if topology.devices > 1 else ''
    lines = [
        (
            f'Times at least: at the peak of {decimal(rate, "FLOP/s")} ({units}), {decimal(chip.bandwidth, "B/s")} of '
            f'memory{links}, with no collective hidden behind other work.'
        ),
    ]
    if chip.kind == 'gpu':
        lines.append(
            'Estimates for GPUs: memory, traffic and collectives are those of the step compiled for CPU devices '
            f'instead; no latency. JAX takes {chip.available / chip.memory:.0%} of {binary(chip.memory)} by default.'
        )
    lines.append(f'{chip.name}: {chip.source}.')
    if report.largest:
        lines.append(_largest(report))
    return lines


def verdict(report: Report) -> str:
    """One line: 'fits: 9.1 of 15.8 GiB a device at batch 96', or that it does not, with the stage."""
    tight = report.tightest
    used = f'{tight.total / GIB:.1f}' if tight.total > 0.1 * GIB else binary(tight.total)
    if not math.isfinite(tight.total):
        used = 'more than all'
    line = f'{used} of {report.topology.chip.available / GIB:.1f} GiB a device at batch {report.batch}'
    if report.fits:
        return f'fits: {line}'
    line = f'does not fit: {line}, in stage {tight.name}'
    if report.largest:
        line += f'; batch {report.largest.batch} fits' if report.largest.batch else '; no batch was found to fit'
    return line


def numbers(report: Report) -> dict[str, Any]:
    """The report as JSON: bytes, FLOPs and seconds; null where the compiler did not say."""
    chip = report.topology.chip
    rate, units = estimate.peak(report.topology, report.dtype)
    return {
        'topology': report.topology.name,
        'devices': report.topology.devices,
        'chip': chip._asdict(),
        'estimated': chip.kind == 'gpu',
        'batch': report.batch,
        'peak': {'flops_per_second': rate, 'units': units},
        'fits': report.fits,
        'largest': report.largest and report.largest._asdict(),
        'stages': {stage.name: _stage_numbers(stage, report) for stage in report.stages},
        'verdict': verdict(report),
    }


def describe_devices(topology: Topology) -> str:
    """Such as 'v5e:4x4 (16 x TPU v5e)'."""
    kind = f'TPU {topology.chip.name}' if topology.chip.kind == 'tpu' else topology.chip.name.upper()
    return f'{topology.name} ({topology.devices} x {kind})'


def binary(size: float) -> str:
    """Bytes of memory: '9.1 GiB'."""
    for unit, name in ((GIB, 'GiB'), (2**20, 'MiB'), (2**10, 'KiB')):
        if size >= unit:
            return f'{size / unit:.1f} {name}' if size < 100 * unit else f'{size / unit:.0f} {name}'
    return f'{size:.0f} B'


def decimal(value: float, unit: str) -> str:
    """A rate or an amount of work: '3.4 TFLOP'."""
    for scale, prefix in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if value >= scale:
            return f'{value / scale:.4g} {prefix}{unit}'
    return f'{value:.4g} {unit}'


def duration(seconds: float) -> str:
    """'3.02 ms'."""
    return f'{seconds * 1e3:.3g} ms' if seconds >= 1e-3 else f'{seconds * 1e6:.3g} us'


def _stage_numbers(stage: Stage, report: Report) -> dict[str, Any]:
    result: dict[str, Any] = {'total_bytes': stage.total if math.isfinite(stage.total) else None}
    if not stage.compiled:
        return result
    made, times = stage.result, stage.roofline
    grows = estimate.activations(made.memory.temporary, stage.line, report.batch)
    reckoned = {'step': times.reckoned, 'efficiency': times.reckoned_efficiency} if times.kernels else None
    return result | {
        'memory': made.memory._asdict() | {'activations': grows},
        'flops': made.flops,
        'bytes': made.bytes,
        'collectives': {kind: {'count': n, 'bytes': size} for kind, (n, size) in _collectives(stage).items()},
        'sent_bytes': sum(collective.times * collective.sent for collective in made.collectives),
        'seconds': times._asdict() | {'step': times.step},
        'images_per_second': report.batch / times.step,
        'efficiency': times.efficiency,
        'by_compiler': reckoned,
    }


def _collectives(stage: Stage) -> dict[str, tuple[int, int]]:
    return hlo.totals(stage.result.collectives) if isinstance(stage.result, Program) else {}


def _split(stage: Stage, report: Report) -> tuple[str, str]:
    """Activations and the rest of the temporary memory; the former unknown where one batch was tried."""
    temporary = stage.result.memory.temporary
    grows = estimate.activations(temporary, stage.line, report.batch)
    return (_BLANK, binary(temporary)) if grows is None else (binary(grows), binary(temporary - grows))


def _largest(report: Report) -> str:
    largest = report.largest
    if largest.batch:
        each = largest.batch // report.topology.devices
        line = f'Largest batch found to fit: {largest.batch} ({each} a device)'
    else:
        line = 'No batch was found to fit'
    line += f', compiled for {largest.stage}, the tightest stage'
    return f'{line}; {largest.too_large} does not fit.' if largest.too_large else f'{line}.'


def _total(stage: Stage) -> str:
    if not math.isfinite(stage.total):
        return 'too much'
    return binary(stage.total) if stage.compiled else f'> {binary(stage.total)}'


def _mark(text: str, good: bool) -> str:
    return f'[{"green" if good else "red"}]{text}[/]'
