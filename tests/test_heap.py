"""Freed memory is used again without asking the kernel for it."""

import subprocess
import sys

import pytest

# Prints how many pages the kernel had to provide for a block of 256 MiB, the second time.
ALLOCATE_TWICE = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(2**28)
    ctypes.memset(block, 1, 2**28)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""


def pages(before: str) -> int:
    code = before + ALLOCATE_TWICE
    return int(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs glibc')
def test_freed_memory_is_kept():
    assert pages('') > 100  # 65,536 pages of 4 KiB, or 128 huge ones
    assert pages('from ssanet_jax.heap import keep_freed_memory; keep_freed_memory()') < 10
