"""The JSON files of a work directory: written at one stroke, and read as files that anything may have happened to."""

import json
import os
from pathlib import Path
from typing import Any

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.runs.aliases import upgrade_config

CONFIG_FILE = 'config.json'
RESULTS_FILE = 'results.json'
TRAIN_AGAIN = 'restore it from a copy, or delete it and give the training command again, which makes it anew'


def write_whole(path: Path, text: str, errors: str = 'strict') -> None:
    """Writes a text at one stroke, so that no reader ever sees half of it, and a kill leaves what was there before.

    Args:
      path: the file, whose folder is made if it is missing.
      text: written as UTF-8.
      errors: of the encoding, as in `str.encode`.

    Raises:
      OSError: it cannot be written; nothing is left of the attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.partial')
    try:
        partial.write_text(text, encoding='utf-8', errors=errors)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file at one stroke, so that no reader ever sees half of it.

    Of several processes, which all must come here, one writes; the others wait until it is there.

    Raises:
      UserError: it cannot be written; then an earlier one is as it was.
    """
    if processes.is_primary_process():
        try:
            write_whole(path, json.dumps(content, indent=2) + '\n')
        except OSError as error:
            raise UserError(
                f'cannot write {path} ({error.strerror}): make room, or see that this folder may be written to'
            ) from error
    processes.barrier(f'written {path}')


def read_json(path: Path, cure: str) -> dict[str, Any] | None:
    """A JSON file of the run, with an object in it; None if it is not there.

    Raises:
      UserError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): {cure}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged, it is no JSON: {cure}') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} is damaged, it holds no JSON object: {cure}')
    return content


def read_run(workdir: Path) -> dict[str, Any]:
    """What a work directory was claimed with: its `config`, `class_names` and `images` (their digest).

    Raises:
      UserError: it holds no run.
    """
    path = workdir / CONFIG_FILE
    cure = 'restore it from a copy, or train in another --workdir'
    content = read_json(path, cure)
    if content is None:
        raise UserError(f'{workdir} holds no run ({path.name} is missing): check --workdir')
    config = content.get('config')
    if not isinstance(config, dict) or not isinstance(config.get('stages'), list) or len(content) < 3:
        raise UserError(f'{path} is damaged, it holds no configuration: {cure}')
    content['config'] = upgrade_config(config)
    return {name: content.get(name) for name in ('config', 'class_names', 'images')}
