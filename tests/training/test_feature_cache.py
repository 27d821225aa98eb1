"""Descriptions kept on disk: training on them is training on the images, and no kill or full disk harms it."""

import dataclasses
import json
import shutil
import signal
import subprocess
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ROOT, train_command
from damages import DAMAGES
from flax import nnx
from rich.console import Console
from tiny_config import get_config

from ssanet_jax.data.pipeline import train_batches
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.models.groups import UPRIGHT, active_groups
from ssanet_jax.models.ssanet import merge_model, split_model
from ssanet_jax.runs.best_checkpoint import restore_network
from ssanet_jax.runs.checkpoints import Checkpoints, checkpoint_dir
from ssanet_jax.runs.compatibility import changed_settings
from ssanet_jax.runs.files import CONFIG_FILE, read_run
from ssanet_jax.runs.run import build_model, load_run
from ssanet_jax.runs.workdir import claim_workdir
from ssanet_jax.training import feature_cache
from ssanet_jax.training import step as steps
from ssanet_jax.training.context import StageContext
from ssanet_jax.training.settings import check_settings
from ssanet_jax.training.stages import check_stages, stage
from ssanet_jax.training.train import train

INDEX = 1  # of the stage that trains oriented pooling alone
QUIET = Console(quiet=True)


class Setting:
    """The second stage of the tiny run, on a network that was never trained."""

    def __init__(self, workdir, config):
        self.config, self.workdir = config, workdir
        self.dataset = load_dataset(config.data)
        self.model = build_model(config, len(self.dataset.class_names))
        self.active = active_groups(config.stages, INDEX)
        self.mesh = sharding.make_mesh(jax.devices()[:1])
        _, params, stats = split_model(self.model)
        self.params, self.stats = jax.tree.map(np.array, (params, stats))
        self.stage = config.stages[INDEX]
        claim_workdir(workdir, config, self.dataset.class_names, '')

    def state(self, step=0):
        return steps.TrainState(self.params, self.stats, (), np.int32(step))

    def cached(self, source=None, step=0):
        dataset = dataclasses.replace(self.dataset, train=source or self.dataset.train)
        context = StageContext(self.config, INDEX, self.model, dataset, self.workdir, self.mesh, QUIET)
        return feature_cache.cached_batches(context, self.state(step))

    def images(self, epochs):
        return list(train_batches(self.dataset.train, self.config.data, seed=INDEX, epochs=epochs))

    def extract_features(self, images):
        graph, _, _ = split_model(nnx.view(self.model, use_running_average=True))
        extract = lambda params, stats, images: merge_model(graph, params, stats).extract_features(
            images, active=self.active
        )
        return jax.jit(extract)(self.params, self.stats, images)


@pytest.fixture
def setting(tmp_path, tiny_config):
    """Three epochs on two views of each image."""
    tiny_config.stages[INDEX].update(cache=2, epochs=3)
    return Setting(tmp_path, tiny_config)


def by_place(batches, key):
    """One value after the other, over all batches."""
    return [value for batch in batches for value in np.asarray(batch[key])]


