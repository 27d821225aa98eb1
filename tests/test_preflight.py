"""The preflight command and what it reads out of compiled programs.

The programs are written by hand here, and their bytes and times worked out beside them.
"""

import importlib.util
import json
import math
from inspect import signature

import jax
import numpy as np
import pytest
from commands import run_each, run_python
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import common
from ssanet_jax import parallel
from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.preflight import classes_of
from ssanet_jax.scaling import estimate, examine, program, report, traffic
from ssanet_jax.scaling.chips import CHIPS, GIB, parse_topology
from ssanet_jax.scaling.hlo import Collective, read_collectives, shape_bytes, totals
from ssanet_jax.scaling.program import Memory, Overflow, Program
from ssanet_jax.training import experiment

HAS_LIBTPU = importlib.util.find_spec('libtpu') is not None


def preflight(*arguments):
    return run_python(('-m', 'ssanet_jax.preflight'), *arguments, environment={'COLUMNS': '120'}, timeout=900)


# --- reading programs


def read(line: str, devices: int = 8) -> Collective:
    (collective,) = read_collectives(line, devices)
    return collective


def test_bytes_of_shapes():
    assert shape_bytes('f32[8,4]{1,0:T(8,128)S(1)}') == [128]
    assert shape_bytes('(bf16[3]{0}, pred[5], s32[], /*index=3*/f8e4m3fn[2,2], s4[3], c64[2])') == [6, 5, 4, 4, 2, 16]
    assert shape_bytes('(f32[0,4], token[])') == [0, 0]


@pytest.mark.parametrize(
    'line, kind, size, group',
    [
        # 1000 x 2048 float32
        ('%r = f32[1000,2048]{1,0} all-reduce(%g), replica_groups={}, to_apply=%add', 'all-reduce', 8192000, 8),
        # a tuple of 10 float32 and 6 bfloat16, over two groups of four
        ('%r = (f32[10]{0}, bf16[2,3]) all-reduce(%a, %b), replica_groups={{0,1,2,3},{4,5,6,7}}', 'all-reduce', 52, 4),
        # the result is a piece of what is reduced, one of four: 4 x 16 x 4 bytes
        (
            'ROOT %r = f32[16]{0} reduce-scatter(%g), replica_groups=[2,4]<=[8], dimensions={0}',
            'reduce-scatter',
            256,
            4,
        ),
        # the result is the whole of what is gathered
        (
            '%r = bf16[32,4]{1,0} all-gather(%x), replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}',
            'all-gather',
            256,
            2,
        ),
        (
            "%r = f32[5]{0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}",
            'all-gather',
            20,
            4,
        ),
        ('%r = (s32[4]{0}, s32[4]{0}) all-to-all(%a, %b), replica_groups={{0,1}}', 'all-to-all', 32, 2),
        ('%r = u8[7]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}', 'collective-permute', 7, 8),
        # what a start returns holds its operands too, and a permute's two counters
        ('%s = f32[6]{0} all-reduce-start(%x), replica_groups={{0,1}}', 'all-reduce', 24, 2),
        ('%s = (f32[6]{0}, f32[24]{0}) all-gather-start(%x), replica_groups={{0,1,2,3}}', 'all-gather', 96, 4),
        (
            '%s = ((f32[6], f32[2]), (f32[12], f32[4])) all-gather-start(%x, %y), replica_groups={{0,1}}',
            'all-gather',
            64,
            2,
        ),
        ('%s = (f32[6], f32[6], u32[], u32[]) collective-permute-start(%x)', 'collective-permute', 24, 8),
    ],
)
def test_each_kind_of_collective(line, kind, size, group):
    assert read(f'  {line}, metadata={{op_name="x"}}') == Collective(kind, size, group)


def test_bytes_that_a_device_sends():
    assert Collective('all-reduce', 800, 8).sent == 2 * 700
    assert Collective('all-gather', 800, 8).sent == Collective('reduce-scatter', 800, 8).sent == 700
    assert Collective('collective-permute', 800, 8).sent == 800


