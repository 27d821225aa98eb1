"""Which files are images: one rule for training, evaluation, the doctor and predict.

A file is an image if its name has the extension of a supported format, or if its content starts like one. Hidden files
and folders are skipped, and so are those that systems and archives leave behind (``__MACOSX``, ``@eaDir``). Links to
folders are followed once. Pipes, sockets and devices are never opened.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from PIL import features

from ssanet_jax.plain_text import printable

_SUFFIXES = {
    'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif'),
    'PNG': ('.png',),
    'BMP': ('.bmp',),
    'WEBP': ('.webp',),
    'TIFF': ('.tif', '.tiff'),
    'GIF': ('.gif',),
    'AVIF': ('.avif',),
    'HEIF': ('.heic', '.heif', '.hif'),
}
_HEIF_PACKAGES = ('pillow_heif', 'pi_heif')  # either of them adds HEIF to Pillow
# Other formats of images, by extension. Several look like TIFF, but hold only a small preview that Pillow can read.
_UNSUPPORTED_SUFFIXES = {
    'camera raw': '.3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .sr2'
    ' .srf .srw .x3f'.split(),
    'JPEG XL': ['.jxl'],
    'JPEG 2000': '.jp2 .j2k .jpf .jpx'.split(),
    'vector graphics': '.svg .eps .ai .pdf'.split(),
    'Photoshop': '.psd .psb'.split(),
    'OpenEXR': ['.exr'],
    'video': '.mp4 .mov .avi .mkv .webm .m4v'.split(),
}
_UNSUPPORTED = {suffix: name for name, suffixes in _UNSUPPORTED_SUFFIXES.items() for suffix in suffixes}
# Copies that editors, downloads and exiftool leave beside an image.
_REMAINS = ('~', '.bak', '.orig', '.old', '.tmp', '.part', '.partial', '.crdownload', '_original')
# Left by macOS, Windows and Synology; none of them holds images of the user.
_SYSTEM_NAMES = {
    *('__macosx', '@eadir', '$recycle.bin', 'system volume information', 'lost+found'),
    *('thumbs.db', 'ehthumbs.db', 'desktop.ini', 'icon\r'),
}
_HEAD_BYTES = 32
_MAX_BYTES = 1 << 30  # of an image file; images that can be decoded are smaller
NOT_AN_IMAGE = 'not an image'  # a reason of `LeftOut`
_NUM_NAMES = 3  # that a message lists

_Path = TypeVar('_Path', str, Path)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not used."""

    path: str
    reason: str
    """Such as 'not an image'; completes 'left out: '."""


@dataclasses.dataclass(frozen=True)
class FoundImages:
    """The images of a folder and its subfolders."""

    images: list[Path]
    left_out: list[LeftOut]
    """With paths as they were found, below the folder that was searched."""
    linked: dict[Path, Path]
    """Images that were reached through a link to a folder -> their path without links."""


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """The formats that `decode_image` accepts, by Pillow's names; registers Pillow's HEIF plugin if it is installed.

    Pillow reads many more formats; for some of them (EPS) it starts other programs.
    """
    formats = ['JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF']
    if features.check('avif'):
        formats.append('AVIF')
    for package in _HEIF_PACKAGES:
        if importlib.util.find_spec(package):
            importlib.import_module(package).register_heif_opener()
            formats.append('HEIF')
            break
    return tuple(formats)


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """Extensions of the readable formats, in lower case."""
    return tuple(suffix for name in readable_formats() for suffix in _SUFFIXES[name])


