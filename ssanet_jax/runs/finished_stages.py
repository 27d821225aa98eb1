"""Which stages of a run are finished, so that a new start need not train them again."""

import contextlib
import logging
from pathlib import Path

from ssanet_jax.distributed import processes
from ssanet_jax.filesystem.atomic_files import set_aside
from ssanet_jax.runs.checkpoints import Checkpoints, best_dir, checkpoint_dir, checkpoint_steps, stage_steps
from ssanet_jax.runs.files import TRAIN_AGAIN, DamagedFile, read_run
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, ImagePredictions, read_predictions
from ssanet_jax.runs.results import StageResult, read_stage_result

EVALUATION_FILE = 'evaluation.json'


def finished_result(workdir: Path, stage: str, *, passes_on: bool) -> StageResult | None:
    """Reads the result of a stage that an earlier start finished. Call it in all processes.

    A stage whose files are damaged is not finished: they are set aside, and the stage goes on from its newest whole
    checkpoint. If it has none, its whole folder is set aside.

    Args:
      workdir: the run's work directory.
      stage: name of the stage.
      passes_on: something will still be computed from the network of the stage: check its checkpoint.

    Returns:
      The result; None if the stage must train, or be evaluated, again.
    """
    directory = workdir / stage
    path = directory / EVALUATION_FILE
    try:
        result = read_stage_result(path, StageResult, stage, TRAIN_AGAIN)
    except DamagedFile as error:
        return _again([path], f'{error.problem}: the stage is evaluated again')
    if result is None:
        return None
    if passes_on:
        if result.split == 'validation' and not holds_network(workdir, stage, result.step):
            cause = f'the network that {directory} selected at step {result.step} is damaged'
            return _again([directory], f'{cause}: the stage is trained again, {result.steps} steps are lost')
        if result.split != 'validation' and (cause := _find_lost_steps(workdir, stage, result.steps)):
            return _again([path], cause)
    if result.split != 'validation':
        predictions = directory / PREDICTIONS_FILE
        try:
            found = read_predictions(predictions, TRAIN_AGAIN)
        except DamagedFile as error:
            return _again([predictions, path], f'{error.problem}: the stage is evaluated again')
        # Those of another step or stage are whole, too. Early versions wrote none.
        if found is not None and not _agree(found, result):
            return _again([predictions, path], f'{predictions} and {path} disagree: the stage is evaluated again')
    return result


def unfinished_line(workdir: Path) -> str:
    """One line about a run whose training is not over, for commands that use its network; '' if it is over.

    Raises:
      UserError: the directory holds no run.
    """
    stages = [stage['name'] for stage in read_run(workdir)['config']['stages']]
    if (workdir / stages[-1] / EVALUATION_FILE).exists():
        return ''
    started = [stage for stage in stages if stage_steps(workdir, stage)]
    network = f': the network is that of stage {started[-1]}, {len(started)} of {len(stages)}' if started else ''
    return f'the training in {workdir} is not over{network}'


def has_whole_checkpoint(workdir: Path, stage: str) -> bool:
    """Whether a stage has a checkpoint that its training can go on from. Call it in all processes."""
    folder = checkpoint_dir(workdir, stage)
    return any(_is_whole(folder, step) for step in reversed(checkpoint_steps(folder)))


def restart_stage(workdir: Path, stage: str, problem: str) -> None:
    """Sets the folder of a stage aside, so that the stage starts again. Call it in all processes."""
    steps = stage_steps(workdir, stage)
    lost = f'{steps[-1]} steps are lost' if steps else 'its steps are lost'
    _again([workdir / stage], f'{problem}: stage {stage} starts again, {lost}')


def _again(paths: list[Path], message: str) -> None:
    """Sets files aside and warns; in all processes, after all have read them."""
    processes.barrier(f'read {paths[0]}')
    if processes.is_primary_process():
        names = [set_aside(path).name for path in paths]
        logging.warning('%s (set aside as %s)', message, ' and '.join(names))
    processes.barrier(f'set aside {paths[0]}')


def _agree(predictions: ImagePredictions, result: StageResult) -> bool:
    correct = predictions.correct()
    return len(correct) == result.examples and abs(float(correct.mean()) - result.accuracy) < 1e-6


def holds_network(workdir: Path, stage: str, step: int) -> bool:
    """Whether a whole checkpoint of a stage has this step. Call it in all processes."""
    return any(_is_whole(folder, step) for folder in (best_dir(workdir, stage), checkpoint_dir(workdir, stage)))


def _find_lost_steps(workdir: Path, stage: str, step: int) -> str:
    """Says how many steps are lost if the checkpoint of the last step is damaged; '' if it is whole."""
    folder = checkpoint_dir(workdir, stage)
    if not checkpoint_steps(folder):
        return ''
    with contextlib.closing(Checkpoints(folder, writes=True)) as checkpoints:
        newest = checkpoints.newest_whole()
    if newest == step:
        return ''
    if newest is None:
        return f'no checkpoint of {workdir / stage} is whole: it starts again, {step} steps are lost'
    return f'the last checkpoint of {workdir / stage} is damaged: it goes on from step {newest}, {step - newest} lost'


def _is_whole(folder: Path, step: int) -> bool:
    if step not in checkpoint_steps(folder):
        return False
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        return checkpoints.is_whole(step)
