"""`history.jsonl` of a stage: its epochs and evaluations, one JSON object per line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.runs.files import write_whole

HISTORY_FILE = 'history.jsonl'
EPOCH, EVALUATION = 'epoch', 'evaluation'  # kinds of lines
PREDICTION = 'prediction'  # the head that stands for the sum of all heads


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a stage's history, in the order in which they were written.

    A line is `{'kind': 'epoch' or 'evaluation', 'step': steps done, 'epoch': epochs done, 'values': {name: number},
    ...}`. What is no such line is left out: a process that is killed may leave half of one.

    Args:
      path: `<stage>/history.jsonl`; where it does not exist there are no lines.

    Raises:
      UserError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f'cannot read {path} ({error.strerror}): check its permissions') from error
    # A line without its end may be cut in the middle of a number.
    return [line for line in map(_parse, content.split(b'\n')[:-1]) if line is not None]


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
        numbers = [line['step'], line['epoch'], *line['values'].values()]
        whole = line['kind'] in (EPOCH, EVALUATION) and isinstance(line['step'], int)
        return line if whole and all(math.isfinite(number) for number in numbers) else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


class History:
    """`history.jsonl` of a stage: the means of each epoch and the accuracies of each evaluation, a JSON line each.

    Of several processes only the leading one reads and writes it.

    Args:
      path: of the file.
      first: step at which this process takes up the work. Lines from beyond it, which an earlier start wrote after
        its last checkpoint, are dropped, and so is half a line that a killed process left.
    """

    def __init__(self, path: Path, first: int):
        self._file = None
        if not processes.is_primary_process():
            return
        kept = [line for line in read_history(path) if line['step'] <= first]
        self._written = {(line['kind'], line['step']) for line in kept}
        write_whole(path, ''.join(json.dumps(line) + '\n' for line in kept))
        self._file = path.open('a')

    def add(self, kind: str, step: int, epoch: float, values: Mapping[str, float], **about: Any) -> None:
        """Appends a line, unless the evaluation at this step is there from before and was only made again."""
        if self._file is None or (kind, step) in self._written:
            return
        self._written.add((kind, step))
        numbers = {name: float(value) for name, value in values.items()}
        self._file.write(json.dumps({'kind': kind, 'step': step, 'epoch': epoch, **about, 'values': numbers}) + '\n')
        self._file.flush()

    def close(self) -> None:
        """To be called at the end; every line is in the file before."""
        if self._file is not None:
            self._file.close()
