"""Weights from the Hugging Face hub."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from ssanet_jax.errors import UserError

WEIGHTS_FILE = 'model.safetensors'
CONFIG_FILE = 'config.json'


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
        path = Path(hf_hub_download(name, WEIGHTS_FILE, revision=revision or None))
    except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError
        raise UserError(
            f'hub:{repository} is not in the cache and cannot be downloaded; check the network, or download its '
            f'{WEIGHTS_FILE} elsewhere and give the path of that file'
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise UserError(f'the hub has no repository {repository}; give hub:OWNER/NAME[@REVISION]') from error
    except EntryNotFoundError as error:
        raise UserError(f'hub:{repository} has no file {WEIGHTS_FILE}; choose a repository that has one') from error
    except Exception as error:  # Network errors are of many types.
        why = ' '.join(str(error).split())[:120] or type(error).__name__
        raise UserError(f'hub:{repository} cannot be downloaded ({why}); try again, or give a local file') from error
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    # The parent folder in the cache is named after the commit.
    print(f'hub:{name}: {WEIGHTS_FILE} of commit {path.parent.name}, sha256 {digest}', file=sys.stderr)
    return path


def download_config(repository: str) -> dict[str, Any] | None:
    """Downloads the `config.json` of a repository, or reads it from the hub's cache.

    Args:
      repository: 'OWNER/NAME', or 'OWNER/NAME@REVISION'.

    Returns:
      The parsed file; None if there is none or it cannot be downloaded, in which case `download_weights` reports why.
    """
    name, _, revision = repository.partition('@')
    try:
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]

        content = json.loads(Path(hf_hub_download(name, CONFIG_FILE, revision=revision or None)).read_text('utf-8'))
    except Exception:  # `download_weights` reports missing packages, files and networks
        return None
    return content if isinstance(content, dict) else None
