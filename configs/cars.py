"""The paper's SSANet on Stanford Cars: 196 classes, 8,144 training images. ResNet-50 from ImageNet weights at 448.

Expect: the paper reports 94.6 %. We have not trained this configuration, so its time is unknown. It needs a GPU.

    python -m ssanet_jax.main --config=configs/cars.py --workdir=runs/cars \
        --config.data.dir=stanford_cars --config.model.pretrained=resnet50.pth

Settings of section 4.1: images resized to 512 and cropped to 448, batches of 16; the learning rate of oriented pooling
is lowered after 30 epochs. `resnet50.pth` is torchvision's file. `stanford_cars` holds `devkit/` (with
`cars_test_annos_withlabels.mat`), `cars_train/` and `cars_test/`, nested as mirrors have them (docs/datasets.md).
"""

from ml_collections import ConfigDict

from ssanet_jax.configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.data.update(name='cars', resize=512)
    config.stages[1].milestones = (30,)
    return config