def image_format(head: bytes) -> str:
    """Recognizes the format of an image by its first 32 bytes.

    Returns:
      A name as Pillow has it ('JPEG', 'HEIF'), 'camera raw', 'JPEG XL' or 'JPEG 2000'; '' for anything else.
    """
    if head.startswith(b'\xff\xd8\xff'):
        return 'JPEG'
    if head.startswith(b'\x89PNG\r\n\x1a\n'):
        return 'PNG'
    if head.startswith((b'GIF87a', b'GIF89a')):
        return 'GIF'
    if head[:4] == b'RIFF' and head[8:12] == b'WEBP':
        return 'WEBP'
    if head.startswith((b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')):
        return 'camera raw' if head[8:10] == b'CR' else 'TIFF'
    # Two letters are not enough: the reserved fields and the size of the header tell a bitmap from a text.
    if head[:2] == b'BM' and head[6:10] == bytes(4) and head[15:18] == bytes(3):
        return 'BMP'
    if head[4:8] == b'ftyp':
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, len(head), 4))}
        if brands & {b'avif', b'avis'}:
            return 'AVIF'
        if brands & {b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1'}:
            return 'HEIF'
        return 'camera raw' if b'crx ' in brands else 'video'
    if head.startswith((b'\xff\x0a', b'\0\0\0\x0cJXL ')):
        return 'JPEG XL'
    return 'JPEG 2000' if head.startswith(b'\0\0\0\x0cjP  ') else ''


def explain_content(data: bytes) -> str:
    """Why a file cannot be read as an image, by its first bytes, for messages."""
    head = data[:_HEAD_BYTES]
    if not data:
        return 'the file is empty'
    if data.startswith(b'version https://git-lfs'):
        return 'a Git LFS pointer in place of the image: run git lfs pull'
    if data.lstrip()[:15].lower().startswith((b'<!doctype html', b'<html')):
        return 'a web page in place of the image'
    name = image_format(head)
    if name and name not in readable_formats():
        return unsupported(name)
    if not any(head):
        return 'the file starts with zeros: its download or copy was not completed'
    return f'not an image: not one of {", ".join(readable_formats())}'


def unsupported(name: str) -> str:
    """Why images of this format, as `image_format` names it, are left out, and the cure."""
    if name == 'HEIF':
        return 'HEIC, which needs the package pillow-heif'
    return f'{name}, which is not supported'


def search_folder(folder: Path) -> FoundImages:
    """Lists the images of a folder and its subfolders, sorted.

    Each link to a folder is followed once, but not to a folder that contains the link. Links to files count as files;
    an image whose target is missing is listed, so that its reader reports it.
    """
    found = FoundImages([], [], {})
    above = {_identity(place) for place in (folder.resolve(), *folder.resolve().parents)}
    links = _walk(folder, found, set(above), above)
    for link in links:
        # Links below a linked folder are followed once per link, which ends cycles.
        visited, pending = set(above), [link]
        while pending:
            folder_link = pending.pop()
            identity = _identity(folder_link)
            if identity in visited:
                if identity in above:
                    found.left_out.append(LeftOut(str(folder_link), 'a link to a folder that contains it'))
                continue
            before = len(found.images)
            pending += _walk(folder_link, found, visited, above)
            found.linked.update((path, path.resolve()) for path in found.images[before:])
    found.images.sort(key=str)
    found.left_out.sort(key=lambda item: item.path)
    return found


def without_repeats(paths: Iterable[_Path], linked: Mapping[_Path, Path], root: Path) -> list[_Path]:
    """Drops the images that a link to a folder brings into a group for a second time.

    Args:
      paths: the images of the group.
      linked: `FoundImages.linked`, with paths in the form of `paths`.
      root: the folder that the paths are relative to.
    """
    paths = list(paths)
    if not any(path in linked for path in paths):
        return paths
    reached = {(root / path).resolve() for path in paths if path not in linked}
    kept = []
    for path in paths:
        if path in linked:
            if linked[path] in reached:
                continue
            reached.add(linked[path])
        kept.append(path)
    return kept


def _walk(folder: Path, found: FoundImages, visited: set[tuple[int, int]], above: set[tuple[int, int]]) -> list[Path]:
    """Adds the images of a folder and its real subfolders to `found`; returns the links to folders."""
    links, pending = [], [folder]
    while pending:
        place = pending.pop()
        try:
            visited.add(_identity(place))
            with os.scandir(place) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            found.left_out.append(LeftOut(str(place), f'a folder that cannot be opened ({error.strerror})'))
            continue
        for entry in listed:
            path = Path(entry.path)
            if is_skipped(entry.name):
                continue
            if entry.is_symlink() and entry.is_dir():
                links.append(path)
            elif entry.is_dir():
                if _identity(path) not in visited:
                    pending.append(path)
            elif reason := why_left_out(path):
                found.left_out.append(LeftOut(str(path), reason))
            else:
                found.images.append(path)
    return links


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def is_skipped(name: str) -> bool:
    """Whether a file or folder is hidden or belongs to the system, by its name."""
    return name.startswith('.') or name.lower() in _SYSTEM_NAMES


def why_left_out(path: Path) -> str:
    """Why a file is not an image; '' if it is one."""
    suffix = path.suffix.lower()
    try:
        mode = path.stat().st_mode
    except OSError:  # such as a broken link: the reader of the image reports it
        return '' if suffix in image_suffixes() else NOT_AN_IMAGE
    if not stat.S_ISREG(mode):
        return 'not a regular file'
    if path.name.lower().endswith(_REMAINS):
        return 'a backup or an unfinished download'
    if suffix in image_suffixes():
        return ''
    if suffix in _UNSUPPORTED:
        return unsupported(_UNSUPPORTED[suffix])
    try:
        with open(path, 'rb') as file:
            name = image_format(file.read(_HEAD_BYTES))
    except OSError as error:
        return f'a file that cannot be opened ({error.strerror})'
    if name in readable_formats():
        return ''
    if not name:  # damaged or empty
        name = next((known for known, suffixes in _SUFFIXES.items() if suffix in suffixes), '')
    return unsupported(name) if name else NOT_AN_IMAGE


def read_file(path: Path) -> bytes:
    """Reads an image file.

    Raises:
      OSError: it is missing, is not a regular file, or is too large for an image; `strerror` is the reason.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise OSError(None, 'a folder')
    if not stat.S_ISREG(status.st_mode):
        raise OSError(None, 'not a regular file')  # reading a pipe would block
    if status.st_size > _MAX_BYTES:
        raise OSError(None, f'{status.st_size / 1e9:.1f} GB are too large for an image')
    return path.read_bytes()


def left_out_line(left_out: Iterable[LeftOut], used: int) -> str:
    """One line about the files that are left out: how many, why, and the first three names of each reason.

    Args:
      left_out: the files.
      used: the number of images that are used.

    Returns:
      Such as 'left out 2 of 6 files: HEIC, which needs the package pillow-heif (2): a/1.heic, a/2.heic'; '' for none.
    """
    by_reason: dict[str, list[str]] = {}
    for item in left_out:
        by_reason.setdefault(item.reason, []).append(item.path)
    if not by_reason:
        return ''
    total = sum(map(len, by_reason.values()))
    listed = '; '.join(
        f'{reason} ({len(paths)}): {first_names(paths)}'
        for reason, paths in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    )
    return f'left out {total} of {total + used} files: {listed}'


def first_names(names: Iterable[str], count: int = _NUM_NAMES) -> str:
    """The first names of a list, and '...' if there are more; without control characters."""
    names = list(names)
    return ', '.join(map(printable, names[:count])) + (', ...' if len(names) > count else '')
