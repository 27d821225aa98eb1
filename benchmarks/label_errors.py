"""How many exchanged labels and strangers among its training images the doctor lists for a run.

    python -m benchmarks.label_errors --workdir=runs/birds --unknown=drawn_birds --unknown=textures

Exchanges some labels of the run's training images, with those of any class and with those of the class that each is
most often confused with; fits classifiers to the features in `index.npz`, one view per image, as a stage with
`fit=True` does for its held-out predictions; and compares the doctor's list with the exchanged ones. With `--unknown`,
a few images of each of these folders are put among the training images, and the list of outliers is compared with them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import flags
from rich.table import Table

from ssanet_jax import cli
from ssanet_jax.evaluation.calibration import fit_temperature
from ssanet_jax.evaluation.image_comparison import compare_images, find_outliers
from ssanet_jax.evaluation.label_errors import find_label_errors
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole, print_table
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.feature_index import FeatureIndex
from ssanet_jax.runs.run import load_run
from ssanet_jax.training.linear_probe import assign_folds, fusion_weights, log_softmax, out_of_fold

_FOLDS, _L2 = 5, 0.1
_FIRST = 50  # of the list
_STRANGERS = (3, 8)  # of each folder of --unknown


class ListQuality(NamedTuple):
    """A list beside what should be on it."""

    listed: int
    precision: float  # share of the listed ones that should be listed
    recall: float  # share of those that should be listed that are
    first: float  # precision of the first 50


def list_quality(listed: Sequence[int], wanted: Sequence[int]) -> ListQuality:
    """Compares a list, the most certain ones first, with what should be on it."""
    hits = np.isin(np.array(listed, int), wanted)
    share = lambda part: float(part.mean()) if len(part) else 0.0
    return ListQuality(len(hits), share(hits), hits.sum() / len(wanted), share(hits[:_FIRST]))


def exchange_labels(
    labels: np.ndarray, share: float, seed: int, partners: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Exchanges some labels.

    Args:
      labels: int `[n]`.
      share: of the images.
      seed: draws the images and their labels.
      partners: int `[N]`, the class whose label images of each class get; None for any other class.

    Returns:
      The labels, and the positions of the exchanged ones.
    """
    rng, num_classes = np.random.default_rng(seed), int(labels.max()) + 1
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    exchanged = labels.copy()
    if partners is None:
        exchanged[chosen] = (labels[chosen] + rng.integers(1, num_classes, len(chosen))) % num_classes
    else:
        exchanged[chosen] = partners[labels[chosen]]
    return exchanged, chosen


def held_out_probabilities(index: FeatureIndex, labels: np.ndarray, seed: int) -> np.ndarray:
    """Calibrated probabilities of each training image, by classifiers that were not fitted to it, `[n, N]`."""
    parts = index.rows['parts']
    heads = [each.astype(np.float32) for each in (index.rows['image'], *(parts[:, k] for k in range(parts.shape[1])))]
    folds, num_classes = assign_folds(labels, _FOLDS, seed), int(labels.max()) + 1
    standardized = ((head - head.mean(0)) / (head.std(0) + 1e-6) for head in heads)
    scores = np.stack([out_of_fold(head, labels, num_classes, folds, l2=_L2) for head in standardized])
    logits = np.tensordot(fusion_weights(scores, labels), scores, 1)
    return np.exp(log_softmax(logits / fit_temperature(logits, labels)))


def main() -> None:
    """Prints the tables."""
    run = load_run(flags.FLAGS.workdir)
    index = run.read_index()
    table = Table('exchanged with', 'draw', 'exchanged', 'listed', 'precision', 'recall', f'of the first {_FIRST}')
    for draw in range(flags.FLAGS.draws):
        confused = held_out_probabilities(index, index.labels, draw)
        counts = np.zeros((confused.shape[1],) * 2)
        np.add.at(counts, (index.labels, confused.argmax(1)), 1)
        np.fill_diagonal(counts, -1)
        for name, partners in (('any class', None), ('the most confused class', counts.argmax(1))):
            labels, chosen = exchange_labels(index.labels, flags.FLAGS.share, draw, partners)
            errors = find_label_errors(held_out_probabilities(index, labels, draw), labels)
            found = list_quality([error.position for error in errors], chosen.tolist())
            shares = (f'{value:.3f}' for value in found[1:])
            table.add_row(name, str(draw), str(len(chosen)), str(found.listed), *shares)
    print_table(table, PlainConsole())
    if flags.FLAGS.unknown:
        print_table(_outlier_table(index, Predictor.from_run(run), flags.FLAGS.unknown), PlainConsole())


def _outlier_table(index: FeatureIndex, predictor: Predictor, folders: Sequence[str]) -> Table:
    features = [predictor.features(folder) for folder in folders]
    table = Table('strangers', 'draw', 'listed', 'of the strangers', 'other images')
    for each in _STRANGERS:
        for draw in range(flags.FLAGS.draws):
            rng = np.random.default_rng(draw)
            chosen = [rng.permutation(len(one.image))[:each] for one in features]
            strangers = np.zeros(sum(map(len, chosen)), index.rows.dtype)
            strangers['image'] = np.concatenate([one.image[rows] for one, rows in zip(features, chosen)])
            strangers['parts'] = np.concatenate([one.parts[rows] for one, rows in zip(features, chosen)])
            rows = np.concatenate([index.rows, strangers])
            mixed = FeatureIndex(rows, [''] * len(rows), index.stage, index.network)
            outliers = find_outliers(np.concatenate([block.distances for block in compare_images(mixed)]))
            hits = sum(one.row >= len(index.rows) for one in outliers)
            cells = len(outliers), f'{hits / len(strangers):.3f}', len(outliers) - hits
            table.add_row(f'{each} of each folder', str(draw), *map(str, cells))
    return table


if __name__ == '__main__':
    define_path('workdir', None, 'Folder of a trained run with an index.', required=True)
    flags.DEFINE_multi_string('unknown', [], 'Folder of images of other things; may be repeated.')
    flags.DEFINE_float('share', 0.05, 'Share of the labels that are exchanged.')
    flags.DEFINE_integer('draws', 2, 'Number of draws.')
    cli.run(main)
