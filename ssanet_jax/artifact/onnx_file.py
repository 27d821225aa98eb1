"""The ONNX file of an exported network, and the check of everything in it before it is used."""

from typing import NamedTuple

from ssanet_jax.artifact.checksum import is_sealed
from ssanet_jax.artifact.metadata import CHECKSUM, Metadata, parse_entries
from ssanet_jax.artifact.wire_format import read_metadata
from ssanet_jax.errors import UserError

EXPORT_AGAIN = 'export the run again (ssanet export), or copy the file again'


class OnnxFile(NamedTuple):
    """An exported network."""

    data: bytes
    metadata: Metadata


def check_content(data: bytes, name: str) -> Metadata:
    """The metadata of an exported network, if its content is as it was written.

    Args:
      data: the content of the file. It may be anybody's: no other file is read, and no code run.
      name: its name, for the message.

    Raises:
      UserError: it is damaged, or another file than `ssanet export` writes.
    """
    sealed = is_sealed(data)
    try:
        entries = read_metadata(memoryview(data))
        if CHECKSUM in entries and not sealed:
            raise UserError('its content does not match its checksum')
        metadata = parse_entries(entries)
        if not sealed:
            raise UserError('it has no checksum')
    except ValueError as error:  # UnicodeDecodeError is one
        if sealed or not _names_us(data):
            kind = f'{error}' if sealed else f'it is no ONNX file ({error})'
            raise UserError(f'cannot use {name}: {kind}: give a file that ssanet export wrote') from error
        raise UserError(f'{name} is damaged: {EXPORT_AGAIN}') from error
    except UserError as error:
        raise UserError(f'cannot use {name}: {error}: {EXPORT_AGAIN}') from error
    return metadata


def _names_us(data: bytes) -> bool:
    return b'ssanet_jax' in data