PROGRAM = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter (input: f32[64]) -> f32[16] {
  %whole = f32[64]{0} all-reduce(%input), channel_id=5, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %piece = f32[16]{0} dynamic-slice(%whole, %at), dynamic_slice_sizes={16}
}

%first_piece (p: bf16[8]) -> bf16[32] {
  %gather.1 = bf16[32]{0} all-gather(%p), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
}

%second_piece (p: bf16[8]) -> bf16[32] {
  %gather.2 = bf16[32]{0} all-gather(%p), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
}

%body (p: f32[4]) -> f32[4] {
  %r = f32[4]{0} all-reduce(%p), channel_id=9, replica_groups={{0,1,2,3}}, to_apply=%add
  %x = f32[256]{0} copy(%y)
}

ENTRY %main (p: f32[64]) -> f32[64] {
  %p = f32[64]{0} parameter(0)
  %start = f32[64]{0} all-reduce-start(%p), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %done = f32[64]{0} all-reduce-done(%start)
  %scattered = f32[16]{0} fusion(%done), kind=kCustom, calls=%all-reduce-scatter
  %g1 = bf16[32]{0} fusion(%done), kind=kCustom, calls=%first_piece
  %g2 = bf16[32]{0} fusion(%g1), kind=kCustom, calls=%second_piece
  %loop = f32[4]{0} while(%q), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %alone = f32[2]{0} all-reduce(%p), channel_id=11, replica_groups={{0},{1},{2},{3}}, to_apply=%add
  ROOT %use = f32[64]{0} add(%done, %done), metadata={op_name="all-reduce-done(x)"}
}
"""


def test_collectives_of_a_program_are_counted_once():
    found = read_collectives(PROGRAM, 4)
    assert set(found) == {
        Collective('all-reduce', 256, 4),  # start and done
        Collective('all-reduce', 16, 4, times=3),  # in a loop of three turns
        Collective('reduce-scatter', 256, 4),
        Collective('all-gather', 64, 4),  # cut into two pieces
    }  # and none of the groups of one device
    assert len(found) == 4
    assert totals(found) == {'all-reduce': (4, 304), 'reduce-scatter': (1, 256), 'all-gather': (1, 64)}


def test_traffic_leaves_vector_memory_out():
    text = """HloModule m

