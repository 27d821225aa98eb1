"""Recipes: settings for images of one's own, chosen by their number and by the machine.

`config.recipe='auto'` chooses one. A run records the name and the values in its `config.json` and keeps them whenever
it is continued, also on another machine. Fields that are set on the command line keep their values.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx
from ml_collections import ConfigDict

from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data.registry import READERS, read_listing
from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.checkpoint_info import HUB, default_checkpoint
from ssanet_jax.pretrained.hub import obtain_weights
from ssanet_jax.runs.compatibility import setting
from ssanet_jax.runs.files import read_run
from ssanet_jax.runs.run import build_model
from ssanet_jax.runs.workdir import is_claimed

AUTO = 'auto'
FEW_IMAGES = 40  # per class
_CPU_SECONDS = 0.6  # per image, for the features of `full` on an AMD EPYC; `quick` takes 0.2
_SHORT = 30.0  # seconds; `quick` saves nothing worth having where `full` computes its features in this time


class Recipe(NamedTuple):
    """A recipe: the fields that it sets, by their paths, and what it does in words."""

    settings: Mapping[str, Any]
    summary: str


class Facts(NamedTuple):
    """The facts that decide on a recipe."""

    num_images: int  # for training
    num_classes: int
    cpus: int
    accelerator: str = ''  # such as 'a GPU'; empty for the CPUs of one process
    no_dinov2: str = ''  # why `dinov2` cannot be used on the accelerator; empty if it can


class Choice(NamedTuple):
    """A recipe, and the reason for it in words."""

    name: str
    reason: str


def _settings(num_parts: int, global_size: int, **backbone: Any) -> dict[str, Any]:
    """The fields of a recipe; its classifiers are fitted to two augmented views of each image."""
    model = dict(num_parts=num_parts, global_size=global_size, **backbone)
    return {f'model.{field}': value for field, value in model.items()} | {'stages[0].epochs': 2}


RECIPES = {
    'quick': Recipe(_settings(2, 224), 'image, object and one part at 224 pixels'),
    'full': Recipe(_settings(4, 0), 'image at 448 pixels, object and three parts at 224'),
    'dinov2': Recipe(
        _settings(
            4,
            0,
            backbone='vit_small_patch14_reg4_dinov2',
            pretrained='',
            crop_size=196,
            features='pooled',
            class_token=True,
        ),
        'DINOv2 ViT-S/14, image at 448 pixels, object and three parts at 196',
    ),
}
# Recipe -> another one to name beside it, and its work in comparison.
_OTHER = {
    'quick': ('full', 'about three times'),
    'full': ('quick', 'about a third of'),
    'dinov2': ('full', 'much less than'),
}


def choose_recipe(facts: Facts) -> Choice:
    """The recipe for these images on this machine.

    `dinov2` for an accelerator, if its weights can be had and nothing else speaks against it. Otherwise `full` for an
    accelerator, and where a CPU takes at most half a minute for its features; else `quick` for fewer than 40 images per
    class and `full` for more. docs/your_own_photos.md has the times and accuracies behind these numbers.
    """
    each = facts.num_images / facts.num_classes
    images = f'{facts.num_images} training images, {each:.0f} per class'
    if facts.accelerator and not facts.no_dinov2:
        return Choice('dinov2', f'{images}, on {facts.accelerator}')
    if facts.accelerator:
        return Choice('full', f'{images}, on {facts.accelerator}; not dinov2: {facts.no_dinov2}')
    machine = f'{facts.cpus} CPU core{"" if facts.cpus == 1 else "s"}'
    if facts.num_images * _CPU_SECONDS / facts.cpus <= _SHORT:
        return Choice('full', f'{images}, little work for {machine}')
    if each < FEW_IMAGES:
        return Choice('quick', f'{images}, fewer than {FEW_IMAGES}, on {machine}')
    return Choice('full', f'{images}, at least {FEW_IMAGES}, on {machine}')


def resolve_recipe(config: ConfigDict, workdir: Path, fixed: Collection[str] = ()) -> tuple[ConfigDict, list[str]]:
    """Applies `config.recipe`, which is chosen here if it is 'auto'.

    Args:
      config: the whole configuration.
      workdir: the run's work directory. A run that has begun there keeps its recipe and its values.
      fixed: paths of fields that keep their values, such as 'model.num_parts'.

    Returns:
      A copy of the configuration, and lines that explain the choice.

    Raises:
      UserError: the recipe is unknown or does not suit the configuration, or the images cannot be listed.
    """
    config = config.copy_and_resolve_references()
    name = config.get('recipe', '')
    if not name:
        return config, []
    if name not in (AUTO, *RECIPES):
        raise UserError(f'config.recipe={name}: choose from {", ".join((AUTO, *RECIPES))}')
    _check_suits(config)
    if name == AUTO and is_claimed(workdir):
        return _continue_recipe(config, read_run(workdir)['config'], fixed)
    lines = []
    if name == AUTO:
        name, reason = choose_recipe(find_facts(config, fixed))
        other, ratio = _OTHER[name]
        lines = [
            f'recipe {name}: {RECIPES[name].summary} ({reason})',
            f'another choice is --config.recipe={other}: {RECIPES[other].summary}, {ratio} the work',
        ]
    _apply(config, RECIPES[name].settings, fixed)
    config.recipe = name
    return config, lines


def _continue_recipe(config: ConfigDict, run: dict[str, Any], fixed: Collection[str]) -> tuple[ConfigDict, list[str]]:
    """Takes the values of a run, which may be of an earlier version without recipes."""
    paths = set().union(*(recipe.settings for recipe in RECIPES.values()))
    values = {path: setting(run, path) for path in sorted(paths) if not path.startswith('stages') or run['stages']}
    _apply(config, {path: value for path, value in values.items() if value is not None}, fixed)
    config.recipe = run.get('recipe', '')
    return config, []


def _apply(config: ConfigDict, values: Mapping[str, Any], fixed: Collection[str]) -> None:
    """Sets fields by their paths, except the fixed ones and those that are part of a fixed one."""
    for path, value in values.items():
        if not _is_fixed(path, fixed):
            place, _, field = path.rpartition('.')
            section = config.stages[0] if place == 'stages[0]' else config[place]
            section[field] = value


def _is_fixed(path: str, fixed: Collection[str]) -> bool:
    return any(path == other or path.startswith((f'{other}.', f'{other}[')) for other in fixed)


def _check_suits(config: ConfigDict) -> None:
    first = config.stages[0] if config.stages else {}
    if config.model.get('proposal') != 'prototypes' or not first.get('fit'):
        raise UserError(
            f'config.recipe={config.recipe} is for parts by prototypes and a first stage with fit=True, as in '
            'configs/folder.py: leave it out, or use that file'
        )


def find_facts(config: ConfigDict, fixed: Collection[str] = ()) -> Facts:
    """Counts the images of a configuration and looks at the machine. It reads no image.

    On an accelerator, it also downloads the weights of `dinov2`, unless they are in the cache.

    Args:
      config, fixed: see `resolve_recipe`.

    Raises:
      UserError: the images cannot be listed, or are generated.
    """
    if config.data.name not in READERS:
        raise UserError(
            f'config.recipe=auto counts image files, and {config.data.name} has none: choose from {", ".join(RECIPES)}'
        )
    listing = read_listing(config.data)
    count = sum(record.split == 'train' for record in listing.records) * (1 - config.data.get('validation', 0))
    num_classes = max(len(listing.class_names), 1)
    facts = Facts(round(count), num_classes, available_cpus())
    platform = jax.devices()[0].platform
    if platform != 'cpu':
        return facts._replace(
            accelerator=f'a {platform.upper()}', no_dinov2=_dinov2_problem(config, num_classes, fixed)
        )
    if processes.current().count > 1:  # they may have different numbers of CPUs, and must agree
        return facts._replace(accelerator='several processes', no_dinov2='there is no GPU')
    return facts


def _dinov2_problem(config: ConfigDict, num_classes: int, fixed: Collection[str]) -> str:
    """The reason why `dinov2` cannot be used for a configuration; empty if it can, and its weights are in the cache."""
    if chosen := [path for path in ('model.backbone', 'model.pretrained') if _is_fixed(path, fixed)]:
        return f'config.{chosen[0]} is set'
    if processes.current().count > 1:
        return 'several processes might not all get its weights'
    config = config.copy_and_resolve_references()
    _apply(config, RECIPES['dinov2'].settings, fixed)
    try:
        nnx.eval_shape(lambda: build_model(config, num_classes, pretrained=False))
    except UserError as error:  # such as an image size that is not a multiple of the patch
        return str(error)
    return obtain_weights(default_checkpoint(config.model.backbone).removeprefix(HUB))
