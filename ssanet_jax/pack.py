"""Packs a finished run into a small work directory, to be kept or given to others.

    python -m ssanet_jax.pack --workdir=runs/birds --out=birds

The copy predicts the same, bit for bit. `predict`, `export`, `evaluate`, `report` and the other commands take it in
place of the run; only training cannot go on from it. It holds no photographs.
"""

from absl import flags

from ssanet_jax import cli
from ssanet_jax.path_flags import define_path
from ssanet_jax.printable import printable
from ssanet_jax.runs.packing import pack_run

_WORKDIR = define_path('workdir', None, 'Folder of a trained run.', required=True)
_OUT = define_path('out', None, 'Folder to write, which must be empty or not exist.', required=True)
_INDEX = flags.DEFINE_bool(
    'index', False, 'Also pack the features and file names of the training images, for --pictures=explain.'
)


def main() -> None:
    """Packs the run; the last line on stdout says its size."""
    packed = pack_run(_WORKDIR.value, _OUT.value, index=_INDEX.value)
    left_out = 'optimizer state, other checkpoints and pictures'
    if not _INDEX.value:
        left_out += ', and the features of the training images (--index)'
    print(
        printable(
            f'{_OUT.value}: {packed.num_bytes / 1e6:.1f} MB of {packed.original_bytes / 1e6:.1f} MB, the network of '
            f'stage {packed.stage} at step {packed.step}; left out: {left_out}'
        )
    )


if __name__ == '__main__':
    cli.run(main)
