"""Every row of every table as a configuration."""

import pytest

from configs import common, cub, demo, rows
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.tables import ROWS, TABLES, row_config
from ssanet_jax.models.groups import GROUPS, PART_HEAD, active_groups
from ssanet_jax.training.settings import check_settings
from ssanet_jax.training.step import stage_losses

BASES = {
    'paper': common.get_config,
    'cub:lite0': cub.lite0,
    'cub:ablation': lambda: cub.get_config('ablation'),
    'demo': demo.get_config,
    'demo:ablation': lambda: demo.get_config('ablation'),
}
PARTS = {'backbone', 'image_classifier', 'proposals', 'part_classifier'}
TRAINED = {
    'backbone': {'backbone', 'image_classifier'},
    'op': PARTS | {'oriented_pooling'},
    'dsm': PARTS | {'scale_mining'},
    **dict.fromkeys(('parts', 'mac', 'gmp', 'spp', 'fpn', 'dsm_fixed', 'dsm_1', 'nts'), PARTS | {PART_HEAD}),
}


@pytest.mark.parametrize('base', BASES)
@pytest.mark.parametrize('name', ROWS)
def test_every_row_can_be_trained(name, base):
    config = row_config(BASES[base](), name)
    check_settings(config)
    last = len(config.stages) - 1
    assert active_groups(config.stages, last) == TRAINED.get(name, set(GROUPS))
    for index, stage in enumerate(config.stages):
        assert stage_losses(active_groups(config.stages, index), stage.train, config.loss.weights), stage.name
    assert (config.model.part_head != 'none') == (PART_HEAD in TRAINED.get(name, ()))
    assert (config.loss.weights.mac > 0) == (name not in ('parts', 'nts'))


def test_the_base_configuration_is_not_changed():
    base = cub.lite0()
    for name in ROWS:
        row_config(base, name)
    assert base == cub.lite0()


def test_stages_without_their_new_groups_are_removed():
    names = lambda row: [stage.name for stage in row_config(cub.lite0(), row).stages]
    assert names('ssanet') == ['heads', 'scale_mining', 'oriented_pooling', 'part_tuning']
    assert names('dsm') == names('mac') == names('backbone') == ['heads', 'scale_mining', 'part_tuning']
    assert names('op') == names('ssanet')


def test_a_head_replaces_scale_mining():
    full, fixed = cub.lite0(), row_config(cub.lite0(), 'dsm_fixed')
    for before, after in zip(full.stages, [*fixed.stages[:2], None, fixed.stages[2]]):
        if after is not None:
            assert after.train.get(PART_HEAD) == before.train.get('scale_mining')
    assert fixed.loss.weights.part_head == full.loss.weights.scale_mining
    # With SGD its learning rate depends on the length of its input; with AdamW, which adapts by itself, it does not.
    assert row_config(cub.lite0(), 'spp').stages[0].train[PART_HEAD] < full.stages[0].train.scale_mining
    assert row_config(demo.get_config(), 'spp').stages[0].train[PART_HEAD] == 1


def test_nts_net_trains_all_groups_at_once():
    config = row_config(demo.get_config('ablation'), 'nts')
    assert [set(stage.train) for stage in config.stages] == [PARTS | {PART_HEAD}]
    assert config.model.part_head == 'concat'


def test_one_stage_trains_each_group_at_its_first_rate():
    full, one = demo.get_config(), row_config(demo.get_config(), 'one_stage')
    (stage,) = one.stages
    assert stage.epochs == full.stages[0].epochs + full.stages[2].epochs
    rate = {group: stage.learning_rate * factor for group, factor in stage.train.items()}
    assert rate['oriented_pooling'] == pytest.approx(2e-3) and rate['backbone'] == rate['scale_mining'] == 4e-3


def test_rows_are_compared_with_existing_rows():
    for table in TABLES.values():
        names = [row.name for row in table.rows]
        assert len(set(names)) == len(names)
    assert {row.against for row in ROWS.values()} - {None} <= ROWS.keys()
    shared = [row for table in TABLES.values() for row in table.rows]
    assert all(row.change is ROWS[row.name].change for row in shared), 'one name, one network'


def test_a_row_by_its_name():
    assert rows.get_config('demo:ablation/op') == row_config(demo.get_config('ablation'), 'op')
    assert rows.get_config('cub:lite0/nts') == row_config(cub.lite0(), 'nts')


@pytest.mark.parametrize(
    'choice, words',
    [
        ('op', 'give BASE/ROW'),
        ('eagle/op', 'there is no configs/eagle.py'),
        ('demo:ablation/oops', "no row 'oops': choose from backbone, parts, mac"),
        ('demo:global_pooling/op', 'never train proposals'),
        ('demo:best/op', "no variant 'best'"),
        ('common:paper/op', 'configs/common.py has no variants'),
    ],
)
def test_wrong_names(choice, words):
    with pytest.raises(UserError, match=words):
        rows.get_config(choice)
