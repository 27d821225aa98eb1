"""Demo."""

from configs import common
from ssanet_jax.training.stages import stage


def get_config(baseline=''):
    config = common.get_config()
    config.data = dict(
        name='toy_birds',
        train_count=4096,
        test_count=512,
        size=104,
        distractors=5,
        seed=0,
        image_size=96,
        resize=104,
        scale_min=1.0,
        flip=True,
        batch_size=32,
        eval_batch_size=64,
        threads=2,
        prefetch=2,
    )
    config.model.update(backbone='resnet_tiny', nms_iou=0.25)
    config.optimizer.name = 'adamw'
    schedule = dict(schedule='cosine', warmup_epochs=0.5)
    parts = dict(backbone=1, proposals=1, part_classifier=1)
    config.stages = (
        stage('scale_mining', epochs=6, rate=4e-3, train=dict(parts, image_classifier=1, scale_mining=1), **schedule),
        stage(
            'oriented_pooling', epochs=2, rate=2e-3, train=dict(oriented_pooling=1, image_classifier=1 / 3), **schedule
        ),
        stage('part_tuning', epochs=1, rate=4e-4, train=parts, **schedule),
    )
    if baseline == 'global_pooling':
        config.stages = common.global_pooling(epochs=12, rate=4e-3, **schedule)
    config.eval_epochs = 1
    return config
