"""The tiny network, whose image classifier a stage fits instead of training it."""

from ssanet_jax.training.stages import stage
from tests import tiny_config


def get_config():
    config = tiny_config.get_config()
    config.model.standardize = True
    config.stages = (stage('fit', epochs=1, fit=True, train=dict(image_classifier=1)),)
    return config
