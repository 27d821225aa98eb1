"""TensorBoard's file: what it holds, and that a full disk does not go unnoticed."""

import math
import struct
import time
from pathlib import Path

import pytest
from commands import run_python

from ssanet_jax.training import event_file
from ssanet_jax.training.event_file import EventFile

VALUES = [('loss/total', 2.5, 5), ('loss/total', 1.5, 6), ('größe/' + 'x' * 150, -1e-7, 2**40), ('loss', math.inf, 1)]


def records(directory: Path) -> list[bytes]:
    """The records of the only file: a length, its checksum, the content and its checksum each."""
    (path,) = directory.iterdir()
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack('<Q', content[:8])
        found.append(content[12 : 12 + length])
        content = content[16 + length :]
    return found


def test_values_and_the_start_of_the_session(tmp_path):
    """tensorboardX reads what was written."""
    proto = pytest.importorskip('tensorboardX.proto.event_pb2', reason='needs tensorboardX: pip install -e .[test]')
    events = EventFile(tmp_path / 'stage', first_step=4)
    for name, value, step in VALUES:
        events.add_scalar(name, value, step)
    events.close()
    version, start, *values = map(proto.Event.FromString, records(tmp_path / 'stage'))
    assert version.file_version == 'brain.Event:2'
    assert start.session_log.status == proto.SessionLog.START and start.step == 4  # hides later values of earlier files
    assert all(0 <= time.time() - each.wall_time < 600 for each in (version, start, *values))
    read = [(each.summary.value[0].tag, each.summary.value[0].simple_value, each.step) for each in values]
    assert read == [(name, pytest.approx(value), step) for name, value, step in VALUES]


def test_the_same_bytes_as_of_a_library(tmp_path, monkeypatch):
    """Messages, records and their checksums are those that Protocol Buffers and tensorboardX write."""
    pytest.importorskip('tensorboardX', reason='needs tensorboardX: pip install -e .[test]')
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    monkeypatch.setattr(event_file.time, 'time', lambda: 1.75e9)
    events = EventFile(tmp_path / 'ours', first_step=300)
    library = RecordWriter(str(tmp_path / 'theirs'))
    messages = [Event(file_version='brain.Event:2', step=300), Event(session_log=SessionLog(status=1), step=300)]
    for name, value, step in VALUES:
        events.add_scalar(name, value, step)
        messages.append(Event(summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]), step=step))
    for message in messages:
        message.wall_time = 1.75e9
        library.write(message.SerializeToString())
    events.close()
    library.close()
    (ours,) = (tmp_path / 'ours').iterdir()
    assert ours.read_bytes() == (tmp_path / 'theirs').read_bytes()


def test_a_full_disk_is_an_error(tmp_path):
    """A writer in a thread would end, and the values would wait for it without an end."""
    if not Path('/dev/full').exists():
        pytest.skip('this system has no /dev/full')
    events = EventFile(tmp_path, first_step=0)

    def add_many() -> None:
        for step in range(10**4):  # far more than a buffer holds
            events.add_scalar('loss/total', 0.0, step)

    events._file.close()
    events._file = Path('/dev/full').open('wb')  # noqa: SIM115, `close` closes it
    with pytest.raises(OSError, match='No space left'):
        add_many()
    with pytest.raises(OSError, match='No space left'):
        events.close()


def test_training_imports_no_torch():
    """Importing PyTorch takes longer than all other imports of a training."""
    pytest.importorskip('torch', reason='needs torch: pip install -e .[torch-parity]')
    done = run_python(('-c', 'import sys, ssanet_jax.main; print("torch" in sys.modules)'))
    assert done.stdout == 'False\n', done.stderr
