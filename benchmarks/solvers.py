"""Scale mining in the Fourier domain against the dense circulant matrix.

    python -m benchmarks.solvers

Responses of N = 200 and 2,000 classes to B x K = 4 and 96 parts with D = 2,048 channels, at S = 5 and 9 scales: as in
training, where each call computes the spectrum of the weights ('fourier'), and as in prediction, where it is
precomputed ('ready'). All run interleaved; the median of the rounds counts.
"""

import dataclasses
import itertools
from functools import partial

import jax

from benchmarks import runner
from benchmarks.comparisons import Findings, at_least, compare
from benchmarks.runner import setting
from ssanet_jax.experiments.timing import Log, Workload, no_log, time_interleaved
from ssanet_jax.models.scale_mining import circular_response, filter_spectrum, spectral_response

# (scales, classes, parts, channels) -> the project's target for circulant / fourier, for the large batch.
TARGETS = {
    (scales, num_classes, 96, 2048): at_least(bound)
    for scales, bound in ((5, 2), (9, 3))
    for num_classes in (200, 2000)
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The sizes; all combinations are measured."""

    scales: tuple[int, ...] = setting((5, 9), 'S, odd.')
    num_classes: tuple[int, ...] = setting((200, 2000), 'N.', alias='classes')
    parts: tuple[int, ...] = setting((4, 96), 'B x K.')
    channels: int = setting(2048, 'D.')
    rounds: int = setting(7, 'Rounds; the median counts.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The circulant matrix against both forms of the Fourier solver."""
    found = []
    for scales, num_classes, parts in itertools.product(settings.scales, settings.num_classes, settings.parts):
        log(f'{scales} scales, {num_classes} classes, {parts} parts')
        times = time_interleaved(workloads(scales, num_classes, parts, settings.channels), settings.rounds)
        target = TARGETS.get((scales, num_classes, parts, settings.channels))
        one = dataclasses.replace(settings, scales=(scales,), num_classes=(num_classes,), parts=(parts,))
        found += compare(
            times,
            [('circulant', 'fourier', target), ('circulant', 'ready', None)],
            where=f'S = {scales}, N = {num_classes}, B x K = {parts}, D = {settings.channels}',
            command=runner.command_line('solvers', one),
        )
    return Findings(found)


def workloads(scales: int, num_classes: int, parts: int, channels: int) -> dict[str, Workload]:
    """The solvers, compiled, on the same features and weights."""
    features = jax.random.normal(jax.random.key(0), (parts, scales, channels))
    weights = jax.random.normal(jax.random.key(1), (num_classes, scales, channels))
    found = {}
    for solver in ('circulant', 'fourier'):
        respond = jax.jit(partial(circular_response, solver=solver))
        found[solver] = lambda respond=respond: jax.block_until_ready(respond(features, weights))
    respond, spectrum = jax.jit(spectral_response), filter_spectrum(weights)
    found['ready'] = lambda: jax.block_until_ready(respond(features, spectrum))
    return found


if __name__ == '__main__':
    runner.run('solvers', Settings, measure)
