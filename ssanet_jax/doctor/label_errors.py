"""A page and a table of the training images that a trained run takes to be labeled wrongly."""

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import jinja2
import numpy as np
import scipy.special

from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.label_errors import LabelError, find_label_errors
from ssanet_jax.filesystem.atomic_files import write_atomically
from ssanet_jax.printable import printable
from ssanet_jax.runs.run import Run

COLUMNS = ('file', 'label', 'suggested', 'label_probability', 'suggested_probability')
NUM_PICTURES = 100  # on the page; the table has all
_SIDE = 260  # pixels of a picture


def label_errors(run: Run, workdir: Path) -> list[LabelError]:
    """Finds label errors among the held-out images of a run, by its calibrated probabilities.

    Raises:
      UserError: the run has no held-out predictions.
    """
    held_out = run.held_out
    if held_out is None:
        raise UserError(
            f'{workdir} has no predictions for images that it was not trained on: fit the heads in a stage with '
            'fit=True, as configs/folder.py does, or train with config.data.validation=0.1'
        )
    scores = held_out.log_probabilities.astype(np.float64) / held_out.temperature
    found = find_label_errors(scipy.special.softmax(scores, -1), held_out.labels)
    return [error._replace(position=int(held_out.images[error.position])) for error in found]


def write_label_errors(folder: Path, errors: Sequence[LabelError], run: Run, dataset: Dataset) -> None:
    """Writes `label_errors.csv` and `label_errors.html`.

    Args:
      folder: where to.
      errors: from `label_errors`.
      run: the run.
      dataset: its data set.

    Raises:
      UserError: a file cannot be written.
    """
    assert run.held_out is not None
    source = dataset.train if run.held_out.split == 'train' else dataset.validation
    assert source is not None
    rows, pictures = [], []
    for number, error in enumerate(errors):
        file, picture = _read(source, error.position)
        row = (file, run.class_names[error.label], run.class_names[error.suggested])
        rows.append((*row, f'{error.label_probability:.4f}', f'{error.suggested_probability:.4f}'))
        if number < NUM_PICTURES:
            pictures.append(
                (*(printable(text) for text in row), f'{min(error.suggested_probability, 0.99):.2f}', picture)
            )
    table = io.StringIO()
    csv.writer(table, lineterminator='\n').writerows([COLUMNS, *rows])
    environment = jinja2.Environment(loader=jinja2.PackageLoader('ssanet_jax.doctor', '.'), autoescape=True)
    page = environment.get_template('label_errors.html.j2').render(
        title=printable(f'{dataset.name}: labels to check'), pictures=pictures, count=len(errors)
    )
    for name, content in (('label_errors.csv', table.getvalue()), ('label_errors.html', page)):
        try:
            write_atomically(folder / name, content, errors='surrogateescape')
        except OSError as error:
            raise UserError(f'cannot write {folder / name} ({error.strerror}): make room, or allow it') from error


def _read(source: Source, index: int) -> tuple[str, str]:
    """The file name of an image, and a small picture of it as a data URI; '' if it can no longer be read."""
    try:
        example = source[index]
    except UnreadableImage as error:
        return str(error), ''
    image = example['image']
    scale = _SIDE / max(image.shape[:2])
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode('.jpg', cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    return str(example['file']), f'data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}'
