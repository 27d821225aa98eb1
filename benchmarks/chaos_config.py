"""The smallest run with everything that can be interrupted, for `benchmarks/chaos.py`.

A copy of the images is prepared. Then one stage is fitted by L-BFGS, one trains on features that are kept on disk,
and one trains the backbone; each saves checkpoints within its epochs and evaluates after each of them. With the variant
`validation`, the best network of each stage is kept too, and the test images are evaluated once at the end.
"""

from configs import common
from ssanet_jax.training.stages import stage


def get_config(variant: str = ''):
    config = common.get_config()
    config.data.update(
        name='folder',
        image_size=32,
        resize=48,
        batch_size=8,
        eval_batch_size=8,
        num_workers=2,
        prefetch=1,
        validation=0.25 if variant == 'validation' else 0.0,
    )
    config.model.update(
        backbone='resnet_tiny',
        pretrained='none',
        proposal='prototypes',
        num_parts=2,
        num_proposals=3,
        num_scales=1,
        sharing='part',
        crop_size=32,
        standardize=True,
        fusion='global+parts',
    )
    config.loss.weights.ranking = 0.0
    heads = dict(image_classifier=1, scale_mining=1)
    fitted = dict(proposals=1, part_classifier=1, **heads)
    config.stages = (
        stage('fit', epochs=1, fit=True, train=fitted),
        stage('heads', epochs=2, learning_rate=0.01, train=heads, cache=1),
        stage('tuning', epochs=2, learning_rate=1e-5, train=dict(backbone=1, **heads)),
    )
    config.eval_epochs = 1
    config.checkpoint_steps = 2
    return config
