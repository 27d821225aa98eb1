"""`ssanet_jax.load`: a trained run, or the file that it was exported to."""

import os

from ssanet_jax.artifact.model_file import load_model
from ssanet_jax.evaluation.image_predictor import ImagePredictor
from ssanet_jax.filesystem.paths import user_path


def load(path: str | os.PathLike[str]) -> ImagePredictor:
    """Loads a trained network, ready to predict.

    Args:
      path: the work directory of a run, for a `Predictor`; or a file that `ssanet export` wrote, for an
        `OnnxPredictor`, which imports no JAX, or a `StableHloPredictor`, which imports no Flax.

    Raises:
      UserError: the directory holds no run, or no checkpoint that can be read; or the file is another.
    """
    if user_path(path, 'workdir').is_file():
        return load_model(path)
    from ssanet_jax.predictor import load as load_run  # imports JAX

    return load_run(path)
