"""Predictions for images that a network was not trained on, which tell how far it can be trusted."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.pipeline import eval_batches
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.evaluation.accuracy import make_gather, make_predict
from ssanet_jax.evaluation.calibration import fit_temperature
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.files import DamagedFile
from ssanet_jax.runs.held_out import HELD_OUT_FILE, HeldOutPredictions, read_held_out, write_held_out
from ssanet_jax.runs.run import load_run
from ssanet_jax.training.evaluate import evaluation_mesh


def keep_held_out(
    folder: Path, log_probabilities: np.ndarray, labels: np.ndarray, images: np.ndarray, split: str
) -> None:
    """Writes `held_out.npz` of a stage. Call it in all processes: the primary one writes.

    Args:
      folder: the stage's folder.
      log_probabilities: float `[n, N]`, of images that the network was not trained on.
      labels: int32 `[n]`.
      images: int32 `[n]`, positions in the split.
      split: 'train' or 'validation'.

    Raises:
      UserError: the file cannot be written.
    """
    predictions = HeldOutPredictions(
        log_probabilities=log_probabilities,
        labels=labels,
        images=images,
        temperature=fit_temperature(log_probabilities, labels),
        split=split,
    )
    write_held_out(folder / HELD_OUT_FILE, predictions)


def predict_validation(config: ConfigDict, workdir: Path, dataset: Dataset) -> None:
    """Keeps what the network of a run predicts for the validation images, unless that has been done.

    Args:
      config: the run's configuration.
      workdir: its work directory.
      dataset: its data set, with validation images.

    Raises:
      UserError: the network cannot be loaded, or the file cannot be written.
    """
    run = load_run(workdir)
    folder = workdir / run.stage
    try:
        done = read_held_out(folder / HELD_OUT_FILE, len(run.class_names))
    except DamagedFile:
        done = None
    processes.barrier(f'read {folder / HELD_OUT_FILE}')
    if done is not None and done.split == 'validation':
        return
    assert dataset.validation is not None
    mesh = evaluation_mesh(config)
    model = optimize_for_inference(run.model)
    _, params, stats = split_model(model)
    params, stats = sharding.replicate((params, stats), mesh)
    predict, gather = make_predict(model, run.active, mesh), make_gather(mesh)

    @jax.jit
    def score(params, stats, images):
        return jax.nn.log_softmax(predict(params, stats, images).logits.astype(jnp.float32))

    facts = ('label', 'index', 'mask', 'skipped')
    batches = eval_batches(dataset.validation, config.data, process=processes.current())
    found = []
    for _, on_device in sharding.prefetch_to_device(batches, mesh, ('image', *facts)):
        if not found:
            processes.compile_together(score, params, stats, on_device['image'])
        result = score(params, stats, on_device['image']), {name: on_device[name] for name in facts}
        if not found:
            processes.compile_together(gather, result)
        found.append(gather(result))
    scores, batch = jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(found))
    rows = np.flatnonzero(batch['mask'] & (batch['skipped'] < 0))  # without padding and unreadable images
    rows = rows[np.argsort(batch['index'][rows])]
    if len(rows):
        keep_held_out(folder, scores[rows], batch['label'][rows], batch['index'][rows], 'validation')
