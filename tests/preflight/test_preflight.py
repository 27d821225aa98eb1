"""The preflight command: its numbers against the network itself, and one-line errors for bad input."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from commands import check_user_error, run_each, run_python

from configs import common
from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.preflight.__main__ import choose_num_classes
from ssanet_jax.runs.run import build_model

HAS_LIBTPU = importlib.util.find_spec('libtpu') is not None


def preflight(*arguments):
    return run_python(('-m', 'ssanet_jax.preflight'), *arguments, environment={'COLUMNS': '120'}, timeout=900)


@pytest.fixture(scope='module')
def tiny_report(tmp_path_factory):
    """The command on the tiny configuration, for two GPUs."""
    file = tmp_path_factory.mktemp('preflight') / 'report.json'
    done = preflight('--config=tests/tiny_config.py', '--topology=gpu:h100x2', '--nolargest', f'--json={file}')
    assert done.returncode == 0, done.stderr
    return done, json.loads(file.read_text())


def test_the_command_for_gpus(tiny_report):
    done, content = tiny_report
    lines = done.stdout.splitlines()
    assert lines[-1].startswith('fits: ') and lines[-1].endswith(' of 55.9 GiB per device at batch 8')
    for label in ('parameters', 'optimizer', 'FLOPs', 'all-reduce', 'scaling efficiency'):
        assert any(line.split()[:1] == label.split()[:1] for line in lines), label
    assert 'Estimates for GPUs' in done.stdout and 'TF32' in done.stdout
    assert content['devices'] == 2 and content['estimated'] and content['fits'] and content['classes'] == 16
    assert content['verdict'] == lines[-1]
    assert 'Traceback' not in done.stderr and 'W0' not in done.stderr


def test_parameters_and_optimizer_state_are_those_of_the_network(tiny_report, tiny_config):
    _, content = tiny_report
    model = build_model(tiny_config, 16, pretrained=False)
    _, params, _ = split_model(model)
    size = {group: sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree)) for group, tree in params.items()}
    for stage in tiny_config.stages:
        memory = content['stages'][stage.name]['memory']
        assert memory['parameters'] == sum(size.values())
        # SGD: the momentum of what trains, and the step of each group's schedule.
        assert memory['optimizer'] == sum(size[group] for group in stage.train) + 4 * len(stage.train)
        # Three batches per device: 4 images of 64 x 64, and the labels.
        assert memory['inputs'] >= 3 * 4 * (64 * 64 * 3 + 4)
        # Each device reduces the gradient of the trained groups once, and little else: BatchNorm's sums and metrics.
        reduced = content['stages'][stage.name]['collectives']['all-reduce']['bytes']
        gradient = sum(size[group] for group in stage.train)
        assert gradient <= reduced <= 1.1 * gradient


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs TPU's compiler: pip install '.[preflight]'")
def test_the_command_for_a_tpu_slice(tmp_path):
    file = tmp_path / 'report.json'
    done = preflight('--config=configs/demo.py', '--topology=v5e:2x2', '--nolargest', f'--json={file}')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('fits: ')
    assert 'libtpu' not in done.stderr and 'WARNING' not in done.stderr  # only the stages
    assert len(done.stderr.splitlines()) == 3
    stage = json.loads(file.read_text())['stages']['scale_mining']
    # 8 images per device; the CPU's count of FLOPs is 1.86e9.
    assert stage['flops'] == pytest.approx(1.86e9, rel=0.1)
    assert stage['collectives']['all-reduce']['bytes'] > 1.5e6 and stage['by_compiler']['step'] > 0


# --- bad input

TINY = '--config=tests/tiny_config.py'
V5E = '--topology=v5e:2x2'
H100 = '--topology=gpu:h100x4'
# Arguments, and words that the message must contain.
CASES = {
    'missing configuration': ([V5E], ['--config is missing']),
    'missing topology': ([TINY], ['--topology is missing', 'v5e:4x4', 'gpu:h100x8']),
    'unknown field': ([TINY, V5E, '--config.model.bogus=1'], ['config.model.bogus', 'check the spelling']),
    'stray word': ([TINY, V5E, 'v5e'], ["'v5e'", '--help']),
    'unknown chip': ([TINY, '--topology=v9:2x2'], ['--topology=v9:2x2', 'v4, v5e, v5p, v6e', 'gpu:h100x8']),
    'unknown GPU': ([TINY, '--topology=gpu:voodoox2'], ['gpu:voodoox2', 'a100-40', 'h100']),
    'missing slice': ([TINY, '--topology=v5e'], ['give a slice of v5e', 'v5e:2x4']),
    'sides that are not numbers': ([TINY, '--topology=v5e:axb'], ['give a slice of v5e']),
    'unavailable slice': ([TINY, '--topology=v5e:3x3'], ['v5e has no slice 3x3', '4x8']),
    'wrong number of sides': ([TINY, '--topology=v4:2x2'], ['v4 has no slice 2x2', '3 sides', 'v4:2x2x1']),
    'slice that is too large': ([TINY, '--topology=v4:64x64x64'], ['v4 has no slice', '4096']),
    'zero GPUs': ([TINY, '--topology=gpu:h100x0'], ['1 to 8 GPUs']),
    'half a host': ([TINY, '--topology=gpu:h100x12'], ['multiple of 8']),
    'hosts without a network': ([TINY, '--topology=gpu:t4x16'], ['t4', 'at most 8']),
    'indivisible batch': (
        [TINY, '--topology=gpu:h100x16', '--batch=24'],
        ['--batch = 24', '16 devices', 'multiple of 16'],
    ),
    'mesh of another size': ([TINY, H100, '--config.mesh.shape=4x2'], ['config.mesh.shape=4x2', '8', '4']),
    'empty batch': ([TINY, H100, '--batch=0'], ['--batch = 0', 'at least one']),
    'classes of a folder': (['--config=configs/folder.py', H100], ['config.data.name=folder', 'give --classes']),
    'zero classes': ([TINY, H100, '--classes=0'], ['--classes=0']),
    'file in a missing folder': ([TINY, H100, '--json=nowhere/report.json'], ['--json=nowhere/report.json', 'folder']),
    'file is a folder': ([TINY, H100, '--json=tests'], ['--json=tests']),
    'even S': ([TINY, H100, '--config.model.num_scales=4'], ['config.model', 'scales must be odd']),
    'missing head': (
        ['--config=configs/rows.py:demo:ablation/mac', H100, '--config.model.part_head=none'],
        ['trains part_head', 'config.model.part_head is none'],
    ),
    'unknown optimizer': ([TINY, H100, '--config.optimizer.name=lion'], ["'lion'", 'sgd, adamw']),
    'libtpu is not installed': ([TINY, V5E], ['libtpu', "pip install '.[preflight]'"]),
}

WITHOUT_LIBTPU = """
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'libtpu' else find_spec(name, *rest)
"""


@pytest.fixture(scope='module')
def ended(tmp_path_factory):
    """The outcome of every case."""
    commands = {name: arguments for name, (arguments, _) in CASES.items()}
    return run_each('ssanet_jax.preflight', commands, tmp_path_factory.mktemp('bad_input'), WITHOUT_LIBTPU)


@pytest.mark.parametrize('name', CASES)
def test_bad_input_ends_with_one_line(ended, name):
    check_user_error(ended[name], CASES[name][1])


def test_number_of_classes():
    config = common.get_config()
    for name, num_classes in (('cub', 200), ('cars', 196), ('toy_birds', 16), ('aircraft', 100)):
        config.data.name = name
        assert choose_num_classes(config, None) == num_classes
    config.data.level = 'family'
    assert choose_num_classes(config, None) == 70 and choose_num_classes(config, 7) == 7
    config.data.name = 'folder'
    with pytest.raises(UserError, match='give --classes'):
        choose_num_classes(config, None)
