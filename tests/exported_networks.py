"""Small networks and their exported files, for tests."""

from collections.abc import Sequence

import numpy as np
from data_samples import make_config
from flax import nnx
from ml_collections import ConfigDict

from ssanet_jax.artifact.onnx_file import OnnxFile, check_content
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.export.checking import CheckImages
from ssanet_jax.models.ssanet import SSANet
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.held_out import HeldOutPredictions

NAMES = ('wren', 'robin', 'owl', 'crow', 'gull')
SIDE = 64
ALL = ('backbone', 'proposals', 'scale_mining', 'oriented_pooling')


def make_predictor(active: Sequence[str] = ALL, held_out: int = 0, **settings) -> Predictor:
    """A network with random weights; `held_out` is the number of held-out images."""
    model_settings = dict(backbone='resnet_tiny', num_parts=2, num_proposals=3, num_scales=3, crop_size=56) | settings
    model = SSANet(len(NAMES), SIDE, **model_settings, rngs=nnx.Rngs(0))
    if model.covariance is not None:
        model.covariance.fit(np.random.default_rng(0).normal(size=(100, model.covariance.channels)))
    data = make_config(name='folder', resize=72, image_size=SIDE, shrink=True)
    config = ConfigDict(dict(data=data, model=dict(pretrained='none', **model_settings)))
    rng = np.random.default_rng(0)
    predictions = HeldOutPredictions(
        log_probabilities=np.log(rng.dirichlet(np.ones(len(NAMES)), held_out)).astype(np.float16),
        labels=rng.integers(0, len(NAMES), held_out).astype(np.int32),
        images=np.arange(held_out, dtype=np.int32),
        temperature=1.5,
        split='train',
    )
    return Predictor(model, active, config, NAMES, predictions if held_out else None)


def random_images(count: int = 6) -> CheckImages:
    """Smooth noise: images in which parts differ."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, SIDE // 8, SIDE // 8, 3), np.uint8)
    return CheckImages(coarse.repeat(8, 1).repeat(8, 2), 'noise')


def open_content(data: bytes) -> OnnxPredictor:
    """The predictor of an exported file in memory."""
    return OnnxPredictor(OnnxFile(data, check_content(data, 'file')), 'file')
