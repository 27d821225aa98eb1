"""Runs all benchmarks and prints one table of ratios, with the project's targets.

    python -m benchmarks                                # ResNet-50 at 448, the sizes of docs/speed.md
    python -m benchmarks --quick                        # small networks and images, a few minutes on a laptop
    python -m benchmarks --data_dir=CUB_200_2011        # with the reading of images

Below each row is the command that repeats it. Targets are for certain sizes; rows at other sizes have none. A benchmark
that cannot run gives a row with the reason. All figures are also written as JSON.
"""

import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks import backbones, memory, pipeline, recipes, roofline, runner, solvers, startup, torch_nts, training
from benchmarks.comparisons import Comparison, Findings
from benchmarks.runner import setting
from ssanet_jax import cli
from ssanet_jax.cli import check_out
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Log


class Benchmark(NamedTuple):
    """One benchmark and its settings."""

    name: str  # the name of its module
    measure: Callable[[Any, Log], Findings]
    settings: Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags of the command."""

    quick: bool = setting(False, 'Small networks and images; most targets are for other sizes.')
    data_dir: str = setting('', 'The extracted CUB_200_2011 folder, to benchmark the reading of images.')
    out: str = setting('benchmarks.json', 'JSON file for the figures.')


def main() -> None:
    """Prints the table and writes the file; the exit code is 1 if a benchmark failed with an unexpected error."""
    out, start = Path(flags.FLAGS.out), time.monotonic()
    check_out(out)  # before many minutes of work
    with runner.progress() as log:
        findings, failed = run_all(benchmarks(flags.FLAGS.quick, flags.FLAGS.data_dir), log)
    runner.show(list(findings.values()))
    runner.write(out, findings, time.monotonic() - start)
    print(f'written to {out}')
    if failed:
        sys.exit(1)


def benchmarks(quick: bool, data_dir: str) -> list[Benchmark]:
    """All benchmarks, those with PyTorch last so that its threads do not disturb the others.

    `roofline` includes the comparisons of `sharing`, since it times the same networks.

    Args:
      quick: small sizes.
      data_dir: the folder of CUB-200-2011; if empty, the reading of images is reported as not measured.
    """
    small = dict(backbone='resnet18', size=128) if quick else {}
    if_quick = lambda **settings: settings if quick else {}
    return [
        Benchmark('roofline', roofline.measure, roofline.Settings(**small, **if_quick(batch=(1, 2), rounds=5))),
        Benchmark('recipes', recipes.measure, recipes.Settings(**small, **if_quick(batch=(1,), rounds=3))),
        Benchmark('solvers', solvers.measure, solvers.Settings(**if_quick(num_classes=(200,), rounds=5))),
        Benchmark('training', training.measure, training.Settings(**small)),
        Benchmark('memory', memory.measure, memory.Settings(**small, **if_quick(batch=(1,), train_batch=(4,)))),
        Benchmark('pipeline', pipeline.measure, pipeline.Settings(data_dir, **if_quick(images=96, rounds=3, steps=5))),
        Benchmark('startup', startup.measure, startup.Settings(**small)),
        Benchmark('backbones', backbones.measure, backbones.Settings(**if_quick(size=128, batch=(1,), rounds=3))),
        Benchmark(
            'torch_nts', torch_nts.measure, torch_nts.Settings(**if_quick(size=128, batch=(1, 2), compile=False))
        ),
    ]


def run_all(selected: Sequence[Benchmark], log: Log) -> tuple[dict[str, Findings], bool]:
    """Runs benchmarks one after the other.

    Returns:
      The findings by name; those of a benchmark that could not run are a row with the reason. And whether any failed
      with an error other than `UserError`, whose traceback is printed to stderr.
    """
    found, failed = {}, False
    for number, benchmark in enumerate(selected, 1):
        prefix = f'{number} of {len(selected)}, {benchmark.name}'
        try:
            found[benchmark.name] = benchmark.measure(
                benchmark.settings, lambda message, prefix=prefix: log(f'{prefix}: {message}')
            )
        except Exception as error:  # one failure must not cost the figures of the other benchmarks
            if not isinstance(error, UserError):
                failed = True
                traceback.print_exc()
            reason = (
                ' '.join(str(error).split()) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
            )
            line = runner.command_line(benchmark.name, benchmark.settings)
            found[benchmark.name] = Findings([Comparison(benchmark.name, '', '', line, remark=reason[:300])])
    return found, failed


if __name__ == '__main__':
    for field in dataclasses.fields(Settings):
        runner.define_flag(field)
    cli.run(main)
