"""The groups of parameters of SSANet: the names by which a training stage trains or freezes them.

Each group is an attribute of `SSANet`. A group is active once a stage has trained it.
"""

from collections.abc import Collection, Sequence

from ml_collections import ConfigDict

GROUPS = (
    'backbone',  # images -> feature maps
    'proposals',  # scores of the anchor boxes, from which the parts are selected
    'part_classifier',  # auxiliary: classifies each proposal in training
    'image_classifier',  # auxiliary: classifies the averaged feature map of the image
    'scale_mining',  # Discriminative Scale Mining (DSM)
    'oriented_pooling',  # Oriented Pooling (OP)
)
PART_HEAD = 'part_head'  # one more, if `config.model.part_head` selects a baseline from `heads.py`
UPRIGHT = 'upright'  # one more, if `config.model.upright` is set: turns images upright (`upright.py`)

# The groups whose logits the prediction may add up (`summed_classifiers`).
CLASSIFIERS = frozenset({'image_classifier', 'scale_mining', 'oriented_pooling', PART_HEAD})


def summed_classifiers(fusion: str, active: Collection[str]) -> frozenset[str]:
    """The classifiers whose logits the prediction of a network adds up.

    Args:
      fusion: see `SSANet`.
      active: the groups trained so far.
    """
    found = CLASSIFIERS & frozenset(active)
    others = found - {'image_classifier'}
    return found if fusion == 'global+parts' or not others else others


def active_groups(stages: Sequence[ConfigDict], index: int) -> frozenset[str]:
    """The groups trained by the end of stage `index` of `config.stages`. Predictions do not use the others."""
    return frozenset(group for stage in stages[: index + 1] for group in stage.train)
