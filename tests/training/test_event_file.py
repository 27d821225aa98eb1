"""TensorBoard's file: what it holds, and that a full disk does not go unnoticed."""

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ssanet_jax.training.event_file import EventFile


def read_events(directory: Path) -> list[Event]:
    """The events of the only file: records of a length, its checksum, the content and its checksum."""
    (path,) = directory.iterdir()
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack('<Q', content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def test_values_and_the_start_of_the_session(tmp_path):
    events = EventFile(tmp_path / 'stage', first_step=4)
    events.add_scalar('loss/total', 2.5, 5)
    events.add_scalar('loss/total', 1.5, 6)
    events.close()
    version, again, start, *values = read_events(tmp_path / 'stage')
    assert version.file_version == again.file_version == 'brain.Event:2'
    assert start.session_log.status == SessionLog.START and start.step == 4  # hides later values of earlier files
    assert [(each.step, each.summary.value[0].tag, each.summary.value[0].simple_value) for each in values] == [
        (5, 'loss/total', 2.5),
        (6, 'loss/total', 1.5),
    ]


def test_a_full_disk_is_an_error(tmp_path):
    """tensorboardX's own writer has a thread, which would end, and the values would wait for it without an end."""
    if not Path('/dev/full').exists():
        pytest.skip('this system has no /dev/full')
    events = EventFile(tmp_path, first_step=0)

    def add_many() -> None:
        for step in range(10**4):  # far more than a buffer holds
            events.add_scalar('loss/total', 0.0, step)

    events._writer._py_recordio_writer._writer = Path('/dev/full').open('wb')  # noqa: SIM115, `close` closes it
    with pytest.raises(OSError, match='No space left'):
        add_many()
    with pytest.raises(OSError, match='No space left'):
        events.close()
