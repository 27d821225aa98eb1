"""Says whether a configuration fits a TPU slice or a box of GPUs, and how fast it may be, without having one.

    python -m ssanet_jax.preflight --config=configs/cars.py --topology=v5e:4x4 [--batch=96] [--json=FILE]
    python -m ssanet_jax.preflight --config=configs/cars.py --topology=gpu:h100x8

Compiles the training step of every stage on this machine's CPU: for a TPU slice with TPU's own compiler (the
package libtpu, `pip install '.[preflight]'`), for GPUs as an estimate. Then reports, a device, the memory, the
FLOPs and bytes, the collectives, the time that the peak rates allow, and the largest batch that fits. Neither
data nor weights are read. docs/scaling.md says how to read the report.

The exit code is 0 if every stage fits, 1 if one does not, and 2 if there is nothing to compile.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ssanet_jax import cli
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.preflight import program, summary
from ssanet_jax.preflight.chips import Topology, parse_topology
from ssanet_jax.preflight.examine import Report, examine
from ssanet_jax.runs.files import write_json
from ssanet_jax.training.settings import check_settings

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Configuration file, such as configs/cub.py.', lock_config=True
)
_TOPOLOGY = flags.DEFINE_string(
    'topology', None, 'TPU slice, such as v5e:4x4, or GPUs, such as gpu:h100x8.', required=True
)
_BATCH = flags.DEFINE_integer('batch', None, 'Images over all devices; by default config.data.batch_size.')
_CLASSES = flags.DEFINE_integer('classes', None, 'Number of classes; by default that of the published set.')
_LARGEST = flags.DEFINE_boolean(
    'largest', True, 'Look for the largest batch that fits; without it each stage is compiled once, not twice.'
)
_JSON = flags.DEFINE_string('json', None, 'File to write the numbers of the report to.')
flags.mark_flag_as_required('config')

CLASSES = {'toy_birds': 16, 'cub': 200, 'cars': 196, 'aircraft': 100}
LEVELS = {'variant': 100, 'family': 70, 'manufacturer': 30}  # of aircraft


def main(arguments: list[str]) -> None:
    """Prints the report; the last line on stdout is the verdict."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')
    config = _CONFIG.value
    topology = parse_topology(_TOPOLOGY.value)
    file = _writable(_JSON.value)
    classes = classes_of(config, _CLASSES.value)
    check_settings(config)
    name, batch = (
        ('config.data.batch_size', config.data.batch_size) if _BATCH.value is None else ('--batch', _BATCH.value)
    )
    program.use_cpu_alone(topology)
    devices = program.find_devices(topology)
    check_batch(config, batch, name, topology, devices)
    found = _examine(config, classes, batch, topology, devices)
    path = config_flags.get_config_filename(flags.FLAGS['config'])
    if file:
        write_json(file, {'config': path, 'classes': classes} | summary.numbers(found))
    console = Console()
    title = f'{path} with {classes} classes on {summary.describe_devices(topology)}'
    console.print(title, '', summary.table(found), '', sep='\n', highlight=False, soft_wrap=True)
    for line in summary.notes(found):
        console.print(line, highlight=False, soft_wrap=True, style='dim')
    print(summary.verdict(found))
    if not found.fits:
        sys.exit(1)


def classes_of(config: ConfigDict, given: int | None) -> int:
    """Number of classes: as given, or that of the published data set.

    Raises:
      UserError: it is not positive, or the set has no published number.
    """
    if given is not None:
        if given < 1:
            raise UserError(f'--classes={given}: a network tells at least one class apart')
        return given
    if config.data.name == 'aircraft' and config.data.get('level') in LEVELS:
        return LEVELS[config.data.level]
    if config.data.name not in CLASSES:
        raise UserError(f'how many classes config.data.name={config.data.name} has is not known here: give --classes')
    return CLASSES[config.data.name]


def check_batch(config: ConfigDict, batch: int, name: str, topology: Topology, devices: Sequence[jax.Device]) -> None:
    """Raises `UserError` for a batch that training on these devices would refuse."""
    sharding.check_batch(batch, program.make_mesh(config, batch, devices), name, topology.hosts(devices))


def _examine(config: ConfigDict, classes: int, batch: int, topology: Topology, devices: Sequence[jax.Device]) -> Report:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn('{task.description}'), TimeElapsedColumn())
    # Where nobody watches, rich would leave an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task('building the network', total=None)

        def begins(stage: str, images: int) -> None:
            progress.reset(task, description=f'compiling {stage} at batch {images} for {topology.name}')

        def ends(stage: str, images: int, total: float, seconds: float) -> None:
            size = f'{summary.binary(total)} a device' if math.isfinite(total) else 'too much for the device'
            console.print(f'[dim]{stage} at batch {images}: {size} ({seconds:.0f} s)', highlight=False)

        return examine(config, classes, batch, topology, devices, largest=_LARGEST.value, begins=begins, ends=ends)


def _writable(name: str | None) -> Path | None:
    if name is None:
        return None
    file = Path(name)
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UserError(f'--json={name}: name a file in a folder that is there')
    return file


if __name__ == '__main__':
    cli.run(main)
