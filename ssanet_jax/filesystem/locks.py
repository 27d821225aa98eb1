"""Locks between processes, on file systems with and without them."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def lock_file(path: Path, *, wait: bool) -> Iterator[str]:
    """Holds the operating system's lock on a file while the context is open.

    The system releases the lock when the process ends, even if it is killed. The file itself stays. Some network file
    systems (Lustre without `-o flock`, some NFS and FUSE mounts) have no locks: the context is then open without one.

    Args:
      path: the file. It is created if it does not exist; its folder must exist.
      wait: wait while another process holds the lock.

    Yields:
      Why the file system cannot lock the file; '' if it is locked.

    Raises:
      BlockingIOError: another process holds the lock, with `wait=False`.
      OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        problem = ''
        try:
            # Not `filelock`: it takes EACCES, which some network file systems give for every lock, for another
            # process, and gives up where there are no locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError as error:
            problem = error.strerror or str(error)
        yield problem
    finally:
        os.close(descriptor)
