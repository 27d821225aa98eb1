"""A work directory: the configuration it was made with, its classes, and the network that came of it."""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from ssanet_jax import processes
from ssanet_jax.data import dataset as datasets
from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.pretrained.load import fill_backbone, load_pretrained, weights_of
from ssanet_jax.training.checkpoints import Checkpoints
from ssanet_jax.training.run_files import CONFIG_FILE, read_json, read_run, write_json
from ssanet_jax.training.settings import changed_settings
from ssanet_jax.training.stages import active_groups

_WORKDIR = 'workdir:'  # of config.model.pretrained
_BEST_DAMAGED = 'restore it from a copy, or delete the folder of this stage and train it again'


def build_model(config: ConfigDict, classes: int, *, pretrained: bool = True) -> SSANet:
    """The network of a configuration, with trained weights in its backbone where asked for.

    Args:
      config: the whole configuration.
      classes: N.
      pretrained: load `config.model.pretrained`; false when a checkpoint follows anyway.

    Raises:
      UserError: for settings that do not fit together, or weights that cannot be had.
    """
    settings = config.model.to_dict()
    source = settings.pop('pretrained')
    try:
        model = SSANet(classes, config.data.image_size, **settings, rngs=nnx.Rngs(config.seed))
    except (TypeError, ValueError) as error:
        raise UserError(f'config.model: {error}') from error
    if pretrained:
        _load_backbone(model.backbone, config.model.backbone, source)
    return model


def _load_backbone(backbone: nnx.Module, name: str, source: str) -> None:
    """Fills the backbone from another run's work directory, or from what `load_pretrained` reads.

    Args:
      backbone: to be filled, weights and BatchNorm statistics.
      name: its name.
      source: 'workdir:DIR', or a directory, for the network that the run in it ended with; else as
        `load_pretrained` takes it.

    Raises:
      UserError: if it cannot be had, or is of another backbone; then the backbone is as it was.
    """
    if not source.startswith(_WORKDIR) and (source == 'none' or not Path(source).is_dir()):
        load_pretrained(backbone, name, source)
        return
    try:
        run = load_run(Path(source.removeprefix(_WORKDIR)))
    except UserError as error:
        raise UserError(f'config.model.pretrained={source}: {error}') from error
    theirs = run.config.model.backbone
    problems = [] if theirs == name else [f'it is {theirs}, not {name}']
    fill_backbone(backbone, weights_of(run.model.backbone), f'the backbone in {source}', problems=problems)


def with_preprocessing(config: ConfigDict, model: SSANet) -> ConfigDict:
    """The configuration with what the backbone's weights ask of the images, where it leaves that open."""
    config = config.copy_and_resolve_references()
    config.data.interpolation = config.data.interpolation or model.backbone.interpolation
    return config


def filled_in(config: ConfigDict) -> ConfigDict:
    """`with_preprocessing` without a network: the configuration as a run of it keeps it."""
    return with_preprocessing(config, nnx.eval_shape(lambda: build_model(config, 2, pretrained=False)))


class Locked(UserError):
    """Another process works in the directory."""


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps a second run out of a work directory; the system opens the lock when the process ends.

    Raises:
      Locked: another process trains there.
      UserError: it cannot be written.
    """
    if not processes.leads():
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        directory = os.open(workdir, os.O_RDONLY)
    except OSError as error:
        raise UserError(f'cannot write in {workdir} ({error.strerror}): give another --workdir') from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(directory)
        raise Locked(f'another process trains in {workdir}: wait for it, or give another --workdir') from None
    except OSError as error:  # some network file systems have no locks
        logging.warning('%s cannot be locked (%s): see to it that one run alone trains there', workdir, error.strerror)
    try:
        yield
    finally:
        os.close(directory)


def open_workdir(workdir: Path, config: ConfigDict, class_names: Sequence[str], images: str = '') -> None:
    """Claims a work directory for a configuration, or finds it claimed by the same one.

    One that holds no checkpoint yet may be claimed anew. Every process compares its own settings and
    images with what the directory holds then.

    Args:
      workdir, config: of the run.
      class_names: of the data set.
      images: digest of its images, labels and splits.

    Raises:
      UserError: if it belongs to a run with other settings, classes or images.
    """
    content = {
        'config': json.loads(config.to_json_best_effort()),
        'class_names': list(class_names),
        'images': images,
    }
    path = workdir / CONFIG_FILE
    claimed = path.exists() and any(workdir.glob('*/checkpoints/[0-9]*'))
    processes.wait_for_all('looked for a run')  # before any of them writes
    if not claimed:
        write_json(path, content)
    before = read_run(workdir)
    processes.wait_for_all('read the settings')  # before any of them changes one
    if before['class_names'] != content['class_names']:
        raise UserError(f'{workdir} holds a run on other classes: give another --workdir')
    if before['images'] != content['images']:
        raise UserError(
            f'{workdir} holds a run on other images or another split of them: give another --workdir, or the old data'
        )
    changed = changed_settings(before['config'], config)
    # Whether a stage that has not begun keeps features may be thought over, as when the disk has no room for them.
    free = {f'stages[{i}].cache' for i, row in enumerate(config.stages) if not stage_steps(workdir, row.name)}
    if changed and free >= set(changed):
        write_json(path, content)
    elif changed:
        raise UserError(
            f'{workdir} holds a run with another {", ".join(changed)}: give another --workdir, or the old settings'
        )


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run, ready to predict."""

    config: ConfigDict
    class_names: tuple[str, ...]
    model: SSANet
    active: frozenset[str]  # the groups that take part in the prediction
    stage: str  # the last stage with a checkpoint
    finished: bool  # whether that stage came to its end


