"""The command that runs all benchmarks."""

import importlib
import importlib.util
import json

import pytest

from benchmarks import backbones, memory, pipeline, recipes, roofline, runner, solvers, torch_nts, training
from benchmarks.comparisons import Comparison, Findings
from benchmarks.networks import NETWORKS
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import no_log

everything = importlib.import_module('benchmarks.__main__')
Benchmark = everything.Benchmark
NETWORK = dict(backbone='resnet_tiny', size=64, num_classes=3)
TORCH = importlib.util.find_spec('torch') is not None


def test_a_failure_affects_only_its_own_rows(capsys):
    def refuses(settings, log):
        raise UserError('PyTorch is not installed')

    def fails(settings, log):
        raise ZeroDivisionError('by nothing')

    def works(settings, log):
        log('at work')
        return Findings([Comparison('a', 'b', 'here', 'again', (2.0, 1.0))])

    selected = [Benchmark(name, measure, solvers.Settings()) for name, measure in [('no', refuses), ('yes', works)]]
    messages = []
    found, failed = everything.run_all(selected, messages.append)
    assert not failed and messages == ['2 of 2, yes: at work']
    (row,) = found['no'].comparisons
    assert (row.ratio, row.remark, row.command) == (None, 'PyTorch is not installed', 'python -m benchmarks.no')
    assert found['yes'].comparisons[0].ratio == 2

    found, failed = everything.run_all([Benchmark('bad', fails, solvers.Settings()), selected[1]], no_log)
    assert failed and 'ZeroDivisionError' in capsys.readouterr().err
    assert found['bad'].comparisons[0].remark == 'ZeroDivisionError: by nothing'
    assert found['yes'].comparisons[0].ratio == 2


def test_default_sizes_are_those_of_the_targets():
    for benchmark in everything.benchmarks(False, ''):
        assert benchmark.settings == type(benchmark.settings)()
    assert roofline.Settings().batch == torch_nts.Settings().batch == (1, 16)
    assert roofline.Settings().backbone == training.Settings().backbone == 'resnet50'
    assert roofline.Settings().size == training.Settings().size == torch_nts.Settings().size == 448


def test_quick_sizes_are_small():
    sizes = [getattr(benchmark.settings, 'size', 0) for benchmark in everything.benchmarks(True, '')]
    assert max(sizes) == 128
    assert [benchmark.name for benchmark in everything.benchmarks(True, '')] == [
        benchmark.name for benchmark in everything.benchmarks(False, '')
    ]


def test_data_dir_is_passed_to_the_pipeline():
    (settings,) = [
        benchmark.settings for benchmark in everything.benchmarks(False, 'CUB') if benchmark.name == 'pipeline'
    ]
    assert settings.data_dir == 'CUB'


@pytest.mark.slow
def test_all_benchmarks_at_their_smallest(tmp_path):
    selected = [
        Benchmark('roofline', roofline.measure, roofline.Settings(**NETWORK, batch=(2,), rounds=1, side=64, copied=1)),
        Benchmark('recipes', recipes.measure, recipes.Settings(**NETWORK, batch=(2,), rounds=1)),
        Benchmark('solvers', solvers.measure, solvers.Settings((3,), (4,), (2,), 8, 1)),
        Benchmark('training', training.measure, training.Settings(**NETWORK, batch=2, rounds=1)),
        Benchmark('memory', memory.measure, memory.Settings((2,), (2,), ('image',), **NETWORK)),
        Benchmark('pipeline', pipeline.measure, pipeline.Settings()),
        Benchmark('backbones', backbones.measure, backbones.Settings(('resnet50',), 32, (1,), 1)),
        Benchmark('torch_nts', torch_nts.measure, torch_nts.Settings((1,), 64, 3, 1, compile=False, export=False)),
    ]
    found, failed = everything.run_all(selected, no_log)
    assert not failed
    runner.show(list(found.values()))
    runner.write(tmp_path / 'all.json', found, 1.0)
    content = json.loads((tmp_path / 'all.json').read_text())

    rows = {f'{row["first"]} / {row["second"]}': row for row in content['comparisons']}
    assert {'none / image', 'image / its roofline', 'circulant / fourier', 'scale_mining / plain fine-tuning'} <= set(
        rows
    )
    unmeasured = {name for name, row in rows.items() if row['ratio'] is None}
    assert unmeasured == ({'pipeline / '} if TORCH else {'pipeline / ', 'this / PyTorch', 'torch_nts / '})
    assert all(row['ratio'] > 0 for name, row in rows.items() if name not in unmeasured)
    assert not any(row['target'] for row in rows.values())  # targets are for other sizes

    fast, prototypes = (rows[f'{name} / backbone'] for name in ('fast', 'prototypes'))
    assert 'times the FLOPs' in fast['remark'] and fast['remark'] != prototypes['remark']

    (figures,) = content['roofline']
    flops = [figures[name]['flops'] for name in NETWORKS]
    assert flops == sorted(flops) and flops[0] < flops[-1]  # backbone, image, part, none
    for figure in (figures[name] for name in NETWORKS):
        compute = figure['flops'] / figures['rates'][roofline.MATRIX]
        copied = figure['bytes'] / figures['rates'][roofline.COPY]
        assert figure['fraction'] == pytest.approx(max(compute, copied) / figure['seconds'])

    peaks = {row['program']: row['peak'] for row in content['memory']}
    assert peaks['prediction, backbone alone'] < peaks['prediction, image'] < peaks['training, stage 1, image']
    assert peaks['plain fine-tuning'] < peaks['training, stage 1, image']
