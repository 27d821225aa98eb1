"""Where a published data set is looked for, if `config.data.dir` is not set, and where it is downloaded to."""

import os
from pathlib import Path

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path

VARIABLE = 'SSANET_DATA_DIR'


def places(name: str) -> list[Path]:
    """The folders in which a data set is looked for: `$SSANET_DATA_DIR/NAME`, `./data/NAME` and `./NAME`.

    Args:
      name: `config.data.name`.
    """
    given = os.environ.get(VARIABLE)
    parents = ([user_path(given, VARIABLE)] if given else []) + [Path('data'), Path()]
    return [(parent / name).absolute() for parent in parents]


def find(name: str) -> Path:
    """Finds the folder of a data set: the first of `places` that is a folder with anything in it.

    Raises:
      UserError: there is none, or no permission to read it.
    """
    folders = places(name)
    for folder in folders:
        try:
            if folder.is_dir() and any(folder.iterdir()):
                return folder
        except OSError as error:
            raise UserError(f'{folder} cannot be read ({error.strerror}): set config.data.dir') from error
    looked = ', '.join(map(str, folders))
    unset = '' if os.environ.get(VARIABLE) else f' ({VARIABLE} is not set)'
    raise UserError(
        f'config.data.dir is not set, and none of these folders holds the data set: {looked}{unset}; set '
        f'config.data.dir to the extracted data set, or run: python -m ssanet_jax.download {name}'
    )
