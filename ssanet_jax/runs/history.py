"""`history.jsonl` of a stage: its epochs and evaluations, one JSON object per line."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.atomic_files import set_aside, write_atomically
from ssanet_jax.filesystem.regular_files import read_regular_file
from ssanet_jax.runs.json_checksums import FIELD as CHECKSUM
from ssanet_jax.runs.json_checksums import add_checksum, remove_checksum

HISTORY_FILE = 'history.jsonl'
_MAX_BYTES = 8 << 20
EPOCH, EVALUATION = 'epoch', 'evaluation'  # kinds of lines
PREDICTION = 'prediction'  # name of the prediction, which sums all heads, among the heads


def read_history(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a stage's history, in the order in which they were written.

    Malformed lines are skipped: a killed process may leave half of one. So are those of another stage.

    Args:
      path: `<stage>/history.jsonl`.

    Returns:
      `{'kind': 'epoch' or 'evaluation', 'step': steps done, 'epoch': epochs done, 'values': {name: number}, ...}` for
      each line; an empty list if the file does not exist.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        content = read_regular_file(path, _MAX_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f'cannot read {path} ({error.strerror}): check its permissions') from error
    lines = (_parse(line, path.parent.name) for line in _complete_lines(content))
    return [line for line in lines if line is not None]


def _complete_lines(content: bytes) -> list[bytes]:
    """The lines of a file. A last one without a newline may end in the middle of a number, unless it has a checksum."""
    *lines, last = content.split(b'\n')
    last = last[: last.rfind(b'}') + 1]
    return [*lines, last] if CHECKSUM.encode() in last else lines


def _parse(text: bytes, stage: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
        if 'stage' in line and CHECKSUM not in line:  # early versions wrote neither
            return None
        line = remove_checksum(line)
        if line.pop('stage', stage) != stage:
            return None
        numbers = [line['step'], line['epoch'], *line['values'].values()]
        whole = line['kind'] in (EPOCH, EVALUATION) and isinstance(line['step'], int)
        return line if whole and all(math.isfinite(number) for number in numbers) else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def num_damaged_lines(path: Path) -> int:
    """The number of malformed lines, without a last one that a killed process left unfinished.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        lines = _complete_lines(read_regular_file(path, _MAX_BYTES))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise UserError(f'cannot read {path} ({error.strerror}): check its permissions') from error
    return sum(bool(line.strip()) and _parse(line, path.parent.name) is None for line in lines)


def _line(content: dict[str, Any], stage: str) -> str:
    return json.dumps(add_checksum({**content, 'stage': stage})) + '\n'


class History:
    """Writes `history.jsonl` of a stage: the means of each epoch and the accuracies of each evaluation, one per line.

    Only the primary process reads and writes the file.

    Args:
      path: the file.
      first_step: the step that the stage goes on from. Later lines, which an earlier start wrote after its last
        checkpoint, are dropped, and so is the half line of a killed process.
    """

    def __init__(self, path: Path, first_step: int):
        self._file = None
        self._stage = path.parent.name
        if not processes.is_primary_process():
            return
        kept = [line for line in read_history(path) if line['step'] <= first_step]
        self._written = {(line['kind'], line['step']) for line in kept}
        self._keep_damaged(path)
        write_atomically(path, ''.join(_line(line, self._stage) for line in kept))
        self._file = path.open('a')

    def _keep_damaged(self, path: Path) -> None:
        """Sets a file with damaged lines aside, before it is written without them."""
        if count := num_damaged_lines(path):
            aside = set_aside(path)
            logging.warning(f'{path} is damaged ({count} of its lines), set aside as {aside.name}: they are left out')

    def add(self, kind: str, step: int, epoch: float, values: Mapping[str, float], **fields: Any) -> None:
        """Appends a line, unless the file already has one of this kind and step: a resumed stage evaluates again.

        Args:
          kind: `EPOCH` or `EVALUATION`.
          step: steps done.
          epoch: epochs done.
          values: numbers by name.
          **fields: further fields of the line.
        """
        if self._file is None or (kind, step) in self._written:
            return
        self._written.add((kind, step))
        numbers = {name: float(value) for name, value in values.items()}
        line = {'kind': kind, 'step': step, 'epoch': epoch, **fields, 'values': numbers}
        self._file.write(_line(line, self._stage))
        self._file.flush()

    def close(self) -> None:
        """Closes the file. Every line has been flushed before."""
        if self._file is not None:
            self._file.close()
