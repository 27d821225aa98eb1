"""Training through all stages, and evaluation."""

import json
import time
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

import ssanet_jax
from ssanet_jax import parallel
from ssanet_jax.data import dataset as datasets
from ssanet_jax.data import transforms
from ssanet_jax.data.pipeline import check_sizes, eval_batches, steps_per_epoch, train_batches
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import evaluate, make_count_correct
from ssanet_jax.evaluation.figures import save_picture
from ssanet_jax.evaluation.recognise import Recogniser, parts_sheet
from ssanet_jax.models.ssanet import SSANet, split_model
from ssanet_jax.training import experiment
from ssanet_jax.training.checkpoints import Checkpoints
from ssanet_jax.training.stages import active_groups, check_stages
from ssanet_jax.training.step import Metrics, TrainState, check_loss, make_train_step
from ssanet_jax.training.writers import StageWriter

EXAMPLES = 10  # test images in the picture of the parts
FETCH_STEPS = 20  # metrics are fetched this often, so that the host seldom waits for the device


def train(config: ConfigDict, workdir: Path, console: Console) -> dict[str, Any]:
    """Trains every stage of the configuration, from where an earlier start left off.

    Returns:
      The content of `workdir/results.json`.

    Raises:
      UserError: for bad settings or data, or when the loss is no longer finite.
    """
    mesh = _mesh(config)
    # All that can be wrong with the settings is found before the work directory is claimed.
    check_stages(config.stages, config.optimizer)
    check_loss(config.loss)
    check_sizes(config.data)
    dataset = datasets.load(config.data)
    steps_per_epoch(dataset.train, config.data.batch_size)
    model = experiment.build_model(config, len(dataset.class_names))
    experiment.open_workdir(workdir, config, dataset.class_names)
    console.print(
        f'{dataset.name}: {len(dataset.train)} training and {len(dataset.test)} test images '
        f'of {len(dataset.class_names)} classes; {config.model.backbone} at {config.data.image_size} on {experiment.device_kind()}',
        highlight=False,
        soft_wrap=True,
    )

    stages = {}
    for index, row in enumerate(config.stages):
        path = workdir / row.name / 'evaluation.json'
        if not path.exists():
            experiment.write_json(path, _train_stage(config, index, model, dataset, workdir, mesh, console))
        stages[row.name] = json.loads(path.read_text())
    last = stages[row.name]
    results = {
        'accuracy': last['accuracy'],
        'examples': last['examples'],
        'heads': last['heads'],
        'stages': stages,
        'seed': config.seed,
        'wall_seconds': sum(stage['wall_seconds'] for stage in stages.values()),
        'dataset': dataset.name,
        'backbone': config.model.backbone,
        'pretrained': config.model.pretrained,
        'image_size': config.data.image_size,
        'device': experiment.device_kind(),
        'versions': {'ssanet_jax': ssanet_jax.__version__, 'jax': jax.__version__},
    }
    experiment.write_json(workdir / experiment.RESULTS_FILE, results)
    _draw_examples(workdir, dataset, config)
    return results


def evaluate_run(config: ConfigDict, workdir: Path, console: Console) -> dict[str, Any]:
    """Evaluates the network in `workdir` on the test set of `config.data`; trains nothing.

    Returns:
      The content of `workdir/evaluation.json`.

    Raises:
      UserError: if there is no trained network, or the data has other classes.
    """
    mesh = _mesh(config)
    run = experiment.load_run(workdir)
    dataset = datasets.load(config.data)
    if dataset.class_names != run.class_names:
        raise UserError(
            f'{workdir} was trained on other classes than {dataset.name} has: check --config and config.data'
        )
    if config.data.image_size != run.config.data.image_size:
        raise UserError(f'{workdir} was trained at config.data.image_size={run.config.data.image_size}: give the same')
    with console.status(f'evaluating stage {run.stage} on {len(dataset.test)} images'):
        _, params, stats = split_model(run.model)
        params, stats = parallel.replicate((params, stats), mesh)
        count_correct = make_count_correct(run.model, run.active)
        result = evaluate(count_correct, params, stats, eval_batches(dataset.test, config.data), mesh)
    result |= {'stage': run.stage, 'dataset': dataset.name}
    experiment.write_json(workdir / 'evaluation.json', result)
    return result


