"""Comparison of finished runs, image by image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssanet_jax.errors import UserError
from ssanet_jax.experiments.paired_comparison import Comparison, McNemar, compare_predictions, mcnemar
from ssanet_jax.runs.files import RESULTS_FILE, read_run
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, SUM, ImagePredictions, check_accuracy, read_predictions

EVALUATE_AGAIN = 'evaluate the run again (python -m ssanet_jax.main --mode=evaluate with its --config and --workdir)'


@dataclass(frozen=True)
class RunComparison:
    """The accuracies of two series of runs in percent, first minus second."""

    comparison: Comparison
    single: tuple[McNemar, ...]  # of each pair of runs


def compare_runs(
    first: Sequence[ImagePredictions],
    second: Sequence[ImagePredictions],
    head: str = SUM,
    second_head: str | None = None,
) -> RunComparison:
    """Compares two networks, each with a run per seed.

    Args:
      first, second: the predictions of the runs, of which those at the same place have the same seed. All must be for
        the same images.
      head: the head to compare; by default the prediction.
      second_head: that of `second`; None for the same.

    Raises:
      UserError: there is only one image, or a run has no such head.
    """
    if len(first[0].labels) < 2:
        raise UserError('one image is too few to compare runs: evaluate them on more')
    other = second_head or head
    for runs, name in ((first, head), (second, other)):
        for run in runs:
            if name not in run.classes:
                raise UserError(f'a run has no head {name!r}: its heads are {", ".join(run.classes)}')
    pairs = [(a.correct(head), b.correct(other)) for a, b in zip(first, second, strict=True)]
    differences = np.stack([100 * (a.astype(np.float64) - b) for a, b in pairs])  # [R, n], percent
    return RunComparison(compare_predictions(differences), tuple(mcnemar(a, b) for a, b in pairs))


def check_same_images(predictions: Mapping[Path, ImagePredictions]) -> None:
    """Raises `UserError` unless the predictions of all these work directories are for the same images."""
    (reference, expected), *others = predictions.items()
    for workdir, found in others:
        if found.image_set != expected.image_set or not np.array_equal(found.labels, expected.labels):
            raise UserError(
                f'{reference} and {workdir} were evaluated on different images: compare runs on the same data set, '
                'and on validation images only with the same config.data.split_seed'
            )


def load_predictions(workdir: Path, split: str) -> ImagePredictions:
    """The predictions of a finished run's network.

    Args:
      workdir: the run's work directory.
      split: 'test', or 'validation' for the images that were held out of the training images.

    Raises:
      UserError: there is no finished run, or none of its predictions for these images.
    """
    config = read_run(workdir)['config']
    if not (workdir / RESULTS_FILE).exists():
        raise UserError(f'the run in {workdir} is not finished: give the command that trains it again')
    cure = EVALUATE_AGAIN
    path = workdir / PREDICTIONS_FILE
    if split == 'validation':
        if not config['data'].get('validation'):
            raise UserError(f'{workdir} has no validation images: compare on --split=test')
        cure = 'train it again in another --workdir'
        path = workdir / config['stages'][-1]['name'] / PREDICTIONS_FILE
    predictions = read_predictions(path, cure)
    if predictions is None:
        raise UserError(f'{path} is missing, an earlier version trained this run: {cure}')
    if split == 'test':
        check_accuracy(path, predictions, (workdir / RESULTS_FILE, workdir / 'evaluation.json'), cure)
    return predictions
