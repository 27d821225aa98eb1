"""Weights from the Hugging Face hub."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from ssanet_jax.errors import UserError

WEIGHTS_FILE = 'model.safetensors'
CONFIG_FILE = 'config.json'


class _NoFile(UserError):
    """The repository exists, but does not have the file."""


class _NotCached(UserError):
    """The file is not in the hub's cache, and the hub cannot be reached."""


def download_weights(repository: str) -> Path:
    """Downloads the weights file of a repository, or finds it in the hub's cache.

    Prints the file's commit and SHA-256 on stderr, so that logs identify the weights.

    Args:
      repository: 'OWNER/NAME', or 'OWNER/NAME@REVISION' with a branch, tag or commit.

    Returns:
      The path of the file.

    Raises:
      UserError: huggingface_hub is not installed, there is no such repository, revision or file, or it is not cached
        and cannot be downloaded.
    """
    path = _download(repository, WEIGHTS_FILE)
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    name = repository.partition('@')[0]
    # The parent folder in the cache is named after the commit.
    print(f'hub:{name}: {WEIGHTS_FILE} of commit {path.parent.name}, sha256 {digest}', file=sys.stderr)
    return path


def download_config(repository: str) -> dict[str, Any] | None:
    """Downloads the `config.json` of a repository, or reads it from the hub's cache.

    Args:
      repository: 'OWNER/NAME', or 'OWNER/NAME@REVISION'.

    Returns:
      The parsed file. None if the repository has none, or if the hub cannot be reached and the cache holds the weights
      without it.

    Raises:
      UserError: as in `download_weights`, or the file is not a JSON object.
    """
    try:
        path = _download(repository, CONFIG_FILE)
    except _NoFile:
        return None
    except _NotCached:
        # The weights can be used offline; without them, their preprocessing must not be guessed.
        _download(repository, WEIGHTS_FILE, only_cached=True)
        return None
    try:
        content = json.loads(path.read_text('utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read ({error}): delete it, to download it again') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} is not a JSON object: choose another checkpoint')
    return content


def _download(repository: str, file: str, *, only_cached: bool = False) -> Path:
    """Downloads a file of a repository, or finds it in the hub's cache.

    Args:
      repository: 'OWNER/NAME', or 'OWNER/NAME@REVISION'.
      file: its name in the repository.
      only_cached: do not access the network.

    Raises:
      UserError: as in `download_weights`.
    """
    try:
        # An optional dependency.
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]
        from huggingface_hub.errors import (  # pyright: ignore[reportMissingImports]
            EntryNotFoundError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise UserError("weights from the hub need the package huggingface_hub; run: pip install '.[hub]'") from None
    name, _, revision = repository.partition('@')
    try:
        return Path(hf_hub_download(name, file, revision=revision or None, local_files_only=only_cached))
    except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError
        raise _NotCached(
            f'hub:{repository} is not in the cache and cannot be downloaded; check the network, or download its '
            f'{WEIGHTS_FILE} elsewhere and give the path of that file'
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise UserError(f'the hub has no repository {repository}; give hub:OWNER/NAME[@REVISION]') from error
    except EntryNotFoundError as error:
        raise _NoFile(f'hub:{repository} has no file {file}; choose a repository that has one') from error
    except Exception as error:  # Network errors are of many types.
        why = ' '.join(str(error).split())[:120] or type(error).__name__
        raise UserError(f'hub:{repository} cannot be downloaded ({why}); try again, or give a local file') from error
