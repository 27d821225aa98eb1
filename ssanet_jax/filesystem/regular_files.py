"""Reading of files that may come from strangers: pipes and devices are never opened, and sizes are limited."""

import os
import stat
from pathlib import Path

_NEVER_ENDING = 'not a regular file'  # reading a pipe blocks, and a device may have no end


def check_regular_file(path: Path) -> os.stat_result:
    """Refuses what must not be opened.

    Args:
      path: the file. A link is followed.

    Returns:
      The status of the file.

    Raises:
      OSError: it is missing, a folder, a pipe, a socket or a device; `strerror` is the reason.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise OSError(None, 'a folder')
    if not stat.S_ISREG(status.st_mode):
        raise OSError(None, _NEVER_ENDING)
    return status


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Reads a whole file.

    Args:
      path: the file. A link is followed.
      max_bytes: the largest size that is read.

    Raises:
      OSError: it is missing, a folder, a pipe, a socket or a device, or larger than `max_bytes`; `strerror` is the
        reason.
    """
    status = check_regular_file(path)
    with open(path, 'rb') as file:
        # A file allocates what it is asked for before it reads: ask for the rest only of one that grows, such as a log.
        data = file.read(min(status.st_size, max_bytes) + 1) if status.st_size <= max_bytes else b''
        if len(data) > status.st_size:
            data += file.read(max_bytes + 1 - len(data))
    if status.st_size > max_bytes or len(data) > max_bytes:
        raise OSError(None, f'more than {max_bytes / 1e6:.0f} MB')
    return data
