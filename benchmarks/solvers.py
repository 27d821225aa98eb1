"""Scale mining in the Fourier domain against the dense circulant matrix.

    python -m benchmarks.solvers

Responses of N = 200 and 2,000 classes to B x K = 4 and 96 parts with D = 2,048 channels, at S = 5 and 9 scales: as
in training, where the spectrum of the weights is taken anew in each call ('fourier'), and as in prediction, where it
is there from before ('ready'). In turns; the median of the rounds counts.
"""

import dataclasses
import itertools
from functools import partial

import jax

from benchmarks import alone
from benchmarks.alone import setting
from benchmarks.comparisons import Findings, at_least, compare
from ssanet_jax.experiments.timing import Say, Timed, silent, take_turns
from ssanet_jax.models.scale_mining import circular_response, filter_spectrum, spectral_response

# (scales, classes, parts, channels) -> the project's target for circulant / fourier: that of the large batch.
TARGETS = {
    (scales, classes, 96, 2048): at_least(bound) for scales, bound in ((5, 2), (9, 3)) for classes in (200, 2000)
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The sizes, all combinations of them."""

    scales: tuple[int, ...] = setting((5, 9), 'S, odd.')
    classes: tuple[int, ...] = setting((200, 2000), 'N.')
    parts: tuple[int, ...] = setting((4, 96), 'B x K.')
    channels: int = setting(2048, 'D.')
    rounds: int = setting(7, 'Rounds; the median counts.')


def measure(settings: Settings, say: Say = silent) -> Findings:
    """The circulant matrix against both forms of the Fourier solver."""
    found = []
    for scales, classes, parts in itertools.product(settings.scales, settings.classes, settings.parts):
        say(f'{scales} scales, {classes} classes, {parts} parts')
        times = take_turns(competitors(scales, classes, parts, settings.channels), settings.rounds)
        target = TARGETS.get((scales, classes, parts, settings.channels))
        one = dataclasses.replace(settings, scales=(scales,), classes=(classes,), parts=(parts,))
        found += compare(
            times,
            [('circulant', 'fourier', target), ('circulant', 'ready', None)],
            where=f'S = {scales}, N = {classes}, B x K = {parts}, D = {settings.channels}',
            command=alone.command_line('solvers', one),
        )
    return Findings(found)


def competitors(scales: int, classes: int, parts: int, channels: int) -> dict[str, Timed]:
    """The solvers, compiled, on the same features and weights."""
    features = jax.random.normal(jax.random.key(0), (parts, scales, channels))
    weights = jax.random.normal(jax.random.key(1), (classes, scales, channels))
    found = {}
    for solver in ('circulant', 'fourier'):
        respond = jax.jit(partial(circular_response, solver=solver))
        found[solver] = lambda respond=respond: jax.block_until_ready(respond(features, weights))
    respond, spectrum = jax.jit(spectral_response), filter_spectrum(weights)
    found['ready'] = lambda: jax.block_until_ready(respond(features, spectrum))
    return found


if __name__ == '__main__':
    alone.run('solvers', Settings, measure)
