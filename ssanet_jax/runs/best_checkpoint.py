"""The network that a stage passes on to the next one."""

import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssanet_jax.errors import UserError
from ssanet_jax.runs.checkpoints import (
    Checkpoints,
    DamagedCheckpoints,
    best_dir,
    checkpoint_dir,
    checkpoint_steps,
    restore,
    stage_steps,
)
from ssanet_jax.runs.files import DamagedFile, read_json, write_json
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, ImagePredictions, write_predictions
from ssanet_jax.runs.results import BestResult, EvaluationResult, read_stage_result

BEST_FILE = 'best.json'
_CURE = 'restore it from a copy, or rename the folder of this stage and run the training command again'


class BestCheckpoint:
    """Keeps the network that a stage passes on to the next one.

    With validation images this is the network of the highest accuracy among those evaluated (the first of
    equals), saved in `<stage>/best`. Without them it is the last network, which the stage's own checkpoints hold.
    The predictions of the network are in `<stage>/predictions.npz`.

    Args:
      workdir: the run's work directory.
      stage: name of the stage.
      selects: whether the results come from validation images, so that the best of them may be selected.

    Raises:
      DamagedCheckpoints: the evaluation of the network is damaged.
    """

    def __init__(self, workdir: Path, stage: str, *, selects: bool):
        self._selects = selects
        self._directory = best_dir(workdir, stage)
        self._workdir, self._stage = workdir, stage
        self._file = workdir / stage / BEST_FILE
        try:
            self._result = read_stage_result(self._file, BestResult, stage, _CURE)
        except DamagedFile as error:
            raise DamagedCheckpoints(str(error)) from error

    @property
    def found(self) -> BestResult | None:
        """The evaluation of the best network so far; None if no network has been evaluated yet."""
        return self._result

    @property
    def result(self) -> BestResult:
        """The evaluation of the network that the stage passes on.

        Raises:
          ValueError: no network has been evaluated yet.
        """
        if self._result is None:
            raise ValueError('no network of this stage has been evaluated')
        return self._result

    def repair(self, first_step: int, params: dict[str, Any], stats: dict[str, Any]) -> None:
        """Replaces a damaged network by the checkpoint of the stage that holds the same one.

        Args:
          first_step: the step that the stage goes on from.
          params: parameters by group, of a network like it.
          stats: BatchNorm statistics by group, of the same network.

        Raises:
          DamagedCheckpoints: no checkpoint holds it, or its evaluation is lost.
        """
        saved = checkpoint_steps(self._directory)
        if not self._selects or (self._result is None and not any(step < first_step for step in saved)):
            return  # nothing selected yet, also if a killed process had saved the network that it was about to select
        if self._result is None:
            raise DamagedCheckpoints(f'{self._file} is missing')
        step = self._result.step
        with contextlib.closing(Checkpoints(self._directory, writes=True)) as checkpoints:
            if step in saved and checkpoints.is_whole(step):
                return
        found = restore_network(self._workdir, self._stage, params, stats, groups=params, writes=True)
        self._save(step, *found)

    def _save(self, step: int, params: dict[str, Any], stats: dict[str, Any]) -> None:
        with contextlib.closing(Checkpoints(self._directory, writes=True)) as checkpoints:
            checkpoints.save(step, {'params': params, 'stats': stats})

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
        self._result = BestResult(**result.to_dict(), stage=self._stage, step=step)
        if self._selects:
            self._save(step, params, stats)
        write_predictions(self._file.with_name(PREDICTIONS_FILE), predictions)
        if self._selects:
            write_json(self._file, self._result.to_dict())


def restore_network(
    workdir: Path,
    stage: str,
    params: dict[str, Any],
    stats: dict[str, Any],
    *,
    groups: Iterable[str],
    writes: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loads the network that a stage passes on: the one that validation images selected, else its newest.

    A selected network whose own checkpoint is damaged or lost comes from the checkpoint of the stage at the same step.

    Args:
      workdir: the run's work directory.
      stage: name of the stage.
      params: parameters by group, of a network as it was built.
      stats: BatchNorm statistics by group, of the same network.
      groups: groups of parameters to load. The checkpoint must hold all of them. The others are returned as they are
        in `params`.
      writes: this process trains in the work directory, so that it sets damaged checkpoints aside.

    Returns:
      `(params, stats)`.

    Raises:
      DamagedCheckpoints: no checkpoint that holds the network is whole.
      UserError: the checkpoint lacks one of the groups, or cannot be read.
    """
    best, checkpoints = best_dir(workdir, stage), checkpoint_dir(workdir, stage)
    like = {'params': {group: params[group] for group in groups}, 'stats': stats}
    step = selected_step(workdir, stage)
    if step is None:  # there was no selection, or by a version that did not record it
        items = restore(best if checkpoint_steps(best) else checkpoints, like, writes=writes)[1]
        return params | items['params'], items['stats']
    problem = f'{best}/{step} is missing'
    if step in checkpoint_steps(best):
        try:
            items = restore(best, like, step=step, writes=writes)[1]
            return params | items['params'], items['stats']
        except DamagedCheckpoints as error:
            problem = str(error)
    if step not in stage_steps(workdir, stage):
        raise DamagedCheckpoints(
            f'the network that stage {stage} selected at step {step} is lost, and no checkpoint holds it ({problem})'
        )
    items = restore(checkpoints, like, step=step, writes=writes)[1]
    logging.warning('%s/%s is damaged or missing: %s/%s, the same network, is used', best, step, checkpoints, step)
    return params | items['params'], items['stats']


def selected_step(workdir: Path, stage: str) -> int | None:
    """The step of the network that validation images selected in a stage; None if none has been selected.

    Raises:
      UserError: what recorded the selection is damaged or lost.
    """
    directory = workdir / stage
    problem = ''
    try:
        result = read_stage_result(directory / BEST_FILE, BestResult, stage, _CURE)
        if result is not None:
            return result.step
    except DamagedFile as error:
        problem = str(error)
    steps = checkpoint_steps(best_dir(workdir, stage))
    if not problem and not steps:
        return None
    finished = read_json(directory / 'evaluation.json', _CURE) or {}
    if finished.get('split') == 'validation' and 'step' in finished:  # it has all that best.json has
        return finished['step']
    if not problem and len(steps) == 1:  # a run that was killed after its first selection, or an early version
        return None
    raise UserError(problem or f'{directory / BEST_FILE} is missing: {_CURE}')
