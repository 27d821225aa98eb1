"""Trains and evaluates one configuration.

    python -m ssanet_jax.main --config=configs/cub.py --workdir=runs/cub --config.data.dir=CUB_200_2011

A run that was killed resumes when the same command is run again, on any number of devices or processes.
To train with several processes (hosts), start the same command in each; they find each other through SLURM, a Cloud
TPU (--cluster=gcetpu on Cloud TPU VMs), or --coordinator, --processes and --process_id.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from ssanet_jax import cli
from ssanet_jax.distributed import processes
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole
from ssanet_jax.printable import printable
from ssanet_jax.runs.compatibility import check_overrides
from ssanet_jax.runs.results import unreadable_line
from ssanet_jax.training import evaluate
from ssanet_jax.training.recipes import resolve_recipe
from ssanet_jax.training.train import train

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Configuration file, such as configs/cub.py.', lock_config=True
)
_WORKDIR = define_path(
    'workdir', None, 'Folder of the run; by default runs/ and the name of the configuration, such as runs/cub_paper.'
)
_MODE = flags.DEFINE_enum(
    'mode', 'train', ['train', 'evaluate'], 'Train all stages, or only evaluate the run in --workdir.'
)
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, to train with several processes.')
_PROCESSES = flags.DEFINE_integer('processes', None, 'Number of processes.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Index of this process, from 0.')
_CLUSTER = flags.DEFINE_enum(
    'cluster',
    None,
    processes.CLUSTERS,
    'Find the other processes through this; gcetpu for the workers of a Cloud TPU VM.',
)
flags.mark_flag_as_required('config')


def main() -> None:
    """Runs the mode; the last line on stdout is the accuracy."""
    config = _CONFIG.value
    processes.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value, _CLUSTER.value)
    workdir = _WORKDIR.value or Path(f'runs/{cli.config_name()}')
    overrides = config_flags.get_override_values(flags.FLAGS['config']).keys()
    console = PlainConsole(stderr=True, quiet=not processes.is_primary_process())
    if _MODE.value == 'evaluate':
        check_overrides(workdir, config, overrides)
        results = evaluate.evaluate_run(config, workdir, console)
    else:
        config, explanation = resolve_recipe(config, workdir, overrides)
        results = train(config, workdir, console, explanation)
    if processes.is_primary_process():
        if results.unreadable:
            print(printable(unreadable_line(results.unreadable, results.examples)))
        print(f'accuracy {results.accuracy:.4f} on {results.examples} images')


if __name__ == '__main__':
    cli.run(main, trains=True)
