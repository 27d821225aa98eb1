"""Learning curves: accuracies and losses of all stages of a run, read from their histories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssanet_jax.runs.history import EVALUATION, HISTORY_FILE, read_history

TRAINING_BATCHES = 'training batches'  # the curve of the accuracy on the (augmented) training batches
TRAINING_LOSS = 'training loss'

Line = list[tuple[float, float]]  # points (epochs since the start of the first stage, value)


@dataclass(frozen=True)
class LearningCurves:
    """A curve is a list of lines, one per stage, since each stage trains different parts of the network.

    Attributes:
      stages: name and number of epochs of each stage that has started.
      split: the images of the evaluations, 'test' or 'validation'.
      accuracy: one curve per head, one for the prediction and one for the training batches.
      loss: the training loss, mean over each epoch.
    """

    stages: list[tuple[str, float]]
    split: str
    accuracy: Mapping[str, list[Line]]
    loss: list[Line]


def learning_curves(
    workdir: Path, stages: Sequence[Mapping[str, Any]], ended: Mapping[str, int] | None = None
) -> LearningCurves | None:
    """Reads the curves of a run over all its stages.

    Args:
      workdir: the run's work directory.
      stages: the stages of its configuration, with `name` and `epochs`.
      ended: the epochs of stages that stopped early.

    Returns:
      The curves; None if the run has no history, as runs of early versions.

    Raises:
      UserError: a history cannot be read.
    """
    histories = [read_history(workdir / stage['name'] / HISTORY_FILE) for stage in stages]
    while histories and not histories[-1]:
        histories.pop()
    if not histories:
        return None
    epochs: dict[str, float] = {stage['name']: stage['epochs'] for stage in stages}
    epochs.update(ended or {})
    split, loss = 'test', []
    accuracy: dict[str, list[Line]] = {}
    first_epoch = 0.0
    for stage, entries in zip(stages, histories):
        lines: dict[str, Line] = {}
        for entry in entries:
            values = entry['values']
            if entry['kind'] == EVALUATION:
                split = entry.get('split', split)
            else:
                values = {TRAINING_BATCHES: values.get('accuracy'), TRAINING_LOSS: values.get('loss/total')}
            for name, value in values.items():
                if value is not None:
                    lines.setdefault(name, []).append((first_epoch + entry['epoch'], value))
        loss.append(lines.pop(TRAINING_LOSS, []))
        for name, line in lines.items():
            accuracy.setdefault(name, []).append(line)
        first_epoch += epochs[stage['name']]
    started = [(stage['name'], epochs[stage['name']]) for stage, _ in zip(stages, histories)]
    return LearningCurves(started, split, accuracy, loss)
