"""The StableHLO file of an exported network: a zip archive of the metadata and of the function that JAX serialized."""

import io
import json
import struct
import zipfile
from typing import NamedTuple

from ssanet_jax.artifact.checksum import PLACEHOLDER, is_sealed, seal
from ssanet_jax.artifact.metadata import Metadata, parse_document
from ssanet_jax.artifact.onnx_file import EXPORT_AGAIN
from ssanet_jax.errors import UserError

METADATA, NETWORK = 'metadata.json', 'network.bin'
_SIGNATURE = b'PK\x03\x04'  # of zip
_BAD_ARCHIVE = (zipfile.BadZipFile, struct.error, ValueError, KeyError, OSError, EOFError, RuntimeError)


class StableHloFile(NamedTuple):
    """An exported network."""

    data: bytes
    metadata: Metadata
    network: bytes  # serialized by `jax.export`


def pack(network: bytes, metadata: Metadata) -> StableHloFile:
    """The file of a serialized network. Its checksum is the comment of the archive, at the end."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
        for name, content in ((METADATA, json.dumps(metadata.to_values()).encode()), (NETWORK, network)):
            archive.writestr(zipfile.ZipInfo(name), content)  # with a fixed date
        archive.comment = PLACEHOLDER.encode()
    return StableHloFile(seal(file.getvalue()), metadata, network)


def is_stablehlo_file(data: bytes) -> bool:
    """Whether this is a StableHLO file, or another archive, by its first bytes."""
    return data.startswith(_SIGNATURE)


def read_content(data: bytes, name: str) -> StableHloFile:
    """Reads an exported network, if its content is as it was written.

    Args:
      data: the content of the file. It may be anybody's: no other file is read, and no code run.
      name: its name, for the message.

    Raises:
      UserError: it is damaged, or another file than `ssanet export` writes.
    """
    try:
        if not is_sealed(data):
            known = METADATA.encode() in data and NETWORK.encode() in data
            raise UserError('its content does not match its checksum' if known else 'ssanet export did not write it')
        members = _read_members(data)
        return StableHloFile(data, parse_document(members[METADATA]), members[NETWORK])
    except _BAD_ARCHIVE as error:
        raise UserError(f'cannot use {name}: its archive is damaged ({error}): {EXPORT_AGAIN}') from error
    except UserError as error:
        raise UserError(f'cannot use {name}: {error}: {EXPORT_AGAIN}') from error


def _read_members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if [entry.filename for entry in entries] != [METADATA, NETWORK]:
            raise UserError('its archive has other files than an export')
        # Without compression, nothing in it is larger than the file.
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data) for entry in entries):
            raise UserError('its archive is compressed')
        return {entry.filename: archive.read(entry) for entry in entries}
