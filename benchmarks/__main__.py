"""All benchmarks, in one table of ratios: what the project promises of its speed, and whether this machine keeps it.

    python -m benchmarks                                # ResNet-50 at 448, the sizes of docs/speed.md
    python -m benchmarks --quick                        # small networks and images, a few minutes on a laptop
    python -m benchmarks --data_dir=CUB_200_2011        # and the reading of images

Under each row stands the command that repeats it alone. The targets belong to certain sizes; rows at others have none.
A benchmark that cannot run is a row with the reason. All figures are written as JSON too.
"""

import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks import alone, backbones, floor, memory, pipeline, solvers, startup, torch_nts, training
from benchmarks.alone import setting
from benchmarks.comparisons import Comparison, Findings
from ssanet_jax import cli
from ssanet_jax.cli import check_out
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Say


class Part(NamedTuple):
    """One benchmark and its settings."""

    name: str  # of its module
    measure: Callable[[Any, Say], Findings]
    settings: Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags."""

    quick: bool = setting(False, 'Small networks and images; most of the targets are for others.')
    data_dir: str = setting('', 'The extracted CUB_200_2011 folder, for the reading of images.')
    out: str = setting('benchmarks.json', 'JSON file for the figures.')


def main(arguments: list[str]) -> None:
    """Prints the table and writes the file; exit code 1 if a benchmark broke off for a reason that is no user's."""
    alone.refuse(arguments)
    out, began = Path(flags.FLAGS.out), time.monotonic()
    check_out(out)  # before many minutes of work
    with alone.progress() as say:
        findings, broken = measure_all(parts(flags.FLAGS.quick, flags.FLAGS.data_dir), say)
    alone.show(list(findings.values()))
    alone.write(out, findings, time.monotonic() - began)
    print(f'written to {out}')
    if broken:
        sys.exit(1)


def parts(quick: bool, data_dir: str) -> list[Part]:
    """The benchmarks, those with PyTorch last: its threads must not stand in the way of the others.

    Sharing is a part of the floor, which times the same networks.

    Args:
      quick: at small sizes.
      data_dir: of CUB-200-2011; '' leaves out the reading of images.
    """
    small = dict(backbone='resnet18', size=128) if quick else {}
    choose = lambda **settings: settings if quick else {}
    return [
        Part('floor', floor.measure, floor.Settings(**small, **choose(batch=(1, 2), rounds=5))),
        Part('solvers', solvers.measure, solvers.Settings(**choose(classes=(200,), rounds=5))),
        Part('training', training.measure, training.Settings(**small)),
        Part('memory', memory.measure, memory.Settings(**small, **choose(batch=(1,), train_batch=(4,)))),
        Part('pipeline', pipeline.measure, pipeline.Settings(data_dir, **choose(images=96, rounds=3, steps=5))),
        Part('startup', startup.measure, startup.Settings(**small)),
        Part('backbones', backbones.measure, backbones.Settings(**choose(size=128, batch=(1,), rounds=3))),
        Part('torch_nts', torch_nts.measure, torch_nts.Settings(**choose(size=128, batch=(1, 2), compile=False))),
    ]


def measure_all(chosen: Sequence[Part], say: Say) -> tuple[dict[str, Findings], bool]:
    """Runs the benchmarks one after the other.

    Returns:
      What each found, by name: of one that could not run a row with the reason. And whether any of these broke off
      with another error than a `UserError`; its traceback is on stderr.
    """
    found, broken = {}, False
    for number, part in enumerate(chosen, 1):
        tell = lambda text, number=number, part=part: say(f'{number} of {len(chosen)}, {part.name}: {text}')
        try:
            found[part.name] = part.measure(part.settings, tell)
        except Exception as error:  # of one benchmark, which must not cost the figures of the others
            if not isinstance(error, UserError):
                broken = True
                traceback.print_exc()
            reason = (
                ' '.join(str(error).split()) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
            )
            line = alone.command_line(part.name, part.settings)
            found[part.name] = Findings([Comparison(part.name, '', '', line, remark=reason[:300])])
    return found, broken


if __name__ == '__main__':
    for field in dataclasses.fields(Settings):
        alone.define(field)
    cli.run(main)
