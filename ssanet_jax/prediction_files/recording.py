"""Predictions as records of the journal, a batch at a time."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.evaluation.image_predictor import ImagePredictor
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.prediction_files.journal import Record, file_version

_MOST_DRAWING_THREADS = 4


def record_predictions(
    predictor: ImagePredictor,
    files: Sequence[str],
    batch_size: int,
    make_line: Callable[[Prediction], Mapping[str, Any]],
    draw: Callable[[Prediction], None],
) -> Iterator[list[Record]]:
    """Predicts files, and draws their pictures in threads while the network computes the next batch.

    Args:
      predictor: the network.
      files: the image files.
      batch_size: images per call of the network.
      make_line: the fields of the JSON line of a prediction.
      draw: draws the picture of a prediction.

    Yields:
      The records of the files of a batch of the network, in order, when its pictures are drawn. Files that cannot be
      read are in the batch of the next one that can.
    """
    reasons: deque[str] = deque()  # of the files that cannot be read, since the last prediction
    rest = iter(files)
    records: list[Record] = []
    pictures: list[Future[None]] = []
    earlier: tuple[list[Record], list[Future[None]]] = [], []  # the batch before, whose pictures are being drawn
    predictions = predictor.predict(files, batch_size=batch_size, on_error=lambda error: reasons.append(str(error)))
    with ThreadPoolExecutor(min(_MOST_DRAWING_THREADS, available_cpus())) as pool:
        for number, prediction in enumerate(predictions, 1):
            path = str(prediction.path)
            records += [_unreadable(file, reasons.popleft()) for file in itertools.takewhile(path.__ne__, rest)]
            records.append(Record(path, make_line(prediction), *prediction.source_size, version=file_version(path)))
            pictures.append(pool.submit(draw, prediction))
            if number % batch_size == 0:
                yield from _drawn(*earlier)
                earlier, records, pictures = (records, pictures), [], []
        yield from _drawn(*earlier)
        records += [_unreadable(file, reasons.popleft()) for file in rest]
        yield from _drawn(records, pictures)


def _unreadable(file: str, reason: str) -> Record:
    return Record(file, reason=reason, version=file_version(file))


def _drawn(records: list[Record], pictures: Sequence[Future[None]]) -> Iterator[list[Record]]:
    """Yields the records, if there are any, when the pictures are drawn."""
    for picture in pictures:
        picture.result()
    if records:
        yield records
