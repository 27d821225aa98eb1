"""How long things take beside each other."""

import statistics
import time
from collections.abc import Callable, Mapping

Timed = Callable[[], object]  # returns when its work is done
Say = Callable[[str], None]  # told what is being done


def silent(text: str) -> None:
    """A `Say` that tells nobody."""


def take_turns(competitors: Mapping[str, Timed], rounds: int, say: Say = silent) -> dict[str, float]:
    """Median seconds of each competitor.

    They take turns, so that what slows the machine down for a while meets all of them. In its turn each is called
    twice, and the second call counts: the first one still pays for what the competitor before it left in caches and
    memory (ResNet-50 right behind `sharing='none'` took 8 % longer than behind itself). Before the first round each is
    called once, to compile.

    Args:
      competitors: what is timed.
      rounds: timed calls of each, at least 1.
      say: told how far it has come.
    """
    for name, work in competitors.items():
        say(f'warming up {name}')
        work()
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for number in range(1, rounds + 1):
        say(f'round {number} of {rounds}')
        for name, work in competitors.items():
            work()
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}
