"""Recipes: settings for images of one's own, chosen by their number and by the machine.

`config.recipe='auto'` chooses one. A run records the name and the values in its `config.json` and keeps them whenever
it is continued, also on another machine. Fields that are set on the command line keep their values.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data.registry import READERS, read_listing
from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.runs.compatibility import setting
from ssanet_jax.runs.files import read_run
from ssanet_jax.runs.workdir import is_claimed

AUTO = 'auto'
FEW_IMAGES = 40  # per class
_CPU_SECONDS = 0.6  # per image, for the features of `full` on an AMD EPYC; `quick` takes 0.2
_SHORT = 30.0  # seconds; `quick` saves nothing worth having where `full` computes its features in this time


class Recipe(NamedTuple):
    """The values of the fields that a recipe sets."""

    num_parts: int  # the object, and parts of it
    global_size: int  # side at which the backbone sees the whole image, pixels; 0: image_size
    views: int  # augmented views of each image that classifiers are fitted to
    summary: str


class Facts(NamedTuple):
    """The facts that decide on a recipe."""

    num_images: int  # for training
    num_classes: int
    cpus: int
    accelerator: str = ''  # such as 'a GPU'; empty for the CPUs of one process


class Choice(NamedTuple):
    """A recipe, and the reason for it in words."""

    name: str
    reason: str


RECIPES = {
    'quick': Recipe(2, 224, 2, 'image, object and one part at 224 pixels'),
    'full': Recipe(4, 0, 2, 'image at 448 pixels, object and three parts at 224'),
}
_FIELDS = {'model.num_parts': 'num_parts', 'model.global_size': 'global_size', 'stages[0].epochs': 'views'}


def choose_recipe(facts: Facts) -> Choice:
    """The recipe for these images on this machine.

    `full` for an accelerator, and where a CPU takes at most half a minute for its features; else `quick` for fewer than
    40 images per class and `full` for more. docs/your_own_photos.md has the times and accuracies behind these numbers.
    """
    each = facts.num_images / facts.num_classes
    images = f'{facts.num_images} training images, {each:.0f} per class'
    if facts.accelerator:
        return Choice('full', f'{images}, on {facts.accelerator}')
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
        name, reason = choose_recipe(find_facts(config))
        other = 'full' if name == 'quick' else 'quick'
        ratio = 'three times' if name == 'quick' else 'a third of'
        lines = [
            f'recipe {name}: {RECIPES[name].summary} ({reason})',
            f'another choice is --config.recipe={other}: {RECIPES[other].summary}, about {ratio} the work',
        ]
    _apply(config, {path: getattr(RECIPES[name], field) for path, field in _FIELDS.items()}, fixed)
    config.recipe = name
    return config, lines


def _continue_recipe(config: ConfigDict, run: dict[str, Any], fixed: Collection[str]) -> tuple[ConfigDict, list[str]]:
    """Takes the values of a run, which may be of an earlier version without recipes."""
    values = {path: setting(run, path) for path in _FIELDS if not path.startswith('stages') or run['stages']}
    _apply(config, {path: value for path, value in values.items() if value is not None}, fixed)
    config.recipe = run.get('recipe', '')
    return config, []


def _apply(config: ConfigDict, values: Mapping[str, Any], fixed: Collection[str]) -> None:
    """Sets fields, by paths as in `_FIELDS`, except the fixed ones and those of which a fixed one is a part."""
    for path, value in values.items():
        if not any(path == other or path.startswith((f'{other}.', f'{other}[')) for other in fixed):
            place, _, field = path.rpartition('.')
            section = config.stages[0] if place == 'stages[0]' else config[place]
            section[field] = value


def _check_suits(config: ConfigDict) -> None:
    first = config.stages[0] if config.stages else {}
    if config.model.get('proposal') != 'prototypes' or not first.get('fit'):
        raise UserError(
            f'config.recipe={config.recipe} is for parts by prototypes and a first stage with fit=True, as in '
            'configs/folder.py: leave it out, or use that file'
        )


def find_facts(config: ConfigDict) -> Facts:
    """Counts the images of a configuration and looks at the machine. It reads no image.

    Raises:
      UserError: the images cannot be listed, or are generated.
    """
    if config.data.name not in READERS:
        raise UserError(
            f'config.recipe=auto counts image files, and {config.data.name} has none: choose from {", ".join(RECIPES)}'
        )
    listing = read_listing(config.data)
    count = sum(record.split == 'train' for record in listing.records) * (1 - config.data.get('validation', 0))
    accelerator = '' if jax.default_backend() == 'cpu' else f'a {jax.default_backend().upper()}'
    if not accelerator and processes.current().count > 1:
        accelerator = 'several processes'  # they may have different numbers of CPUs, and must agree
    return Facts(round(count), max(len(listing.class_names), 1), available_cpus(), accelerator)
