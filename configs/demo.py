"""Demo."""
from configs import common


def get_config():
    config = common.get_config()
    config.data = dict(
        name='toy_birds', train_count=2048, test_count=512, size=128, distractors=4, seed=0,
        image_size=128, resize=128, scale_min=1.0, flip=False, batch_size=32, eval_batch_size=64, threads=2, prefetch=2)
    config.model.backbone = 'resnet_tiny'
    config.stages = common.three_stages(epochs=(8, 4, 2), schedule='cosine', warmup_epochs=1, rate=0.05, tune_rate=0.01)
    return config
