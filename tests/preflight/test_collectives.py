"""Collectives read from programs: kind, bytes and group, against values worked out by hand."""

import pytest
from hlo_samples import PROGRAM

from ssanet_jax.preflight.collectives import Collective, read_collectives, totals
from ssanet_jax.preflight.hlo import shape_bytes


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
        # the result is one of four pieces of the reduced array: 4 x 16 x 4 bytes
        (
            'ROOT %r = f32[16]{0} reduce-scatter(%g), replica_groups=[2,4]<=[8], dimensions={0}',
            'reduce-scatter',
            256,
            4,
        ),
        # the result is the whole gathered array
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
        # a start also returns its operands, and a permute two counters
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


def test_collectives_of_a_program_are_counted_once():
    found = read_collectives(PROGRAM, 4)
    assert set(found) == {
        Collective('all-reduce', 256, 4),  # start and done
        Collective('all-reduce', 16, 4, count=3),  # in a loop of three iterations
        Collective('reduce-scatter', 256, 4),
        Collective('all-gather', 64, 4),  # split into two pieces
    }  # and none of the groups of one device
    assert len(found) == 4
    assert totals(found) == {'all-reduce': (4, 304), 'reduce-scatter': (1, 256), 'all-gather': (1, 64)}
