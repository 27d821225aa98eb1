"""Uploads a finished run to the Hugging Face hub, with a model card written from its results (docs/sharing.md).

    ssanet push OWNER/NAME --workdir=runs/birds
    ssanet push OWNER/NAME --workdir=runs/birds --dry_run --out=birds

The repository gets model.onnx, model.safetensors, config.json and README.md, the model card. Photographs, names of
their files and paths of this machine stay here. `ssanet_jax.load('hub:OWNER/NAME')` loads the network again.
"""

import importlib.util
import re
import sys
import tempfile
from pathlib import Path

from absl import flags

from ssanet_jax import cli
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import check_writable_folder
from ssanet_jax.path_flags import define_path
from ssanet_jax.printable import printable
from ssanet_jax.push.upload import check_name, check_token, upload
from ssanet_jax.runs.finished_run import load_finished_run

_WORKDIR = define_path('workdir', None, 'Folder of a trained run.', required=True)
_OUT = define_path('out', None, 'Folder to keep the files in; with --dry_run, it must be given.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Write the folder --out, and upload nothing.')
_PRIVATE = flags.DEFINE_bool(
    'private',
    None,
    'Whether a new repository is private. By default it is what its owner has set, which is public for most; a '
    'repository that exists stays as it is.',
)
_LICENSE = flags.DEFINE_string('license', '', 'License of the files, as the hub names it, such as apache-2.0.')
_INDEX = flags.DEFINE_bool('index', False, 'Also upload the features and file names of the training images.')
_PICTURES = flags.DEFINE_bool('pictures', False, 'Also upload parts.png, which shows photographs of the test images.')
_IMAGES = define_path('images', None, 'Images to compare with JAX on, in place of the training images of the run.')


def main(given: list[str]) -> None:
    """Writes the files, lists them, and uploads them."""
    if len(given) != 1:
        raise UserError(f'{len(given)} names of repositories are given: give one, OWNER/NAME; see --help')
    repository = given[0].removeprefix('hub:')
    check_name(repository)
    if _LICENSE.value and not re.fullmatch('[a-z0-9][a-z0-9.-]*', _LICENSE.value):
        raise UserError(f'--license={_LICENSE.value!r} is no name of a license: give one such as apache-2.0 or other')
    if missing := [name for name in ('onnx', 'onnxruntime') if importlib.util.find_spec(name) is None]:
        raise UserError(f"push needs {', '.join(missing)}: in a checkout, pip install -e '.[export]'")
    if _DRY_RUN.value and not _OUT.value:
        raise UserError('--dry_run needs --out: give the folder to write')
    if not _DRY_RUN.value:
        check_token(repository)  # before the work
    if _OUT.value is None:
        with tempfile.TemporaryDirectory(prefix='ssanet-push-') as folder:
            _push(repository, Path(folder))
        return
    check_writable_folder(_OUT.value, '--out', 'model.safetensors.partial')
    if _OUT.value.is_dir() and any(_OUT.value.iterdir()):
        raise UserError(f'{_OUT.value} is not empty: give a folder that is empty or does not exist as --out')
    _push(repository, _OUT.value)


def _push(repository: str, folder: Path) -> None:
    # It needs the optional packages.
    from ssanet_jax.push.folder import OPTIONAL, Contents, write_folder

    finished = load_finished_run(_WORKDIR.value)
    print('converting, and comparing with JAX', file=sys.stderr)
    contents = Contents(repository, _LICENSE.value, _INDEX.value, _PICTURES.value)
    sizes = write_folder(finished.run, _WORKDIR.value, folder, contents, _IMAGES.value)
    for name, size in sizes.items():
        print(f'{name:18} {_format_size(size):>9}')
    left_out = [flag for pattern, flag in OPTIONAL.items() if not any(folder.glob(pattern))]
    stays = f'; without {" and ".join(left_out)}' if left_out else ''
    print(f'{len(sizes)} files, {_format_size(sum(sizes.values()))}{stays}')
    if not _LICENSE.value:
        print('the model card states no license: --license=apache-2.0, for instance, does', file=sys.stderr)
    if _DRY_RUN.value:
        print(printable(f'nothing was uploaded: see {folder}'))
        return
    visibility = {True: 'private', False: 'public', None: 'public, unless its owner has chosen otherwise'}
    print(f'uploading to {repository} (if it is new: {visibility[_PRIVATE.value]})', file=sys.stderr)
    done = upload(folder, repository, _PRIVATE.value, OPTIONAL)
    if done.kept_card:
        print('README.md of the repository was edited there and stays as it is', file=sys.stderr)
    print(f'uploaded: {done.url}')
    print(f"load it: ssanet_jax.load('hub:{repository}@{done.commit}')")


def _format_size(size: int) -> str:
    return f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size / 1e3:.1f} kB'


if __name__ == '__main__':
    cli.run(main, accepts_arguments=True)
