"""Weights from the Hugging Face hub."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from ssanet_jax.errors import UserError

FILE = 'model.safetensors'
CONFIG_FILE = 'config.json'


def hub_file(repository: str) -> Path:
    """The weights file of a repository, downloaded once and then taken from the hub's own cache.

    Its commit and sha256 are printed on stderr, so that a log tells later which weights they were.

    Args:
      repository: 'OWNER/NAME', or 'OWNER/NAME@REVISION' with a branch, tag or commit.

    Raises:
      UserError: huggingface_hub is not installed, there is no such repository, revision or file, or it
        is neither cached nor to be had.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
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
        path = Path(hf_hub_download(name, FILE, revision=revision or None))
    except LocalEntryNotFoundError as error:  # It is an EntryNotFoundError too.
        raise UserError(
            f'hub:{repository} is not in the cache and cannot be downloaded now; check the network, or download its '
            f'{FILE} elsewhere and give the path of that file'
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise UserError(f'the hub has no repository {repository}; give hub:OWNER/NAME[@REVISION]') from error
    except EntryNotFoundError as error:
        raise UserError(f'hub:{repository} has no file {FILE}; choose a repository that has one') from error
    except Exception as error:  # Errors of the network have many kinds.
        why = ' '.join(str(error).split())[:120] or type(error).__name__
        raise UserError(f'hub:{repository} cannot be downloaded ({why}); try again, or give a local file') from error
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    # The cache keeps a file under its commit.
    print(f'hub:{name}: {FILE} of commit {path.parent.name}, sha256 {digest}', file=sys.stderr)
    return path


def hub_config(repository: str) -> dict[str, Any] | None:
    """The `config.json` of a repository, downloaded once and then read from the hub's cache.

    Args:
      repository: as of `hub_file`.

    Returns:
      None where there is none, or where the hub cannot be reached: `hub_file` reports why.
    """
    name, _, revision = repository.partition('@')
    try:
        from huggingface_hub import hf_hub_download

        content = json.loads(Path(hf_hub_download(name, CONFIG_FILE, revision=revision or None)).read_text('utf-8'))
    except Exception:  # Missing packages, files and networks all mean that nothing is known.
        return None
    return content if isinstance(content, dict) else None
