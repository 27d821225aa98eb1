"""Runs that begin alike share their first stages: each is trained once, and taken over by the others."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.models.ssanet import BASELINE
from ssanet_jax.runs.compatibility import MOVABLE
from ssanet_jax.runs.files import CONFIG_FILE, read_run
from ssanet_jax.runs.preprocessing import complete_preprocessing
from ssanet_jax.runs.run import active_groups
from ssanet_jax.training.step import stage_losses

# Settings of the network that matter only where one of these groups takes part.
_SETTINGS_OF = {
    'features': {'scale_mining'},
    'solver': {'scale_mining'},
    'num_scales': {'scale_mining', BASELINE},
    'alpha': {'scale_mining', BASELINE},
    'patch': {'oriented_pooling'},
    'grid': {'oriented_pooling'},
    'orientation': {'oriented_pooling'},
    'part_head': {BASELINE},
}


def stage_identity(config: ConfigDict, index: int) -> dict[str, Any]:
    """All settings that decide what the network is after stage `index`, and what its evaluation says.

    Two runs on the same images whose identities are equal have the same network there. Left out are later stages,
    settings of groups that nothing has trained yet, and weights of losses that have taken no part.
    """
    config = ConfigDict(json.loads(config.to_json_best_effort()))
    config.stages = [ConfigDict(row) for row in config.stages[: index + 1]]
    active = active_groups(config.stages, index)
    unused = [name for name, groups in _SETTINGS_OF.items() if not groups & active]
    config.model = {name: value for name, value in config.model.items() if name not in unused}
    used = set()
    for number, row in enumerate(config.stages):
        used |= stage_losses(active_groups(config.stages, number), row.train, config.loss.weights).keys()
    config.loss.weights = {name: weight for name, weight in config.loss.weights.items() if name in used}
    identity = json.loads(config.to_json_best_effort())
    for name in MOVABLE:
        section, field = name.split('.')
        identity[section].pop(field, None)
    return identity


def take_over(config: ConfigDict, workdir: Path, others: Iterable[Path], images: str) -> list[str]:
    """Puts into a new work directory the first stages that other runs have finished just as this one would.

    The files are linked where the file system can, so that they take no room: a finished stage is only read.

    Args:
      config: of the run, with everything filled in (`resolve_preprocessing`).
      workdir: of the run. One that has been claimed stays as it is; what an attempt left that was killed before it
        claimed anything is removed.
      others: work directories of other runs.
      images: digest of the run's images; runs on others are passed over.

    Returns:
      The names of the stages taken over.
    """
    if (workdir / CONFIG_FILE).exists():
        return []
    for row in config.stages:
        shutil.rmtree(workdir / row.name, ignore_errors=True)
    taken: list[str] = []
    runs = [(path, read_run(path)) for path in others if path != workdir]
    donors = [
        (path, ConfigDict(complete_preprocessing(run['config']))) for path, run in runs if run['images'] == images
    ]
    for index, row in enumerate(config.stages):
        identity = stage_identity(config, index)
        for path, theirs in donors:
            finished = (path / row.name / 'evaluation.json').exists() and index < len(theirs.stages)
            if finished and stage_identity(theirs, index) == identity:
                _link(path / row.name, workdir / row.name)
                taken.append(row.name)
                break
        else:
            break  # what comes later starts from this one
    return taken


def _link(source: Path, target: Path) -> None:
    partial = target.with_name(f'{target.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
    partial.rename(target)
