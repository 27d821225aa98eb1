"""Files from the Hugging Face hub. Imports no JAX."""

import hashlib
import json
import logging
import re
import sys
import threading
from pathlib import Path
from typing import Any

from ssanet_jax.errors import UserError

HUB = 'hub:'  # begins the name of a repository where paths may be given, too
WEIGHTS_FILE = 'model.safetensors'
CONFIG_FILE = 'config.json'
MODEL_FILE = 'model.onnx'
NAME = re.compile(r'[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*', re.ASCII)
TOKEN_CURE = 'run `hf auth login`, or set HF_TOKEN to a token of huggingface.co/settings/tokens that allows it'
_PRIVATE = '; if it is private, run `hf auth login` or set HF_TOKEN'
_COMMIT = re.compile('[0-9a-f]{40}')
_ANSWER_SECONDS = 8.0  # within which the hub must answer, for weights that a run can do without


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
    return _announce(repository, _download(repository, WEIGHTS_FILE))


def download_model_file(repository: str, file: str, max_bytes: int) -> Path:
    """Downloads a file of a trained network, or finds it in the hub's cache.

    Prints the file's commit and SHA-256 on stderr, as `download_weights` does.

    Args:
      repository: 'OWNER/NAME', or 'OWNER/NAME@REVISION' with a branch, tag or commit.
      file: its name in the repository.
      max_bytes: a larger file is refused before its download.

    Returns:
      The path of the file. Its folder in the cache is named after the commit.

    Raises:
      UserError: as in `download_weights`.
    """
    name = repository.partition('@')[0]
    if not NAME.fullmatch(name):
        raise UserError(f'hub:{repository} is no name of a repository: give hub:OWNER/NAME or hub:OWNER/NAME@REVISION')
    require_hub('or give the path of a file that ssanet export wrote')
    path = _download(repository, file, max_bytes=max_bytes, ways_out=f'check the network, or {_copy_cache(name)}')
    return _announce(repository, path)


def _announce(repository: str, path: Path) -> Path:
    """Prints which file it is."""
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    name = repository.partition('@')[0]
    # The parent folder in the cache is named after the commit.
    print(f'hub:{name}: {path.name} of commit {path.parent.name}, sha256 {digest}', file=sys.stderr)
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
        raise UserError(f'{path} cannot be read ({error}): rename it, to download it again') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} is not a JSON object: choose another checkpoint')
    return content


def obtain_weights(repository: str) -> str:
    """Brings the weights of a repository into the hub's cache, for a run that can do without them.

    It neither waits for a network that does not answer nor fails.

    Args:
      repository: as in `download_weights`.

    Returns:
      '' if the cache holds the weights now; otherwise the reason why not, in one line.
    """
    try:
        require_hub()
        if _is_cached(repository):
            return ''
        if problem := _no_answer(repository):
            return f'hub:{repository} is not in the cache and cannot be downloaded ({problem})'
        print(f'hub:{repository}: downloading the weights', file=sys.stderr)
        download_config(repository)
        _download(repository, WEIGHTS_FILE)
    except UserError as error:
        return str(error).partition(';')[0]  # without the cure
    return ''


def _is_cached(repository: str) -> bool:
    try:
        _download(repository, WEIGHTS_FILE, only_cached=True)
    except _NotCached:
        return False
    return True