def test_each_image_comes_with_the_description_of_its_view(setting):
    """An independent list of views: what the plain pipeline gives in its first two epochs, by pass and image."""
    images, count = setting.images(epochs=3), len(setting.dataset.train)
    cached = list(setting.cached())
    assert by_place(cached, 'index') == by_place(images, 'index')
    assert by_place(cached, 'label') == by_place(images, 'label')
    views = {}
    for place, (index, image) in enumerate(zip(by_place(images, 'index'), by_place(images, 'image'), strict=True)):
        if place < 2 * count:
            views[place // count, int(index)] = image
    found = [batch['features'] for batch in cached]
    place = 0
    for features in found:
        wanted = [
            views[(p // count) % 2, int(index)]
            for p, index in enumerate(by_place(images, 'index'))
            if place <= p < place + len(features.image)
        ]
        place += len(wanted)
        chex.assert_trees_all_close(features, setting.extract_features(np.stack(wanted)), rtol=1e-4, atol=1e-4)
    assert place == 24 * 8
    # Different views are different, or it would not matter which of them comes.
    first, second = (views[v, 0] for v in (0, 1))
    assert np.any(first != second)


def test_a_resumed_stage_goes_on_in_the_same_order(setting):
    whole = list(setting.cached())
    chex.assert_trees_all_equal(list(setting.cached(step=9)), whole[9:])


class Counted:
    """A source that counts the examples read, and fails after `most` of them."""

    def __init__(self, source, most):
        self._source, self.most, self.read = source, most, 0
        self.labels = source.labels

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        self.read += 1
        if self.read > self.most:
            raise RuntimeError('pulled the plug')
        return self._source[index]


def test_an_interrupted_description_goes_on_where_it_was(setting, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(feature_cache, '_SYNC_BATCHES', 2)
    setting.config.data.update(num_workers=0, prefetch=0)
    with pytest.raises(RuntimeError, match='pulled the plug'):
        setting.cached(Counted(setting.dataset.train, 60))
    with (feature_cache.folder(setting.workdir, setting.stage.name) / 'features-0').open('ab') as file:
        file.write(b'\1' * 1000)  # what was written and not noted, when a process is killed
    again = Counted(setting.dataset.train, 1000)
    resumed = list(setting.cached(again))
    assert again.read <= 128 - 32  # of 16 batches at least four were there
    whole = Setting(tmp_path_factory.mktemp('whole'), setting.config)
    chex.assert_trees_all_equal(resumed, list(whole.cached()))
    # Whole now: nothing is read any more, not even for a run that starts again.
    assert list(setting.cached(Counted(setting.dataset.train, 0)))


def test_statistics_make_another_network(setting):
    list(setting.cached())
    setting.stats = jax.tree.map(lambda x: 1.1 * x, setting.stats)
    again = Counted(setting.dataset.train, 1000)
    list(setting.cached(again))
    assert again.read >= 2 * len(again)


def test_groups_that_train_may_have_moved(tmp_path, tiny_config):
    """Like a stage that trains scale mining on frozen parts and resumes from its own checkpoint."""
    tiny_config.stages[INDEX].update(cache=2, epochs=3)
    tiny_config.stages[INDEX].train = dict(scale_mining=0.1, image_classifier=1)
    check_stages(tiny_config.stages, tiny_config.optimizer)
    setting = Setting(tmp_path, tiny_config)
    first = list(setting.cached())
    setting.params = {**setting.params, 'scale_mining': jax.tree.map(lambda x: 1.1 * x, setting.params['scale_mining'])}
    chex.assert_trees_all_equal(list(setting.cached(Counted(setting.dataset.train, 0))), first)


@pytest.mark.parametrize('group', ['backbone', 'proposals', 'scale_mining'])
def test_another_network_describes_again(setting, group):
    """Like a run with the same settings whose previous stage was trained again."""
    before = list(setting.cached())
    setting.params = {**setting.params, group: jax.tree.map(lambda x: 1.1 * x, setting.params[group])}
    again = Counted(setting.dataset.train, 1000)
    after = list(setting.cached(again))
    assert again.read >= 2 * len(again)
    if group != 'scale_mining':  # which may choose the same scales
        told = 'scores' if group == 'proposals' else 'image'
        assert np.any(getattr(after[0]['features'], told) != getattr(before[0]['features'], told))


def test_images_that_are_turned_by_other_weights_are_described_again(tmp_path, tiny_config):
    tiny_config.model.upright = 4
    tiny_config.stages[0].train.upright = 1.0  # as if fitted
    tiny_config.stages[INDEX].update(cache=2, epochs=3)
    setting = Setting(tmp_path, tiny_config)
    before = list(setting.cached())
    setting.params = {**setting.params, UPRIGHT: jax.tree.map(lambda x: np.roll(x, 1, -1), setting.params[UPRIGHT])}
    again = Counted(setting.dataset.train, 1000)
    after = list(setting.cached(again))
    assert again.read >= 2 * len(again)
    turned, turned_before = (batches[0]['features'].image_orientation for batches in (after, before))
    np.testing.assert_array_equal(turned, (turned_before + 1) % 4)


@pytest.mark.parametrize('harm', ['settings', 'note', 'file'])
def test_what_was_described_for_another_run_is_described_again(setting, harm):
    expected = list(setting.cached())
    folder = feature_cache.folder(setting.workdir, setting.stage.name)
    if harm == 'settings':
        config = setting.workdir / CONFIG_FILE
        config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    elif harm == 'note':
        (folder / '0.json').write_text('{"made_')
    else:
        (folder / 'features-0').write_bytes(b'\0' * 100)
    again = Counted(setting.dataset.train, 1000)
    chex.assert_trees_all_equal(list(setting.cached(again)), expected)
    assert again.read >= 2 * len(again)


@pytest.fixture(scope='module')
def described(tmp_path_factory):
    """A setting whose features are on the disk, and its batches. Tests may damage files that are then written again."""
    config = get_config()
    config.stages[INDEX].update(cache=2, epochs=3)
    setting = Setting(tmp_path_factory.mktemp('described'), config)
    return setting, list(setting.cached())


@pytest.mark.parametrize('name', ['features-0', '0.json'])
@pytest.mark.parametrize('damage', ['flip', 'truncate', 'empty', 'missing', 'zeros', 'garbage', 'pipe'])
def test_damaged_features_are_computed_again(described, name, damage, caplog):
    """They would train the heads on noise, until the loss is no longer finite."""
    setting, expected = described
    folder = feature_cache.folder(setting.workdir, setting.stage.name)
    DAMAGES[damage](folder / name)
    again = Counted(setting.dataset.train, 1000)
    chex.assert_trees_all_equal(list(setting.cached(again)), expected)
    # A flipped bit in the note may turn it into that of another network, whose features are no damage.
    assert again.read >= 2 * len(again)
    if name == 'features-0':
        assert 'features-0 are damaged: they are computed again' in caplog.text


def test_what_processes_wrote_that_are_no_more_is_deleted(setting):
    setting.cached()
    folder = feature_cache.folder(setting.workdir, setting.stage.name)
    own = sorted(path.name for path in folder.iterdir())
    for name in ('features-1', '1.json', 'features-10'):
        (folder / name).write_bytes(b'kept by an earlier start')
    setting.cached()
    assert sorted(path.name for path in folder.iterdir()) == own == ['0.json', 'features-0']


def test_a_full_disk_is_one_line(setting, monkeypatch):
    usage = shutil.disk_usage(setting.workdir)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r'config.stages\[1\].cache keeps take 0\.\d GB.*lower cache'):
        setting.cached()


def test_the_step_costs_what_its_heads_cost(setting):
    """The compiler's count: without images, less than a tenth of the FLOPs are left."""
    optimizer, step = steps.make_train_step(
        setting.model, setting.stage, setting.active, setting.config, 8, setting.mesh
    )
    state = setting.state()._replace(opt=optimizer.init(jax.tree.map(jnp.array, setting.params)))
    flops = {}
    for seen, batches in (('image', setting.images(1)), ('features', setting.cached())):
        batch = next(iter(batches))
        batch = {key: batch[key] for key in ('label', seen)}
        flops[seen] = step.lower(state, batch).compile().cost_analysis()['flops']
    assert flops['features'] < 0.1 * flops['image']


def test_half_precision_stays_half(setting):
    setting.config.model.dtype = 'bfloat16'
    setting.model = build_model(setting.config, len(setting.dataset.class_names))
    (first, *_), images = setting.cached(), setting.images(1)[0]['image']
    described = jax.device_get(setting.extract_features(images))
    assert first['features'].aligned_maps.dtype == described.aligned_maps.dtype == jnp.bfloat16
    chex.assert_trees_all_equal(first['features'].boxes, described.boxes)
    difference = np.float32(first['features'].aligned_maps) - np.float32(described.aligned_maps)
    assert np.abs(difference).max() < 0.05 * np.abs(np.float32(described.aligned_maps)).max()


@pytest.mark.slow
def test_features_that_were_given_up_are_gone_before_the_disk_is_needed(tmp_path, tiny_config, monkeypatch):
    tiny_config.stages = tiny_config.stages[:1]
    tiny_config.stages[0].epochs = 1
    folder = feature_cache.folder(tmp_path, tiny_config.stages[0].name)
    folder.mkdir(parents=True)
    (folder / 'features-0').write_bytes(b'of a start with a cache')
    save, seen = Checkpoints.save, []

    def saves(self, *arguments):
        seen.append(folder.exists())
        save(self, *arguments)

    monkeypatch.setattr(Checkpoints, 'save', saves)
    train(tiny_config, tmp_path, QUIET)
    assert seen and not any(seen)


def test_whether_to_keep_any_may_be_thought_over_until_the_stage_begins(setting):
    names = setting.dataset.class_names
    checkpoints = Checkpoints(checkpoint_dir(setting.workdir, 'scale_mining'), writes=True)
    checkpoints.save(2, {'params': {'w': jnp.zeros(3)}})
    checkpoints.close()
    setting.config.stages[INDEX].cache = 0
    claim_workdir(setting.workdir, setting.config, names)
    assert read_run(setting.workdir)['config']['stages'][INDEX]['cache'] == 0
    setting.config.stages[0].cache = 1
    with pytest.raises(UserError, match=r'another stages\[0\].cache'):
        claim_workdir(setting.workdir, setting.config, names)


def test_a_run_from_before_there_was_a_cache_goes_on(setting):
    before = read_run(setting.workdir)['config']
    for fields in before['stages']:
        del fields['cache']
    del before['model']['remat']
    changed = changed_settings(before, setting.config)
    assert changed == [f'stages[{INDEX}].cache']  # 2, which it did not have
    setting.config.stages[INDEX].cache = 0
    assert not changed_settings(before, setting.config)


HEADS = {'oriented_pooling': 1}


@pytest.mark.parametrize(
    ('train', 'cache', 'named'),
    [
        ({'backbone': 1}, 1, 'trains backbone'),
        ({'proposals': 1, **HEADS}, 2, 'trains proposals'),
        ({'scale_mining': 1, **HEADS}, 1, 'trains scale_mining'),
        (HEADS, -1, 'cache=-1'),
        (HEADS, 2, 'cache=2: each of its 1 epochs reads one view'),
    ],
)
def test_a_stage_whose_features_change_keeps_none(tiny_config, train, cache, named):
    parts = stage('parts', epochs=1, learning_rate=1, train={'proposals': 1})
    table = [parts, stage('heads', epochs=1, learning_rate=1, train=train, cache=cache)]
    with pytest.raises(UserError, match=named):
        check_stages(table, tiny_config.optimizer)
    check_stages([parts, stage('heads', epochs=1, learning_rate=1, train=train)], tiny_config.optimizer)


def test_a_feature_pyramid_keeps_none(tiny_config):
    tiny_config.stages[INDEX].cache = 1
    check_settings(tiny_config)
    tiny_config.model.part_head = 'fpn'
    with pytest.raises(UserError, match='part_head=fpn reads whole feature maps'):
        check_settings(tiny_config)


@pytest.mark.slow
def test_a_run_killed_while_it_keeps_descriptions_ends_as_one_on_images(tmp_path, tiny_config):
    """With as many views as epochs every image is seen as it would be, but for the few that fill the last batch."""
    tiny_config.stages[0].epochs = 1
    tiny_config.stages[INDEX].epochs = 2
    tiny_config.stages = tiny_config.stages[: INDEX + 1]
    train(tiny_config, tmp_path / 'images', QUIET)

    workdir = tmp_path / 'killed'
    epochs = ('--config.stages[0].epochs=1', '--config.stages[1].epochs=2')
    command = [*train_command(workdir), *epochs, '--config.stages[1].cache=2']
    folder = feature_cache.folder(workdir, 'oriented_pooling')
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not folder.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert not folder.exists()

    ends, losses = [], []
    for path in (tmp_path / 'images', workdir):
        _, params, stats = split_model(load_run(path).model)
        ends.append(restore_network(path, 'oriented_pooling', params, stats, groups=params)[0])
        history = [json.loads(line) for line in (path / 'oriented_pooling' / 'history.jsonl').read_text().splitlines()]
        losses.append([line['values']['loss/total'] for line in history if 'loss/total' in line['values']])
    for group in ('oriented_pooling', 'image_classifier'):
        chex.assert_trees_all_close(ends[1][group], ends[0][group], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
