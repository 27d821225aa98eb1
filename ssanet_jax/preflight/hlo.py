"""Reads the text of a compiled program (HLO): its computations, how often each runs, and sizes of arrays."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator

_BITS = {'pred': 8, 'token': 0}  # the names of the other dtypes end with their number of bits
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) .*\{$')


def shape_bytes(shape: str) -> list[int]:
    """Bytes of each array of an HLO shape, such as '(f32[8,4]{1,0}, u32[])' -> [128, 4]."""
    return [
        math.ceil(math.prod(int(side) for side in sides.split(',') if side) * _bits(dtype) / 8)
        for dtype, sides in _ARRAY.findall(re.sub(r'\{[^}]*\}', '', shape))
    ]


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.match(r'[a-z]+(\d+)', dtype)  # f32, bf16, s4, and f8e4m3fn
    return int(digits[1]) if digits else 0


def computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and the instructions, one per line, of each computation of a program."""
    name, lines = '', []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name, lines = match[1], []
        elif line.startswith('}'):
            yield name, lines
            name, lines = '', []
        else:
            lines.append(line)
    if lines:  # instructions without an enclosing computation
        yield name, lines


def execution_counts(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often a step runs each computation; a loop with an unknown trip count is counted once.

    Args:
      bodies: computation -> its instructions, from `computations`.
    """
    callers: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, lines in bodies.items():
        for line in lines:
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
            for callee in re.findall(r'(?:calls|to_apply|body)=%?([\w.\-]+)', line):
                callers[callee].append((name, int(trips[1]) if trips and f'body=%{callee}' in line else 1))
    known: dict[str, int] = {}

    def count(name: str) -> int:
        if name not in known:
            # Only the pieces of one split collective share a computation between callers.
            known[name] = max((count(caller) * trips for caller, trips in callers[name]), default=1)
        return known[name]

    return {name: count(name) for name in bodies}
