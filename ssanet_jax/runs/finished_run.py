"""A run whose training is over and whose files are whole, for commands that pass its network on."""

from pathlib import Path
from typing import NamedTuple

from ssanet_jax.errors import UserError
from ssanet_jax.runs.files import RESULTS_FILE, TRAIN_AGAIN, read_json, read_run
from ssanet_jax.runs.finished_stages import EVALUATION_FILE, holds_network, unfinished_line
from ssanet_jax.runs.held_out import HELD_OUT_FILE, read_held_out
from ssanet_jax.runs.results import StageResult, read_stage_result
from ssanet_jax.runs.run import Run, load_run


class FinishedRun(NamedTuple):
    """A finished run."""

    run: Run
    step: int  # of the last stage, at which its network was saved


def load_finished_run(workdir: Path) -> FinishedRun:
    """Loads the network of a run that is finished.

    Args:
      workdir: the run's work directory.

    Raises:
      UserError: the training is not over, or a file of the run is damaged or missing.
    """
    again = 'run the training command again, which finishes it'
    if line := unfinished_line(workdir):
        raise UserError(f'{line}: {again}')
    content = read_run(workdir)
    stage = content['config']['stages'][-1]['name']
    result = read_stage_result(workdir / stage / EVALUATION_FILE, StageResult, stage, TRAIN_AGAIN)
    if result is None or read_json(workdir / RESULTS_FILE, TRAIN_AGAIN) is None:
        raise UserError(f'the training in {workdir} is not over, {RESULTS_FILE} is missing: {again}')
    if not holds_network(workdir, stage, result.step):
        raise UserError(
            f'the network of {workdir / stage} at step {result.step} is damaged or missing: restore the folder from a '
            'copy, or run the training command again'
        )
    read_held_out(workdir / stage / HELD_OUT_FILE, len(content['class_names']))
    return FinishedRun(load_run(workdir), result.step)
