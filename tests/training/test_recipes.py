"""The recipe for one's own images: the choice, what it sets, and what a run keeps of it."""

import json

import pytest
from commands import check_user_error, run_each
from data_samples import write_image

from configs import common, folder
from ssanet_jax.errors import UserError
from ssanet_jax.runs.compatibility import changed_settings
from ssanet_jax.training import recipes
from ssanet_jax.training.recipes import Facts, choose_recipe, find_facts, resolve_recipe
from ssanet_jax.training.stages import scale_epochs, stage


@pytest.mark.parametrize(
    ('facts', 'name', 'words'),
    [
        (Facts(192, 8, 2), 'quick', '192 training images, 24 per class, fewer than 40, on 2 CPU cores'),
        (Facts(192, 8, 1), 'quick', 'on 1 CPU core'),
        (Facts(192, 8, 16), 'full', 'little work for 16 CPU cores'),
        (Facts(192, 8, 2, 'a GPU'), 'full', 'on a GPU'),
        (Facts(60, 3, 2), 'full', '20 per class, little work'),
        (Facts(320, 8, 2), 'full', '40 per class, at least 40'),
        (Facts(312, 8, 2), 'quick', '39 per class'),
    ],
)
def test_the_choice(facts, name, words):
    found = choose_recipe(facts)
    assert found.name == name and words in found.reason


@pytest.fixture
def own_images(tmp_path):
    """Three classes of 10 images, of which 8 each are drawn for training."""
    for number in range(30):
        write_image(tmp_path / 'own' / 'abc'[number % 3] / f'{number}.png')
    config = folder.get_config()
    config.data.dir = str(tmp_path / 'own')
    return config


def test_only_training_images_count(own_images, monkeypatch):
    monkeypatch.setattr(recipes, 'available_cpus', lambda: 3)
    assert find_facts(own_images) == Facts(24, 3, 3)
    own_images.data.validation = 0.25
    assert find_facts(own_images) == Facts(18, 3, 3)


def values(config):
    return config.recipe, config.model.num_parts, config.model.global_size, config.stages[0].epochs


def test_a_chosen_recipe_is_a_configuration_with_its_values(own_images, monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, 'find_facts', lambda config: Facts(192, 8, 2))
    before = own_images.to_json()
    config, lines = resolve_recipe(own_images, tmp_path)
    assert values(config) == ('quick', 2, 224, 2)
    assert own_images.to_json() == before
    assert len(lines) == 2 and lines[0].startswith('recipe quick: ') and '--config.recipe=full' in lines[1]
    # `quick` and `full` are variants that had a name before.
    for name, variant in (('quick', 'fast'), ('full', 'prototypes')):
        own_images.recipe = name
        config, lines = resolve_recipe(own_images, tmp_path)
        expected = folder.get_config(variant)
        expected.data.dir, expected.recipe = own_images.data.dir, name
        assert json.loads(config.to_json()) == json.loads(expected.to_json()) and not lines


def test_fields_of_the_command_line_win(own_images, monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, 'find_facts', lambda config: Facts(192, 8, 2))
    own_images.model.num_parts = 3
    assert values(resolve_recipe(own_images, tmp_path, ['model.num_parts'])[0]) == ('quick', 3, 224, 2)
    assert values(resolve_recipe(own_images, tmp_path, ['stages', 'model.num_parts_'])[0]) == ('quick', 2, 224, 2)
    own_images.stages[0].epochs = 7
    assert values(resolve_recipe(own_images, tmp_path, ['stages[0].epochs'])[0]) == ('quick', 2, 224, 7)


@pytest.mark.parametrize('recorded', ['quick', 'full', None])
def test_a_run_goes_on_with_its_recipe(own_images, monkeypatch, tmp_path, recorded):
    """Whatever would be chosen today; a run of a version without recipes keeps its values."""
    own_images.recipe = recorded or 'full'
    run, _ = resolve_recipe(own_images, tmp_path)
    content = json.loads(run.to_json())
    if recorded is None:
        del content['recipe'], content['epochs']
        content['model']['num_parts'] = 3
    monkeypatch.setattr(recipes, 'is_claimed', lambda workdir: True)
    monkeypatch.setattr(recipes, 'read_run', lambda workdir: {'config': content})
    monkeypatch.setattr(recipes, 'find_facts', lambda config: pytest.fail('chosen again'))
    own_images.recipe = 'auto'
    config, lines = resolve_recipe(own_images, tmp_path)
    assert not changed_settings(content, config) and not lines
    own_images.recipe = 'full' if recorded == 'quick' else 'quick'
    assert 'model.num_parts' in changed_settings(content, resolve_recipe(own_images, tmp_path)[0])


def test_what_a_recipe_does_not_suit(own_images, tmp_path):
    own_images.recipe = 'fancy'
    with pytest.raises(UserError, match=r'config\.recipe=fancy: choose from auto, quick, full'):
        resolve_recipe(own_images, tmp_path)
    paper = common.get_config()
    paper.recipe = 'auto'
    with pytest.raises(UserError, match='is for parts by prototypes and a first stage with fit=True'):
        resolve_recipe(paper, tmp_path)
    drawn = folder.get_config()
    drawn.data.name = 'toy_birds'
    with pytest.raises(UserError, match='toy_birds has none: choose from quick, full'):
        resolve_recipe(drawn, tmp_path)
    assert not resolve_recipe(common.get_config(), tmp_path)[1]


def epochs(counts, total):
    stages = [stage(f's{i}', epochs=count, learning_rate=1, train={'backbone': 1}) for i, count in enumerate(counts)]
    return [each.epochs for each in scale_epochs(stages, total)]


def test_epochs_are_shared_out():
    assert epochs([100, 60, 10], 0) == [100, 60, 10]
    assert epochs([100, 60, 10], 170) == [100, 60, 10]
    assert epochs([100, 60, 10], 340) == [201, 120, 19]
    assert epochs([100, 60, 10], 3) == [1, 1, 1]
    assert epochs([1, 1], 5) in ([3, 2], [2, 3])
    assert epochs([2], 4) == [4]
    with pytest.raises(UserError, match='at least one epoch for each of the 3 stages'):
        epochs([100, 60, 10], 2)
    for total in range(3, 200):  # all are given out, and scaling again to the same number changes nothing
        shared = epochs([100, 60, 10], total)
        assert sum(shared) == total and min(shared) >= 1 and epochs(shared, total) == shared


def test_what_is_counted_in_epochs_changes_with_them():
    before = stage(
        's', epochs=10, learning_rate=1, train={'image_classifier': 1}, milestones=(6, 9), warmup_epochs=1, cache=4
    )
    (after,) = scale_epochs([before], 2)
    assert (after.epochs, after.milestones, after.warmup_epochs, after.cache) == (2, (1, 2), 0.2, 2)
    assert before.epochs == 10 and before.cache == 4


def test_unknown_flags_name_the_field(tmp_path):
    cases = {
        '--epochs=3': '--config.epochs',
        '--batch_size=3': '--config.data.batch_size',
        '--learning_rate=3': '--config.stages[0].learning_rate',
    }
    ended = run_each('ssanet_jax.main', {flag: ['--config=configs/folder.py', flag] for flag in cases}, tmp_path)
    for flag, field in cases.items():
        check_user_error(ended[flag], [f'no flag {flag.partition("=")[0]}: ', field])
