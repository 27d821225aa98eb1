"""The file of an exported network: a checksum at its end, and a check of everything in it before it is used."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from ssanet_jax.artifact.metadata import CHECKSUM, Metadata, parse_metadata
from ssanet_jax.artifact.wire_format import read_metadata
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.regular_files import read_regular_file

_MAX_BYTES = 1 << 31  # protobuf takes no more
_CHECKSUM_LENGTH = 64
_EXPORT_AGAIN = 'export the run again (ssanet export), or copy the file again'


class OnnxFile(NamedTuple):
    """An exported network."""

    data: bytes
    metadata: Metadata


def seal(model: bytes) -> bytes:
    """Writes the checksum into a serialized model, whose last metadata entry is an empty one of 64 characters."""
    body = model[:-_CHECKSUM_LENGTH]
    return body + hashlib.sha256(body).hexdigest().encode()


PLACEHOLDER = '0' * _CHECKSUM_LENGTH  # the checksum before `seal`


def read_onnx_file(path: Path) -> OnnxFile:
    """Reads and checks the file of an exported network. It may be anybody's: no other file is read, and no code run.

    Raises:
      UserError: it cannot be read, is damaged, or is another file than `ssanet export` writes.
    """
    try:
        data = read_regular_file(path, _MAX_BYTES)
    except OSError as error:
        raise UserError(f'cannot read {path} ({error.strerror}): check the path') from error
    return OnnxFile(data, check_content(data, str(path)))


def check_content(data: bytes, name: str) -> Metadata:
    """The metadata of an exported network, if its content is as it was written.

    Args:
      data: the content of the file.
      name: its name, for the message.

    Raises:
      UserError: as `read_onnx_file`.
    """
    body, checksum = data[:-_CHECKSUM_LENGTH], data[-_CHECKSUM_LENGTH:]
    sealed = hashlib.sha256(body).hexdigest().encode() == checksum
    try:
        entries = read_metadata(memoryview(data))
        if CHECKSUM in entries and not sealed:
            raise UserError('its content does not match its checksum')
        metadata = parse_metadata(entries)
        if not sealed:
            raise UserError('it has no checksum')
    except ValueError as error:  # UnicodeDecodeError is one
        if sealed or not _names_us(data):
            kind = f'{error}' if sealed else f'it is no ONNX file ({error})'
            raise UserError(f'cannot use {name}: {kind}: give a file that ssanet export wrote') from error
        raise UserError(f'{name} is damaged: {_EXPORT_AGAIN}') from error
    except UserError as error:
        raise UserError(f'cannot use {name}: {error}: {_EXPORT_AGAIN}') from error
    return metadata


def _names_us(data: bytes) -> bool:
    return b'ssanet_jax' in data
