"""The network of a configuration, and the one that a work directory holds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.pretrained.load import fill_backbone, load_pretrained, weights_of
from ssanet_jax.runs.checkpoints import restore_network, stage_steps
from ssanet_jax.runs.files import read_run
from ssanet_jax.runs.preprocessing import pretrained_workdir, resolve_preprocessing


def active_groups(stages: Sequence[ConfigDict], index: int) -> frozenset[str]:
    """The groups trained by the end of stage `index`: the rest is random, and stays out."""
    return frozenset(group for row in stages[: index + 1] for group in row.train)


def build_model(config: ConfigDict, classes: int, *, pretrained: bool = True) -> SSANet:
    """The network of a configuration, with trained weights in its backbone where asked for.

    Args:
      config: the whole configuration.
      classes: N.
      pretrained: load `config.model.pretrained`, and normalize images as it asks where the configuration leaves that
        open. False reads no weights: for when a checkpoint follows anyway.

    Raises:
      UserError: for settings that do not fit together, or weights that cannot be had.
    """
    if pretrained:
        config = resolve_preprocessing(config)
    settings = config.model.to_dict()
    source = settings.pop('pretrained')
    try:
        model = SSANet(
            classes,
            config.data.image_size,
            **settings,
            mean=config.data.get('mean') or None,
            std=config.data.get('std') or None,
            rngs=nnx.Rngs(config.seed),
        )
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
    fill_backbone(backbone, weights_of(run.model.backbone), f'the backbone in {source}', problems=problems)


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


def dataset_of(run: Run, workdir: Path, directory: str | None = None) -> Dataset:
    """The data of a run, read as the run reads it.

    Args:
      run, workdir: the run.
      directory: where the data lies now, if it has moved; the run's config is changed accordingly.

    Raises:
      UserError: it cannot be read, or has other classes.
    """
    if directory is not None:
        run.config.data.dir = directory
    dataset = load_dataset(run.config.data)
    if dataset.class_names != run.class_names:
        raise UserError(f'{workdir} was trained on other classes than {dataset.name} has: check --data_dir')
    return dataset
