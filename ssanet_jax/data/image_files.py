"""Which files are images: one rule for training, evaluation, the doctor and predict.

A file is an image if its name has the extension of a supported format, or if its content starts like one. Hidden files
and folders are skipped, and so are those that systems and archives leave behind (``__MACOSX``, ``@eaDir``). Links to
folders are followed once, also out of the folder that is searched, which is reported. Pipes, sockets and devices are
never opened.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from ssanet_jax.data.image_formats import (
    HEAD_BYTES,
    format_of_suffix,
    image_format,
    image_suffixes,
    readable_formats,
    unsupported,
)
from ssanet_jax.data.left_out import NOT_AN_IMAGE, LeftOut, counted, first_names
from ssanet_jax.filesystem.regular_files import read_regular_file

# Copies that editors, downloads and exiftool leave beside an image.
_REMAINS = ('~', '.bak', '.orig', '.old', '.tmp', '.part', '.partial', '.crdownload', '_original')
# Left by macOS, Windows and Synology; none of them holds images of the user.
_SYSTEM_NAMES = {
    *('__macosx', '@eadir', '$recycle.bin', 'system volume information', 'lost+found'),
    *('thumbs.db', 'ehthumbs.db', 'desktop.ini', 'icon\r'),
}
_MAX_BYTES = 1 << 29  # of an image file; images that can be decoded are smaller

_Path = TypeVar('_Path', str, Path)


@dataclasses.dataclass(frozen=True)
class FoundImages:
    """The images of a folder and its subfolders."""

    images: list[Path]
    left_out: list[LeftOut]
    """With paths as they were found, below the folder that was searched."""
    linked: dict[Path, Path]
    """Images that were reached through a link to a folder -> their path without links."""


def search_folder(folder: Path) -> FoundImages:
    """Lists the images of a folder and its subfolders, sorted.

    Each link to a folder is followed once, but not to a folder that contains the link. Links to files count as files;
    an image whose target is missing is listed, so that its reader reports it.
    """
    found = FoundImages([], [], {})
    above = {_identity(place) for place in (folder.resolve(), *folder.resolve().parents)}
    links = _walk(folder, found, set(above))
    for link in links:
        # Links below a linked folder are followed once per link, which ends cycles.
        containing = above | {_identity(place) for place in link.parents}
        visited, pending = set(containing), [link]
        while pending:
            folder_link = pending.pop()
            identity = _identity(folder_link)
            if identity in visited:
                if identity in containing:
                    found.left_out.append(LeftOut(str(folder_link), 'a link to a folder that contains it'))
                continue
            before = len(found.images)
            pending += _walk(folder_link, found, visited)
            found.linked.update((path, _real_path(path)) for path in found.images[before:])
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
    reached = {_real_path(root / path) for path in paths if path not in linked}
    kept = []
    for path in paths:
        if path in linked:
            if linked[path] in reached:
                continue
            reached.add(linked[path])
        kept.append(path)
    return kept


def links_outside_line(paths: Iterable[Path], folder: Path) -> str:
    """One line about the images that links bring in from outside of a folder.

    Args:
      paths: the images, found in the folder.
      folder: the folder.

    Returns:
      Such as '2 images are read from outside of birds, through links: birds/a/1.jpg, birds/a/2.jpg'; '' for none.
    """
    root = folder.resolve()
    is_inside: dict[str, bool] = {}  # by folder: that of a file counts unless the file itself is a link
    outside = []
    for path in paths:
        name = os.fspath(path)
        parent = os.path.dirname(name)
        if parent not in is_inside:
            is_inside[parent] = _real_path(path.parent).is_relative_to(root)
        if not (_real_path(path).is_relative_to(root) if os.path.islink(name) else is_inside[parent]):
            outside.append(name)
    if not outside:
        return ''
    verb = 'is' if len(outside) == 1 else 'are'
    return (
        f'{counted(len(outside), "image")} {verb} read from outside of {folder}, through links: {first_names(outside)}'
    )


def _real_path(path: Path) -> Path:
    """As `Path.resolve`, also for links to themselves and for names that no file can have."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a null byte
        return path


def _walk(folder: Path, found: FoundImages, visited: set[tuple[int, int]]) -> list[Path]:
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
            # `DirEntry.is_dir` raises OSError for a link to itself.
            if entry.is_symlink() and os.path.isdir(path):
                links.append(path)
            elif entry.is_dir(follow_symlinks=False):
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
    name = format_of_suffix(suffix)
    if name and name not in readable_formats():
        return unsupported(name)  # whatever it contains: raw photos look like TIFF
    try:
        with open(path, 'rb') as file:
            name = image_format(file.read(HEAD_BYTES))
    except OSError as error:
        return f'a file that cannot be opened ({error.strerror})'
    if name in readable_formats():
        return ''
    return unsupported(name) if name else NOT_AN_IMAGE


def read_file(path: Path) -> bytes:
    """Reads an image file.

    Raises:
      OSError: it is missing, is not a regular file, or is too large for an image; `strerror` is the reason.
    """
    return read_regular_file(path, _MAX_BYTES)
