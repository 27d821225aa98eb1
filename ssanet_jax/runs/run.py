"""Networks: built from a configuration, or loaded from a work directory."""

import dataclasses
import logging
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UserError
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.pretrained.checkpoint_info import default_checkpoint
from ssanet_jax.pretrained.load import get_weights, load_pretrained, set_weights
from ssanet_jax.runs.best_checkpoint import restore_network
from ssanet_jax.runs.checkpoints import stage_steps
from ssanet_jax.runs.feature_index import INDEX_FILE, FeatureIndex, network_digest, read_index
from ssanet_jax.runs.files import CONFIG_FILE, DamagedFile, read_run
from ssanet_jax.runs.geometry import DEFAULT_GEOMETRY
from ssanet_jax.runs.held_out import HELD_OUT_FILE, HeldOutPredictions, read_held_out
from ssanet_jax.runs.locations import pretrained_workdir
from ssanet_jax.runs.preprocessing import complete_preprocessing, resolve_preprocessing


def build_model(config: ConfigDict, num_classes: int, *, pretrained: bool = True) -> SSANet:
    """Builds the network of a configuration, with pretrained weights in its backbone if the configuration has any.

    Args:
      config: the whole configuration.
      num_classes: N.
      pretrained: load `config.model.pretrained`, and normalize images as it asks where the configuration leaves that
        open. False reads no weights: for when a checkpoint follows anyway.

    Raises:
      UserError: settings do not fit together, or the weights cannot be loaded.
    """
    if pretrained:
        config = resolve_preprocessing(config)
    settings = config.model.to_dict()
    source = settings.pop('pretrained') or default_checkpoint(config.model.backbone)
    settings['geometry'] = settings.get('geometry') or DEFAULT_GEOMETRY
    try:
        model = SSANet(
            num_classes,
            config.data.image_size,
            **settings,
            mean=config.data.get('mean') or None,
            std=config.data.get('std') or None,
            rngs=nnx.Rngs(config.seed),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f'config.model: {error}') from error
    if pretrained:
        _load_backbone(cast(nnx.Module, model.backbone), config.model.backbone, source)
    return model


def _load_backbone(backbone: nnx.Module, name: str, source: str) -> None:
    """Loads pretrained weights and BatchNorm statistics into a backbone.

    Args:
      backbone: changed in place.
      name: its name in the registry.
      source: 'workdir:DIR' or a directory for the backbone of the run there; any other value as `load_pretrained`
        takes it.

    Raises:
      UserError: the weights cannot be loaded, or belong to another backbone. The backbone is then unchanged.
    """
    workdir = pretrained_workdir(source)
    if workdir is None:
        load_pretrained(backbone, name, source)
        return
    try:
        run = load_run(workdir)
    except UserError as error:
        raise UserError(f'config.model.pretrained={source}: {error}') from error
    theirs = run.config.model.backbone
    problems = [] if theirs == name else [f'it is {theirs}, not {name}']
    set_weights(
        backbone, get_weights(cast(nnx.Module, run.model.backbone)), f'the backbone in {source}', problems=problems
    )


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run, ready to predict."""

    config: ConfigDict
    class_names: tuple[str, ...]
    model: SSANet
    active: frozenset[str]  # the groups that take part in the prediction
    stage: str  # the last stage with a checkpoint
    finished: bool  # whether that stage is over
    held_out: HeldOutPredictions | None = None  # of the stage; None if all images were trained on
    workdir: Path | None = None  # that it was loaded from

    def read_index(self) -> FeatureIndex:
        """Reads the features of the training images, which `training/feature_indexing.py` writes.

        Raises:
          UserError: there is no index of this network, or it is damaged.
        """
        if self.workdir is None:
            raise UserError('this network was not loaded from a work directory, so it has no index of training images')
        path, cure = self.workdir / self.stage / INDEX_FILE, f'ssanet index --workdir={self.workdir} writes it'
        index = read_index(path, cure)
        if index is None:
            raise UserError(f'{path} is missing: {cure}')
        if (index.stage, index.network) != (self.stage, self.network_digest()):
            raise UserError(f'{path} is that of another network (stage {index.stage}): {cure}')
        if index.labels.min() < 0 or index.labels.max() >= len(self.class_names):
            raise UserError(f'{path} is damaged, its classes are not those of the run: {cure}')
        return index

    def network_digest(self) -> str:
        """Identifies the weights of the network."""
        return network_digest(*split_model(self.model)[1:])


def load_run(workdir: Path, *, data_dir: Path | None = None) -> Run:
    """Loads the network of a work directory, as it is after the last stage with a checkpoint.

    Args:
      workdir: the run's work directory.
      data_dir: the folder of the data set if it has moved since the training: takes the place of `config.data.dir`.

    Raises:
      UserError: the directory holds no run, or no checkpoint that can be read.
    """
    content = read_run(workdir)
    config = ConfigDict(complete_preprocessing(content['config']))
    if data_dir is not None:
        config.data.dir = str(data_dir)
    stages = [ConfigDict(stage) for stage in config.stages]
    started = [index for index, stage in enumerate(stages) if stage_steps(workdir, stage.name)]
    if not started:
        raise UserError(f'{workdir} holds no checkpoint yet: train first with --config and --workdir={workdir}')
    name = stages[started[-1]].name
    # Built without drawing random weights: the checkpoint must hold every group, frozen ones too.
    try:
        model = nnx.eval_shape(lambda: build_model(config, len(content['class_names']), pretrained=False))
    except (AttributeError, KeyError) as error:  # a field that every run has recorded is not there
        path, field = workdir / CONFIG_FILE, str(error).strip('"\'')
        cure = 'restore it from a copy, or train in another --workdir'
        raise UserError(f'{path} is damaged, it lacks {field}: {cure}') from error
    graph, *shapes = split_model(model)
    params, stats = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return Run(
        config=config,
        class_names=tuple(content['class_names']),
        model=merge_model(graph, *restore_network(workdir, name, params, stats, groups=params)),
        active=active_groups(stages, started[-1]),
        stage=name,
        finished=(workdir / name / 'evaluation.json').exists(),
        held_out=_read_held_out(workdir / name / HELD_OUT_FILE, len(content['class_names'])),
        workdir=workdir,
    )


def _read_held_out(path: Path, num_classes: int) -> HeldOutPredictions | None:
    """Reads the held-out predictions of a stage. A run can do without them."""
    try:
        return read_held_out(path, num_classes)
    except UserError as error:
        problem = error.problem if isinstance(error, DamagedFile) else str(error)
        logging.warning('%s: probabilities are not calibrated, and strangers not told from known classes', problem)
        return None


def dataset_of(run: Run, workdir: Path) -> Dataset:
    """Loads the data set of a run, with the run's settings.

    Args:
      run: the run.
      workdir: its work directory, for the error message.

    Raises:
      UserError: the data cannot be read, or has other classes.
    """
    dataset = load_dataset(run.config.data, run.class_names)
    if dataset.class_names != run.class_names:
        raise UserError(f'{workdir} was trained on other classes than {dataset.name} has: check --data_dir')
    return dataset
