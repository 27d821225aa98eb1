"""A prediction whose process keeps freed memory, as our commands do on Linux, relative to one that returns it.

    python -m benchmarks.heap                        # the backbone of configs/cub.py at 448

Each of two processes has a network of its own; they work in alternation.
"""

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator

from benchmarks import runner
from benchmarks.comparisons import Comparison, Findings
from benchmarks.networks import BACKBONE, NETWORKS, Size
from benchmarks.runner import setting
from ssanet_jax.experiments.timing import Log, no_log, time_interleaved
from ssanet_jax.models.backbones.registry import BACKBONES

KEPT, RETURNED = 'freed memory is kept', 'returned'
# A prediction for each line of its input. It answers with its peak memory in KiB.
_CHILD = """
import ast, resource, sys
from ssanet_jax.heap import keep_freed_memory
if ast.literal_eval(sys.argv[1]):
    keep_freed_memory()
from benchmarks.networks import Size, load
program = load(sys.argv[2], Size(*ast.literal_eval(sys.argv[3])))
for _ in sys.stdin:
    program.run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The network and its input."""

    network: str = setting(BACKBONE, 'The backbone alone, or a value of config.model.sharing.', choices=NETWORKS)
    backbone: str = setting('efficientnet_lite0', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', minimum=32)
    num_classes: int = setting(200, 'Number of classes.', minimum=2)
    batch: int = setting(16, 'Images per prediction.')
    rounds: int = setting(9, 'Rounds; the median counts.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The time of a prediction, with freed memory kept over with freed memory returned."""
    size = Size(settings.backbone, settings.size, settings.num_classes, settings.batch)
    with _predictions(settings.network, size, True) as kept, _predictions(settings.network, size, False) as returned:
        seconds = time_interleaved({KEPT: kept, RETURNED: returned}, settings.rounds, log)
        peaks = kept(), returned()
    return Findings(
        [
            Comparison(
                KEPT,
                RETURNED,
                f'{settings.network}, {size}',
                runner.command_line('heap', settings),
                (seconds[KEPT], seconds[RETURNED]),
                remark='peak memory {:.2f} and {:.2f} GiB'.format(*peaks),
                images=size.batch,
            )
        ]
    )


@contextlib.contextmanager
def _predictions(network: str, size: Size, keep: bool) -> Iterator[Callable[[], float]]:
    """A function that lets a process of its own predict a batch, and returns its peak memory so far in GiB."""
    command = [sys.executable, '-c', _CHILD, str(keep), network, str(tuple(size))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None

        def predict() -> float:
            print(file=child.stdin, flush=True)
            answer = child.stdout.readline()
            if not answer:
                raise RuntimeError(f'the process ended with exit code {child.wait()}')
            return int(answer) / 2**20

        try:
            yield predict
        finally:
            child.stdin.close()


if __name__ == '__main__':
    runner.run('heap', Settings, measure)
