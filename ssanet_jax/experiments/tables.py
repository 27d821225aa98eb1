"""Every row of the paper's tables, as a change of a configuration of full SSANet.

A row removes parts of the network or replaces them by a baseline, and keeps data, backbone, optimizer and epochs.
`configs/rows.py` makes each row a configuration for `ssanet_jax.main`; `ssanet_jax.ablate` trains whole tables.
"""

import itertools
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.models.groups import GROUPS, PART_HEAD

BACKBONE = ('backbone', 'image_classifier')
PARTS = (*BACKBONE, 'proposals', 'part_classifier')

# Learning rates of the heads relative to DSM, which takes S averages per part. With SGD the speed of learning of a
# linear head grows with the squared length of its input, so its learning rate must fall accordingly.
SGD_RATES = {'gap': 5.0, 'gmp': 2.5, 'spp': 0.1, 'fpn': 5.0, 'dsm_fixed': 1.0, 'dsm_1': 5.0, 'concat': 5.0}


class Row(NamedTuple):
    """One network of a table."""

    name: str  # the name of its folder, and in configs/rows.py
    title: str  # as in the paper, without the backbone
    change: Callable[[ConfigDict], None]
    paper: float | None = None  # the paper's top-1 in percent on CUB-200-2011 with ResNet-50, if it gives one
    against: str | None = None  # the name of the row to compare with


class PaperTable(NamedTuple):
    """Rows that are trained and compared with each other."""

    title: str
    rows: tuple[Row, ...]


def keep(config: ConfigDict, groups: Collection[str], head: str = 'none', mac: bool = True) -> None:
    """Reduces a configuration to these groups.

    A stage is removed if none of the groups that it was the first to train remains: without oriented pooling, its stage
    is removed. A stage that only trains groups of earlier stages (the last of the three) stays.

    Args:
      config: changed in place.
      groups: the remaining groups.
      head: a baseline of `models/heads.py` that replaces scale mining.
      mac: whether the alignment loss remains.
    """
    config.model.part_head = head
    config.loss.weights.part_head = config.loss.weights.scale_mining
    if not mac:
        config.loss.weights.mac = 0.0
    sgd = config.optimizer.name == 'sgd'
    stages, known = [], set()
    for stage in config.stages:
        stage = stage.copy_and_resolve_references()
        new = set(stage.train) - known
        known |= new
        train = {group: factor for group, factor in stage.train.items() if group in groups}
        if head != 'none' and 'scale_mining' in stage.train:
            train[PART_HEAD] = stage.train.scale_mining * (SGD_RATES[head] if sgd else 1)
            new.add(PART_HEAD)
        if train and (not new or new & set(train)):
            stage.train = ConfigDict(train)
            stages.append(stage)
    config.stages = tuple(stages)


def nts_net(config: ConfigDict) -> None:
    """NTS-Net: the features of image and parts are concatenated, without alignment; all groups train at once."""
    keep(config, PARTS, 'concat', mac=False)
    rate = next(stage.learning_rate * stage.train[PART_HEAD] for stage in config.stages if PART_HEAD in stage.train)
    config.stages = tuple(stage for stage in config.stages if set(stage.train) != {PART_HEAD})
    first = next(stage for stage in config.stages if 'backbone' in stage.train)
    first.train[PART_HEAD] = first.train.get(PART_HEAD, rate / first.learning_rate)


def set_fields(config: ConfigDict, **fields: Any) -> None:
    """Sets fields by their dotted names, with `__` in place of the dot."""
    config.update_from_flattened_dict({name.replace('__', '.'): value for name, value in fields.items()})


def one_stage(config: ConfigDict) -> None:
    """All groups at once, each at its first rate, for as many epochs as the backbone trains in all stages."""
    backbone_stages = [stage for stage in config.stages if 'backbone' in stage.train]
    joint = backbone_stages[0].copy_and_resolve_references()
    rates = {group: stage.learning_rate * f for stage in reversed(config.stages) for group, f in stage.train.items()}
    joint.name, joint.epochs = 'one_stage', sum(stage.epochs for stage in backbone_stages)
    joint.train = ConfigDict({group: rate / joint.learning_rate for group, rate in rates.items()})
    config.stages = (joint,)


def _with(*groups: str, **kwargs: Any) -> Callable[[ConfigDict], None]:
    return lambda config: keep(config, (*PARTS, *groups), **kwargs)


def _set(**fields: Any) -> Callable[[ConfigDict], None]:
    return partial(set_fields, **fields)


