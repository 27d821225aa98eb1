"""The files of onnxruntime-web that the page needs, of one version, from the package or from a host."""

import base64
import hashlib
import tarfile
from pathlib import Path
from typing import NamedTuple

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.filesystem.regular_files import check_regular_file, read_regular_file

VERSION = '1.30.0'
CDN = f'https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist'
_GET_IT = f'run "npm pack onnxruntime-web@{VERSION}" and give the .tgz file that it writes'


class RuntimeFile(NamedTuple):
    """A file of the folder `dist` of the package."""

    name: str
    size: int  # bytes
    integrity: str  # its hash, as browsers check it


FILES = {
    'module': RuntimeFile(
        'ort.wasm.bundle.min.mjs', 73054, 'sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG'
    ),
    'wasm': RuntimeFile(
        'ort-wasm-simd-threaded.wasm',
        14239897,
        'sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM',
    ),
}


def choose_runtime(choice: str | None) -> dict[str, bytes] | None:
    """The files of onnxruntime-web that a page gets, by key in `FILES`; None if browsers load them from `CDN`.

    Args:
      choice: 'cdn', or the path of the npm package, as a `.tgz` file or unpacked.

    Raises:
      UserError: there is no choice, or it is something else, or another version.
    """
    if not choice:
        raise UserError(f'--format=web needs --runtime=PACKAGE: {_GET_IT}; or give --runtime=cdn (docs/web.md)')
    return None if choice == 'cdn' else read_runtime(user_path(choice, '--runtime'))


def read_runtime(path: Path) -> dict[str, bytes]:
    """Reads the contents of `FILES`, by key.

    Args:
      path: the npm package onnxruntime-web, as a `.tgz` file or unpacked.

    Raises:
      UserError: it is something else, or another version.
    """
    try:
        contents = _read_folder(path) if path.is_dir() else _read_archive(path)
    except (OSError, tarfile.TarError, EOFError, KeyError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(f'cannot read onnxruntime-web from {path} ({reason}): {_GET_IT}') from error
    for key, content in contents.items():
        digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
        if f'sha384-{digest}' != FILES[key].integrity:
            raise UserError(f'{path} has another {FILES[key].name} than onnxruntime-web {VERSION}: {_GET_IT}')
    return contents


def _read_folder(folder: Path) -> dict[str, bytes]:
    base = folder / 'dist' if (folder / 'dist').is_dir() else folder
    return {key: read_regular_file(base / file.name, file.size) for key, file in FILES.items()}


def _read_archive(path: Path) -> dict[str, bytes]:
    check_regular_file(path)
    contents = {}
    with tarfile.open(path, 'r:gz') as archive:
        for key, file in FILES.items():
            member = archive.extractfile(f'package/dist/{file.name}')
            if member is None:
                raise ValueError(f'{file.name} is no file')
            contents[key] = member.read(file.size + 1)
    return contents