def _train_stage(
    config: ConfigDict,
    index: int,
    model: SSANet,
    dataset: datasets.Dataset,
    workdir: Path,
    mesh: jax.sharding.Mesh,
    console: Console,
) -> dict[str, Any]:
    """Trains one stage and evaluates the network after it."""
    row = config.stages[index]
    epoch_steps = steps_per_epoch(dataset.train, config.data.batch_size)
    total = row.epochs * epoch_steps
    active = active_groups(config.stages, index)
    count_correct = make_count_correct(model, active)
    optimizer, train_step = make_train_step(model, row, active, config, epoch_steps)
    batches = train_batches(dataset.train, config.data, seed=config.seed + index, epochs=row.epochs)
    state, seconds = _initial_state(config, index, model, optimizer, batches, workdir, mesh)
    step = first = int(state.step)
    if 0 < step < total:
        console.print(f'{row.name}: going on from step {step} of {total}', highlight=False, soft_wrap=True)

    began = time.monotonic()
    checkpoints = Checkpoints(experiment.checkpoint_dir(workdir, row.name), writes=True)
    every = config.checkpoint_steps or epoch_steps
    pending: list[tuple[int, Metrics]] = []
    with StageWriter(console, workdir / row.name, row, epoch_steps, step, config.data.batch_size) as writer:
        while step < total:
            batch = next(batches)
            with jax.transfer_guard('disallow'):  # no step may talk to the host by accident
                state, metrics = train_step(state, parallel.shard_batch(batch, mesh))
            step += 1
            pending.append((step, metrics))
            epoch, within = divmod(step, epoch_steps)
            save = step % every == 0 or step == total
            if step % FETCH_STEPS == 0 or save or not within or step == first + 1:
                for number, values in jax.device_get(pending):
                    _check_finite(number, values, row.name, checkpoints)
                    writer.write(number, values)
                pending = []
            if save:
                # The iterator has given exactly the batches of these steps: save it before it moves on.
                position = {'seconds': seconds + time.monotonic() - began, 'data': batches.get_state()}
                checkpoints.save(
                    step, {'params': state.params, 'stats': state.stats, 'opt': state.opt, 'position': position}
                )
            if not within and config.eval_epochs and epoch % config.eval_epochs == 0 and step < total:
                test = eval_batches(dataset.test, config.data)
                writer.evaluation(step, evaluate(count_correct, state.params, state.stats, test, mesh))
            if save or not within or step == first + 1:
                writer.restart_clock(step)
        test = eval_batches(dataset.test, config.data)
        result = evaluate(count_correct, state.params, state.stats, test, mesh)
        writer.evaluation(step, result)
    checkpoints.close()
    return {**result, 'epochs': row.epochs, 'steps': total, 'wall_seconds': seconds + time.monotonic() - began}


def _initial_state(
    config: ConfigDict,
    index: int,
    model: SSANet,
    optimizer: Any,
    batches: grain.DatasetIterator,
    workdir: Path,
    mesh: jax.sharding.Mesh,
) -> tuple[TrainState, float]:
    """Where a stage starts, and the seconds already spent on it.

    Its own newest checkpoint, if an earlier start left one (`batches` then moves to the same
    place); else the last one of the stage before; else the network as it was built.
    """
    row = config.stages[index]
    _, params, stats = split_model(model)
    params, stats = parallel.replicate((params, stats), mesh)
    opt = parallel.replicate(optimizer.init(params), mesh)
    step, seconds = 0, 0.0
    if experiment.stage_steps(workdir, row.name):
        like = {'params': params, 'stats': stats, 'opt': opt, 'position': None}
        step, items = experiment.restore_stage(workdir, row.name, like)
        params, stats, opt = items['params'], items['stats'], items['opt']
        seconds = items['position']['seconds']
        batches.set_state(items['position']['data'])
    elif index:
        _, items = experiment.restore_stage(workdir, config.stages[index - 1].name, {'params': params, 'stats': stats})
        params, stats = items['params'], items['stats']
    return TrainState(params, stats, opt, parallel.replicate(np.int32(step), mesh)), seconds


def _draw_examples(workdir: Path, dataset: datasets.Dataset, config: ConfigDict) -> None:
    """Draws the parts on test images at even distances, so that nobody picks them."""
    run = experiment.load_run(workdir)
    chosen = [
        dataset.test[i] for i in np.linspace(0, len(dataset.test) - 1, min(EXAMPLES, len(dataset.test))).astype(int)
    ]
    images = [transforms.for_evaluation(example['image'], config.data) for example in chosen]
    labels = [int(example['label']) for example in chosen]
    sheet = parts_sheet(Recogniser(run.model, run.active), images, labels, run.class_names)
    save_picture(workdir / 'parts.png', sheet)


def _mesh(config: ConfigDict) -> jax.sharding.Mesh:
    mesh = parallel.make_mesh()
    for name in ('batch_size', 'eval_batch_size'):
        parallel.check_batch(config.data[name], mesh, f'config.data.{name}')
    return mesh


def _check_finite(step: int, metrics: dict[str, np.ndarray], stage: str, checkpoints: Checkpoints) -> None:
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
        bad.sort(key=lambda name: not name.startswith('loss/'))  # the norms only follow the loss
        kept = f'checkpoint {checkpoints.steps[-1]} is kept' if checkpoints.steps else 'no checkpoint had been written'
        raise UserError(
            f'{bad[0]} became {float(metrics[bad[0]])} at step {step} of stage {stage} ({kept}): '
            f'lower the rate of the stage or give it warmup_epochs, in another --workdir'
        )