_FULL = Row('ssanet', '(P) + MAC + OP + DSM', lambda config: None, 88.5, 'dsm')
_GAP = Row('mac', '(P) + MAC', _with(head='gap'), 87.3, 'parts')
_OP = Row('op', '(P) + MAC + OP', _with('oriented_pooling'), 88.1, 'mac')
_DSM = Row('dsm', '(P) + MAC + DSM', _with('scale_mining'), 88.3, 'mac')
_BACKBONE = Row('backbone', 'backbone', lambda config: keep(config, BACKBONE), 84.5)
_NTS = Row('nts', 'NTS-Net', nts_net, 87.5, 'backbone')


def _variants(field: str, values: Sequence[Any], default: Any, papers: Sequence[float | None] = ()) -> tuple[Row, ...]:
    """Rows of full SSANet with different values of one field, compared with its default."""
    short = field.split('__')[-1].removeprefix('num_')
    name = lambda value: f'{short}_{value}'
    return tuple(
        Row(name(value), f'{short} = {value}', _set(**{field: value}), paper)._replace(
            against=None if value == default else name(default)
        )
        for value, paper in itertools.zip_longest(values, papers)
    )


TABLES: dict[str, PaperTable] = {
    '3': PaperTable(
        'Table 3: what each module adds',
        (
            _BACKBONE,
            Row('parts', '(P)', _with(head='gap', mac=False), 86.8, 'backbone'),
            _GAP,
            _OP,
            _DSM,
            _FULL,
        ),
    ),
    '4': PaperTable(
        'Table 4: pooling of the parts',
        (
            Row('gmp', 'GMP', _with(head='gmp'), 86.0, 'mac'),
            _GAP._replace(title='GAP', against=None),
            _OP._replace(title='OP'),
        ),
    ),
    '5': PaperTable(
        'Table 5: scales of the parts',
        (
            Row('spp', 'SPPNet', _with(head='spp'), 87.4, 'dsm'),
            Row('fpn', 'FPN', _with(head='fpn'), 87.6, 'dsm'),
            Row('dsm_fixed', 'DSM(fixed)', _with(head='dsm_fixed'), 88.0, 'dsm'),
            Row('dsm_1', 'DSM(1)', _with(head='dsm_1'), 88.1, 'dsm'),
            _DSM._replace(title='DSM', against=None),
        ),
    ),
    '6': PaperTable(
        'Tables 1, 2 and 6: against other networks',
        (_BACKBONE, _NTS, _FULL._replace(title='SSANet', against='nts')),
    ),
    'stages': PaperTable(
        'One stage against three',
        (Row('one_stage', 'one stage', one_stage, None, 'ssanet'), _FULL._replace(title='stages', against=None)),
    ),
    'lambda': PaperTable(
        'Weight of the alignment loss',
        _variants('loss__weights__mac', (0.1, 0.3, 0.5, 1.0), 0.5, (88.4, 88.5, 88.5, 88.5)),
    ),
    'number': PaperTable('Number of parts', _variants('model__num_parts', (1, 2, 3, 4, 5, 6), 4)),
    'features': PaperTable('What scale mining reads', _variants('model__features', ('pooled', 'flat'), 'pooled')),
    'orientation': PaperTable(
        'Orientations as printed, and exact', _variants('model__orientation', ('literal', 'exact'), 'literal')
    ),
    'sharing': PaperTable(
        'What the regions share',
        (
            # Crops of 'none' make a 7 x 7 map at the undilated stride of the backbone.
            Row('sharing_none', 'none', _set(model__sharing='none', model__output_stride=0), 88.5, 'sharing_image'),
            Row('sharing_part', 'part', _set(model__sharing='part'), None, 'sharing_image'),
            Row('sharing_image', 'image', _set(model__sharing='image')),
        ),
    ),
}
ROWS: dict[str, Row] = {row.name: row for table in TABLES.values() for row in table.rows}


def row_config(config: ConfigDict, name: str) -> ConfigDict:
    """The configuration of a row; the given one is not changed.

    Args:
      config: a configuration of full SSANet.
      name: a key of `ROWS`.

    Raises:
      UserError: the row does not exist, or the configuration does not train all groups of SSANet.
    """
    if name not in ROWS:
        raise UserError(f'no row {name!r}: choose from {", ".join(ROWS)}')
    trained = {group for stage in config.stages for group in stage.train}
    missing = [group for group in GROUPS if group not in trained]
    if missing:
        raise UserError(
            f'config.stages never train {missing[0]}: give a configuration of full SSANet, such as configs/demo.py'
        )
    config = config.copy_and_resolve_references()
    ROWS[name].change(config)
    return config
