"""Formats of image files: which can be read, and how files of each are recognized."""

from __future__ import annotations

import functools
import importlib
import importlib.util

from PIL import features

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
HEAD_BYTES = 32  # that `image_format` needs


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
    head = data[:HEAD_BYTES]
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


def format_of_suffix(suffix: str) -> str:
    """The format that a file's extension stands for, whether it is readable or not; '' for other extensions."""
    return next((name for name, suffixes in _SUFFIXES.items() if suffix.lower() in suffixes), '') or _UNSUPPORTED.get(
        suffix.lower(), ''
    )
