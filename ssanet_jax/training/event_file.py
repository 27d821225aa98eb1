"""TensorBoard's file of a stage."""

import socket
import struct
import time
from pathlib import Path

import numpy as np

_FLUSH_SECONDS = 120
_START = 1  # of `SessionLog.SessionStatus`
_CRC_TABLE = [0] * 256
for _byte in range(256):
    _remainder = _byte
    for _ in range(8):
        _remainder = _remainder >> 1 ^ (0x82F63B78 if _remainder & 1 else 0)  # Castagnoli's polynomial, reflected
    _CRC_TABLE[_byte] = _remainder


class EventFile:
    """Writes scalars for TensorBoard.

    Packages with such a writer import PyTorch where it is installed, which takes longer than all other imports of a
    training, and write in a thread, for which training would wait forever after it failed, as on a full disk. Here a
    full disk is an `OSError` where a value is added.

    The file is a sequence of TFRecords, each of which holds a message `Event` of TensorFlow's `event.proto`.

    Args:
      directory: folder of the file. It is created if it does not exist.
      first_step: the step that the stage goes on from; TensorBoard hides later values of earlier files.
    """

    def __init__(self, directory: Path, first_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        self._file = (directory / f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}').open('wb')
        self._flushed = time.monotonic()
        self._write(_field(3, b'brain.Event:2'), first_step)  # file_version
        self._write(_field(7, bytes([1 << 3, _START])), first_step)  # session_log

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Writes one value; it is on the disk within two minutes, or after `close`."""
        scalar = _field(1, name.encode()) + bytes([2 << 3 | 5]) + np.asarray(value, '<f4').tobytes()
        self._write(_field(5, _field(1, scalar)), step)  # summary, of one value

    def _write(self, content: bytes, step: int) -> None:
        event = struct.pack('<Bd', 1 << 3 | 1, time.time()) + bytes([2 << 3]) + _varint(step) + content
        length = struct.pack('<Q', len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Brings all values to the disk."""
        self._file.close()


def _field(number: int, content: bytes) -> bytes:
    """A field of a Protocol Buffers message that holds bytes, a string or another message."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A number >= 0, seven bits in a byte; the eighth says that there are more."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _checksum(content: bytes) -> bytes:
    """CRC-32C, masked as in TFRecords."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
