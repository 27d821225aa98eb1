"""What a program compiled for TPU moves to and from HBM, read out of its text.

XLA's own 'bytes accessed' also counts what stays in the chip's vector memory (VMEM), which is most of it: its
compiler plans which array lies where, and writes S(1) beside the shape of one that lies there.
"""

import re
from collections.abc import Iterator

from ssanet_jax.preflight.hlo import computations, runs, shape_bytes

_INSTRUCTION = re.compile(
    r'^\s+(?:ROOT )?%(?P<name>[\w.\-]+) = (?P<shape>.*?) (?P<op>[a-z][\w\-]*)\((?P<operands>.*?)\)'
)
_ARRAY = re.compile(r'\b[a-z]\w*\[[\d,]*\](?:\{[^}]*\})?')
# They name, group or wait for arrays, and move none.
_STILL = (
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id', 'while',
    'conditional', 'call', 'copy-done', 'slice-done', 'async-done',
)  # fmt: skip
_STILL_TARGET = re.compile(r'custom_call_target="(?:\w*Bitcast|AsyncCollective\w*|AssumeGatherIndicesInBound)"')


def hbm_bytes(text: str) -> float:
    """Bytes that a step reads from HBM and writes to it.

    Every instruction reads its operands and writes its results once, those in VMEM for nothing. A fusion that
    reads only part of an operand is taken to read all of it, and the padding of tiles is left out.

    Args:
      text: of the compiled program, `compiled.as_text()`.
    """
    return float(sum(times * sum(_moved(lines)) for times, lines in _sequences(text)))


def kernel_cycles(text: str) -> float:
    """Cycles that TPU's compiler reckons with for its kernels, one after the other; 0 where it writes none."""
    cycles = lambda lines: sum(int(c) for line in lines for c in re.findall(r'"estimated_cycles":"(\d+)"', line))
    return float(sum(times * cycles(lines) for times, lines in _sequences(text)))


def _sequences(text: str) -> Iterator[tuple[int, list[str]]]:
    """What a device runs instruction by instruction, the program and its loops: how often, and the lines."""
    bodies = dict(computations(text))
    entry = re.search(r'^ENTRY %?([\w.\-]+)', text, re.MULTILINE)
    names = {entry[1]} if entry else set()
    names.update(re.findall(r' while\(.*body=%?([\w.\-]+)', text))
    times = runs(bodies)
    return ((times[name], bodies[name]) for name in names if name in bodies)


def _moved(lines: list[str]) -> Iterator[int]:
    """Bytes that each instruction of a sequence moves."""
    arrays: dict[str, list[tuple[int, bool]]] = {}
    for line in lines:
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        arrays[match['name']] = results = _arrays(match['shape'])
        if match['op'] in _STILL or _STILL_TARGET.search(line):
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


def _arrays(shape: str) -> list[tuple[int, bool]]:
    """Bytes of each array of a shape, and whether it lies in HBM: S(1) is VMEM, S(2) and S(4) are registers."""
    return [(shape_bytes(array)[0], 'S(' not in array) for array in _ARRAY.findall(shape)]
