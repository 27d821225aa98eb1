"""Prediction with the network of a trained run, as all measurements use it."""

from collections.abc import Callable, Iterator

import jax
from jax.sharding import Mesh

from ssanet_jax.data.pipeline import Batch, num_steps
from ssanet_jax.distributed import sharding
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.outputs import Outputs
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.plain_text import track
from ssanet_jax.runs.run import Run

Predict = Callable[[jax.Array], Outputs]  # images, uint8 [B, S, S, 3] on the devices of the mesh


def evaluation_mesh(run: Run) -> Mesh:
    """The mesh for the run's evaluation batches."""
    return sharding.make_mesh(images=run.config.data.eval_batch_size)


def predict_function(run: Run, mesh: Mesh) -> Predict:
    """Compiles the run's network, optimized for inference, with its weights on the devices of the mesh."""
    model = optimize_for_inference(run.model)
    _, params, stats = split_model(model)
    params, stats = sharding.replicate((params, stats), mesh)
    predict = make_predict(model, run.active, mesh)
    return lambda images: predict(params, stats, images)


def track_batches(title: str, batches: Iterator[Batch], num_images: int, batch_size: int) -> Iterator[Batch]:
    """Yields the batches, with a progress bar on stderr."""
    total = num_steps(1, num_images, batch_size)
    yield from track(batches, title, total=total, transient=True)
