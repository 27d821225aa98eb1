"""The table of ratios and its targets."""

import io
import json
import math

import pytest
from rich.console import Console

from benchmarks import sharing, solvers, training
from benchmarks.comparisons import Comparison, at_least, at_most, compare, summary, table_of_ratios
from benchmarks.networks import BACKBONE


def printed(rows):
    out = io.StringIO()
    Console(file=out, width=140).print(table_of_ratios(rows))
    return out.getvalue()


def row(seconds, target=None, remark=''):
    return Comparison('none', 'image', 'resnet50, 448', 'python -m benchmarks.sharing', seconds, target, remark)


@pytest.mark.parametrize(
    'target, ratio, met',
    [
        (at_most(1.1), 1.1, True),
        (at_most(1.1), 1.1001, False),  # compared unrounded, though both are printed as 1.1
        (at_most(1.1), 0.2, True),
        (at_least(5), 5.0, True),
        (at_least(5), 4.9999, False),
        (at_least(5), 80.0, True),
    ],
)
def test_target(target, ratio, met):
    assert target.met(ratio) is met
    assert row((ratio, 1.0), target).met is met


def test_ratio_is_the_first_over_the_second():
    assert row((6.0, 4.0)).ratio == 1.5
    assert row(None).ratio is None


def test_images_per_second_and_the_type_have_columns():
    shown = row((0.5, 0.02))._replace(images=4, dtype='bfloat16')
    assert shown.images_per_second == (8.0, 200.0)
    text = printed([shown])
    assert 'images/s' in text and '8 / 200' in text and 'bfloat16' in text
    assert row((0.5, 0.02)).images_per_second is row(None)._replace(images=4).images_per_second is None
    assert json.loads(json.dumps(shown.to_json()))['images_per_second'] == [8.0, 200.0]


def test_met_is_none_without_a_ratio_or_a_target():
    assert row(None, at_least(5)).met is None
    assert row((6.0, 4.0)).met is None


def test_compare_skips_pairs_that_were_not_timed():
    times = {'a': 3.0, 'b': 1.5, 'c': 6.0}
    pairs = [('a', 'b', at_least(2)), ('c', 'a', None), ('missing', 'a', at_most(1))]
    found = compare(times, pairs, where='here', command='again')
    assert [(one.name, one.ratio, one.met, one.where, one.command) for one in found] == [
        ('a / b', 2.0, True, 'here', 'again'),
        ('c / a', 2.0, None, 'here', 'again'),
    ]


def test_table_has_names_command_medians_ratio_and_verdict():
    good, bad = printed([row((6.0, 1.2), at_least(5))]), printed([row((6.0, 1.25), at_least(5))])
    for text in ('none / image', 'resnet50, 448', 'python -m benchmarks.sharing', '6000.0 ms', '1200.0 ms', '5.000'):
        assert text in good
    assert '>= 5' in good and 'yes' in good and 'NO' not in good
    assert '4.800' in bad and 'NO' in bad


def test_table_gives_the_reason_of_a_missing_measurement():
    text = printed([row(None, at_least(5), remark="pip install -e '.[torch-parity]'")])
    assert 'not measured' in text and '[torch-parity]' in text  # brackets are not markup
    assert 'yes' not in text and 'NO' not in text


def test_summary_counts_targets():
    rows = [row((6.0, 1.0), at_least(5)), row((4.0, 1.0), at_least(5)), row(None, at_least(5)), row((1.0, 1.0))]
    assert summary(rows) == '1 of 2 targets met, 4 rows, 1 not measured'


def test_to_json_can_be_serialized():
    entry = json.loads(json.dumps(row((6.0, 4.0), at_least(5))._replace(details={'flops': 3.0}).to_json()))
    assert entry['ratio'] == 1.5 and entry['met'] is False and entry['target'] == '>= 5'
    assert entry['seconds'] == [6.0, 4.0] and entry['details'] == {'flops': 3.0}
    assert json.loads(json.dumps(row(None).to_json()))['ratio'] is None


def targets_of(settings, batch):
    times = dict(zip(sharing.NETWORKS, (1.0, 1.05, 2.0, 6.0)))  # backbone, image, part, none
    return {one.name: one.target for one in sharing.comparisons(times, settings, batch)}


def test_targets_of_sharing_apply_only_at_their_sizes():
    targets = targets_of(sharing.Settings(), 16)
    assert targets[f'image / {BACKBONE}'] == at_most(1.10) and targets['none / image'] == at_least(5)
    assert targets[f'part / {BACKBONE}'] == at_most(2.3) and targets['none / part'] == at_least(2)
    for settings, batch in [
        (sharing.Settings(), 4),
        (sharing.Settings(size=224), 1),
        (sharing.Settings(backbone='resnet18'), 1),
    ]:
        assert not any(targets_of(settings, batch).values())


def test_command_of_sharing_repeats_only_its_batch():
    times = dict.fromkeys(sharing.NETWORKS, 1.0)
    (command,) = {one.command for one in sharing.comparisons(times, sharing.Settings(size=224, batch=(1, 16)), 16)}
    assert command == 'python -m benchmarks.sharing --batch=16 --size=224'


def test_targets_of_the_solvers_are_for_the_large_batch():
    assert {
        (5, 200, 96, 2048): at_least(2),
        (5, 2000, 96, 2048): at_least(2),
        (9, 200, 96, 2048): at_least(3),
        (9, 2000, 96, 2048): at_least(3),
    } == solvers.TARGETS


def test_targets_of_training():
    wanted = {(first, second): target.bound if target else math.nan for first, second, target in training.PAIRS}
    assert wanted[('scale_mining', 'plain fine-tuning')] == 1.25
    assert wanted[('oriented_pooling', 'scale_mining')] == 0.45
    assert wanted[(training.CACHED, 'scale_mining')] == 0.05
