"""Training through all stages, and evaluation."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

import ssanet_jax
from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.data.pipeline import check_batch_fits, eval_batches, list_unreadable, num_steps, train_batches
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.distributed.sharding import device_kind
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.accuracy import evaluate, make_count_correct
from ssanet_jax.evaluation.drawing import save_picture
from ssanet_jax.evaluation.sheets import evenly, parts_sheet
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import SSANet, split_model
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.best import Best
from ssanet_jax.runs.checkpoints import Checkpoints, checkpoint_dir, restore_network, restore_stage, stage_steps
from ssanet_jax.runs.compatibility import evaluation_config
from ssanet_jax.runs.files import RESULTS_FILE, TRAIN_AGAIN, read_json, read_run, write_json
from ssanet_jax.runs.preprocessing import recorded_preprocessing, resolve_preprocessing
from ssanet_jax.runs.run import Run, active_groups, build_model, load_run
from ssanet_jax.runs.workdir import claim_workdir, is_claimed, locked
from ssanet_jax.training import feature_cache
from ssanet_jax.training.settings import check_settings
from ssanet_jax.training.stage_logger import StageWriter
from ssanet_jax.training.step import Metrics, TrainState, make_train_step

EXAMPLES = 10  # test images in the picture of the parts
FETCH_STEPS = 20  # metrics are fetched this often, so that the host seldom waits for the device


def train(config: ConfigDict, workdir: Path, console: Console) -> dict[str, Any]:
    """Trains every stage of the configuration, from where an earlier start left off.

    Returns:
      The content of `workdir/results.json`.

    Raises:
      UserError: for bad settings or data, or when the loss is no longer finite.
    """
    mesh = _training_mesh(config)
    # All that can be wrong with the settings is found before the work directory is claimed.
    check_settings(config)
    dataset = load_dataset(config.data)
    check_batch_fits(dataset.train, config.data)
    recorded = recorded_preprocessing(read_run(workdir)['config']) if is_claimed(workdir) else None
    config = resolve_preprocessing(config, recorded)
    model = build_model(config, len(dataset.class_names))
    # On the host: the devices get what each is to hold, and the first one no copy of all of it besides.
    nnx.update(model, jax.device_get(nnx.state(model)))
    with locked(workdir):
        return _train_stages(config, workdir, console, dataset, model, mesh)


def _train_stages(
    config: ConfigDict,
    workdir: Path,
    console: Console,
    dataset: Dataset,
    model: SSANet,
    mesh: jax.sharding.Mesh,
) -> dict[str, Any]:
    claim_workdir(workdir, config, dataset.class_names, dataset.digest)
    held_out = '' if dataset.validation is None else f', {len(dataset.validation)} validation'
    console.print(
        f'{dataset.name}: {len(dataset.train)} training{held_out} and {len(dataset.test)} test images '
        f'of {len(dataset.class_names)} classes; {config.model.backbone} at {config.data.image_size} '
        f'on {device_kind()}',
        highlight=False,
        soft_wrap=True,
    )

    stages = {}
    for index, row in enumerate(config.stages):
        path = workdir / row.name / 'evaluation.json'
        if not path.exists():
            write_json(path, _train_stage(config, index, model, dataset, workdir, mesh, console))
        feature_cache.remove(workdir, row.name)
        stages[row.name] = read_json(path, TRAIN_AGAIN)
    final = stages[row.name]
    if dataset.validation is not None:
        final = _test_once(config, workdir, dataset, _evaluation_mesh(config), console)
    results = {
        'accuracy': final['accuracy'],
        'examples': final['examples'],
        'unreadable': final['unreadable'],
        'heads': final['heads'],
        'stages': stages,
        'seed': config.seed,
        'wall_seconds': sum(stage['wall_seconds'] for stage in stages.values()),
        'dataset': dataset.name,
        'backbone': config.model.backbone,
        'pretrained': config.model.pretrained,
        'image_size': config.data.image_size,
        'device': device_kind(),
        'versions': {'ssanet_jax': ssanet_jax.__version__, 'jax': jax.__version__},
    }
    write_json(workdir / RESULTS_FILE, results)
    _draw_examples(workdir, dataset)
    return results


def evaluate_run(config: ConfigDict, workdir: Path, console: Console) -> dict[str, Any]:
    """Evaluates the network in `workdir` on the test set of `config.data`; trains nothing.

    Returns:
      The content of `workdir/evaluation.json`.

    Raises:
      UserError: if there is no trained network, or the data has other classes.
    """
    mesh = _evaluation_mesh(config)
    run = load_run(workdir)
    config = evaluation_config(run.config, config)
    dataset = load_dataset(config.data)
    if dataset.class_names != run.class_names:
        raise UserError(
            f'{workdir} was trained on other classes than {dataset.name} has: check --config and config.data'
        )
    console.print(
        f'{dataset.name}: {len(dataset.test)} test images; the network of stage {run.stage}'
        + ('' if run.finished else ', which is not finished'),
        highlight=False,
        soft_wrap=True,
    )
    result = _evaluate_run(run, dataset, config, mesh, console)
    write_json(workdir / 'evaluation.json', result)
    return result


def _test_once(
    config: ConfigDict, workdir: Path, dataset: Dataset, mesh: jax.sharding.Mesh, console: Console
) -> dict[str, Any]:
    """The accuracy on the test set of the network that validation chose; read again, not measured again."""
    path = workdir / 'test.json'
    if not path.exists():
        write_json(path, _evaluate_run(load_run(workdir), dataset, config, mesh, console))
    return read_json(path, TRAIN_AGAIN)


def _evaluate_run(
    run: Run, dataset: Dataset, config: ConfigDict, mesh: jax.sharding.Mesh, console: Console
) -> dict[str, Any]:
    with console.status(f'evaluating stage {run.stage} on {len(dataset.test)} images'):
        model = optimize_for_inference(run.model)
        _, params, stats = split_model(model)
        params, stats = sharding.replicate((params, stats), mesh)
        count_correct = make_count_correct(model, run.active, mesh)
        result = _evaluate(count_correct, params, stats, dataset.test, config, mesh)
    for problem in result['unreadable']:
        console.print(f'counted as wrong: {problem}', style='yellow', highlight=False, soft_wrap=True)
    return result | {'stage': run.stage, 'dataset': dataset.name}


def _evaluate(
    count_correct: Callable[..., dict[str, jax.Array]],
    params: dict[str, Any],
    stats: dict[str, Any],
    source: Source,
    config: ConfigDict,
    mesh: jax.sharding.Mesh,
) -> dict[str, Any]:
    """`accuracy.evaluate` on a source, with the unreadable images by name."""
    result = evaluate(
        count_correct, params, stats, eval_batches(source, config.data, process=processes.current()), mesh
    )
    return result | {'unreadable': list_unreadable(source, result['unreadable'])}


def _train_stage(
    config: ConfigDict,
    index: int,
    model: SSANet,
    dataset: Dataset,
    workdir: Path,
    mesh: jax.sharding.Mesh,
    console: Console,
) -> dict[str, Any]:
    """Trains one stage and evaluates the network after it."""
    row = config.stages[index]
    size, images = config.data.batch_size, len(dataset.train)
    total = num_steps(row.epochs, images, size)
    active = active_groups(config.stages, index)
    evaluation_mesh = _evaluation_mesh(config)
    count_correct = make_count_correct(model, active, evaluation_mesh)
    optimizer, train_step = make_train_step(model, row, active, config, images / size, mesh)
    state, seconds = _initial_state(config, index, model, optimizer, workdir, mesh)
    step = first = int(state.step)
    if 0 < step < total:
        console.print(f'{row.name}: going on from step {step} of {total}', highlight=False, soft_wrap=True)
    split, chosen_on = ('test', dataset.test) if dataset.validation is None else ('validation', dataset.validation)

    began = time.monotonic()
    checkpoints = Checkpoints(checkpoint_dir(workdir, row.name), writes=True)
    best = Best(workdir, row.name, chooses=dataset.validation is not None)
    pending: list[tuple[int, Metrics]] = []
    skipped: set[int] = set()
    if row.cache and step < total:
        seen, source = 'features', dataset.train
        batches = feature_cache.cached_batches(config, index, active, model, state, source, workdir, mesh, console)
    else:
        feature_cache.remove(workdir, row.name)  # given up, maybe because the disk is full
        seen, process = 'image', processes.current()
        seed, start = config.seed + index, step * size
        batches = train_batches(dataset.train, config.data, seed=seed, epochs=row.epochs, start=start, process=process)

    def assess(writer: StageWriter) -> None:
        result = _evaluate(count_correct, state.params, state.stats, chosen_on, config, evaluation_mesh)
        writer.evaluation(step, result)
        best.consider(step, result, state.params, state.stats)

    with StageWriter(console, workdir / row.name, row, images, size, step, split) as writer:
        for batch, on_device in sharding.prefetch(batches, mesh, (seen, 'label')):
            if step == first:
                processes.compile_together(train_step, state, on_device)
            with jax.transfer_guard('disallow'):  # no step may talk to the host by accident
                state, metrics = train_step(state, on_device)
            step += 1
            pending.append((step, metrics))
            skipped.update(batch['skipped'][batch['skipped'] >= 0].tolist())
            epoch = step * size // images
            epoch_ends = epoch > (step - 1) * size // images
            save = step == total or (step % config.checkpoint_steps == 0 if config.checkpoint_steps else epoch_ends)
            if step % FETCH_STEPS == 0 or save or epoch_ends or step == first + 1:
                for number, values in jax.device_get(pending):
                    _check_finite(number, values, row.name, checkpoints)
                    writer.write(number, values)
                pending = []
            if epoch_ends and config.eval_epochs and epoch % config.eval_epochs == 0 and step < total:
                assess(writer)  # before the save, so that a run killed in between does it again
            if save:
                position = {'seconds': seconds + time.monotonic() - began}
                checkpoints.save(
                    step, {'params': state.params, 'stats': state.stats, 'opt': state.opt, 'position': position}
                )
            if epoch_ends:
                writer.unreadable(list_unreadable(dataset.train, processes.gather(skipped)))
                skipped.clear()
            if save or epoch_ends or step == first + 1:
                writer.restart_clock(step)
        assess(writer)
    checkpoints.close()
    seconds += time.monotonic() - began
    return {**best.result, 'split': split, 'epochs': row.epochs, 'steps': total, 'wall_seconds': seconds}


def _initial_state(
    config: ConfigDict,
    index: int,
    model: SSANet,
    optimizer: Any,
    workdir: Path,
    mesh: jax.sharding.Mesh,
) -> tuple[TrainState, float]:
    """Where a stage starts, and the seconds already spent on it.

    Its own newest checkpoint, if an earlier start left one; else the network of the stage before; else the network as
    it was built.
    """
    row = config.stages[index]
    _, params, stats = split_model(model)
    spread = config.mesh.shard_heads
    params, stats = (sharding.place(tree, mesh, spread) for tree in (params, stats))
    where = sharding.shardings(jax.eval_shape(optimizer.init, params), mesh, spread)
    opt = jax.jit(optimizer.init, out_shardings=where)(params)
    step, seconds = 0, 0.0
    if stage_steps(workdir, row.name):
        like = {'params': params, 'stats': stats, 'opt': opt, 'position': None}
        step, items = restore_stage(workdir, row.name, like)
        params, stats, opt = items['params'], items['stats'], items['opt']
        seconds = items['position']['seconds']
    elif index:
        # The backbone may have been frozen so far. Heads that no stage has trained yet start as they were built: a
        # stage taken over from another run of an ablation may have other heads, or heads of another shape.
        groups = {'backbone'} | active_groups(config.stages, index - 1)
        params, stats = restore_network(workdir, config.stages[index - 1].name, params, stats, groups=groups)
    return TrainState(params, stats, opt, sharding.replicate(np.int32(step), mesh)), seconds


def _draw_examples(workdir: Path, dataset: Dataset) -> None:
    """Draws the parts on test images at even distances, so that nobody picks them."""
    run = load_run(workdir)
    chosen = []
    for index in evenly(EXAMPLES, len(dataset.test)):
        with contextlib.suppress(UnreadableImage):  # reported by the evaluation
            chosen.append(dataset.test[index])
    if not chosen:
        return
    predictions = list(Predictor.from_run(run).predict([example['image'] for example in chosen]))
    sheet = parts_sheet(predictions, [int(example['label']) for example in chosen])
    if processes.is_primary_process():
        save_picture(workdir / 'parts.png', sheet)


def _training_mesh(config: ConfigDict) -> jax.sharding.Mesh:
    _evaluation_mesh(config)  # what is wrong with it should be found now
    mesh = sharding.make_mesh(shape=config.mesh.shape, images=config.data.batch_size)
    sharding.check_batch(config.data.batch_size, mesh, 'config.data.batch_size')
    return mesh


def _evaluation_mesh(config: ConfigDict) -> jax.sharding.Mesh:
    mesh = sharding.make_mesh(images=config.data.eval_batch_size)
    sharding.check_batch(config.data.eval_batch_size, mesh, 'config.data.eval_batch_size')
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
