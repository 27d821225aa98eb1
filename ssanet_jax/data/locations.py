"""Where a published data set is looked for, if `config.data.dir` is not set, and where it is downloaded to."""

import os
from pathlib import Path

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path

VARIABLE = 'SSANET_DATA_DIR'


# The folders that the publishers' archives unpack to.
_PUBLISHED = dict(cub='CUB_200_2011', cars='stanford_cars', aircraft='fgvc-aircraft-2013b')
_ARCHIVES = ('.tgz', '.tar', '.gz', '.zip', '.part')


def places(name: str) -> list[Path]:
    """The folders in which a data set is looked for, in `$SSANET_DATA_DIR`, `./data` and the working directory.

    In each of them, the folder may have the name of the configuration, or the one that the publisher's archive unpacks
    to, such as `CUB_200_2011`. `$SSANET_DATA_DIR` may also be such a folder itself.

    Args:
      name: `config.data.name`.
    """
    names = [name, _PUBLISHED[name]] if name in _PUBLISHED else [name]
    folders = []
    if given := os.environ.get(VARIABLE):
        parent = user_path(given, VARIABLE)
        folders = [parent / name for name in names] + [parent] * (parent.name in names)
    folders += [parent / name for parent in (Path('data'), Path()) for name in names]
    return [folder.absolute() for folder in folders]


def find(name: str) -> Path:
    """Finds the folder of a data set: the first of `places` that holds more than hidden files and archives.

    Raises:
      UserError: there is none, or no permission to read it.
    """
    folders, packed = places(name), None
    for folder in folders:
        try:
            files = [path.name for path in folder.iterdir() if path.name[0] != '.'] if folder.is_dir() else []
        except OSError as error:
            raise UserError(f'{folder} cannot be read ({error.strerror}): set config.data.dir') from error
        if not all(file.lower().endswith(_ARCHIVES) for file in files):
            return folder
        packed = packed or next((folder / file for file in sorted(files)), None)
    if packed:
        raise UserError(
            f'config.data.dir is not set, and {packed.parent} holds only the archive {packed.name}: extract it there, '
            f'or run: python -m ssanet_jax.download {name}'
        )
    looked = ', '.join(map(str, folders))
    unset = '' if os.environ.get(VARIABLE) else f' ({VARIABLE} is not set)'
    raise UserError(
        f'config.data.dir is not set, and none of these folders holds the data set: {looked}{unset}; set '
        f'config.data.dir to the extracted data set, or run: python -m ssanet_jax.download {name}'
    )
