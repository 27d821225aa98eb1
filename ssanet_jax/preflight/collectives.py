"""Collectives of a compiled program and their bytes, read from its text (HLO)."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from ssanet_jax.preflight.hlo import computations, execution_counts, shape_bytes

KINDS = ('all-reduce', 'reduce-scatter', 'all-gather', 'all-to-all', 'collective-permute')
# '%name = SHAPE all-gather-start(...), attributes'; a -done only waits for its -start.
_COLLECTIVE = re.compile(rf'= (?P<shape>.*?) (?P<kind>{"|".join(KINDS)})(?P<start>-start)?\((?P<rest>.*)')
# XLA's fused form of a reduce-scatter for TPU: an all-reduce within a computation of this name.
_FUSED_SCATTER = 'all-reduce-scatter'


class Collective(NamedTuple):
    """One collective operation of a device's program."""

    kind: str  # one of KINDS
    size: int  # bytes of the whole reduced or gathered array
    group: int  # number of participating devices
    count: int = 1  # executions per step

    @property
    def sent(self) -> float:
        """Bytes that each device sends with the optimal ring algorithm, e.g. 2 (n - 1) / n of a reduced array."""
        if self.kind == 'collective-permute':
            return self.size
        share = (self.group - 1) / self.group
        return self.size * share * (2 if self.kind == 'all-reduce' else 1)


def read_collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a step, each listed once.

    A start and its done are one collective, and so are the pieces into which XLA splits one on TPU to overlap it with
    other work: they have the same channel. A collective in the body of a loop counts once per iteration if the program
    states the number of iterations.

    Args:
      text: text of the compiled program, `compiled.as_text()`.
      devices: number of devices that run it; the group of a collective that names none.
    """
    bodies = dict(computations(text))
    counts = execution_counts(bodies)
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
            found.setdefault(key, collective._replace(count=counts[name]))
    return [collective for collective in found.values() if collective.group > 1 and collective.count]


def totals(collectives: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """Kind -> (executions per step, their bytes), in the order of `KINDS`."""
    sums = {
        kind: (sum(c.count for c in chosen), sum(c.count * c.size for c in chosen))
        for kind, chosen in ((kind, [c for c in collectives if c.kind == kind]) for kind in KINDS)
    }
    return {kind: total for kind, total in sums.items() if total[0]}


def _collective(match: re.Match, group: int, fused: bool) -> Collective:
    kind, arrays = match['kind'], shape_bytes(match['shape'])
    if match['start'] and kind != 'all-reduce':
        # These starts return (operands, results, and for a permute two counters).
        arrays = arrays[: len(arrays) - 2] if kind == 'collective-permute' and len(arrays) > 2 else arrays
        arrays = arrays[len(arrays) // 2 :]
    size = sum(arrays)
    if kind == 'reduce-scatter':
        size *= group  # the result is one of the pieces
    return Collective('reduce-scatter' if fused else kind, size, group)


def _group(attributes: str, devices: int) -> int:
    """Number of devices in a group, from any of HLO's three notations of replica_groups."""
    if listed := re.search(r'replica_groups=\{\{([\d,]*)\}', attributes):
        return len(listed[1].split(','))
    if iota := re.search(r'replica_groups=\[\d+,(\d+)\]<=', attributes):
        return int(iota[1])
    if mesh := re.search(r'replica_groups=@?mesh\w*\[(.*?)\](?:[^{,]*)\{(.*?)\}', attributes):
        sides = dict(re.findall(r"'?([\w.]+)'?=(\d+)", mesh[1]))
        return math.prod(int(sides[axis]) for axis in re.findall(r"'([\w.]+)'", mesh[2]))
    return devices
