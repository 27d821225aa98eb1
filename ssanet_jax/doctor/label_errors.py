"""A page and a table of training images to check by a trained run: wrong labels, near duplicates, outliers."""

import base64
import collections
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import jinja2
import numpy as np
import scipy.special
from rich.console import Console

from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.image_comparison import (
    Outlier,
    SimilarImages,
    compare_images,
    find_outliers,
    num_blocks,
)
from ssanet_jax.evaluation.label_errors import LabelError, find_label_errors
from ssanet_jax.filesystem.atomic_files import write_atomically
from ssanet_jax.plain_text import track
from ssanet_jax.printable import printable
from ssanet_jax.runs.feature_index import FeatureIndex
from ssanet_jax.runs.run import Run

COLUMNS = ('file', 'label', 'suggested', 'label_probability', 'suggested_probability', 'problem', 'other_file')
WRONG_LABEL, NEAR_DUPLICATE, OUTLIER = 'wrong label', 'near duplicate', 'outlier'  # values of `problem`
NUM_PICTURES = 100  # of each problem on the page; the table has all
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


class ImageProblems(NamedTuple):
    """What comparing the training images with each other has found."""

    index: FeatureIndex
    similar: Sequence[SimilarImages]
    outliers: Sequence[Outlier]


def image_problems(run: Run, console: Console) -> ImageProblems:
    """Compares the training images of a run with each other, by their features.

    Args:
      run: the run.
      console: shows the progress.

    Raises:
      UserError: the run has no index of features.
    """
    index = run.read_index()
    blocks = track(
        compare_images(index), 'comparing training images', total=num_blocks(index), console=console, transient=True
    )
    compared = list(blocks)
    similar = sorted((pair for block in compared for pair in block.similar), key=lambda pair: -pair.similarity)
    return ImageProblems(index, similar, find_outliers(np.concatenate([block.distances for block in compared])))


def write_label_errors(
    folder: Path, errors: Sequence[LabelError], run: Run, dataset: Dataset, problems: ImageProblems | None = None
) -> None:
    """Writes `label_errors.csv` and `label_errors.html`.

    Args:
      folder: where to.
      errors: from `label_errors`.
      run: the run.
      dataset: its data set.
      problems: from `image_problems`; None if images were not compared.

    Raises:
      UserError: a file cannot be written.
    """
    suspects = _suspects(errors, run, dataset, problems)
    rows, cards = [], {problem: [] for problem in (WRONG_LABEL, NEAR_DUPLICATE, OUTLIER)}
    for one in suspects:
        shown = len(cards[one.problem]) < NUM_PICTURES
        read = [_read(one.source, position) for position in one.positions]
        files = [file for file, _ in read]
        other = files[1] if len(files) > 1 else ''
        rows.append((files[0], one.label, one.suggested, *one.probabilities, one.problem, other))
        if shown:
            probability = f'{min(float(one.probabilities[1]), 0.99):.2f}' if one.probabilities[1] else ''
            labels = one.label, one.suggested
            images = [(picture, printable(file), printable(label)) for (file, picture), label in zip(read, labels)]
            cards[one.problem].append((images, printable(one.suggested), probability))
    table = io.StringIO()
    csv.writer(table, lineterminator='\n').writerows([COLUMNS, *rows])
    environment = jinja2.Environment(loader=jinja2.PackageLoader('ssanet_jax.doctor', '.'), autoescape=True)
    page = environment.get_template('label_errors.html.j2').render(
        title=printable(f'{dataset.name}: training images to check'),
        labels=cards[WRONG_LABEL],
        duplicates=cards[NEAR_DUPLICATE],
        outliers=cards[OUTLIER],
        compared=problems is not None,
        counts=collections.Counter(one.problem for one in suspects),
    )
    for name, content in (('label_errors.csv', table.getvalue()), ('label_errors.html', page)):
        try:
            write_atomically(folder / name, content, errors='surrogateescape')
        except OSError as error:
            raise UserError(f'cannot write {folder / name} ({error.strerror}): make room, or allow it') from error


class _Suspect(NamedTuple):
    """One image to check, or two that are nearly the same."""

    problem: str
    source: Source
    positions: tuple[int, ...]
    label: str  # name of the class
    suggested: str = ''  # the class that it seems to show, or that of the second image
    probabilities: tuple[str, str] = ('', '')  # of the two


def _suspects(
    errors: Sequence[LabelError], run: Run, dataset: Dataset, problems: ImageProblems | None
) -> list[_Suspect]:
    assert run.held_out is not None
    source = dataset.train if run.held_out.split == 'train' else dataset.validation
    assert source is not None
    names = run.class_names
    found = [
        _Suspect(
            WRONG_LABEL,
            source,
            (error.position,),
            names[error.label],
            names[error.suggested],
            (f'{error.label_probability:.4f}', f'{error.suggested_probability:.4f}'),
        )
        for error in errors
    ]
    if problems is None:
        return found
    place, name = problems.index.rows['position'], lambda row: names[problems.index.labels[row]]
    found += [
        _Suspect(
            NEAR_DUPLICATE,
            dataset.train,
            (int(place[pair.first]), int(place[pair.second])),
            name(pair.first),
            name(pair.second),
        )
        for pair in problems.similar
    ]
    return found + [
        _Suspect(OUTLIER, dataset.train, (int(place[one.row]),), name(one.row)) for one in problems.outliers
    ]


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
