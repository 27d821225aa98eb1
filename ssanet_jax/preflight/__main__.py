"""Checks whether a configuration fits a TPU slice or a host of GPUs, and how fast it may be, without the hardware.

    python -m ssanet_jax.preflight --config=configs/cars.py --topology=v5e:4x4 [--batch=96] [--json=FILE]
    python -m ssanet_jax.preflight --config=configs/cars.py --topology=gpu:h100x8

Compiles the training step of every stage on this machine's CPU: for a TPU slice with the TPU's own compiler (the
package libtpu, `pip install '.[preflight]'`), for GPUs as an estimate. Then reports, per device, memory, FLOPs,
bytes, collectives, the time that the peak rates allow, and the largest batch that fits. Neither data nor weights are
read. docs/scaling.md explains the report.

The exit code is 0 if every stage fits, 1 if one does not, and 2 if there is nothing to compile.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

from ssanet_jax import cli
from ssanet_jax.data.registry import published_num_classes
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole, print_table, text_column
from ssanet_jax.preflight import compilation, formatting
from ssanet_jax.preflight.analysis import Report, analyze
from ssanet_jax.preflight.chips import Topology, parse_topology
from ssanet_jax.runs.files import write_json
from ssanet_jax.training.settings import check_settings

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Configuration file, such as configs/cub.py.', lock_config=True
)
_TOPOLOGY = flags.DEFINE_string(
    'topology', None, 'TPU slice, such as v5e:4x4, or GPUs, such as gpu:h100x8.', required=True
)
_BATCH = flags.DEFINE_integer('batch', None, 'Images over all devices; by default config.data.batch_size.')
_NUM_CLASSES = flags.DEFINE_integer('classes', None, 'Number of classes; by default that of the published set.')
_LARGEST = flags.DEFINE_boolean(
    'largest', True, 'Search for the largest batch that fits; without it each stage is compiled once, not twice.'
)
_JSON = define_path('json', None, 'File to write the numbers of the report to.')
flags.mark_flag_as_required('config')


def main() -> None:
    """Prints the report; the last line on stdout is the verdict."""
    config = _CONFIG.value
    topology = parse_topology(_TOPOLOGY.value)
    file = _writable(_JSON.value)
    num_classes = choose_num_classes(config, _NUM_CLASSES.value)
    check_settings(config)
    name, batch = (
        ('config.data.batch_size', config.data.batch_size) if _BATCH.value is None else ('--batch', _BATCH.value)
    )
    compilation.use_cpu_only(topology)
    devices = compilation.find_devices(topology)
    check_batch(config, batch, name, topology, devices)
    report = _analyze(config, num_classes, batch, topology, devices)
    path = config_flags.get_config_filename(flags.FLAGS['config'])
    if file:
        write_json(file, {'config': path, 'classes': num_classes} | formatting.to_json(report))
    console = PlainConsole()
    title = f'{path} with {num_classes} classes on {formatting.device_title(topology)}'
    console.print(title, '', sep='\n', highlight=False, soft_wrap=True)
    print_table(formatting.table(report), console)
    console.print()
    for line in formatting.notes(report):
        console.print(line, highlight=False, soft_wrap=True, style='dim')
    print(formatting.verdict(report))
    if not report.fits:
        sys.exit(1)


def choose_num_classes(config: ConfigDict, given: int | None) -> int:
    """The number of classes: as given, or that of the published data set.

    Raises:
      UserError: it is less than 1, or the data set has no fixed number.
    """
    if given is not None:
        if given < 1:
            raise UserError(f'--classes={given}: give at least one class')
        return given
    published = published_num_classes(config.data)
    if published is None:
        raise UserError(f'config.data.name={config.data.name} has no fixed number of classes: give --classes')
    return published


def check_batch(config: ConfigDict, batch: int, name: str, topology: Topology, devices: Sequence[jax.Device]) -> None:
    """Raises `UserError` for a batch size that training on these devices would refuse."""
    sharding.check_batch(batch, compilation.make_mesh(config, batch, devices), name, topology.hosts(devices))


def _analyze(
    config: ConfigDict, num_classes: int, batch: int, topology: Topology, devices: Sequence[jax.Device]
) -> Report:
    """`analyze` with progress on stderr."""
    console = PlainConsole(stderr=True)
    columns = (SpinnerColumn(), text_column('{task.description}'), TimeElapsedColumn())
    # Without a terminal, rich would leave an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task('building the network', total=None)

        def on_start(stage: str, images: int) -> None:
            progress.reset(task, description=f'compiling {stage} at batch {images} for {topology.name}')

        def on_end(stage: str, images: int, total: float, seconds: float) -> None:
            size = f'{formatting.binary(total)} per device' if math.isfinite(total) else 'too much for the device'
            console.print(f'{stage} at batch {images}: {size} ({seconds:.0f} s)', style='dim')

        return analyze(
            config, num_classes, batch, topology, devices, largest=_LARGEST.value, on_start=on_start, on_end=on_end
        )


def _writable(file: Path | None) -> Path | None:
    if file and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise UserError(f'--json={file}: name a file in an existing folder')
    return file


if __name__ == '__main__':
    cli.run(main)
