"""TensorBoard's file of a stage."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def _without_torch() -> Iterator[None]:
    """Lets `import torch` fail, unless it is imported already."""
    hidden = sys.modules.setdefault('torch', None)  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        if hidden is None:
            del sys.modules['torch']


with _without_torch():  # tensorboardX would import it where it can, for two seconds, for tensors that never come here
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.summary import scalar

_FLUSH_SECONDS = 120


class EventFile:
    """Writes scalars for TensorBoard.

    tensorboardX's `SummaryWriter` writes in a thread; when that fails, as on a full disk, training would wait for the
    thread forever. Here it fails where a value is added, with an `OSError`.

    Args:
      directory: folder of the file. It is created if it does not exist.
      first_step: the step that the stage goes on from; TensorBoard hides later values of earlier files.
    """

    def __init__(self, directory: Path, first_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(directory / 'events'))
        self._flushed = time.monotonic()
        for event in (Event(file_version='brain.Event:2'), Event(session_log=SessionLog(status=SessionLog.START))):
            self._write(event, first_step)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Writes one value; it is on the disk within two minutes, or after `close`."""
        self._write(Event(summary=scalar(name, value)), step)

    def _write(self, event: Event, step: int) -> None:
        event.step, event.wall_time = step, time.time()
        self._writer.write_event(event)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Brings all values to the disk."""
        self._writer.close()
