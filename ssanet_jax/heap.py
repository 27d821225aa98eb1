"""The memory of this process: what it frees is kept for its next use."""

import ctypes
import sys

# Parameters of `mallopt`, from glibc's malloc.h. Other C libraries lack it or know other numbers.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Asks glibc not to return freed memory to the system. Does nothing where there is no glibc.

    On CPU, XLA allocates the buffers of a program anew in each call. By default, glibc takes large blocks directly from
    the kernel and returns them when they are freed, and the kernel clears each page again at its next use. That is
    about a fifth of the time of a prediction (docs/speed.md, "Memory that is kept"). With this, the process keeps the
    most memory that it has used.

    Call it before threads start: large blocks are only kept in the first of glibc's arenas, so all threads must share
    that one, and a thread keeps the arena that it has.
    """
    if not sys.platform.startswith('linux'):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, 'gnu_get_libc_version'):
        library.mallopt(_ARENA_MAX, 1)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_TRIM_THRESHOLD, _LARGEST)
