"""Computes the features of a run's training images, which its predictions are then explained by.

    python -m ssanet_jax.index --workdir=runs/cub

Writes `index.npz` to the folder of the run's last stage. The training of a stage with `fit=True` has done this itself;
other runs, and those of earlier versions, need this command once.
"""

from ssanet_jax import cli
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole
from ssanet_jax.printable import printable
from ssanet_jax.runs.run import dataset_of, load_run
from ssanet_jax.training.feature_indexing import index_run

_WORKDIR = define_path('workdir', None, 'Folder of a trained run.', required=True)
_DATA_DIR = define_path('data_dir', None, 'Folder of the data, if it is no longer config.data.dir of the run.')


def main() -> None:
    """Writes the index; the last line on stdout names it."""
    workdir = _WORKDIR.value
    run = load_run(workdir, data_dir=_DATA_DIR.value)
    path, count = index_run(run, workdir, dataset_of(run, workdir), PlainConsole(stderr=True))
    print(printable(f'features of {count} training images: see {path}'))


if __name__ == '__main__':
    cli.run(main)
