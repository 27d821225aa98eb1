"""A checksum inside a JSON object, since a flipped bit may turn one number into another."""

import json
import zlib
from typing import Any

FIELD = 'checksum'


class ChecksumError(ValueError):
    """An object differs from its checksum."""


def add_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the object with its checksum as the last field."""
    return {**content, FIELD: _checksum(content)}


def remove_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the object without its checksum. Objects that early versions wrote have none.

    Raises:
      ChecksumError: the object differs from its checksum.
    """
    if FIELD not in content:
        return content
    rest = {name: value for name, value in content.items() if name != FIELD}
    if content[FIELD] != _checksum(rest):
        raise ChecksumError('it differs from its checksum')
    return rest


def _checksum(content: dict[str, Any]) -> str:
    # As the object comes back from a file, where keys are text.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return f'{zlib.crc32(text.encode()):08x}'
