"""SSANet on FGVC-Aircraft: 100 variants, 6,667 training images.

We have not run this configuration. The same method is measured on birds (`configs/cub.py`).

    python -m ssanet_jax.main --config=configs/aircraft.py --workdir=runs/aircraft \
        --config.data.dir=fgvc-aircraft-2013b

The settings and the variants `fast`, `upright`, `dinov2`, `dinov2_finetune`, `backbone`, `random` and
`nts` are those of `configs/cub.py`, except that images are resized directly to 448 pixels and not cropped, because
aircraft often reach the border. `--config.data.level=family` or `manufacturer` trains the coarser labels.

`configs/aircraft.py:paper` has the paper's settings (section 4.1): ResNet-50, images resized straight to 448, weight
decay 5e-4, batches of 24. The paper reports 92.3 %. We have not trained it; it needs a GPU, and downloads
torchvision's weights (hub:timm/resnet50.tv_in1k).

    python -m ssanet_jax.main --config=configs/aircraft.py:paper --workdir=runs/aircraft_paper \
        --config.data.dir=fgvc-aircraft-2013b
"""

from ml_collections import ConfigDict

from ssanet_jax.configs import common


def get_config(variant: str = 'prototypes') -> ConfigDict:
    config = common.choose(dict(common.prototype_variants(), paper=paper), variant)()
    config.data.update(name='aircraft', level='variant', resize=448)
    return config


def paper() -> ConfigDict:
    config = common.get_config()
    config.data.update(batch_size=24, eval_batch_size=24)
    config.optimizer.weight_decay = 5e-4
    return config
