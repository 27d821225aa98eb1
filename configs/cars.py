"""SSANet on Stanford Cars: 196 classes, 8,144 training images.

We have not run this configuration: the original host of the images is offline. The same method is measured on birds
(`configs/cub.py`).

    python -m ssanet_jax.main --config=configs/cars.py --workdir=runs/cars --config.data.dir=stanford_cars

The settings and the variants `fast`, `upright`, `dinov2`, `dinov2_finetune`, `backbone`, `random` and
`nts` are those of `configs/cub.py`. `stanford_cars` holds `devkit/` (with `cars_test_annos_withlabels.mat`),
`cars_train/` and `cars_test/`, nested as mirrors have them (docs/datasets.md).

`configs/cars.py:paper` has the paper's settings (section 4.1): ResNet-50, images resized to 512 and cropped to 448,
batches of 16; the learning rate of oriented pooling is lowered after 30 epochs. The paper reports 94.6 %. We have not
trained it; it needs a GPU, and downloads torchvision's weights (hub:timm/resnet50.tv_in1k).

    python -m ssanet_jax.main --config=configs/cars.py:paper --workdir=runs/cars_paper \
        --config.data.dir=stanford_cars
"""

from ml_collections import ConfigDict

from ssanet_jax.configs import common


def get_config(variant: str = 'prototypes') -> ConfigDict:
    config = common.choose(dict(common.prototype_variants(), paper=paper), variant)()
    config.data.name = 'cars'
    return config


def paper() -> ConfigDict:
    config = common.get_config()
    config.data.resize = 512
    config.stages[1].milestones = (30,)
    return config
