"""What a run noted in its folder, read for the report and checked, so that a damaged file is named before any work."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssanet_jax.errors import UserError
from ssanet_jax.runs.files import TRAIN_AGAIN, read_json
from ssanet_jax.runs.history import HISTORY_FILE, read_history

MEASURE_AGAIN = 'delete it, or measure again'


class Kind(NamedTuple):
    """What a field of a file has to be."""

    words: str
    holds: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


SHARE = Kind('a share', lambda value: _number(value) and 0 <= value <= 1)
SECONDS = Kind('a time', lambda value: _number(value) and value >= 0)
COUNT = Kind('a number of images or steps', lambda value: _number(value) and value == int(value) >= 1)
SEED = Kind('a whole number', lambda value: _number(value) and value == int(value))
WORDS = Kind('text', lambda value: isinstance(value, str))
SHARES = Kind('a share of each head', lambda value: isinstance(value, dict) and all(map(SHARE.holds, value.values())))
VERSIONS = Kind(
    'a text of each package', lambda value: isinstance(value, dict) and all(map(WORDS.holds, value.values()))
)

# Fields that the report shows. Those with a default are in files of later versions alone.
STAGE = {'accuracy': SHARE, 'examples': COUNT, 'heads': SHARES, 'steps': COUNT, 'wall_seconds': SECONDS}
STAGE_DEFAULTS = {'split': ('test', WORDS)}
RESULTS = {
    'accuracy': SHARE, 'examples': COUNT, 'heads': SHARES, 'wall_seconds': SECONDS, 'seed': SEED, 'device': WORDS
}  # fmt: skip
RESULTS_DEFAULTS = {'versions': ({}, VERSIONS)}


def read_result(
    path: Path, fields: Mapping[str, Kind], defaults: Mapping[str, tuple[Any, Kind]]
) -> dict[str, Any] | None:
    """`results.json` or a stage's `evaluation.json`, every field as the report shows it; None if it is not there.

    Raises:
      UserError: it is damaged.
    """
    content = read_json(path, TRAIN_AGAIN)
    if content is None:
        return None
    content = {name: default for name, (default, _) in defaults.items()} | content
    for name, kind in {**fields, **{name: kind for name, (_, kind) in defaults.items()}}.items():
        if name not in content:
            raise UserError(f'{path} is damaged, {name!r} is missing: {TRAIN_AGAIN}')
        if not kind.holds(content[name]):
            raise UserError(f'{path} is damaged, {name!r} is not {kind.words}: {TRAIN_AGAIN}')
    return content


def damaged_histories(workdir: Path, finished: Sequence[str]) -> list[str]:
    """What of the histories cannot be drawn, in words such as '3 lines of mac/history.jsonl'.

    A curve lacks a point then, which is no reason to have no report at all.

    Args:
      workdir: of the run.
      finished: names of the stages that came to their end. Another may have half a line, as training wrote no more.
    """
    found = []
    for stage in finished:
        name, path = f'{stage}/{HISTORY_FILE}', workdir / stage / HISTORY_FILE
        if not path.exists():  # as in runs of earlier versions
            continue
        lines = sum(bool(line.strip()) for line in path.read_bytes().split(b'\n'))
        whole = len(read_history(path))
        if not whole:
            found.append(f'all of {name}')
        elif lines > whole:
            count = lines - whole
            found.append(f'{count} line{"s" if count > 1 else ""} of {name}')
    return found
