"""The network that a stage passes on to the next one."""

from pathlib import Path
from typing import Any

from ssanet_jax.runs.checkpoints import Checkpoints, best_dir
from ssanet_jax.runs.files import write_json
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, ImagePredictions, write_predictions
from ssanet_jax.runs.results import BestResult, EvaluationResult, read_result

_CURE = 'restore it from a copy, or rename the folder of this stage and train it again'


class BestCheckpoint:
    """Keeps the network that a stage passes on to the next one.

    With validation images this is the network of the highest accuracy among those evaluated (the first of
    equals), saved in `<stage>/best`. Without them it is the last network, which the stage's own checkpoints hold.
    The predictions of the network are in `<stage>/predictions.npz`.

    Args:
      workdir: the run's work directory.
      stage: name of the stage.
      selects: whether the results come from validation images, so that the best of them may be selected.
    """

    def __init__(self, workdir: Path, stage: str, *, selects: bool):
        self._selects = selects
        self._directory = best_dir(workdir, stage)
        self._file = workdir / stage / 'best.json'
        self._result = read_result(self._file, BestResult, _CURE)

    @property
    def result(self) -> BestResult:
        """The evaluation of the network that the stage passes on.

        Raises:
          ValueError: no network has been evaluated yet.
        """
        if self._result is None:
            raise ValueError('no network of this stage has been evaluated')
        return self._result

    def update(
        self,
        step: int,
        result: EvaluationResult,
        predictions: ImagePredictions,
        params: dict[str, Any],
        stats: dict[str, Any],
    ) -> None:
        """Compares the network at `step` with the best one so far, and saves it if it is better."""
        if self._selects and self._result is not None and result.accuracy <= self._result.accuracy:
            return
        self._result = BestResult(**result.to_dict(), step=step)
        if self._selects:
            checkpoints = Checkpoints(self._directory, writes=True)
            checkpoints.save(step, {'params': params, 'stats': stats})
            checkpoints.close()
        write_predictions(self._file.with_name(PREDICTIONS_FILE), predictions)
        if self._selects:
            write_json(self._file, self._result.to_dict())
