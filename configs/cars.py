"""SSANet on Stanford Cars: 196 classes, 8,144 training images (first version, not yet trained by us).

Settings of the paper, section 4.1: ResNet-50 from ImageNet weights, 512 -> 448 crop, batch 16,
the rate of oriented pooling falls after 30 epochs. The paper reports 94.6 %. It wants a GPU.

    python -m ssanet_jax.main --config=configs/cars.py --workdir=runs/cars \
        --config.data.dir=stanford_cars --config.model.pretrained=resnet50.pth

`stanford_cars` holds `devkit/` (with `cars_test_annos_withlabels.mat`), `cars_train/` and
`cars_test/`, nested as mirrors have them (docs/datasets.md); `resnet50.pth` is torchvision's file.
"""

from configs import common


def get_config():
    config = common.get_config()
    config.data.update(name='cars', resize=512)
    config.stages[1].milestones = (30,)
    return config
