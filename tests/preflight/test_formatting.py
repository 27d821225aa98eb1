"""The report: verdict, table, notes and JSON of steps that fit or do not."""

import json
import math

from ssanet_jax.preflight import analysis, formatting
from ssanet_jax.preflight.chips import GIB, parse_topology
from ssanet_jax.preflight.compilation import CompiledStep, Memory, OutOfMemory
from ssanet_jax.preflight.roofline import Roofline


def found(*stages: analysis.StageReport, largest=None) -> analysis.Report:
    return analysis.Report(parse_topology('v5e:4x4'), 96, 'float32', stages, largest)


def test_verdicts():
    step = lambda total: analysis.StageReport('s', CompiledStep(Memory(0, 0, 0, int(total * GIB), 0), 1, 1, []), None)
    assert formatting.verdict(found(step(1), step(9.1))) == 'fits: 9.1 of 15.8 GiB per device at batch 96'
    assert formatting.verdict(found(step(0.01))) == 'fits: 10.2 MiB of 15.8 GiB per device at batch 96'
    line = 'does not fit: 21.3 of 15.8 GiB per device at batch 96, in stage s'
    assert formatting.verdict(found(step(1), step(21.3))) == line
    largest = analysis.LargestBatch('s', 64, 80)
    over = analysis.StageReport('s', OutOfMemory(21.3 * GIB), None)
    assert formatting.verdict(found(step(1), over, largest=largest)) == f'{line}; batch 64 fits'
    silent = analysis.StageReport('s', OutOfMemory(math.inf), None)
    assert formatting.verdict(found(silent)).startswith('does not fit: more than all of 15.8 GiB')
    for stages in ((step(1)._replace(roofline=Roofline(1, 1, 1)), over), (silent,)):
        assert formatting.table(found(*stages)).row_count and formatting.notes(found(*stages, largest=largest))
        assert json.loads(json.dumps(formatting.to_json(found(*stages)), allow_nan=False))['fits'] is False