ENTRY %main (p: f32[100]) -> f32[100] {
  %p = f32[100]{0} parameter(0)
  %start = (f32[100]{0:S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%p)
  %here = f32[100]{0:S(1)} copy-done(%start)
  %cut = ((f32[100]{0}), f32[25]{0:S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:25]}
  %quarter = f32[25]{0:S(1)} slice-done(%cut)
  %inside = f32[100]{0:S(1)} fusion(%here, %quarter), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"70"}
  ROOT %out = f32[100]{0} fusion(%inside, %p), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"30"}
}
"""
    # Read whole (400), a quarter (100) and whole again (400), and written once (400).
    assert traffic.hbm_bytes(text) == 1300
    assert traffic.kernel_cycles(text) == 100
    # Of PROGRAM: the loop's copy writes 1024 bytes three times.
    assert traffic.hbm_bytes(PROGRAM) - traffic.hbm_bytes(PROGRAM.replace('  %x = f32[256]{0} copy(%y)\n', '')) == 3072


def test_how_much_a_step_that_does_not_fit_would_take():
    message = (
        'RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO '
        'temporaries (230.25G) exceeds available HBM (15.75G).'
    )
    assert program.bytes_required(message) == 230.25 * GIB
    assert program.bytes_required('Ran out of memory in memory space hbm. Used 16.5G of 15.75G hbm.') == 16.5 * GIB
    assert program.bytes_required('RESOURCE_EXHAUSTED') == math.inf


# --- devices


def test_topologies():
    slice_ = parse_topology('v5e:4x8')
    assert (slice_.chip, slice_.shape, slice_.devices) == (CHIPS['v5e'], (4, 8), 32)
    assert parse_topology('v4:2x2x1').devices == 4
    box = parse_topology('gpu:a100-80x8')
    assert (box.chip, box.devices) == (CHIPS['a100-80'], 8)
    assert parse_topology('gpu:t4').devices == 1


def test_links():
    # v5e has 50 GB/s a link and way; a side of 16 is a ring, which is linked both ways round.
    assert parse_topology('v5e:4x4').rate(16) == 2 * 50e9
    assert parse_topology('v5e:16x16').rate(256) == 4 * 50e9
    assert parse_topology('v5e:8x16').rate(128) == 3 * 50e9
    assert parse_topology('v5e:4x4').rate(4) == 50e9
    assert parse_topology('v5p:4x4x8').rate(128) == 6 * 100e9
    assert parse_topology('v5p:2x2x1').rate(4) == 2 * 100e9
    assert parse_topology('v5e:4x4').hops(16) == 6
    assert parse_topology('v5e:16x16').hops(256) == 16
    # Eight adapters of 400 Gbit/s serve the eight GPUs of a host.
    assert parse_topology('gpu:h100x8').rate(8) == 450e9
    assert parse_topology('gpu:h100x16').rate(16) == 400e9


def test_every_chip_is_complete():
    for chip in CHIPS.values():
        assert 0 < chip.available <= 1.01 * chip.memory and chip.source
        assert min(chip.bfloat16, chip.float32, chip.bandwidth, chip.link) > 0
        assert chip.float32 <= chip.bfloat16 and chip.link < chip.bandwidth
        if chip.kind == 'tpu':  # 2 FLOPs of 4 matrix units of 128 x 128 in each core, a cycle
            cores = chip.clock and chip.bfloat16 / chip.clock / (2 * 4 * 128**2)
            assert not chip.clock or cores == pytest.approx(round(cores), rel=0.01)


# --- estimates


def test_roofline_by_hand():
    memory = Memory(1, 1, 1, 1, 1)
    step = Program(memory, 1.97e12, 8.19e9, [Collective('all-reduce', 10**9, 16), Collective('all-gather', 16, 16)])
    times = estimate.roofline(step, parse_topology('v5e:4x4'), 'float32')
    assert times.compute == pytest.approx(0.01) and times.memory == pytest.approx(0.01)
    # 2 x 15/16 GB at 100 GB/s; the gather is so small that it takes six hops of a microsecond.
    assert times.collectives == pytest.approx(0.01875 + 6e-6)
    assert times.step == pytest.approx(0.028756) and times.efficiency == pytest.approx(0.01 / 0.028756)
    # A kernel time of 1.5e7 cycles at 1.5 GHz.
    reckoned = estimate.roofline(step._replace(cycles=1.5e7), parse_topology('v5e:4x4'), 'float32')
    assert reckoned.reckoned == pytest.approx(0.028756) and reckoned.step == times.step
    # Float32 runs as TF32 on an H100, at half the rate of bfloat16.
    h100 = parse_topology('gpu:h100x8')
    single = estimate.roofline(step, h100, 'float32')
    assert single.compute == pytest.approx(1.97e12 / 494.7e12)
    assert estimate.roofline(step, h100, 'bfloat16').compute == pytest.approx(single.compute / 2)
    assert single.collectives == pytest.approx((2 * 15 / 16 * 1e9 + 15) / 450e9)


def test_one_device_has_perfect_efficiency():
    assert (
        estimate.roofline(Program(Memory(1, 1, 1, 1, 1), 1e9, 1e9, []), parse_topology('v5e:1x1'), 'float32').efficiency
        == 1
    )


@settings(deadline=None)
@given(
    fixed=st.floats(0.01, 0.5),
    images=st.integers(1, 20_000),
    power=st.floats(1, 2),
    start=st.integers(1, 64),
    silent=st.booleans(),
    unit=st.integers(1, 32),
)
def test_the_largest_batch_is_found(fixed, images, power, start, silent, unit):
    """Memory that grows as a power of the batch, and a compiler that may not say by how much it is exceeded."""
    need = lambda n: fixed + (1 - fixed) * (n / images) ** power
    measure = lambda n: math.inf if silent and need(n) > 1 else need(n)
    points = {start: measure(start), 2 * start: measure(2 * start)}
    most, over = estimate.largest_batch(points, 1.0, unit, measure, tries=60)
    assert images * 0.9 - unit <= most <= images
    assert over is None or over > images


def test_a_line_is_found_in_two_tries():
    points = {4: 3.0, 8: 4.0}  # 2 + n / 4: 55 fit in 15.75
    assert estimate.fit_line(points) == (2.0, 0.25)
    assert estimate.largest_batch(points, 15.75, 1, lambda n: 2 + n / 4, tries=2)[0] == 55
    assert estimate.activations(100, estimate.Line(2, 10), 4) == 40
    assert estimate.activations(30, estimate.Line(2, 10), 4) == 30
    assert estimate.largest_batch({8: 5.0}, 4.0, 8, lambda n: 5.0, tries=3) == (0, 8)


def found(*stages: examine.Stage, largest=None) -> examine.Report:
    return examine.Report(parse_topology('v5e:4x4'), 96, 'float32', stages, largest)


def test_verdicts():
    step = lambda total: examine.Stage('s', Program(Memory(0, 0, 0, int(total * GIB), 0), 1, 1, []), None)
    assert report.verdict(found(step(1), step(9.1))) == 'fits: 9.1 of 15.8 GiB a device at batch 96'
    assert report.verdict(found(step(0.01))) == 'fits: 10.2 MiB of 15.8 GiB a device at batch 96'
    line = 'does not fit: 21.3 of 15.8 GiB a device at batch 96, in stage s'
    assert report.verdict(found(step(1), step(21.3))) == line
    largest = examine.Largest('s', 64, 80)
    over = examine.Stage('s', Overflow(21.3 * GIB), None)
    assert report.verdict(found(step(1), over, largest=largest)) == f'{line}; batch 64 fits'
    silent = examine.Stage('s', Overflow(math.inf), None)
    assert report.verdict(found(silent)).startswith('does not fit: more than all of 15.8 GiB')
    for stages in ((step(1)._replace(roofline=estimate.Roofline(1, 1, 1)), over), (silent,)):
        assert report.table(found(*stages)).row_count and report.notes(found(*stages, largest=largest))
        assert json.loads(json.dumps(report.numbers(found(*stages)), allow_nan=False))['fits'] is False


# --- whole steps


def test_flops_of_resnet18():
    """1.81 GMAC an image of 224 (He et al., CVPR 2016, table 1: 1.8e9), and twice that backward.

    The image needs no gradient, which leaves out the first convolution's: 7 x 7 x 3 x 64 x 112 x 112 products.
    """
    config = common.get_config()
    config.stages = common.global_pooling()
    config.data.update(image_size=224, resize=224)
    config.model.backbone = 'resnet18'
    step = program.make_step(config, 0, 1000, 2, program.make_mesh(config, 2, jax.devices()[:1]))
    result = step.run.trace(step.state, step.batch).lower(lowering_platforms=('cuda',)).cost_analysis()
    by_hand = 2 * 2 * (3 * 1.81e9 - 49 * 3 * 64 * 112**2)
    assert result['flops'] == pytest.approx(by_hand, rel=0.1)


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
    assert lines[-1].startswith('fits: ') and lines[-1].endswith(' of 55.9 GiB a device at batch 8')
    for row in ('parameters', 'optimiser', 'FLOPs', 'all-reduce', 'scaling efficiency'):
        assert any(line.split()[:1] == row.split()[:1] for line in lines), row
    assert 'Estimates for GPUs' in done.stdout and 'TF32' in done.stdout
    assert content['devices'] == 2 and content['estimated'] and content['fits'] and content['classes'] == 16
    assert content['verdict'] == lines[-1]
    assert 'Traceback' not in done.stderr and 'W0' not in done.stderr


def test_parameters_and_optimiser_are_those_of_the_network(tiny_report, tiny_config):
    _, content = tiny_report
    model = experiment.build_model(tiny_config, 16, pretrained=False)
    _, params, _ = split_model(model)
    size = {group: sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree)) for group, tree in params.items()}
    for row in tiny_config.stages:
        memory = content['stages'][row.name]['memory']
        assert memory['parameters'] == sum(size.values())
        # SGD: the momentum of what trains, and the step of each group's schedule.
        assert memory['optimizer'] == sum(size[group] for group in row.train) + 4 * len(row.train)
        # Of the three batches on a device: 4 images of 64 x 64, and the labels.
        assert memory['inputs'] >= 3 * 4 * (64 * 64 * 3 + 4)
        # Each device reduces the gradient of what trains once, and little else: BatchNorm's sums and metrics.
        reduced = content['stages'][row.name]['collectives']['all-reduce']['bytes']
        gradient = sum(size[group] for group in row.train)
        assert gradient <= reduced <= 1.1 * gradient


def test_memory_and_work_grow_with_the_batch(tiny_config):
    tiny_config.stages = tiny_config.stages[1:2]  # the smallest program
    topology = parse_topology('gpu:h100')
    topology = topology._replace(chip=topology.chip._replace(available=3 * 2**20))
    tried = []
    found = examine.examine(
        tiny_config,
        16,
        4,
        topology,
        jax.devices()[:1],
        largest=True,
        begins=lambda stage, images: tried.append(images),
        ends=lambda *_: None,
    )
    (stage,) = found.stages
    assert tried[0] == 4 and len(set(tried)) == len(tried) <= 2 + examine.TRIES
    assert stage.line.image > 3 * 64 * 64 * 3  # three batches of bytes, before anything is computed
    assert stage.result.collectives == []
    assert found.largest.stage == 'oriented_pooling' and found.largest.batch in tried
    assert found.fits == (stage.total <= 3 * 2**20)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs TPU's compiler: pip install '.[preflight]'")
def test_the_command_for_a_tpu_slice(tmp_path):
    file = tmp_path / 'report.json'
    done = preflight('--config=configs/demo.py', '--topology=v5e:2x2', '--nolargest', f'--json={file}')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('fits: ')
    assert 'libtpu' not in done.stderr and 'WARNING' not in done.stderr  # nothing but the stages
    assert len(done.stderr.splitlines()) == 3
    stage = json.loads(file.read_text())['stages']['scale_mining']
    # 8 images a device; the CPU's count of FLOPs is 1.86e9.
    assert stage['flops'] == pytest.approx(1.86e9, rel=0.1)
    assert stage['collectives']['all-reduce']['bytes'] > 1.5e6 and stage['by_compiler']['step'] > 0


# --- bad input

TINY = '--config=tests/tiny_config.py'
V5E = '--topology=v5e:2x2'
H100 = '--topology=gpu:h100x4'
# Arguments, and words that the line must hold.
CASES = {
    'no configuration': ([V5E], ['--config is missing']),
    'no topology': ([TINY], ['--topology is missing', 'v5e:4x4', 'gpu:h100x8']),
    'unknown field': ([TINY, V5E, '--config.model.bogus=1'], ['config.model.bogus', 'check the spelling']),
    'stray word': ([TINY, V5E, 'v5e'], ["'v5e'", '--help']),
    'unknown chip': ([TINY, '--topology=v9:2x2'], ['--topology=v9:2x2', 'v4, v5e, v5p, v6e', 'gpu:h100x8']),
    'unknown GPU': ([TINY, '--topology=gpu:voodoox2'], ['gpu:voodoox2', 'a100-40', 'h100']),
    'no slice': ([TINY, '--topology=v5e'], ['which slice of v5e', 'v5e:2x4']),
    'no numbers': ([TINY, '--topology=v5e:axb'], ['which slice of v5e']),
    'slice it does not have': ([TINY, '--topology=v5e:3x3'], ['v5e has no slice 3x3', '4x8']),
    'sides it does not have': ([TINY, '--topology=v4:2x2'], ['v4 has no slice 2x2', '3 sides', 'v4:2x2x1']),
    'too large a slice': ([TINY, '--topology=v4:64x64x64'], ['v4 has no slice', '4096']),
    'no GPUs': ([TINY, '--topology=gpu:h100x0'], ['1 to 8 GPUs']),
    'half a host': ([TINY, '--topology=gpu:h100x12'], ['multiple of 8']),
    'hosts without a network': ([TINY, '--topology=gpu:t4x16'], ['t4', 'at most 8']),
    'batch that does not divide': (
        [TINY, '--topology=gpu:h100x16', '--batch=24'],
        ['--batch = 24', '16 devices', 'multiple of 16'],
    ),
    'mesh of other devices': ([TINY, H100, '--config.mesh.shape=4x2'], ['config.mesh.shape=4x2', '8', '4']),
    'empty batch': ([TINY, H100, '--batch=0'], ['--batch = 0', 'at least one']),
    'classes of a folder': (['--config=configs/folder.py', H100], ['config.data.name=folder', 'give --classes']),
    'no classes': ([TINY, H100, '--classes=0'], ['--classes=0']),
    'file in no folder': ([TINY, H100, '--json=nowhere/report.json'], ['--json=nowhere/report.json', 'folder']),
    'file is a folder': ([TINY, H100, '--json=tests'], ['--json=tests']),
    'even S': ([TINY, H100, '--config.model.scales=4'], ['config.model', 'scales must be odd']),
    'wrong optimiser': ([TINY, H100, '--config.optimizer.name=lion'], ["'lion'", 'sgd, adamw']),
    'no libtpu': ([TINY, V5E], ['libtpu', "pip install '.[preflight]'"]),
}

WITHOUT_LIBTPU = """
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'libtpu' else find_spec(name, *rest)
"""


@pytest.fixture(scope='module')
def ended(tmp_path_factory):
    """What became of every case."""
    commands = {name: arguments for name, (arguments, _) in CASES.items()}
    return run_each('ssanet_jax.preflight', commands, tmp_path_factory.mktemp('bad_input'), WITHOUT_LIBTPU)


@pytest.mark.parametrize('name', CASES)
def test_bad_input_ends_with_one_line(ended, name):
    code, stdout, stderr = ended[name]
    assert code == 2, stderr
    assert stdout == ''
    (line,) = stderr.splitlines()
    assert line.startswith('error: ')
    for word in CASES[name][1]:
        assert word in line


def test_batches_that_wait_on_the_devices():
    assert program.AHEAD == signature(parallel.prefetch).parameters['ahead'].default


def test_number_of_classes():
    config = common.get_config()
    for name, classes in (('cub', 200), ('cars', 196), ('toy_birds', 16), ('aircraft', 100)):
        config.data.name = name
        assert classes_of(config, None) == classes
    config.data.level = 'family'
    assert classes_of(config, None) == 70 and classes_of(config, 7) == 7
    config.data.name = 'folder'
    with pytest.raises(UserError, match='give --classes'):
        classes_of(config, None)


def test_no_weights_are_made():
    """Only shapes: with weights a large network would take seconds, and memory."""
    config = common.get_config()
    config.model.backbone = 'resnet34'
    config.stages = config.stages[:1]
    step = program.make_step(config, 0, 200, 8, program.make_mesh(config, 8, jax.devices()[:1]))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(step.state))
