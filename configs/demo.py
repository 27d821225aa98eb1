"""SSANet on drawn birds (`toy_birds`): all three stages on a laptop CPU, without any download.

Expect 0.988 to 1.000 on the 512 test images in three to six minutes on two CPU cores (docs/results.md), and
`runs/demo/parts.png`, the parts on ten of the images.

    make demo

which runs `python -m ssanet_jax.main --config=configs/demo.py --workdir=runs/demo`.

`configs/demo.py:global_pooling` trains the same backbone with global pooling for about as long; expect 0.94.

    make baseline

`configs/demo.py:joint` is the paper's one-stage alternative. `configs/demo.py:ablation` is for the paper's tables
(docs/experiments.md): parts first, then heads on the frozen parts.

The backbone is a ResNet of two blocks with random initial weights. Its receptive field is 27 of 96 pixels: too small to
tell the bird from the pieces of other birds around it.
"""

from ml_collections import ConfigDict

from ssanet_jax.configs import common
from ssanet_jax.training.stages import stage


def get_config(variant: str = 'three_stages') -> ConfigDict:
    config = common.get_config()
    config.data.update(
        name='toy_birds',
        train_count=4096,
        test_count=512,
        size=104,
        distractors=5,
        seed=0,
        image_size=96,
        resize=104,
        batch_size=32,
        eval_batch_size=64,
    )
    config.model.update(backbone='resnet_tiny', pretrained='none', crop_size=56)
    config.optimizer.name = 'adamw'
    schedule = dict(schedule='cosine', warmup_epochs=0.5)
    parts = dict(backbone=1, proposals=1, part_classifier=1)
    three_stages = (
        stage(
            'scale_mining',
            epochs=6,
            learning_rate=4e-3,
            train=dict(parts, image_classifier=1, scale_mining=1),
            **schedule,
        ),
        stage(
            'oriented_pooling',
            epochs=2,
            learning_rate=2e-3,
            train=dict(oriented_pooling=1, image_classifier=1 / 3),
            **schedule,
        ),
        stage('part_tuning', epochs=1, learning_rate=4e-4, train=parts, **schedule),
    )
    config.stages = common.choose(
        dict(
            three_stages=three_stages,
            ablation=common.ablation(epochs=(4, 2, 2), learning_rates=(4e-3, 4e-3, 2e-3), **schedule),
            joint=common.joint(epochs=7, learning_rate=4e-3, **schedule),
            global_pooling=common.global_pooling(epochs=12, learning_rate=4e-3, **schedule),
        ),
        variant,
    )
    config.eval_epochs = 1
    if variant == 'ablation':
        config.data.test_count = 2048  # the differences between heads are small
        config.eval_epochs = 0
    return config
