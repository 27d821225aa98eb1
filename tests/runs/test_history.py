"""The history of a stage: every single flipped bit, and lines that a killed process left unfinished."""

import pytest

from ssanet_jax.runs.history import HISTORY_FILE, History, num_damaged_lines, read_history


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / 'one'
    folder.mkdir()
    history = History(folder / HISTORY_FILE, 0)
    for step in (1, 2):
        history.add('epoch', step, step, {'loss': 1.5 + step}, steps=4)
    history.close()
    return folder / HISTORY_FILE


def test_a_flipped_bit_is_noticed_or_changes_nothing(path):
    data, whole = path.read_bytes(), read_history(path)
    assert [line['values'] for line in whole] == [{'loss': 2.5}, {'loss': 3.5}] and not num_damaged_lines(path)
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            assert read_history(path) == whole or num_damaged_lines(path), (place, bit)


def test_a_cut_end_is_no_damage_and_loses_only_its_line(path):
    """As a killed process leaves it: a part of the last line, which the resumed run writes again."""
    data, whole = path.read_bytes(), read_history(path)
    second = data.index(b'\n') + 1
    for end in range(second, len(data)):
        path.write_bytes(data[:end])
        assert read_history(path) == (whole if end == len(data) - 1 else whole[:1])
        assert not num_damaged_lines(path)


def test_lines_of_early_versions_have_neither_stage_nor_checksum(path):
    path.write_text('{"kind": "epoch", "step": 1, "epoch": 1, "values": {"loss": 1}}\n{"kind": "epoch", "step": 2}')
    assert read_history(path) == [{'kind': 'epoch', 'step': 1, 'epoch': 1, 'values': {'loss': 1}}]
    assert not num_damaged_lines(path)
