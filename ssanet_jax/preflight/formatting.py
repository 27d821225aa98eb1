"""A preflight report as a table, notes, a verdict and JSON."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from ssanet_jax.preflight import collectives
from ssanet_jax.preflight.analysis import Report, StageReport
from ssanet_jax.preflight.batch_search import activation_bytes
from ssanet_jax.preflight.chips import GIB, Topology
from ssanet_jax.preflight.compilation import CompiledStep
from ssanet_jax.preflight.roofline import Roofline, peak_flops

_BLANK = '-'


class _Row(NamedTuple):
    label: str
    cell: Callable[[StageReport], str | Text] | None = None  # None for a heading


def table(report: Report) -> Table:
    """One column per stage; memory, work and times are per device."""
    result = Table(box=box.SIMPLE_HEAD, show_edge=False)
    result.add_column(f'batch {report.batch}, per device', no_wrap=True)
    for stage in report.stages:
        result.add_column(stage.name.replace('_', '_\n'), justify='right', no_wrap=True)
    for row in _rows(report):
        if row.cell is None:
            result.add_section()
            result.add_row(row.label, style='bold')
        else:
            result.add_row(f'  {row.label}', *map(row.cell, report.stages))
    return result


def _of_step(text: Callable[[CompiledStep], str]) -> Callable[[StageReport], str]:
    """A cell about the compiled step; blank if it does not compile."""
    return lambda stage: text(stage.result) if isinstance(stage.result, CompiledStep) else _BLANK


def _of_times(text: Callable[[Roofline], str]) -> Callable[[StageReport], str]:
    """A cell about the roofline; blank if the step does not compile."""
    return lambda stage: text(stage.roofline) if stage.roofline else _BLANK


def _rows(report: Report) -> Iterator[_Row]:
    yield from _memory_rows(report)
    yield from _work_rows(report)
    yield from _time_rows(report)


def _memory_rows(report: Report) -> Iterator[_Row]:
    available = report.topology.chip.available
    yield _Row('memory')
    yield _Row('parameters', _of_step(lambda step: binary(step.memory.parameters)))
    yield _Row('optimizer', _of_step(lambda step: binary(step.memory.optimizer)))
    yield _Row('activations', lambda stage: _split_temporary(stage, report)[0])
    yield _Row('temporary', lambda stage: _split_temporary(stage, report)[1])
    yield _Row('batch, statistics', _of_step(lambda step: binary(step.memory.inputs)))
    if report.topology.chip.kind == 'tpu':
        yield _Row('program', _of_step(lambda step: binary(step.memory.code)))
    yield _Row('total', lambda stage: _mark(_total(stage), stage.total <= available))
    fits = lambda stage: _mark('fits' if stage.total <= available else 'does not fit', stage.total <= available)
    yield _Row(f'of {binary(available)}', fits)


def _work_rows(report: Report) -> Iterator[_Row]:
    yield _Row('work per step')
    yield _Row('FLOPs', _of_step(lambda step: decimal(step.flops, '')))
    yield _Row('memory traffic', _of_step(lambda step: decimal(step.bytes, 'B')))
    for kind in dict.fromkeys(kind for stage in report.stages for kind in _totals(stage)):
        counted = lambda stage, kind=kind: _totals(stage).get(kind, (0, 0))
        yield _Row(kind, lambda stage, counted=counted: binary(counted(stage)[1]) if counted(stage)[0] else _BLANK)
        yield _Row('  count', lambda stage, counted=counted: str(counted(stage)[0] or _BLANK))


def _time_rows(report: Report) -> Iterator[_Row]:
    yield _Row('time, at least')
    yield _Row('compute', _of_times(lambda times: duration(times.compute)))
    yield _Row('memory traffic', _of_times(lambda times: duration(times.memory)))
    yield _Row('collectives', _of_times(lambda times: duration(times.collectives)))
    yield _Row('step', _of_times(lambda times: duration(times.step)))

    yield _Row('all devices')
    yield _Row('images/s, at most', _of_times(lambda times: f'{report.batch / times.step:,.0f}'))
    yield _Row('scaling efficiency', _of_times(lambda times: f'{times.efficiency:.0%}'))
    if any(stage.roofline and stage.roofline.kernels for stage in report.stages):
        yield _Row("by the compiler's estimate")
        yield _Row('kernels', _of_times(lambda times: duration(times.kernels)))
        yield _Row('images/s', _of_times(lambda times: f'{report.batch / times.compiler_step:,.0f}'))
        yield _Row('scaling efficiency', _of_times(lambda times: f'{times.compiler_efficiency:.0%}'))


def notes(report: Report) -> list[str]:
    """The assumptions behind the table, one per line."""
    topology, chip = report.topology, report.topology.chip
    rate, units = peak_flops(topology, report.dtype)
    links = f', {decimal(topology.rate(topology.devices), "B/s")} to the others' if topology.devices > 1 else ''
    bounds = (
        f'Times are lower bounds: at the peak of {decimal(rate, "FLOP/s")} ({units}) and '
        f'{decimal(chip.bandwidth, "B/s")} of memory{links}, without overlap of collectives and other work.'
    )
    lines = [bounds]
    if chip.kind == 'gpu':
        lines.append(
            'Estimates for GPUs: memory, traffic and collectives are those of the step compiled for CPU devices '
            f'instead; no latency. JAX uses {chip.available / chip.memory:.0%} of {binary(chip.memory)} by default.'
        )
    lines.append(f'{chip.name}: {chip.source}.')
    if report.largest:
        lines.append(_largest(report))
    return lines


def verdict(report: Report) -> str:
    """One line: 'fits: 9.1 of 15.8 GiB per device at batch 96', or that it does not fit, with the stage."""
    tight = report.tightest
    used = f'{tight.total / GIB:.1f}' if tight.total > 0.1 * GIB else binary(tight.total)
    if not math.isfinite(tight.total):
        used = 'more than all'
    line = f'{used} of {report.topology.chip.available / GIB:.1f} GiB per device at batch {report.batch}'
    if report.fits:
        return f'fits: {line}'
    line = f'does not fit: {line}, in stage {tight.name}'
    if report.largest:
        line += f'; batch {report.largest.batch} fits' if report.largest.batch else '; no batch that fits was found'
    return line


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON: bytes, FLOPs and seconds; null where the compiler gives none."""
    chip = report.topology.chip
    rate, units = peak_flops(report.topology, report.dtype)
    return {
        'topology': report.topology.name,
        'devices': report.topology.devices,
        'chip': chip._asdict(),
        'estimated': chip.kind == 'gpu',
        'batch': report.batch,
        'peak': {'flops_per_second': rate, 'units': units},
        'fits': report.fits,
        'largest': report.largest and report.largest._asdict(),
        'stages': {stage.name: _stage_to_json(stage, report) for stage in report.stages},
        'verdict': verdict(report),
    }


