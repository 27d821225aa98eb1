"""The paper's SSANet on FGVC-Aircraft: 100 variants, 6,667 training images. ResNet-50 from ImageNet weights at 448.

Expect: the paper reports 92.3 %. We have not trained this configuration, so its time is unknown. It needs a GPU.

    python -m ssanet_jax.main --config=configs/aircraft.py --workdir=runs/aircraft \
        --config.data.dir=fgvc-aircraft-2013b --config.model.pretrained=resnet50.pth

Settings of section 4.1: images resized straight to 448, weight decay 5e-4, batches of 24. `resnet50.pth` is
torchvision's file. `--config.data.level=family` or `manufacturer` trains the coarser labels.
"""

from ml_collections import ConfigDict

from ssanet_jax.configs import common


def get_config() -> ConfigDict:
    config = common.get_config()
    config.data.update(name='aircraft', level='variant', resize=448, batch_size=24, eval_batch_size=24)
    config.optimizer.weight_decay = 5e-4
    return config
