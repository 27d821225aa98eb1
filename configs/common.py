"""Every field of a configuration, with its default. The other files change what differs."""

from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.training.stages import stage


def choose(variants, name):
    """What stands behind the colon in --config=configs/demo.py:NAME."""
    if name not in variants:
        raise UserError(f'this configuration has no variant {name!r}: choose from {", ".join(variants)}')
    return variants[name]


def three_stages(epochs=(100, 60, 10), learning_rate=1e-3, tune_learning_rate=1e-4, **schedule):
    """The paper's training (section 3.4): scales, then orientations, then the parts once more.

    The paper gives the rates, and the epoch at which they fall (60); the numbers of epochs are ours.
    """
    parts = dict(backbone=1, proposals=1, part_classifier=1)
    return (
        stage(
            'scale_mining',
            epochs=epochs[0],
            learning_rate=learning_rate,
            train=dict(parts, image_classifier=1, scale_mining=1),
            **schedule,
        ),
        stage(
            'oriented_pooling',
            epochs=epochs[1],
            learning_rate=learning_rate,
            train=dict(oriented_pooling=1, image_classifier=1 / 3),
            **schedule,
        ),
        stage('part_tuning', epochs=epochs[2], learning_rate=tune_learning_rate, train=parts, **schedule),
    )


def joint(epochs=100, learning_rate=1e-3, **schedule):
    """The paper's one-stage alternative: everything at once."""
    groups = ('backbone', 'proposals', 'part_classifier', 'image_classifier', 'scale_mining', 'oriented_pooling')
    return (stage('joint', epochs=epochs, learning_rate=learning_rate, train=dict.fromkeys(groups, 1), **schedule),)


def ablation(epochs=(100, 60, 60), learning_rates=(1e-3, 1e-3, 1e-3), **schedule):
    """For tables in which heads compete: parts are trained first, without any of them, and stay as they are.

    All heads then read the same parts, which are trained once a seed (docs/experiments.md).
    """
    groups = ('backbone', 'proposals', 'part_classifier', 'image_classifier')
    return (
        stage('parts', epochs=epochs[0], learning_rate=learning_rates[0], train=dict.fromkeys(groups, 1), **schedule),
        stage(
            'scale_mining', epochs=epochs[1], learning_rate=learning_rates[1], train=dict(scale_mining=1), **schedule
        ),
        stage(
            'oriented_pooling',
            epochs=epochs[2],
            learning_rate=learning_rates[2],
            train=dict(oriented_pooling=1),
            **schedule,
        ),
    )


def global_pooling(epochs=100, learning_rate=1e-3, **schedule):
    """The bare backbone with global average pooling, for comparison."""
    return (
        stage(
            'global_pooling',
            epochs=epochs,
            learning_rate=learning_rate,
            train=dict(backbone=1, image_classifier=1),
            **schedule,
        ),
    )


def get_config():
    config = ConfigDict()
    config.seed = 0

    config.data = ConfigDict(
        dict(
            name='cub',  # toy_birds, cub, cars, aircraft or folder
            dir='',  # the extracted official folder, or one above it
            csv='',  # of folder: a file with path,label[,split], in dir or by its full path
            prepared_dir='~/.cache/ssanet_jax/data',  # where the prepared copy goes
            shrink=True,  # store images much larger than 'resize' at that size
            image_size=448,  # side of the network's input, pixels
            resize=600,  # side of the image before it is cropped
            interpolation='',  # bilinear or bicubic; '' as the pretrained weights ask
            mean=(),  # per RGB channel, in 0..255, of the images' normalization; () as the pretrained weights ask
            std=(),  # likewise
            scale_min=1.0,  # smallest random crop, as a share of image_size; 1 turns it off
            flip=True,
            color_jitter=0.0,  # strength of the colour jitter, in [0, 1)
            random_erasing=0.0,  # probability of random erasing
            validation=0.0,  # share of the training images held out; then the test set is read once, at the end
            split_seed=0,  # draws the validation images, and the test images of a folder without a split
            batch_size=16,  # over all devices
            eval_batch_size=16,
            num_workers=8,  # that read and decode
            prefetch=2,  # batches kept ready
        )
    )

    config.model = ConfigDict(
        dict(
            backbone='resnet50',
            pretrained='none',  # a .pth or .safetensors file, package:NAME, hub:OWNER/NAME, a run's work directory
            num_parts=4,  # K
            num_proposals=6,  # M
            num_scales=5,  # S
            alpha=2 ** (1 / 3),
            nms_iou=0.25,
            sharing='image',  # image, part (a crop for each part) or none (for each candidate, as in the paper)
            output_stride=0,  # pixels per cell of the map; 0: the backbone's own (32), or half of it (16)
            remat=False,  # less memory and more time for training with sharing='none' and 'part'
            crop_size=224,  # of sharing='none' and 'part'
            features='pooled',  # or flat
            solver='fourier',  # or circulant
            patch=3,
            grid=3,
            orientation='literal',  # or exact
            part_head='none',  # a baseline's: gap, gmp, spp, fpn, dsm_fixed, dsm_1 or concat (models/heads.py)
            fusion='parts',  # what the prediction sums: parts, or global+parts
            dtype='float32',  # or bfloat16
        )
    )

    config.loss = ConfigDict(
        dict(
            # 'mac' is the paper's lambda. A weight of 0 turns a loss off.
            weights=dict(
                image=1.0, parts=1.0, mac=0.5, ranking=1.0, scale_mining=1.0, oriented_pooling=1.0, part_head=1.0
            ),
            mac_temperature=1.0,
            mac_reduction='mean',  # or sum, as printed
            label_smoothing=0.0,
        )
    )

    config.mesh = ConfigDict(
        dict(
            shape='auto',  # of the devices: data x candidates, such as 4x2
            shard_heads=False,  # DSM and OP, large where classes are many, over the data axis
        )
    )

    config.optimizer = ConfigDict(dict(name='sgd', momentum=0.9, weight_decay=1e-4))  # or adamw
    config.stages = three_stages()
    config.eval_epochs = 0  # test accuracy every so many epochs, for the learning curve; 0: after each stage
    config.checkpoint_steps = 0  # 0: every epoch
    return config
