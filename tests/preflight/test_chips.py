"""Slices and boxes of GPUs by their names, how fast their links are, and that no chip lacks a number."""

import pytest

from ssanet_jax.preflight.chips import CHIPS, parse_topology


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
