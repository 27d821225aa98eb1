"""Compares finished runs image by image: difference in accuracy, confidence interval, p-values.

    python -m ssanet_jax.compare --workdir=runs/a --against=runs/b

With runs of several seeds, both flags are given once per seed, in the same order. Nothing is evaluated: the command
reads the `predictions.npz` that training and `--mode=evaluate` write. docs/experiments.md explains the numbers.

    python -m ssanet_jax.compare --workdir=runs/a --against=runs/a --against_head=image_classifier

compares the prediction of a run with that of one of its classifiers.
"""

from pathlib import Path

from absl import flags

from ssanet_jax import cli
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.run_comparison import RunComparison, check_same_images, compare_runs, load_predictions
from ssanet_jax.experiments.unreadable_images import prediction_lines
from ssanet_jax.path_flags import define_paths
from ssanet_jax.printable import printable
from ssanet_jax.runs.evaluation_count import num_test_evaluations
from ssanet_jax.runs.image_predictions import SUM, ImagePredictions

ONE_SEED = 'one run of each: the interval covers the choice of images, but not another training run'

_WORKDIR = define_paths('workdir', 'Folder of a finished run; once per seed.')
_AGAINST = define_paths('against', 'Folder of the run to compare it with; once per seed, in the same order.')
_HEAD = flags.DEFINE_string('head', SUM, 'Head of the --workdir runs: sum, which is the prediction, or a classifier.')
_AGAINST_HEAD = flags.DEFINE_string('against_head', None, 'Head of the --against runs; by default that of --head.')
_SPLIT = flags.DEFINE_enum('split', 'test', ['test', 'validation'], 'The images to compare on.')


def main() -> None:
    """Prints the comparison; the last line on stdout is a summary."""
    first, second = _WORKDIR.value, _AGAINST.value
    if len(first) != len(second):
        raise UserError(f'{len(first)} --workdir and {len(second)} --against: give one of each per seed')
    predictions = {path: load_predictions(path, _SPLIT.value) for path in (*first, *second)}
    check_same_images(predictions)
    heads = _HEAD.value, _AGAINST_HEAD.value or _HEAD.value
    result = compare_runs([predictions[path] for path in first], [predictions[path] for path in second], *heads)

    print(f'accuracy on {result.comparison.images} {_SPLIT.value} images:')
    for one, other, single in zip(first, second, result.single):
        compared = ', '.join(_described(path, predictions[path], head) for path, head in zip((one, other), heads))
        print(
            f'{compared}: only the first is right for {single.won} images, only the second for {single.lost} '
            f"(McNemar's exact test: p {single.p:.4f})"
        )
    for line in prediction_lines(predictions, _SPLIT.value):
        print(printable(line))
    if len(first) == 1:
        print(ONE_SEED)
    if _SPLIT.value == 'test':
        count = sum(num_test_evaluations(path) for path in predictions)
        print(f'test images evaluated {count} times by these {len(predictions)} runs')
    print(_summary(result))


def _described(workdir: Path, predictions: ImagePredictions, head: str) -> str:
    """A run with the accuracy of a head, which is named unless it is the prediction."""
    name = '' if head == SUM else f', {head}'
    return f'{workdir}{name} {100 * predictions.correct(head).mean():.2f} %'


def _summary(result: RunComparison) -> str:
    found = result.comparison
    seeds = found.difference.count
    sources = 'images' if seeds == 1 else f'{seeds} seeds and images'
    return (
        f'difference {found.difference.mean:+.2f} points, 95 % interval {found.low:+.2f} to {found.high:+.2f}, '
        f'p {found.p:.4f} (bootstrap over {sources})'
    )


if __name__ == '__main__':
    cli.run(main)
