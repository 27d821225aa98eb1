"""The report: its verdict in words, and a table, notes and numbers of steps that fit or do not."""

import json
import math

from ssanet_jax.preflight import estimate, examine, summary
from ssanet_jax.preflight.chips import GIB, parse_topology
from ssanet_jax.preflight.program import Memory, Overflow, Program


def found(*stages: examine.Stage, largest=None) -> examine.Report:
    return examine.Report(parse_topology('v5e:4x4'), 96, 'float32', stages, largest)


def test_verdicts():
    step = lambda total: examine.Stage('s', Program(Memory(0, 0, 0, int(total * GIB), 0), 1, 1, []), None)
    assert summary.verdict(found(step(1), step(9.1))) == 'fits: 9.1 of 15.8 GiB a device at batch 96'
    assert summary.verdict(found(step(0.01))) == 'fits: 10.2 MiB of 15.8 GiB a device at batch 96'
    line = 'does not fit: 21.3 of 15.8 GiB a device at batch 96, in stage s'
    assert summary.verdict(found(step(1), step(21.3))) == line
    largest = examine.Largest('s', 64, 80)
    over = examine.Stage('s', Overflow(21.3 * GIB), None)
    assert summary.verdict(found(step(1), over, largest=largest)) == f'{line}; batch 64 fits'
    silent = examine.Stage('s', Overflow(math.inf), None)
    assert summary.verdict(found(silent)).startswith('does not fit: more than all of 15.8 GiB')
    for stages in ((step(1)._replace(roofline=estimate.Roofline(1, 1, 1)), over), (silent,)):
        assert summary.table(found(*stages)).row_count and summary.notes(found(*stages, largest=largest))
        assert json.loads(json.dumps(summary.numbers(found(*stages)), allow_nan=False))['fits'] is False
