"""All benchmarks as one."""

import importlib
import importlib.util
import json

import pytest

from benchmarks import alone, backbones, floor, memory, pipeline, solvers, torch_nts, training
from benchmarks.comparisons import Comparison, Findings
from benchmarks.networks import NETWORKS
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import silent

everything = importlib.import_module('benchmarks.__main__')
Part = everything.Part
NETWORK = dict(backbone='resnet_tiny', size=64, classes=3)
TORCH = importlib.util.find_spec('torch') is not None


def test_what_breaks_off_costs_its_own_rows_alone(capsys):
    def refuses(settings, say):
        raise UserError('PyTorch is not installed')

    def fails(settings, say):
        raise ZeroDivisionError('by nothing')

    def works(settings, say):
        say('at work')
        return Findings([Comparison('a', 'b', 'here', 'again', (2.0, 1.0))])

    chosen = [Part(name, measure, solvers.Settings()) for name, measure in [('no', refuses), ('yes', works)]]
    said = []
    found, broken = everything.measure_all(chosen, said.append)
    assert not broken and said == ['2 of 2, yes: at work']
    (row,) = found['no'].comparisons
    assert (row.ratio, row.remark, row.command) == (None, 'PyTorch is not installed', 'python -m benchmarks.no')
    assert found['yes'].comparisons[0].ratio == 2

    found, broken = everything.measure_all([Part('bad', fails, solvers.Settings()), chosen[1]], silent)
    assert broken and 'ZeroDivisionError' in capsys.readouterr().err
    assert found['bad'].comparisons[0].remark == 'ZeroDivisionError: by nothing'
    assert found['yes'].comparisons[0].ratio == 2


def test_without_quick_the_sizes_are_those_of_the_targets():
    for part in everything.parts(False, ''):
        assert part.settings == type(part.settings)()
    assert floor.Settings().batch == torch_nts.Settings().batch == (1, 16)
    assert floor.Settings().backbone == training.Settings().backbone == 'resnet50'
    assert floor.Settings().size == training.Settings().size == torch_nts.Settings().size == 448


def test_quick_is_small():
    sizes = [getattr(part.settings, 'size', 0) for part in everything.parts(True, '')]
    assert max(sizes) == 128
    assert [part.name for part in everything.parts(True, '')] == [part.name for part in everything.parts(False, '')]


def test_the_folder_of_photos_arrives():
    (settings,) = [part.settings for part in everything.parts(False, 'CUB') if part.name == 'pipeline']
    assert settings.data_dir == 'CUB'


@pytest.mark.slow
def test_all_of_them_at_their_smallest(tmp_path):
    chosen = [
        Part('floor', floor.measure, floor.Settings(**NETWORK, batch=(2,), rounds=1, side=64, copied=1)),
        Part('solvers', solvers.measure, solvers.Settings((3,), (4,), (2,), 8, 1)),
        Part('training', training.measure, training.Settings(**NETWORK, batch=2, rounds=1)),
        Part('memory', memory.measure, memory.Settings((2,), (2,), ('image',), **NETWORK)),
        Part('pipeline', pipeline.measure, pipeline.Settings()),
        Part('backbones', backbones.measure, backbones.Settings(('resnet50',), 32, (1,), 1)),
        Part('torch_nts', torch_nts.measure, torch_nts.Settings((1,), 64, 3, 1, compile=False)),
    ]
    found, broken = everything.measure_all(chosen, silent)
    assert not broken
    alone.show(list(found.values()))
    alone.write(tmp_path / 'all.json', found, 1.0)
    content = json.loads((tmp_path / 'all.json').read_text())

    rows = {f'{row["first"]} / {row["second"]}': row for row in content['comparisons']}
    assert {'none / image', 'image / its floor', 'circulant / fourier', 'scale_mining / plain fine-tuning'} <= set(rows)
    unmeasured = {name for name, row in rows.items() if row['ratio'] is None}
    assert unmeasured == ({'pipeline / '} if TORCH else {'pipeline / ', 'this / PyTorch', 'torch_nts / '})
    assert all(row['ratio'] > 0 for name, row in rows.items() if name not in unmeasured)
    assert not any(row['target'] for row in rows.values())  # they are for other sizes

    (figures,) = content['floor']
    flops = [figures[name]['flops'] for name in NETWORKS]
    assert flops == sorted(flops) and flops[0] < flops[-1]  # backbone, image, part, none
    for figure in (figures[name] for name in NETWORKS):
        compute = figure['flops'] / figures['rates'][floor.MATRIX]
        copied = figure['bytes'] / figures['rates'][floor.COPY]
        assert figure['fraction'] == pytest.approx(max(compute, copied) / figure['seconds'])

    peaks = {row['program']: row['peak'] for row in content['memory']}
    assert peaks['prediction, backbone alone'] < peaks['prediction, image'] < peaks['training, stage 1, image']
    assert peaks['plain fine-tuning'] < peaks['training, stage 1, image']
