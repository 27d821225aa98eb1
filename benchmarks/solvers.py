"""Scale mining in the Fourier domain against the dense circulant matrix.

    python -m benchmarks.solvers

Responses of N = 200 and 2,000 classes to B x K = 4 and 96 parts with D = 2,048 channels, at S = 5 and 9 scales: as
in training, where the spectrum of the weights is taken anew in each call, and as in prediction, where it is there
from before. In turns; the median of the rounds counts.
"""

import itertools
import json
from functools import partial
from pathlib import Path

import jax
from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Timed, machine, milliseconds, ratio, take_turns
from ssanet_jax import command
from ssanet_jax.errors import UserError
from ssanet_jax.models.scale_mining import circular_response, real_spectrum, scales_first, spectral_response

_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Rounds; the median counts.', lower_bound=1)
_OUT = flags.DEFINE_string('out', None, 'JSON file for the figures.')

CHANNELS = 2048


def main(arguments: list[str]) -> None:
    """Prints the table."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')
    table = Table(
        'scales',
        'classes',
        'parts',
        'circulant',
        'fourier',
        'circulant / fourier',
        'prediction',
        'circulant / prediction',
        title=machine(),
    )
    figures = []
    for scales, classes, parts in itertools.product((5, 9), (200, 2000), (4, 96)):
        times = take_turns(competitors(scales, classes, parts), _ROUNDS.value)
        figures.append({'scales': scales, 'classes': classes, 'parts': parts, **times})
        dense, fast, ready = (times[name] for name in ('circulant', 'fourier', 'prediction'))
        cells = milliseconds(dense), milliseconds(fast), ratio(dense, fast), milliseconds(ready), ratio(dense, ready)
        table.add_row(*map(str, (scales, classes, parts)), *cells)
    Console(width=120).print(table)
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps({'machine': machine(), 'seconds': figures}, indent=2) + '\n')


def competitors(scales: int, classes: int, parts: int) -> dict[str, Timed]:
    """The solvers, compiled, on the same features and weights."""
    features = jax.random.normal(jax.random.key(0), (parts, scales, CHANNELS))
    weights = jax.random.normal(jax.random.key(1), (classes, scales, CHANNELS))
    found = {}
    for solver in ('circulant', 'fourier'):
        respond = jax.jit(partial(circular_response, solver=solver))
        found[solver] = lambda respond=respond: jax.block_until_ready(respond(features, weights))
    respond, spectrum = jax.jit(spectral_response), scales_first(real_spectrum(weights))
    found['prediction'] = lambda: jax.block_until_ready(respond(features, spectrum))
    return found


if __name__ == '__main__':
    command.run(main)
