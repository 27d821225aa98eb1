"""SSANet on FGVC-Aircraft: 100 variants, 6,667 training images (first version, not yet trained by us).

Settings of the paper, section 4.1: ResNet-50 from ImageNet weights, images straight to 448, weight
decay 5e-4, batch 24. The paper reports 92.3 %. It wants a GPU.

    python -m ssanet_jax.main --config=configs/aircraft.py --workdir=runs/aircraft \
        --config.data.dir=fgvc-aircraft-2013b --config.model.pretrained=resnet50.pth

`--config.data.level=family` or `manufacturer` trains the coarser labels. `resnet50.pth` is
torchvision's file.
"""

from configs import common


def get_config():
    config = common.get_config()
    config.data.update(name='aircraft', resize=448, batch_size=24, eval_batch_size=24)
    config.data.level = 'variant'
    config.optimizer.weight_decay = 5e-4
    return config
