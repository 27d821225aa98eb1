"""How often a run was evaluated on its test images: one line of `test_evaluations.jsonl` for each time.

Whoever chooses settings by test accuracy fits the test set. The count says how many chances there were; with
`config.data.validation` a training reads the test images once, at its end. Versions before 0.2.0 did not count.
"""

import datetime
import json
import os
from pathlib import Path

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.regular_files import check_regular_file, read_regular_file

_MAX_BYTES = 64 << 20  # of the file: half a million evaluations
COUNT_FILE = 'test_evaluations.jsonl'


def count_test_evaluation(workdir: Path, purpose: str) -> None:
    """Adds an evaluation on all test images. Call it in all processes, when the accuracy is known: the primary writes.

    A line is appended in one system call, so that several commands may count at the same time. An evaluation that is
    killed before its end is not counted.

    Args:
      workdir: the run's work directory.
      purpose: what the evaluation was for.

    Raises:
      UserError: the file cannot be written.
    """
    if not processes.is_primary_process():
        return
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    line = json.dumps({'time': time, 'purpose': purpose}) + '\n'
    path = workdir / COUNT_FILE
    try:
        if path.exists():
            check_regular_file(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(
            f'cannot write {path} ({error.strerror}): make room, or allow writing to this folder'
        ) from error


def num_test_evaluations(workdir: Path) -> int:
    """How often the run was evaluated on its test images.

    Raises:
      UserError: the file cannot be read.
    """
    path = workdir / COUNT_FILE
    try:
        return read_regular_file(path, _MAX_BYTES).count(b'\n')
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise UserError(f'cannot read {path} ({error.strerror}): check its permissions') from error


def evaluation_count_line(workdir: Path) -> str:
    """The count as a line for the user."""
    count = num_test_evaluations(workdir)
    return f'test images evaluated {count} {"time" if count == 1 else "times"} in this work directory'
