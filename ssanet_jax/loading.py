"""`ssanet_jax.load`: a trained run, the file that it was exported to, or a repository of the Hugging Face hub."""

import os

from ssanet_jax.artifact.model_file import load_model
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.image_predictor import ImagePredictor
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.pretrained.hub import HUB

BACKENDS = ('onnxruntime', 'jax')


def load(path: str | os.PathLike[str], *, backend: str | None = None) -> ImagePredictor:
    """Loads a trained network, ready to predict.

    Args:
      path: the work directory of a run, for a `Predictor`; a file that `ssanet export` wrote, for an `OnnxPredictor`,
        which imports no JAX, or a `StableHloPredictor`, which imports no Flax; or 'hub:OWNER/NAME' or
        'hub:OWNER/NAME@REVISION', a network that `ssanet push` uploaded.
      backend: what runs a network from the hub: 'onnxruntime', the default, or 'jax', for a `Predictor`.

    Raises:
      UserError: the directory holds no run, or no checkpoint that can be read; the file is another; or the repository
        cannot be downloaded, or holds other files.
    """
    name = os.fspath(path)
    if backend is not None and not (name.startswith(HUB) and backend in BACKENDS):
        raise UserError(f'backend={backend!r}: it is one of {", ".join(BACKENDS)}, for a network from the hub')
    if name.startswith(HUB) and backend == 'jax':
        from ssanet_jax.predictor import Predictor  # imports JAX, as the next line does
        from ssanet_jax.runs.shared_network import load_from_hub

        return Predictor.from_run(load_from_hub(name.removeprefix(HUB)))
    if name.startswith(HUB) or user_path(path, 'workdir').is_file():
        return load_model(path)
    from ssanet_jax.predictor import load as load_run  # imports JAX

    return load_run(path)
