"""The first stage of the tiny configuration, where the others would show nothing more."""

from tests import tiny_config


def get_config():
    config = tiny_config.get_config()
    config.stages = config.stages[:1]
    return config
