"""Uploads a folder to a repository of the Hugging Face hub."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.hub import NAME, TOKEN_CURE, in_short, status_of
from ssanet_jax.push.model_card import CARD_FILE, is_unedited


class Uploaded(NamedTuple):
    """Where the files are."""

    url: str  # of the commit
    commit: str
    kept_card: bool  # whether the repository has a model card that was written by hand, and keeps it


def check_name(repository: str) -> None:
    """Raises `UserError` unless a name is 'OWNER/NAME', without a revision."""
    if not NAME.fullmatch(repository):
        raise UserError(f'{repository!r} is no name of a repository: give OWNER/NAME, where OWNER is you or a group')


def check_token(repository: str) -> None:
    """Asks the hub whose token this is, before minutes of work.

    Raises:
      UserError: there is no token, it is not valid, or the hub cannot be reached.
    """
    with _hub_errors(repository):
        from huggingface_hub import HfApi

        HfApi().whoami()


def upload(folder: Path, repository: str, private: bool | None, optional: Iterable[str]) -> Uploaded:
    """Creates a repository if it does not exist, and uploads a folder as one commit.

    A model card that somebody has edited on the hub stays as it is.

    Args:
      folder: the folder.
      repository: 'OWNER/NAME'.
      private: visibility of a new repository; None for the default of its owner, which is mostly public.
      optional: patterns of files that are removed from the repository if the folder lacks them.

    Raises:
      UserError: the hub cannot be reached, or refuses it.
    """
    with _hub_errors(repository):
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        kept = _has_edited_card(repository)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message='Upload a network by ssanet push',
            ignore_patterns=[CARD_FILE] if kept else None,
            delete_patterns=[pattern for pattern in optional if not any(folder.glob(pattern))] or None,
        )
        return Uploaded(str(done.commit_url), str(done.oid), kept)


def _has_edited_card(repository: str) -> bool:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        card = Path(hf_hub_download(repository, CARD_FILE))
    except EntryNotFoundError:
        return False
    return not is_unedited(card.read_text('utf-8', 'replace'))


@contextlib.contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turns the errors of huggingface_hub into one line each."""
    try:
        from huggingface_hub.errors import GatedRepoError, LocalTokenNotFoundError, RepositoryNotFoundError
    except ImportError:
        raise UserError('push needs the package huggingface_hub: pip install huggingface_hub') from None
    logging.getLogger('huggingface_hub').setLevel(logging.ERROR)
    owner = repository.partition('/')[0]
    try:
        yield
    except UserError:
        raise
    except LocalTokenNotFoundError as error:
        raise UserError(f'the hub does not know who you are: {TOKEN_CURE} (write access)') from error
    except GatedRepoError as error:
        raise UserError(f'{repository} is gated: ask its owner for access, or give another name') from error
    except RepositoryNotFoundError as error:
        raise UserError(f'the hub does not let you write to {repository}: {_permission(owner)}') from error
    except Exception as error:  # network errors are of many types
        status = status_of(error)
        if status == 401:
            raise UserError(f'the hub does not accept your token: {TOKEN_CURE} (write access)') from error
        if status == 403:
            raise UserError(f'the hub does not let you write to {repository}: {_permission(owner)}') from error
        answered = f'the hub answered {status}' if status else 'the hub cannot be reached'
        raise UserError(
            f'{answered} ({in_short(error)}): check the network and try again, or write the folder with --dry_run'
        ) from error


def _permission(owner: str) -> str:
    return f'give a name of your own as OWNER, or a token with write access to {owner} ({TOKEN_CURE})'