def _stage_to_json(stage: StageReport, report: Report) -> dict[str, Any]:
    result: dict[str, Any] = {'total_bytes': stage.total if math.isfinite(stage.total) else None}
    step, times = stage.result, stage.roofline
    if not isinstance(step, CompiledStep) or times is None:
        return result
    estimate = {'step': times.compiler_step, 'efficiency': times.compiler_efficiency} if times.kernels else None
    return result | {
        'memory': step.memory._asdict()
        | {'activations': activation_bytes(step.memory.temporary, stage.fit, report.batch)},
        'flops': step.flops,
        'bytes': step.bytes,
        'collectives': {kind: {'count': count, 'bytes': size} for kind, (count, size) in _totals(stage).items()},
        'sent_bytes': sum(collective.count * collective.sent for collective in step.collectives),
        'seconds': times._asdict() | {'step': times.step},
        'images_per_second': report.batch / times.step,
        'efficiency': times.efficiency,
        'by_compiler': estimate,
    }


def device_title(topology: Topology) -> str:
    """The devices, such as 'v5e:4x4 (16 x TPU v5e)'."""
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
    """A time: '3.02 ms'."""
    return f'{seconds * 1e3:.3g} ms' if seconds >= 1e-3 else f'{seconds * 1e6:.3g} us'


def _totals(stage: StageReport) -> dict[str, tuple[int, int]]:
    return collectives.totals(stage.result.collectives) if isinstance(stage.result, CompiledStep) else {}


def _split_temporary(stage: StageReport, report: Report) -> tuple[str, str]:
    """Activations, and the rest of the temporary memory; activations are unknown if one batch was tried."""
    if not isinstance(stage.result, CompiledStep):
        return (_BLANK, _BLANK)
    temporary = stage.result.memory.temporary
    activations = activation_bytes(temporary, stage.fit, report.batch)
    if activations is None:
        return (_BLANK, binary(temporary))
    return (binary(activations), binary(temporary - activations))


def _largest(report: Report) -> str:
    largest = report.largest
    if largest is None:
        return ''
    if largest.batch:
        per_device = largest.batch // report.topology.devices
        line = f'Largest batch found to fit: {largest.batch} ({per_device} per device)'
    else:
        line = 'No batch that fits was found'
    line += f', compiled for {largest.stage}, the tightest stage'
    return f'{line}; {largest.too_large} does not fit.' if largest.too_large else f'{line}.'


def _total(stage: StageReport) -> str:
    if not math.isfinite(stage.total):
        return 'too much'
    return binary(stage.total) if isinstance(stage.result, CompiledStep) else f'> {binary(stage.total)}'


def _mark(text: str, good: bool) -> Text:
    return Text(text, 'green' if good else 'red')
