"""The checksum at the end of an exported network's file: the SHA-256 of all bytes before it."""

import hashlib

_LENGTH = 64  # hexadecimal digits
PLACEHOLDER = '0' * _LENGTH  # the checksum before `seal`


def seal(content: bytes) -> bytes:
    """Writes the checksum over the end of a file, which is `PLACEHOLDER`."""
    body = content[:-_LENGTH]
    return body + _digest(body)


def is_sealed(content: bytes) -> bool:
    """Whether a file ends with its checksum."""
    return _digest(content[:-_LENGTH]) == content[-_LENGTH:]


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
