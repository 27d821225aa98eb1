"""The smallest run that has everything: three stages, a padded last batch, checkpoints in mid-epoch."""

from configs import common
from ssanet_jax.training.stages import stage


def get_config():
    config = common.get_config()
    config.data.update(
        name='toy_birds',
        train_count=62,  # no multiple of the batch
        test_count=30,
        size=64,
        distractors=2,
        seed=0,
        image_size=64,
        resize=64,
        batch_size=8,
        eval_batch_size=8,
        num_workers=1,
        prefetch=1,
    )
    config.model.update(backbone='resnet_tiny', pretrained='none', num_parts=2, num_proposals=3, num_scales=3)
    config.loss.label_smoothing = 0.1
    parts = dict(backbone=1, proposals=0.2, part_classifier=0.5)
    config.stages = (
        stage(
            'scale_mining',
            epochs=2,
            learning_rate=0.05,
            train=dict(parts, image_classifier=1, scale_mining=0.1),
            milestones=(1,),
        ),
        stage(
            'oriented_pooling',
            epochs=1,
            learning_rate=0.01,
            train=dict(oriented_pooling=0.1, image_classifier=1 / 3),
            schedule='cosine',
        ),
        stage('part_tuning', epochs=1, learning_rate=0.005, train=parts, schedule='constant'),
    )
    config.checkpoint_steps = 3  # of 8 steps per epoch
    return config
