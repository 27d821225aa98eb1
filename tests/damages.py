"""Damages to files, as disks, copies and people cause them."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path


def flip(path: Path, seed: int = 0) -> None:
    """Flips one bit."""
    content = bytearray(path.read_bytes())
    position = random.Random(seed).randrange(8 * len(content))
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


def truncate(path: Path, seed: int = 0) -> None:
    """Cuts the end off."""
    os.truncate(path, random.Random(seed).randrange(path.stat().st_size))


def empty(path: Path, seed: int = 0) -> None:
    """Leaves an empty file, as a power failure does."""
    del seed
    path.write_bytes(b'')


def missing(path: Path, seed: int = 0) -> None:
    """Deletes the file."""
    del seed
    path.unlink()


def zeros(path: Path, seed: int = 0) -> None:
    """Overwrites a block with zeros."""
    content = bytearray(path.read_bytes())
    start = random.Random(seed).choice([place for place, byte in enumerate(content) if byte] or [0])
    stop = min(start + 512, len(content))
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


def garbage(path: Path, seed: int = 0) -> None:
    """Replaces the content by other bytes of the same number."""
    path.write_bytes(random.Random(seed).randbytes(path.stat().st_size))


def extended(path: Path, seed: int = 0) -> None:
    """Appends bytes."""
    with path.open('ab') as file:
        file.write(random.Random(seed).randbytes(7))


def folder(path: Path, seed: int = 0) -> None:
    """Puts a folder in the place of the file."""
    del seed
    path.unlink()
    path.mkdir()


def pipe(path: Path, seed: int = 0) -> None:
    """Puts a pipe in the place of the file, whose reader would wait forever."""
    del seed
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (flip, truncate, empty, missing, zeros, garbage, extended, folder, pipe)
}


def swap(path: Path, other: Path) -> None:
    """Puts the file or folder from another place here."""
    if path.is_dir():
        shutil.rmtree(path)
        shutil.copytree(other, path)
    else:
        shutil.copyfile(other, path)
