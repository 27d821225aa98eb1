"""Downloads a file over HTTP: resumed where it stopped, from one mirror after the other, and checked.

No well-kept library does this: pooch and the download manager of TensorFlow Datasets check sums, but start an
interrupted file of a gigabyte again from its first byte.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import requests
import urllib3

from ssanet_jax.download.sources import Archive
from ssanet_jax.errors import UserError

_CHUNK = 2**17  # bytes
_TIMEOUT = (10, 30)  # seconds: to connect, and between two pieces of data
_PAUSES = (1, 3)  # seconds before each further attempt that follows one without new data

Progress = Callable[[int, int | None], None]  # (bytes so far, bytes in all or None)


class _MirrorFailed(Exception):
    """A mirror does not have the file, or something else under its name."""


class _Interrupted(Exception):
    """The connection broke; what has arrived is kept."""


def fetch(archive: Archive, folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """Downloads a file, unless it is in the folder already.

    A download that was interrupted or killed continues in `NAME.part`. The file gets its name once its checksum is
    right.

    Args:
      archive: the file.
      folder: where to put it.
      progress: called as data arrives.

    Returns:
      The path of the file.

    Raises:
      UserError: no mirror has the file, with the reason of each; or the folder has another file of this name.
      OSError: the folder cannot be written.
    """
    path, part = folder / archive.name, folder / f'{archive.name}.part'
    if path.exists():
        if not _is_right(path, archive):
            raise UserError(f'{path} is not the published file (its checksum differs): rename it, or put the right one')
        return path
    reasons = []
    for url in archive.urls:
        try:
            _fetch_from(url, part, archive, progress)
        except _MirrorFailed as error:
            reasons.append(f'{url} ({error})')
            continue
        part.replace(path)
        return path
    raise UserError(
        f'no server has {archive.name}: {", ".join(reasons)}; try again later, or get the file elsewhere, put it into '
        f'{folder} and run the same command again, which checks it'
    )


def _fetch_from(url: str, part: Path, archive: Archive, progress: Progress) -> None:
    """Completes `part` from one mirror, and checks it.

    Raises:
      _MirrorFailed: the mirror has no such file, has another one, or breaks the connection again and again.
    """
    resumed = _size(part) > 0
    _receive_all(url, part, archive, progress)
    if _is_right(part, archive):
        return
    part.unlink()
    if resumed:  # its beginning may have been wrong
        _receive_all(url, part, archive, progress)
        if _is_right(part, archive):
            return
        part.unlink()
    raise _MirrorFailed('its file has another checksum')


def _receive_all(url: str, part: Path, archive: Archive, progress: Progress) -> None:
    """Receives the rest of the file, in as many connections as it takes."""
    pauses = list(_PAUSES)
    while True:
        before = _size(part)
        try:
            _receive(url, part, archive, progress)
            return
        except _Interrupted as error:
            if _size(part) > before:
                pauses = list(_PAUSES)
            elif not pauses:
                raise _MirrorFailed(str(error)) from error
            time.sleep(pauses.pop(0))


def _receive(url: str, part: Path, archive: Archive, progress: Progress) -> None:
    """Receives the rest of the file in one connection.

    Raises:
      _MirrorFailed: the mirror has no such file, or another one.
      _Interrupted: the connection broke.
    """
    start = _size(part)
    if archive.size is not None and start >= archive.size:
        if start > archive.size:
            part.unlink()
            start = 0
        else:
            return
    # Compressed transfers would make sizes and ranges count other bytes than those of the file.
    headers = {'Accept-Encoding': 'identity'} | ({'Range': f'bytes={start}-'} if start else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == 416:  # nothing is left to send, or the part is longer than the file
                if archive.size is None and _is_right(part, archive):
                    return
                part.unlink()
                raise _Interrupted('it sends no part of the file')
            if response.status_code >= 500 or response.status_code == 429:
                raise _Interrupted(f'{response.status_code} {response.reason}')
            if response.status_code not in (200, 206):
                raise _MirrorFailed(f'{response.status_code} {response.reason}')
            if response.headers.get('Content-Type', '').startswith('text/html'):
                raise _MirrorFailed('it sends a web page instead of the file')
            if response.status_code == 200:
                start = 0  # it sends the whole file
            total = _total(response, start)
            if archive.size is not None and total not in (None, archive.size):
                raise _MirrorFailed(f'its file has {total} bytes instead of {archive.size}')
            _write(response, part, start, archive.size or total, progress)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _Interrupted(_explain(error)) from error


def _write(response: requests.Response, part: Path, start: int, total: int | None, progress: Progress) -> None:
    """Appends the data to the first `start` bytes of `part`."""
    with open(part, 'r+b' if start else 'wb', buffering=0) as file:  # so that a kill loses less than a chunk
        file.seek(start)
        done = start
        for data in response.raw.stream(_CHUNK, decode_content=False):
            file.write(data)
            done += len(data)
            if total is not None and done > total:
                raise _MirrorFailed(f'it sends more than {total} bytes')
            progress(done, total)
    if total is not None and done < total:
        raise _Interrupted(f'the connection ended after {done} of {total} bytes')


def _total(response: requests.Response, start: int) -> int | None:
    """The size of the whole file, from the headers.

    Raises:
      _MirrorFailed: the server sends another part than the one asked for.
    """
    if response.status_code == 206:
        unit, _, sent = response.headers.get('Content-Range', '').partition(' ')
        span, _, total = sent.partition('/')
        if unit != 'bytes' or span.partition('-')[0] != str(start):
            raise _MirrorFailed('it sends another part of the file than was asked for')
        return int(total) if total.isdigit() else None
    length = response.headers.get('Content-Length', '')
    return int(length) if length.isdigit() else None


def _is_right(path: Path, archive: Archive) -> bool:
    algorithm, _, digest = archive.checksum.partition(':')
    if archive.size not in (None, _size(path)):
        return False
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digest


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _explain(error: Exception) -> str:
    """A few words for an error of a connection."""
    if isinstance(error, requests.Timeout):
        return 'it does not answer'
    if isinstance(error, requests.exceptions.SSLError):
        return 'its certificate is not accepted'
    if isinstance(error, requests.ConnectionError):
        return 'it cannot be reached'
    return ' '.join(str(error).split())[:80] or type(error).__name__
