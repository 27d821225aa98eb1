"""How well a run tells strangers from the test images of its classes, beside the largest softmax probability.

    python -m benchmarks.novelty --workdir=runs/birds --unknown=other_birds --unknown=toys

Each folder of `--unknown` holds images of other things. For each, two figures: the area under the ROC curve, the
probability that a stranger gets a higher score than a test image; and the share of strangers that pass where 95 % of
the test images do. The last columns hold the share that is called unsure for its novelty, and the expected calibration
error of the test images.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.stats
from absl import flags
from rich.table import Table

from ssanet_jax import cli
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.calibration import expected_calibration_error
from ssanet_jax.evaluation.novelty import NoveltyDetector, novelty_detector
from ssanet_jax.evaluation.prediction import UNSURE_LIMITS, Prediction
from ssanet_jax.path_flags import define_path, define_paths
from ssanet_jax.plain_text import PlainConsole, print_table
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.run import dataset_of, load_run

_ACCEPTED = 0.95  # of the test images


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """The probability that a stranger has a higher score than a known image; ties count half (Mann and Whitney)."""
    return float(scipy.stats.mannwhitneyu(unknown, known).statistic / (len(known) * len(unknown)))


def false_positive_rate(known: np.ndarray, unknown: np.ndarray) -> float:
    """The share of strangers whose score is not above that of 95 % of the known images."""
    return float((unknown <= np.quantile(known, _ACCEPTED)).mean())


def scores(
    detector: NoveltyDetector, temperature: float, predictions: Iterable[Prediction]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Novelty score, minus the largest probability, and novelty of images, `[n]` each."""
    probabilities, novelty = zip(*((each.probabilities, each.novelty) for each in predictions))
    logits = temperature * np.log(np.maximum(np.stack(probabilities), 1e-30))
    return detector.score(logits), -np.stack(probabilities).max(1), np.array(novelty, float)


def main() -> None:
    """Prints the table."""
    workdir = flags.FLAGS.workdir
    run = load_run(workdir)
    detector = novelty_detector(run.held_out)
    if detector is None or run.held_out is None:
        raise UserError(f'{workdir} has no held-out predictions, or too few: train it with config.data.validation=0.1')
    source = dataset_of(run, workdir).test
    predictor, temperature = Predictor.from_run(run), run.held_out.temperature
    predict = lambda images: predictor.predict(images, on_error='skip')
    tested = list(_light(predict(source[index]['image'] for index in range(len(source)))))
    known = scores(detector, temperature, tested)
    table = Table('images', 'count', 'AUROC', 'softmax', 'FPR at 95 %', 'softmax', 'unsure', title=str(workdir))
    for name, images in [('test images', None), *((str(folder), folder) for folder in flags.FLAGS.unknown)]:
        found = known if images is None else scores(detector, temperature, _light(predict(images)))
        figures: list[Any] = [''] * 4
        if images is not None:
            pairs = list(zip(known, found))[:2]
            figures = [f'{measure(*pair):.3f}' for measure in (auroc, false_positive_rate) for pair in pairs]
        table.add_row(name, str(len(found[0])), *figures, f'{(found[2] >= UNSURE_LIMITS.novelty).mean():.3f}')
    print_table(table, PlainConsole())
    labels = np.asarray(source.labels)
    if len(tested) == len(labels):  # all could be read
        correct = np.array([each.class_index for each in tested]) == labels
        error = expected_calibration_error(-known[1], correct)
        print(f'accuracy {correct.mean():.4f}; expected calibration error {100 * error:.1f} points')


def _light(predictions: Iterable[Prediction]) -> Iterable[Prediction]:
    """The predictions without their images, which would fill the memory."""
    for each in predictions:
        yield dataclasses.replace(each, image=each.image[:0])


if __name__ == '__main__':
    define_path('workdir', None, 'Folder of a trained run.', required=True)
    define_paths('unknown', 'Folder of images that show none of its classes; may be repeated.')
    cli.run(main)
