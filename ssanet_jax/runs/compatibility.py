"""Which settings of a run may change when it is resumed or evaluated."""

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.runs.files import read_run
from ssanet_jax.runs.locations import absolute_source
from ssanet_jax.runs.preprocessing import (
    Preprocessing,
    complete_preprocessing,
    recorded_bit_depth,
    recorded_preprocessing,
)

# Settings that may change between two starts of a run, since they do not change what is learned: the location and the
# reading of the data, the devices, the use of their memory, and when checkpoints are written.
MAY_CHANGE_ON_RESUME = {'data.dir', 'data.prepared_dir', 'data.num_workers', 'data.prefetch', 'data.eval_batch_size'}
MAY_CHANGE_ON_RESUME |= {'mesh.shape', 'mesh.shard_heads', 'model.remat', 'async_checkpointing'}
# Settings of the optimizer that may change between two starts, for the stages that are not finished: a run whose loss
# became NaN goes on from its last checkpoint at a lower rate. Changes are recorded.
_RECORDED = re.compile(
    r'on_nonfinite|early_stopping_patience|stages\[(\d+)\]\.(learning_rate|schedule|milestones|warmup_epochs)'
)
SHARING_SETTINGS = {
    'model.sharing',
    'model.output_stride',
    'model.crop_size',
}  # how regions share features; none of them changes the shapes of weights


def changed_settings(before: dict[str, Any], config: ConfigDict) -> list[str]:
    """Finds the settings that differ from those of a run and may not.

    Args:
      before: `read_run(...)['config']`.
      config: the configuration. Preprocessing that it leaves to the pretrained weights agrees with any value, and so
        do a geometry and pretrained weights that it leaves open.

    Returns:
      Paths such as 'model.num_parts', sorted.
    """
    left_open = [f'data.{name}' for name in (*Preprocessing._fields, 'bit_depth') if not config.data.get(name)]
    left_open += [f'model.{name}' for name in ('geometry', 'pretrained') if not config.model.get(name)]
    settings = [complete_preprocessing(before), json.loads(config.to_json_best_effort())]
    for tree in settings:
        tree.setdefault('on_nonfinite', 'stop')  # as runs of earlier versions did
    for tree in settings:  # two ways to write a path are no difference
        tree['model'] = {**tree['model'], 'pretrained': absolute_source(tree['model'].get('pretrained', 'none'))}
    changed = _differences(*settings)
    return sorted(changed.difference(MAY_CHANGE_ON_RESUME, left_open))


def may_be_recorded(path: str, finished: Sequence[bool]) -> bool:
    """Whether a changed setting may be changed on resume, if the change is recorded.

    Args:
      path: such as 'stages[1].learning_rate'.
      finished: whether each stage is finished, and was so under the old setting.
    """
    match = _RECORDED.fullmatch(path)
    return bool(match) and not (match[1] and finished[int(match[1])])


def setting(config: Any, path: str) -> Any:
    """The value of a setting in a JSON tree, None if it lacks it.

    Args:
      config: the tree.
      path: as in `changed_settings`.
    """
    for key in re.findall(r'\w+', path):
        config = config[int(key)] if isinstance(config, list) else config.get(key)
    return config


def evaluation_config(trained: ConfigDict, given: ConfigDict) -> ConfigDict:
    """The settings to evaluate a run with: its own, except for the location and the reading of the data.

    Args:
      trained: the run's configuration.
      given: the configuration of the evaluation.

    Raises:
      UserError: `given` asks for other images, another split or another preprocessing.
    """
    theirs = given.data.copy_and_resolve_references()
    recorded = {**recorded_preprocessing(trained)._asdict(), 'bit_depth': recorded_bit_depth(trained)}
    with theirs.unlocked():
        theirs.update({name: value for name, value in recorded.items() if not theirs.get(name)})
        theirs.dir = theirs.get('dir') or trained.data.get('dir', '')
    free = {name.removeprefix('data.') for name in MAY_CHANGE_ON_RESUME} | {'csv', 'name', 'level', 'batch_size'}
    changed = sorted(
        _differences(complete_preprocessing(trained.to_dict())['data'], json.loads(theirs.to_json_best_effort())) - free
    )
    if changed:
        raise UserError(
            f'the run has another {", ".join(f"config.data.{name}" for name in changed)}: evaluate with its settings'
        )
    config = trained.copy_and_resolve_references()
    config.data = theirs
    return config


def check_overrides(workdir: Path, config: ConfigDict, overrides: Collection[str]) -> None:
    """Refuses overrides on the command line that the evaluation of a run would ignore.

    Other fields of the configuration file may differ from the run's, as defaults do. A field of the command line was
    set on purpose.

    Args:
      workdir: the run's work directory.
      config: the configuration, with the overrides.
      overrides: paths of the fields that were set on the command line, such as 'model.sharing'.

    Raises:
      UserError: a field differs from the run's. `MAY_CHANGE_ON_RESUME` and `data` are exempt:
        `evaluation_config` checks `data`.
    """
    changed = changed_settings(read_run(workdir)['config'], config)
    inside = lambda path, whole: path == whole or path.startswith((f'{whole}.', f'{whole}['))
    refused = sorted(
        name
        for name in overrides
        if not inside(name, 'data') and any(inside(name, path) or inside(path, name) for path in changed)
    )
    if not refused:
        return
    named = ', '.join(f'config.{name}' for name in refused)
    cure = f'leave {"it" if len(refused) == 1 else "them"} out'
    if SHARING_SETTINGS & set(refused):
        cure += f'; python -m ssanet_jax.measure --workdir={workdir} --only=sharing tries every way to share features'
    raise UserError(f'{workdir} holds a run with another {named}, and is evaluated as it was trained: {cure}')


def _differences(a: Any, b: Any, path: str = '') -> set[str]:
    """Paths at which two JSON trees differ.

    Args:
      a: the settings of a run.
      b: the settings given now.
      path: the path of both trees in the whole configuration.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        # A field that a run of an earlier version lacks was off.
        shared = {key for key in a.keys() | b.keys() if key in a or b[key] not in (0, '', 'none', [])}
        found = [_differences(a.get(key), b.get(key), f'{path}.{key}'.lstrip('.')) for key in shared]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        found = [_differences(x, y, f'{path}[{i}]') for i, (x, y) in enumerate(zip(a, b))]
    else:
        return set() if a == b else {path}
    return set().union(*found)
