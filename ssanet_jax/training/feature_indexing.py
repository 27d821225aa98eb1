"""Builds the index of the training images' features (`runs/feature_index.py`)."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from ssanet_jax.data.dataset import Dataset, Source, file_name
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.plain_text import track
from ssanet_jax.predictor import Predictor
from ssanet_jax.printable import printable
from ssanet_jax.runs.feature_index import INDEX_FILE, row_type, write_index
from ssanet_jax.runs.run import Run


def index_rows(
    source: Source,
    positions: np.ndarray,
    image: np.ndarray,
    parts: np.ndarray,
    boxes: np.ndarray,
    present: np.ndarray | None,
) -> tuple[np.ndarray, list[str]]:
    """Rows of an index.

    Args:
      source: the training images.
      positions: int `[b]`, those of the rows.
      image: `[b, C]`, features of the images.
      parts: `[b, K, D]`, features of their parts; K = 0 if no classifier reads the parts.
      boxes: `[b, L, 4]` with L >= K, (y0, x0, y1, x1), as shares of the image's height and width.
      present: bool `[b, L]`; None if the network does not know. Boxes without features are left out.

    Returns:
      The rows `[b]`, and their files.
    """
    rows = np.zeros(len(positions), row_type(image.shape[1], *parts.shape[1:]))
    count = parts.shape[1]
    rows['image'], rows['parts'], rows['boxes'] = image, parts, boxes[:, :count]
    rows['present'] = True if present is None else present[:, :count]
    rows['label'], rows['position'] = np.asarray(source.labels)[positions], positions
    return rows, [file_name(source, int(position)) for position in positions]


def index_run(run: Run, workdir: Path, dataset: Dataset, console: Console, batch_size: int = 8) -> tuple[Path, int]:
    """Computes the features of all training images of a run, and writes them to the folder of its stage.

    Args:
      run: the run.
      workdir: its work directory.
      dataset: its data set.
      console: shows the progress, and each image that cannot be read.
      batch_size: images per call of the network.

    Returns:
      The file, and the number of images in it.

    Raises:
      UserError: no training image can be read, or the file cannot be written.
    """
    path, source = workdir / run.stage / INDEX_FILE, dataset.train
    positions: deque[int] = deque()  # of the images that the network is working on

    def images() -> Iterator[np.ndarray]:
        for position in track(range(len(source)), 'computing features', console=console, transient=True):
            try:
                image = source[position]['image']
            except UnreadableImage as error:
                console.print(printable(f'skipped: {error}'), style='yellow', markup=False, soft_wrap=True)
                continue
            positions.append(position)
            yield image

    count = 0
    with write_index(path, run.stage, run.network_digest()) as writer:
        for prediction in Predictor.from_run(run).predict(images(), batch_size=batch_size):
            writer.add(*_row(source, positions.popleft(), prediction))
            count += 1
    return path, count


def _row(source: Source, position: int, prediction: Prediction) -> tuple[np.ndarray, list[str]]:
    assert prediction.image_features is not None and prediction.part_features is not None
    boxes = prediction.boxes / np.tile(np.array(prediction.source_size, np.float32), 2)
    present = np.array(prediction.present)[None] if prediction.present else None
    return index_rows(
        source,
        np.array([position]),
        prediction.image_features[None],
        prediction.part_features[None],
        boxes[None],
        present,
    )
