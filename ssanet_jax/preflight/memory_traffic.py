"""HBM traffic of a program compiled for TPU, read from its text (HLO).

XLA's own 'bytes accessed' also counts arrays in the chip's vector memory (VMEM), which are most of them. The compiler
assigns each array to a memory, and marks the shapes of those in VMEM with S(1).
"""

import re
from collections.abc import Iterator

from ssanet_jax.preflight.hlo import computations, execution_counts, shape_bytes

_INSTRUCTION = re.compile(
    r'^\s+(?:ROOT )?%(?P<name>[\w.\-]+) = (?P<shape>.*?) (?P<op>[a-z][\w\-]*)\((?P<operands>.*?)\)'
)
_ARRAY = re.compile(r'\b[a-z]\w*\[[\d,]*\](?:\{[^}]*\})?')
# Instructions that name, group or wait for arrays, and move none.
_NO_TRAFFIC = (
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id', 'while',
    'conditional', 'call', 'copy-done', 'slice-done', 'async-done',
)  # fmt: skip
_NO_TRAFFIC_TARGET = re.compile(r'custom_call_target="(?:\w*Bitcast|AsyncCollective\w*|AssumeGatherIndicesInBound)"')


def hbm_bytes(text: str) -> float:
    """Bytes that a step reads from and writes to HBM.

    Assumes that every instruction reads its operands and writes its results once, that a fusion reads its operands
    completely, and that arrays in VMEM cost nothing. The padding of tiles is not counted.

    Args:
      text: text of the compiled program, `compiled.as_text()`.
    """
    return float(sum(count * sum(_moved_bytes(lines)) for count, lines in _sequences(text)))


def kernel_cycles(text: str) -> float:
    """The TPU compiler's estimate of the cycles of all kernels, run one after the other; 0 if it gives none."""
    cycles = lambda lines: sum(int(c) for line in lines for c in re.findall(r'"estimated_cycles":"(\d+)"', line))
    return float(sum(count * cycles(lines) for count, lines in _sequences(text)))


def _sequences(text: str) -> Iterator[tuple[int, list[str]]]:
    """The entry computation and the bodies of its loops: executions per step, and instructions."""
    bodies = dict(computations(text))
    entry = re.search(r'^ENTRY %?([\w.\-]+)', text, re.MULTILINE)
    names = {entry[1]} if entry else set()
    names.update(re.findall(r' while\(.*body=%?([\w.\-]+)', text))
    counts = execution_counts(bodies)
    return ((counts[name], bodies[name]) for name in names if name in bodies)


def _moved_bytes(lines: list[str]) -> Iterator[int]:
    """Bytes that each instruction of a sequence reads from and writes to HBM."""
    arrays: dict[str, list[tuple[int, bool]]] = {}
    for line in lines:
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        arrays[match['name']] = results = _sizes(match['shape'])
        if match['op'] in _NO_TRAFFIC or _NO_TRAFFIC_TARGET.search(line):
            continue
        if match['op'] == 'copy-start':  # (to, from, counter)
            moves = results[:2]
        else:
            names = re.findall(r'%([\w.\-]+)', match['operands'])
            read = [array for name in names for array in arrays.get(name, [])]
            if match['op'] in ('slice-start', 'slice', 'dynamic-slice'):  # a start returns ((from), to, counter)
                to = results[-2] if match['op'] == 'slice-start' else results[-1]
                moves = [to, (to[0], bool(read) and read[0][1])]
            else:
                moves = read + results
        yield sum(size for size, in_hbm in moves if in_hbm)


def _sizes(shape: str) -> list[tuple[int, bool]]:
    """Bytes of each array of a shape, and whether it is in HBM: S(1) is VMEM, S(2) and S(4) are registers."""
    return [(shape_bytes(array)[0], 'S(' not in array) for array in _ARRAY.findall(shape)]
