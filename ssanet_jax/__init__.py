"""SSANet for fine-grained recognition in JAX.

    import ssanet_jax

    model = ssanet_jax.load('runs/cub')
    for prediction in model.predict(['wren.jpg', 'more_photos/']):
        print(prediction.label, prediction.score)

The names below are stable. They are imported when they are first used: `import ssanet_jax` imports no JAX and starts
no device. `losses` and `parallel` are `ssanet_jax.models.losses` and `ssanet_jax.distributed.candidate_map`.
"""

from ssanet_jax import startup

startup.prepare_if_starting()  # before anything that takes time

import importlib  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

__version__ = '0.1.0'

if TYPE_CHECKING:
    from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
    from ssanet_jax.artifact.stablehlo_predictor import StableHloPredictor
    from ssanet_jax.distributed import candidate_map as parallel
    from ssanet_jax.errors import UnreadableImage, UserError
    from ssanet_jax.evaluation.image_predictor import Features
    from ssanet_jax.evaluation.prediction import Evidence, Prediction
    from ssanet_jax.factory import create_model
    from ssanet_jax.loading import load
    from ssanet_jax.models import losses
    from ssanet_jax.models.backbones.registry import list_backbones
    from ssanet_jax.predictor import Predictor

__all__ = [
    'Evidence',
    'Features',
    'OnnxPredictor',
    'Prediction',
    'Predictor',
    'StableHloPredictor',
    'UnreadableImage',
    'UserError',
    '__version__',
    'create_model',
    'list_backbones',
    'load',
    'losses',
    'parallel',
]

_MODULES = {'losses': 'ssanet_jax.models.losses', 'parallel': 'ssanet_jax.distributed.candidate_map'}
_HOMES = {
    'Evidence': 'ssanet_jax.evaluation.prediction',
    'Features': 'ssanet_jax.evaluation.image_predictor',
    'OnnxPredictor': 'ssanet_jax.artifact.onnx_predictor',
    'Prediction': 'ssanet_jax.evaluation.prediction',
    'Predictor': 'ssanet_jax.predictor',
    'StableHloPredictor': 'ssanet_jax.artifact.stablehlo_predictor',
    'UnreadableImage': 'ssanet_jax.errors',
    'UserError': 'ssanet_jax.errors',
    'create_model': 'ssanet_jax.factory',
    'list_backbones': 'ssanet_jax.models.backbones.registry',
    'load': 'ssanet_jax.loading',
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use (PEP 562)."""
    if name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
