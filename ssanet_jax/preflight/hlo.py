"""Collectives read out of the text of a compiled program (HLO), with their bytes."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

KINDS = ('all-reduce', 'reduce-scatter', 'all-gather', 'all-to-all', 'collective-permute')
_BITS = {'pred': 8, 'token': 0}  # the others end with their number of bits
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
# '%name = SHAPE all-gather-start(...), attributes'; a -done only waits for its -start.
_COLLECTIVE = re.compile(rf'= (?P<shape>.*?) (?P<kind>{"|".join(KINDS)})(?P<start>-start)?\((?P<rest>.*)')
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) .*\{$')
# XLA's fused form of a reduce-scatter for TPU: an all-reduce within a computation of this name.
_FUSED_SCATTER = 'all-reduce-scatter'


class Collective(NamedTuple):
    """One collective of the program of a device."""

    kind: str  # of KINDS
    size: int  # bytes of the whole array: what is reduced, or what is gathered
    group: int  # devices that take part in it together
    times: int = 1  # that a step runs it

    @property
    def sent(self) -> float:
        """Bytes that each device sends, by the best algorithms on a ring: 2 (n - 1) / n of a reduced array."""
        if self.kind == 'collective-permute':
            return self.size
        share = (self.group - 1) / self.group
        return self.size * share * (2 if self.kind == 'all-reduce' else 1)


def read_collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a step, each once.

    A start and its done are one collective, and so are the pieces into which XLA cuts one for TPU to run
    beside other work: they have one channel. What stands in the body of a loop counts as often as the loop
    runs, where the program says how often.

    Args:
      text: of the compiled program, `compiled.as_text()`.
      devices: that run it; the group of a collective that names none.
    """
    bodies = dict(computations(text))
    times = runs(bodies)
    found: dict[tuple[str, str], Collective] = {}
    for name, lines in bodies.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if not match:
                continue
            group = _group(match['rest'], devices)
            collective = _collective(match, group, fused=name.startswith(_FUSED_SCATTER))
            channel = re.search(r'channel_id=(\d+)', match['rest'])
            key = (match['kind'], f'channel {channel[1]}' if channel else f'{len(found)}')
            found.setdefault(key, collective._replace(times=times[name]))
    return [collective for collective in found.values() if collective.group > 1 and collective.times]


def totals(collectives: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """Kind -> (how many a step runs, their bytes), in the order of `KINDS`."""
    sums = {
        kind: (sum(c.times for c in chosen), sum(c.times * c.size for c in chosen))
        for kind, chosen in ((kind, [c for c in collectives if c.kind == kind]) for kind in KINDS)
    }
    return {kind: total for kind, total in sums.items() if total[0]}


def shape_bytes(shape: str) -> list[int]:
    """Bytes of each array of an HLO shape, '(f32[8,4]{1,0}, u32[])' -> [128, 4]."""
    return [
        math.ceil(math.prod(int(side) for side in sides.split(',') if side) * _bits(dtype) / 8)
        for dtype, sides in _ARRAY.findall(re.sub(r'\{[^}]*\}', '', shape))
    ]


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.match(r'[a-z]+(\d+)', dtype)  # f32, bf16, s4, and f8e4m3fn
    return int(digits[1]) if digits else 0


def _collective(match: re.Match, group: int, fused: bool) -> Collective:
    kind, arrays = match['kind'], shape_bytes(match['shape'])
    if match['start'] and kind != 'all-reduce':
        # These starts return (operands, results, and for a permute two counters).
        arrays = arrays[: len(arrays) - 2] if kind == 'collective-permute' and len(arrays) > 2 else arrays
        arrays = arrays[len(arrays) // 2 :]
    size = sum(arrays)
    if kind == 'reduce-scatter':
        size *= group  # it returns one of the pieces
    return Collective('reduce-scatter' if fused else kind, size, group)


def _group(attributes: str, devices: int) -> int:
    """Devices of a group, from any of the three ways that HLO writes replica_groups."""
    if listed := re.search(r'replica_groups=\{\{([\d,]*)\}', attributes):
        return len(listed[1].split(','))
    if iota := re.search(r'replica_groups=\[\d+,(\d+)\]<=', attributes):
        return int(iota[1])
    if mesh := re.search(r'replica_groups=@?mesh\w*\[(.*?)\](?:[^{,]*)\{(.*?)\}', attributes):
        sides = dict(re.findall(r"'?([\w.]+)'?=(\d+)", mesh[1]))
        return math.prod(int(sides[axis]) for axis in re.findall(r"'([\w.]+)'", mesh[2]))
    return devices


def computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """The computations of a program: name and lines of instructions."""
    name, lines = '', []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name, lines = match[1], []
        elif line.startswith('}'):
            yield name, lines
            name, lines = '', []
        else:
            lines.append(line)
    if lines:  # a bare instruction or two, without a computation around them
        yield name, lines


def runs(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often a step runs each computation, where loops say how often they turn."""
    callers: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, lines in bodies.items():
        for line in lines:
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
            for callee in re.findall(r'(?:calls|to_apply|body)=%?([\w.\-]+)', line):
                callers[callee].append((name, int(trips[1]) if trips and f'body=%{callee}' in line else 1))
    known: dict[str, int] = {}

    def count(name: str) -> int:
        if name not in known:
            # Only the pieces of one collective share a computation between callers.
            known[name] = max((count(caller) * trips for caller, trips in callers[name]), default=1)
        return known[name]

    return {name: count(name) for name in bodies}
