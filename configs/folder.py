"""SSANet on your own images: a folder per class, or a CSV file that lists the images.

Expect minutes: 1,500 training and 1,389 test images take about 12 on two CPU cores shared with other jobs. The accuracy
depends on the images.

    python -m ssanet_jax.main --config=configs/folder.py --workdir=runs/screws --config.data.dir=screws

    python -m ssanet_jax.main --config=configs/folder.py --workdir=runs/screws --config.data.dir=screws \
        --config.data.csv=screws.csv

The folder holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or only `CLASS/*.jpg`. In the latter case
`config.data.split_seed` draws a fifth of each class as test images. docs/datasets.md describes the CSV file.

The settings and the variants `fast`, `upright`, `backbone`, `random` and `nts` are those of `configs/cub.py`; `lite0`
is the method of the paper with this backbone at 224, trained.
"""

from ml_collections import ConfigDict

from ssanet_jax.configs import common, cub


def get_config(variant: str = 'prototypes') -> ConfigDict:
    config = common.choose(dict(common.prototype_variants(), lite0=cub.lite0), variant)()
    config.data.name = 'folder'
    return config
