"""SSANet on your own images: a folder per class, or a CSV file that lists the images.

Expect about the time per image of `configs/cub.py`, which has the same settings: EfficientNet-Lite0 at 224, on a laptop
CPU. The accuracy depends on the images.

    python -m ssanet_jax.main --config=configs/folder.py --workdir=runs/screws --config.data.dir=screws

    python -m ssanet_jax.main --config=configs/folder.py --workdir=runs/screws --config.data.dir=screws \
        --config.data.csv=screws.csv

The folder holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or only `CLASS/*.jpg`. In the latter case
`config.data.split_seed` draws a fifth of each class as test images. docs/datasets.md describes the CSV file.
"""

from ml_collections import ConfigDict

from ssanet_jax.configs import cub


def get_config() -> ConfigDict:
    config = cub.lite0()
    config.data.name = 'folder'
    return config
