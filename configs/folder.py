"""SSANet on your own images: a folder per class, or a CSV file that lists the images.

Expect 75 seconds for 8 classes of 30 photos on two CPU cores, compilation included, and with the recipe `full` 12
to 15 minutes for 1,500 training and 1,389 test images. The accuracy depends on the images.

    python -m ssanet_jax.main --config=configs/folder.py --workdir=runs/screws --config.data.dir=screws

    python -m ssanet_jax.main --config=configs/folder.py --workdir=runs/screws --config.data.dir=screws \
        --config.data.csv=screws.csv

The folder holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or only `CLASS/*.jpg`. In the latter case
`config.data.split_seed` draws a fifth of each class as test images. docs/datasets.md describes the CSV file.

A run begins by choosing a recipe for the number of images and the machine, which it prints: `quick` (the image, the
object and one part at 224 pixels), `full` (the image at 448, the object and three parts), or on a GPU, if its weights
are in the cache or can be downloaded, `dinov2` (the same as `full` on a DINOv2 ViT-S/14, which we have not run on
photos yet). `--config.recipe=full` chooses by hand, and `--config.epochs=4` fits the classifiers to four augmented
views of each image instead of two (docs/your_own_photos.md). `configs/folder.py:prototypes` has the settings of
`full`, without a choice.

The settings and the variants `fast`, `upright`, `dinov2`, `dinov2_finetune`, `backbone`, `random` and
`nts` are those of `configs/cub.py`; `lite0` is the method of the paper with this backbone at 224, trained.
"""

from ml_collections import ConfigDict

from ssanet_jax.configs import common, cub


def get_config(variant: str = 'auto') -> ConfigDict:
    config = common.choose(dict(auto=auto, **common.prototype_variants(), lite0=cub.lite0), variant)()
    config.data.name = 'folder'
    return config


def auto() -> ConfigDict:
    config = common.prototypes()
    config.recipe = 'auto'
    return config
