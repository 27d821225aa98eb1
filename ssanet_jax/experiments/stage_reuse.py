"""Runs whose first stages are identical share them: each stage is trained once and reused by the other runs."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.models.groups import PART_HEAD, UPRIGHT, active_groups
from ssanet_jax.runs.compatibility import MAY_CHANGE_ON_RESUME
from ssanet_jax.runs.files import CONFIG_BACKUP, CONFIG_FILE, read_run
from ssanet_jax.runs.preprocessing import complete_preprocessing
from ssanet_jax.runs.workdir import check_config_is_there
from ssanet_jax.training.step import stage_losses

# Fields of config.model that have an effect only if one of these groups is active.
_GROUPS_OF_SETTING = {
    'features': {'scale_mining'},
    'solver': {'scale_mining'},
    'num_scales': {'scale_mining', PART_HEAD},
    'alpha': {'scale_mining', PART_HEAD},
    'patch': {'oriented_pooling'},
    'grid': {'oriented_pooling'},
    'orientation': {'oriented_pooling'},
    'part_head': {PART_HEAD},
    'upright': {UPRIGHT},
    'upright_size': {UPRIGHT},
}


def _fields_of_statistics(model: Mapping[str, Any]) -> set[str]:
    """Fields that change the shapes of statistics, which `restore_network` loads for all groups."""
    fields = set()
    if model.get('standardize', False):
        fields |= {'features', 'num_scales'}  # those of scale mining
    if model['features'] == 'covariance':
        fields |= {'features'}  # the image classifier, too, reads the principal components
    if model.get('upright', 0):
        fields |= {'upright'}  # it standardizes its features
    return fields


def stage_identity(config: ConfigDict, index: int) -> dict[str, Any]:
    """All settings that determine the network after stage `index`, and its evaluation.

    Two runs on the same images with equal identities have the same network at that point. Later stages, settings of
    groups that no stage has trained yet, and weights of unused losses are left out, unless arrays of a stage's
    checkpoint have other shapes with them.
    """
    config = ConfigDict(json.loads(config.to_json_best_effort()))
    config.stages = [ConfigDict(stage) for stage in config.stages[: index + 1]]
    active = active_groups(config.stages, index)
    unused = {name for name, groups in _GROUPS_OF_SETTING.items() if not groups & active}
    unused -= _fields_of_statistics(config.model)
    config.model = {name: value for name, value in config.model.items() if name not in unused}
    losses = set()
    for number, stage in enumerate(config.stages):
        losses |= stage_losses(active_groups(config.stages, number), stage.train, config.loss.weights).keys()
    config.loss.weights = {name: weight for name, weight in config.loss.weights.items() if name in losses}
    identity = json.loads(config.to_json_best_effort())
    for name in MAY_CHANGE_ON_RESUME:
        *section, field = name.split('.')
        (identity[section[0]] if section else identity).pop(field, None)
    identity.pop('on_nonfinite', None)  # it does not matter to a stage that was finished
    # Those of earlier versions, and of data sets without images of 16 bits: the images are the same.
    if identity['data'].get('bit_depth') in (0, 16):
        del identity['data']['bit_depth']
    return identity


def reuse_stages(config: ConfigDict, workdir: Path, others: Iterable[Path], digest: str) -> list[str]:
    """Copies the first stages of a new run from other runs that finished them with the same settings.

    Files are hard-linked where the file system supports it, so that they take no space: a finished stage is only read.

    Args:
      config: the run's complete configuration (`resolve_preprocessing`).
      workdir: the run's work directory. A claimed one is left unchanged; stages that an interrupted attempt left in
        an unclaimed one are removed.
      others: work directories of other runs.
      digest: digest of the run's images; runs on other images are skipped.

    Returns:
      The names of the reused stages.
    """
    if any((workdir / name).exists() for name in (CONFIG_FILE, CONFIG_BACKUP)):
        return []
    check_config_is_there(workdir)
    for stage in config.stages:
        shutil.rmtree(workdir / stage.name, ignore_errors=True)
    runs = [(path, read_run(path)) for path in others if path != workdir]
    donors = [
        (path, ConfigDict(complete_preprocessing(run['config']))) for path, run in runs if run['images'] == digest
    ]
    reused: list[str] = []
    for index, stage in enumerate(config.stages):
        donor = _find_donor(stage.name, index, stage_identity(config, index), donors)
        if donor is None:
            break  # later stages start from this one
        _link(donor / stage.name, workdir / stage.name)
        reused.append(stage.name)
    return reused


def _find_donor(
    name: str, index: int, identity: dict[str, Any], donors: Iterable[tuple[Path, ConfigDict]]
) -> Path | None:
    """The first run that has finished a stage with this identity."""
    for workdir, config in donors:
        finished = (workdir / name / 'evaluation.json').exists() and index < len(config.stages)
        if finished and stage_identity(config, index) == identity:
            return workdir
    return None


def _link(source: Path, target: Path) -> None:
    partial = target.with_name(f'{target.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
    partial.rename(target)
