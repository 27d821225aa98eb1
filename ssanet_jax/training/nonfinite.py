"""Steps whose loss or gradients are NaN or infinite: which images they read, and when they end a run.

`<stage>/nonfinite.json` names the images, so that a damaged or odd one can be looked at.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssanet_jax.data.dataset import Source
from ssanet_jax.data.left_out import first_names
from ssanet_jax.distributed import processes
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.runs.files import TRAIN_AGAIN, read_json, write_json

FILE = 'nonfinite.json'
STOP, SKIP = 'stop', 'skip'  # values of `config.on_nonfinite`
MAX_CONSECUTIVE = 20  # skipped updates, after which no later one is likely to be finite


class NonfiniteSteps:
    """The steps of a stage with a metric that is not finite.

    Args:
      directory: the stage's folder in the work directory.
      stage: name of the stage, for messages.
      source: the training images.
      action: `config.on_nonfinite`. With 'skip', the step itself has left the network as it was.
      first_step: the step that the stage goes on from; later steps of an earlier start do not count.
    """

    def __init__(self, directory: Path, stage: str, source: Source, action: str, first_step: int):
        self._path, self._stage, self._source, self._action = directory / FILE, stage, source, action
        found = read_json(self._path, TRAIN_AGAIN) if action == SKIP else None
        steps = found.get('steps') if found else None
        self._steps: list[dict[str, Any]] = [
            entry
            for entry in (steps if isinstance(steps, list) else [])
            if isinstance(entry, dict) and isinstance(entry.get('step'), int) and entry['step'] <= first_step
        ]
        self._consecutive = 0

    @property
    def count(self) -> int:
        """Number of updates that were skipped."""
        return len(self._steps)

    def check(
        self,
        step: int,
        metrics: Mapping[str, np.ndarray],
        indices: np.ndarray,
        find_saved_steps: Callable[[], Sequence[int]],
    ) -> bool:
        """Records a step if one of its metrics is not finite. Call it for every step, in all processes.

        Args:
          step: the step of the metrics.
          metrics: scalars by name.
          indices: positions of the batch's images in the training images, those of this process.
          find_saved_steps: returns the steps of the stage's checkpoints, for the message.

        Returns:
          Whether the update was skipped.

        Raises:
          UserError: a metric is not finite, and the run is to stop; or so many updates in a row were skipped.
        """
        name = nonfinite_metric(metrics)
        if not name:
            self._consecutive = 0
            return False
        images = list(_file_names(self._source, processes.gather_distinct(indices.tolist())))
        self._steps.append({'step': step, name: str(metrics[name]), 'images': images})
        write_json(self._path, {'steps': self._steps})
        self._consecutive += 1
        if self._action == SKIP and self._consecutive < MAX_CONSECUTIVE:
            return True
        saved_steps = find_saved_steps()
        kept = f'checkpoint {saved_steps[-1]} is kept' if saved_steps else 'no checkpoint had been written'
        repeated = f', the {self._consecutive}th in a row' if self._action == SKIP else ''
        skip = '' if self._action == SKIP else ' or with --config.on_nonfinite=skip'
        raise UserError(
            f'{name} became {float(metrics[name])} at step {step} of stage {self._stage}{repeated} ({kept}; images of '
            f'the batch: {first_names(images)}, all in {self._path}): lower the learning_rate of the stage or give it '
            f'warmup_epochs, and run the same command again{skip}'
        )


def nonfinite_metric(metrics: Mapping[str, np.ndarray]) -> str:
    """The name of a metric that is NaN or infinite, a loss if there is one; '' if all are finite."""
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    return min(bad, key=lambda name: not name.startswith('loss/'), default='')  # the norms only follow the loss


def _file_names(source: Source, indices: Iterable[int]) -> Iterable[str]:
    for index in indices:
        try:
            yield str(source[index]['file'])
        except UnreadableImage as error:
            yield str(error)