def _no_answer(repository: str) -> str:
    """Asks the hub about the weights of a repository; returns why it does not answer, '' if it does."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # pyright: ignore[reportMissingImports]

    name, _, revision = repository.partition('@')
    problems = [f'no answer within {_ANSWER_SECONDS:.0f} seconds']

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(name, WEIGHTS_FILE, revision=revision or None), timeout=_ANSWER_SECONDS)
            problems[0] = ''
        except Exception as error:  # Network errors are of many types.
            problems[0] = in_short(error)

    # In a thread, because looking up the address of the hub has no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    return problems[0]


def _download(
    repository: str, file: str, *, only_cached: bool = False, max_bytes: int | None = None, ways_out: str = ''
) -> Path:
    """Downloads a file of a repository, or finds it in the hub's cache.

    Args:
      repository: 'OWNER/NAME', or 'OWNER/NAME@REVISION'.
      file: its name in the repository.
      only_cached: do not access the network.
      max_bytes: refuse a larger file before its download.
      ways_out: what to do without a network; by default the ways to get weights to train from.

    Raises:
      UserError: as in `download_weights`.
    """
    require_hub()
    # Imported late, since it takes most of a second.
    from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]
    from huggingface_hub.errors import (  # pyright: ignore[reportMissingImports]
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, _, revision = repository.partition('@')
    ways_out = ways_out or _ways_out(name)
    # It reports each of its attempts; the last one's error says enough.
    logging.getLogger('huggingface_hub').setLevel(logging.ERROR)
    try:
        if max_bytes is not None:
            _check_size(name, file, revision, max_bytes)
        return Path(hf_hub_download(name, file, revision=revision or None, local_files_only=only_cached))
    except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError
        raise _NotCached(f'hub:{repository} is not in the cache and cannot be downloaded; {ways_out}') from error
    except GatedRepoError as error:  # a subclass of RepositoryNotFoundError
        raise UserError(
            f'hub:{repository} is gated: accept its license at huggingface.co/{name}, then run `hf auth login` or set '
            'HF_TOKEN; or choose another repository'
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise UserError(f'the hub has no repository {repository}; give hub:OWNER/NAME[@REVISION]{_PRIVATE}') from error
    except EntryNotFoundError as error:
        raise _NoFile(f'hub:{repository} has no file {file}; choose a repository that has one') from error
    except UserError:
        raise
    except Exception as error:  # Network errors are of many types.
        if status_of(error) in (401, 403):
            raise UserError(f'the hub does not let you read {repository}: {TOKEN_CURE}') from error
        raise UserError(f'hub:{repository} cannot be downloaded ({in_short(error)}); try again; {ways_out}') from error


def in_short(error: Exception) -> str:
    """The beginning of an error's message, without the address that it is about."""
    return ' '.join(str(error).partition(' for url')[0].split())[:120] or type(error).__name__


def _check_size(name: str, file: str, revision: str, max_bytes: int) -> None:
    """Raises `UserError` if the hub has a file that is too large."""
    from huggingface_hub import (  # pyright: ignore[reportMissingImports]
        get_hf_file_metadata,
        hf_hub_url,
        try_to_load_from_cache,
    )

    if _COMMIT.fullmatch(revision) and isinstance(try_to_load_from_cache(name, file, revision=revision), str):
        return  # it will not be downloaded
    try:
        size = get_hf_file_metadata(hf_hub_url(name, file, revision=revision or None)).size
    except Exception:  # the download says what is wrong, unless the file is in the cache
        return
    if size is not None and size > max_bytes:
        raise UserError(
            f'{file} of hub:{name} has {size / 1e6:,.0f} MB, and such a file has at most {max_bytes / 1e6:,.0f} MB: '
            'choose another repository'
        )


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error of huggingface_hub, if it has one."""
    return getattr(getattr(error, 'response', None), 'status_code', None)


def require_hub(otherwise: str = 'or give config.model.pretrained the path of a weights file') -> None:
    """Raises `UserError` if huggingface_hub is not installed; its end is `otherwise`."""
    try:
        import huggingface_hub.errors  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f'files from the hub need the package huggingface_hub; run: pip install huggingface_hub, {otherwise}'
        ) from None


def _ways_out(name: str) -> str:
    """What to do without a network."""
    return (
        f'check the network, or choose: (1) config.model.pretrained=FILE, the {WEIGHTS_FILE} of '
        f'huggingface.co/{name} or another weights file of this backbone; (2) {_copy_cache(name)}; '
        '(3) config.model.pretrained=none, which trains from random weights'
    )


def _copy_cache(name: str) -> str:
    return (
        f'run `hf download {name}` where there is a network, and copy its cache (~/.cache/huggingface, or HF_HOME) here'
    )