def load_run(workdir: Path) -> Run:
    """Reads the network of a work directory after the last stage that has a checkpoint.

    Raises:
      UserError: if the directory holds no run, or no checkpoint that can be read.
    """
    content = read_run(workdir)
    config = ConfigDict(content['config'])
    for index in reversed(range(len(config.stages))):
        name = config.stages[index]['name']
        if stage_steps(workdir, name):
            break
    else:
        raise UserError(f'{workdir} holds no checkpoint yet: train first with --config and --workdir={workdir}')
    # Built without drawing random weights: the checkpoint must hold every group, frozen ones too.
    model = nnx.eval_shape(lambda: build_model(config, len(content['class_names']), pretrained=False))
    graph, *shapes = split_model(model)
    params, stats = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    stages = [ConfigDict(row) for row in config.stages]
    model = merge_model(graph, *restore_network(workdir, name, params, stats, groups=params))
    finished = (workdir / name / 'evaluation.json').exists()
    return Run(config, tuple(content['class_names']), model, active_groups(stages, index), name, finished)


def dataset_of(run: Run, workdir: Path, directory: str | None = None) -> datasets.Dataset:
    """The data of a run, read as the run reads it.

    Args:
      run, workdir: the run.
      directory: where the data lies now, if it has moved; the run's config is changed accordingly.

    Raises:
      UserError: it cannot be read, or has other classes.
    """
    if directory is not None:
        run.config.data.dir = directory
    dataset = datasets.load(run.config.data)
    if dataset.class_names != run.class_names:
        raise UserError(f'{workdir} was trained on other classes than {dataset.name} has: check --data_dir')
    return dataset


class Best:
    """The network of a stage that goes on to the next one.

    Where validation images choose, it is the one with the highest accuracy among those considered (the
    first of equals), kept in `<stage>/best`; else the last.

    Args:
      workdir, stage: of the run.
      chooses: whether the results come from images that may be chosen on.
    """

    def __init__(self, workdir: Path, stage: str, *, chooses: bool):
        self._chooses, self._directory = chooses, _best_dir(workdir, stage)
        self._file = workdir / stage / 'best.json'
        self.result: dict[str, Any] = read_json(self._file, _BEST_DAMAGED) or {}

    def consider(self, step: int, result: dict[str, Any], params: dict[str, Any], stats: dict[str, Any]) -> None:
        """Takes note of the result of the network at `step`, and keeps the network if it is the best so far."""
        if self._chooses and result['accuracy'] <= self.result.get('accuracy', -1):
            return
        self.result = {**result, 'step': step}
        if self._chooses:
            checkpoints = Checkpoints(self._directory, writes=True)
            checkpoints.save(step, {'params': params, 'stats': stats})
            checkpoints.close()
            write_json(self._file, self.result)


def checkpoint_dir(workdir: Path, stage: str) -> Path:
    """Where a stage keeps its checkpoints."""
    return workdir / stage / 'checkpoints'


def _best_dir(workdir: Path, stage: str) -> Path:
    return workdir / stage / 'best'


def stage_steps(workdir: Path, stage: str) -> list[int]:
    """Steps of the checkpoints of a stage, oldest first; empty if it has not begun."""
    return _steps(checkpoint_dir(workdir, stage))


def _steps(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    checkpoints = Checkpoints(directory)
    steps = checkpoints.steps
    checkpoints.close()
    return steps


def restore_stage(workdir: Path, stage: str, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Items of the newest readable checkpoint of a stage; see `Checkpoints.restore`."""
    return _restore(checkpoint_dir(workdir, stage), like)


def restore_network(
    workdir: Path, stage: str, params: dict[str, Any], stats: dict[str, Any], *, groups: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network that a stage hands on: the one that validation chose, else its newest.

    Args:
      workdir, stage: of the run.
      params, stats: of a network as it was built.
      groups: groups of parameters to restore. All of them must be in the checkpoint; the others are returned as
        they were built.

    Returns:
      (params, stats).

    Raises:
      UserError: the checkpoint lacks one of the groups, or cannot be read.
    """
    best = _best_dir(workdir, stage)
    like = {'params': {group: params[group] for group in groups}, 'stats': stats}
    items = _restore(best if _steps(best) else checkpoint_dir(workdir, stage), like)[1]
    return params | items['params'], items['stats']


def _restore(directory: Path, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    checkpoints = Checkpoints(directory)
    try:
        return checkpoints.restore(like)
    finally:
        checkpoints.close()


def device_kind() -> str:
    """What the run ran on, for its results: '2 x cpu' or '8 x NVIDIA H100'."""
    devices = jax.devices()
    return f'{len(devices)} x {devices[0].device_kind}'
