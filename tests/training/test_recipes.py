"""The recipe for one's own images: the choice, what it sets, and what a run keeps of it."""

import json
import re
import threading
from functools import partial
from types import SimpleNamespace

import jax
import pytest
from commands import check_user_error, run_each
from data_samples import write_image

from configs import common, folder
from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer
from ssanet_jax.pretrained import hub
from ssanet_jax.runs.compatibility import changed_settings
from ssanet_jax.runs.initial_weights import resolve_pretrained
from ssanet_jax.training import recipes
from ssanet_jax.training.recipes import Facts, choose_recipe, find_facts, resolve_recipe
from ssanet_jax.training.stages import scale_epochs, stage


@pytest.mark.parametrize(
    ('facts', 'name', 'words'),
    [
        (Facts(192, 8, 2), 'quick', '192 training images, 24 per class, fewer than 40, on 2 CPU cores'),
        (Facts(192, 8, 1), 'quick', 'on 1 CPU core'),
        (Facts(192, 8, 16), 'full', 'little work for 16 CPU cores'),
        (Facts(192, 8, 2, 'a GPU'), 'dinov2', '192 training images, 24 per class, on a GPU'),
        (Facts(192, 8, 2, 'a GPU', 'no network'), 'full', 'on a GPU; not dinov2: no network'),
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
    monkeypatch.setattr(recipes, 'find_facts', lambda *_: Facts(192, 8, 2))
    before = own_images.to_json()
    config, lines = resolve_recipe(own_images, tmp_path)
    assert values(config) == ('quick', 2, 224, 2)
    assert own_images.to_json() == before
    assert len(lines) == 2 and lines[0].startswith('recipe quick: ') and '--config.recipe=full' in lines[1]
    # Each is a variant, too.
    for name, variant in (('quick', 'fast'), ('full', 'prototypes'), ('dinov2', 'dinov2')):
        own_images.recipe = name
        config, lines = resolve_recipe(own_images, tmp_path)
        expected = folder.get_config(variant)
        expected.data.dir, expected.recipe = own_images.data.dir, name
        assert json.loads(config.to_json()) == json.loads(expected.to_json()) and not lines


def test_fields_of_the_command_line_win(own_images, monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, 'find_facts', lambda *_: Facts(192, 8, 2))
    own_images.model.num_parts = 3
    assert values(resolve_recipe(own_images, tmp_path, ['model.num_parts'])[0]) == ('quick', 3, 224, 2)
    assert values(resolve_recipe(own_images, tmp_path, ['stages', 'model.num_parts_'])[0]) == ('quick', 2, 224, 2)
    own_images.stages[0].epochs = 7
    assert values(resolve_recipe(own_images, tmp_path, ['stages[0].epochs'])[0]) == ('quick', 2, 224, 7)


@pytest.mark.parametrize('recorded', ['quick', 'full', 'dinov2', None])
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
    monkeypatch.setattr(recipes, 'find_facts', lambda *_: pytest.fail('chosen again'))
    own_images.recipe = 'auto'
    config, lines = resolve_recipe(own_images, tmp_path)
    assert not changed_settings(content, config) and not lines
    own_images.recipe = 'full' if recorded == 'quick' else 'quick'
    assert 'model.num_parts' in changed_settings(content, resolve_recipe(own_images, tmp_path)[0])


COMMIT = 'c' * 40
DINOV2 = 'timm/vit_small_patch14_reg4_dinov2.lvd142m'


@pytest.fixture
def gpu(monkeypatch):
    """JAX finds a GPU, whose programs nobody runs here; DINOv2 has one narrow block, to be built at once."""
    tiny = partial(VisionTransformer, 8, 1, 2, patch_size=14)
    monkeypatch.setitem(BACKBONES, 'vit_small_patch14_reg4_dinov2', tiny)
    monkeypatch.setattr(jax, 'devices', lambda *_: [SimpleNamespace(platform='gpu')])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the hub's cache, empty, and no network; `add` puts the weights of DINOv2 there."""
    constants = pytest.importorskip('huggingface_hub.constants', reason='needs huggingface_hub')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)

    def add():
        folder = tmp_path / 'hub' / f'models--{DINOV2.replace("/", "--")}'
        (folder / 'refs').mkdir(parents=True)
        (folder / 'refs/main').write_text(COMMIT)
        (folder / 'snapshots' / COMMIT).mkdir(parents=True)
        (folder / 'snapshots' / COMMIT / hub.WEIGHTS_FILE).write_bytes(b'weights')

    return SimpleNamespace(add=add)


def test_a_gpu_takes_dinov2_where_its_weights_are_in_the_cache(own_images, gpu, cache, tmp_path, capsys):
    cache.add()
    config, (line, other) = resolve_recipe(own_images, tmp_path / 'run')
    assert line.startswith('recipe dinov2: DINOv2 ViT-S/14') and line.endswith(
        '(24 training images, 8 per class, on a GPU)'
    )
    assert '--config.recipe=full' in other and not capsys.readouterr().err
    assert config.recipe == 'dinov2' and config.model.backbone == 'vit_small_patch14_reg4_dinov2'
    assert resolve_pretrained(config).model.pretrained == f'hub:{DINOV2}'


def test_a_gpu_without_the_weights_says_why_it_does_not_take_dinov2(own_images, gpu, cache, tmp_path):
    config, (line, other) = resolve_recipe(own_images, tmp_path / 'run')
    assert config.recipe == 'full' and config.model.backbone == 'efficientnet_lite0' and not config.model.class_token
    assert f'on a GPU; not dinov2: hub:{DINOV2} is not in the cache and cannot be downloaded (' in line
    assert '\n' not in line and '--config.recipe=quick' in other


def test_a_cpu_asks_no_hub(own_images, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, 'obtain_weights', lambda *_: pytest.fail('asked'))
    assert 'dinov2' not in ' '.join(resolve_recipe(own_images, tmp_path / 'run')[1])


@pytest.mark.parametrize(
    'field, value, words',
    [
        ('model.backbone', 'resnet_tiny', r'on a GPU; not dinov2: config\.model\.backbone is set'),
        ('data.image_size', 320, 'not dinov2: .*the image size must be a multiple of 14 .*got 320'),
        ('model.crop_size', 224, 'not dinov2: .*crop_size must be a multiple of 98, .*got 224'),
    ],
)
def test_fields_that_speak_against_dinov2(own_images, gpu, cache, tmp_path, field, value, words):
    cache.add()
    section, name = field.split('.')
    own_images[section][name] = value
    config, (line, _) = resolve_recipe(own_images, tmp_path / 'run', [field])
    assert config.recipe == 'full' and config[section][name] == value
    assert re.search(words, line), line


def test_another_size_of_dinov2_is_one_field(own_images, tmp_path):
    own_images.recipe, own_images.model.backbone = 'dinov2', 'vit_base_patch14_reg4_dinov2'
    config, _ = resolve_recipe(own_images, tmp_path, ['model.backbone'])
    assert resolve_pretrained(config).model.pretrained == 'hub:timm/vit_base_patch14_reg4_dinov2.lvd142m'


@pytest.mark.parametrize('answer', ['silence', 'an error', 'a file'])
def test_a_network_that_does_not_answer_is_not_waited_for(cache, monkeypatch, capsys, answer):
    """The hub's functions stand in for its server: it says nothing, it fails, or the download breaks off."""
    library = pytest.importorskip('huggingface_hub', reason='needs huggingface_hub')
    released, answered = threading.Event(), threading.Event()

    def ask(url, timeout):
        assert DINOV2 in url and timeout < 60
        if answer == 'silence':
            released.wait(120)
            answered.set()
        elif answer == 'an error':
            raise OSError('Network is unreachable for url https://hub')

    monkeypatch.setattr(library, 'get_hf_file_metadata', ask)
    if answer == 'silence':
        monkeypatch.setattr(hub, '_ANSWER_SECONDS', 0.2)
    problem = hub.obtain_weights(DINOV2)
    assert not answered.is_set()
    released.set()
    said = {
        'silence': '(no answer within 0 seconds)',
        'an error': '(Network is unreachable)',
        'a file': 'is not in the cache',
    }
    assert said[answer] in problem and ';' not in problem and DINOV2 in problem
    assert ('downloading' in capsys.readouterr().err) == (answer == 'a file')


def test_what_a_recipe_does_not_suit(own_images, tmp_path):
    own_images.recipe = 'fancy'
    with pytest.raises(UserError, match=r'config\.recipe=fancy: choose from auto, quick, full, dinov2'):
        resolve_recipe(own_images, tmp_path)
    paper = common.get_config()
    paper.recipe = 'auto'
    with pytest.raises(UserError, match='is for parts by prototypes and a first stage with fit=True'):
        resolve_recipe(paper, tmp_path)
    drawn = folder.get_config()
    drawn.data.name = 'toy_birds'
    with pytest.raises(UserError, match='toy_birds has none: choose from quick, full, dinov2'):
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
