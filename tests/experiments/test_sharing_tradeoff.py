"""One set of weights in every sharing mode, compared with networks that are built in that mode."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssanet_jax.data.registry import load_dataset
from ssanet_jax.distributed.sharding import make_mesh
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import evaluate
from ssanet_jax.experiments import sharing_tradeoff
from ssanet_jax.experiments.sharing_tradeoff import (
    ModeRow,
    SharingMode,
    candidate_modes,
    measure_sharing,
    trained_mode,
    with_mode,
)
from ssanet_jax.models.groups import GROUPS
from ssanet_jax.models.ssanet import SSANet, split_model
from ssanet_jax.runs.run import Run, build_model

CLASSES, SIZE = 16, 64
CROPS, WIDE_CROPS = 56, 64  # of 'none' and of 'part'
BUILT = dict(backbone='resnet_tiny', num_parts=2, num_proposals=3, num_scales=3)  # as tests/tiny_config.py
ALL = {
    'image, dilated': dict(sharing='image', output_stride=4),
    'image': dict(sharing='image'),
    'part, dilated': dict(sharing='part', output_stride=4, crop_size=WIDE_CROPS),
    'part': dict(sharing='part', crop_size=WIDE_CROPS),
    'none': dict(sharing='none', crop_size=CROPS),
}


def built(**changes):
    return SSANet(CLASSES, SIZE, **BUILT, **changes, rngs=nnx.Rngs(0))


def a_run(config, model, active=GROUPS):
    names = tuple(f'class {i}' for i in range(CLASSES))
    return Run(config, names, model, frozenset(active), 'joint', True)


@pytest.fixture
def config(tiny_config):
    tiny_config.model.crop_size = WIDE_CROPS
    tiny_config.data.interpolation = 'bilinear'
    return tiny_config


class Relabelled:
    """The images of a source, under other labels."""

    def __init__(self, source, labels):
        self.source, self.labels = source, np.asarray(labels)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[index] | {'label': self.labels[index]}


def answers(networks, state, images):
    """Every head's classes of all images, `[30]`: each network with those weights, as it is when trained."""
    found = {}
    for name, network in networks.items():
        network.eval()
        graph, _ = nnx.split(network)
        outputs = jax.jit(lambda state, x, graph=graph: nnx.merge(graph, state)(x))(state, images)
        heads = dict(
            image_classifier=outputs.image_logits,
            scale_mining=outputs.scale_logits,
            oriented_pooling=outputs.oriented_logits,
            sum=outputs.scale_logits + outputs.oriented_logits,
        )
        found[name] = {head: np.asarray(logits.argmax(-1)) for head, logits in heads.items()}
    return found


@pytest.mark.slow
def test_every_mode_predicts_as_a_network_built_in_it(config):
    trained = built(**ALL['image, dilated'], crop_size=WIDE_CROPS)
    trained.eval()
    config.model.output_stride = 4
    dataset = load_dataset(config.data)
    images = np.stack([dataset.test[i]['image'] for i in range(30)])
    # Random heads name one class for all images; their bias takes the mean answer away.
    outputs = jax.jit(lambda x: trained(x))(images)
    trained.scale_mining.bias.set_value(-outputs.scale_logits.mean(0))
    trained.oriented_pooling.weights.set_value(30 * trained.oriented_pooling.weights[...])
    trained.oriented_pooling.bias.set_value(-30 * outputs.oriented_logits.mean(0))
    trained.image_classifier.bias.set_value(-outputs.image_logits.mean(0))

    networks = {name: built(**changes) for name, changes in ALL.items()}
    expected = answers(networks, nnx.split(trained)[1], images)
    truth = expected['part']['sum']
    agree = [np.mean(expected[name]['sum'] == truth) for name in ALL]
    assert len(set(truth.tolist())) > 3 and sorted(agree)[-2] < 1, 'the modes must differ for the test to be meaningful'

    dataset = dataclasses.replace(dataset, test=Relabelled(dataset.test, truth))
    result = measure_sharing(a_run(config, trained), dataset, rounds=1).to_json()
    assert result['examples'] == 30 and result['unreadable'] == []
    assert [row['way'] for row in result['ways']] == list(ALL)
    own = expected['image, dilated']['sum'] == truth
    for row in result['ways']:
        heads = {head: np.mean(classes == truth) for head, classes in expected[row['way']].items()}
        assert row['accuracy'] == pytest.approx(heads.pop('sum'))
        assert row['heads'] == pytest.approx(heads)
        right = expected[row['way']]['sum'] == truth
        assert (row['won'], row['lost']) == (np.sum(right & ~own), np.sum(~right & own))
        assert row['difference'] == pytest.approx(100 * (right.mean() - own.mean()))
        assert row['trained'] == (row['way'] == 'image, dilated')
        assert row['crop_size'] == (None if row['sharing'] == 'image' else ALL[row['way']]['crop_size'])
        assert row['milliseconds'].keys() == {'1', '8'} and min(row['milliseconds'].values()) > 0
    assert result['ways'][3]['accuracy'] == 1
    bare = result['global_pooling']
    assert bare['accuracy'] == pytest.approx(np.mean(expected['image']['image_classifier'] == truth))
    assert bare['milliseconds'].keys() == {'1', '8'}


@pytest.mark.slow
def test_an_unsupported_mode_is_a_row_with_a_problem(config):
    config.model.part_head = 'fpn'
    config.data.eval_batch_size = 1
    model = build_model(config, CLASSES, pretrained=False)
    run = a_run(config, model, {'backbone', 'proposals', 'part_classifier', 'part_head'})
    result = measure_sharing(run, load_dataset(config.data), rounds=1).to_json()
    rows = {row['way']: row for row in result['ways']}
    assert rows['image']['trained'] and 'problem' not in rows['image']
    assert list(rows['image']['heads']) == ['image_classifier', 'part_head']
    for way in ('part', 'none'):
        assert rows[way]['problem'] == "part_head='fpn' reads the maps of the image: it needs sharing='image'"
        assert 'accuracy' not in rows[way] and not rows[way]['trained']
    assert result['global_pooling']['accuracy'] is None, 'its classifier was not trained'


@pytest.mark.slow
def test_a_run_that_sees_the_whole_image_smaller_is_measured_with_its_own_crops(config):
    config.model.update(proposal='prototypes', global_size=32, sharing='none', crop_size=2 * CROPS)
    config.data.test_count = 3
    model = build_model(config, CLASSES, pretrained=False)
    dataset = load_dataset(config.data)
    images = np.stack([dataset.test[i]['image'] for i in range(3)])
    model.eval()
    graph, state = nnx.split(model)
    outputs = jax.jit(lambda state, x: nnx.merge(graph, state)(x, active=GROUPS[:5]))(state, images)
    dataset = dataclasses.replace(dataset, test=Relabelled(dataset.test, outputs.scale_logits.argmax(-1)))
    result = measure_sharing(a_run(config, model, GROUPS[:5]), dataset, rounds=1, batch_size=1).to_json()
    image, part, none = result['ways']
    assert image['problem'].startswith('global_size is for ') and image['crop_size'] is None
    assert none['trained'] and none['accuracy'] == 1
    assert (none['crop_size'], part['crop_size']) == (2 * CROPS, 2 * CROPS)
    pooled = np.mean(outputs.image_logits.argmax(-1) == outputs.scale_logits.argmax(-1))
    assert result['global_pooling']['accuracy'] == pytest.approx(pooled)
    assert result['global_pooling']['milliseconds']['1'] < none['milliseconds']['1'], 'it has no crops'


@pytest.mark.parametrize('trained, crops', [('none', 2 * CROPS), ('image', CROPS), ('part', CROPS)])
def test_only_another_mode_changes_the_size_of_crops(config, trained, crops):
    config.model.update(sharing=trained, crop_size=2 * CROPS)
    model = nnx.eval_shape(lambda: built(sharing=trained, crop_size=2 * CROPS))
    other = with_mode(a_run(config, model), SharingMode('none'))
    assert other.model.crop_size == other.config.model.crop_size == crops


@pytest.fixture
def crowded(config, monkeypatch):
    """A run, and a device on which the ways named in the list have room for one image at a time."""
    full, network = [], sharing_tradeoff.predict_function

    def with_limit(run, mesh):
        predict = network(run, mesh)

        def limited(images):
            if run.model.sharing in full and len(images) > 1:
                raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
            return predict(images)

        return limited

    monkeypatch.setattr(sharing_tradeoff, 'predict_function', with_limit)
    config.data.test_count = 5
    model = build_model(config, CLASSES, pretrained=False)
    return a_run(config, model, GROUPS[:4]), load_dataset(config.data), full


@pytest.mark.slow
def test_a_mode_without_memory_does_not_affect_other_rows(crowded):
    run, dataset, full = crowded
    full.append('none')
    result = measure_sharing(run, dataset, rounds=1, batch_size=4).to_json()
    rows = {row['way']: row for row in result['ways']}
    assert rows['none']['problem'] == '4 images at once do not fit into memory: lower --batch'
    assert 'accuracy' not in rows['none']
    for way in ('image', 'part'):
        assert rows[way]['milliseconds'].keys() == {'1', '4'}
    assert result['examples'] == 5
    full[:] = ['image']  # its own, which all others are held against
    with pytest.raises(UserError, match='^4 images at once do not fit into memory: lower --batch$'):
        measure_sharing(run, dataset, rounds=1, batch_size=4)


def test_modes_of_dilated_and_undilated_runs(config):
    abstract = nnx.eval_shape(lambda: built(sharing='part', crop_size=WIDE_CROPS))
    run = a_run(config, abstract)
    assert candidate_modes(run) == [SharingMode('image'), SharingMode('part'), SharingMode('none')]
    assert trained_mode(run) == SharingMode('part')
    dilated = a_run(config, nnx.eval_shape(lambda: built(output_stride=4)))
    assert [str(way) for way in candidate_modes(dilated)] == list(ALL)


def test_the_fields_of_sharing_json_keep_their_names():
    """Files of released versions and the scripts that read them have these names."""
    row = ModeRow(SharingMode('image', dilated=True), None, True, None, 'too large').to_json()
    assert row == {
        'way': 'image, dilated',
        'sharing': 'image',
        'dilate': True,
        'crop_size': None,
        'trained': True,
        'problem': 'too large',
    }


def test_weights_are_shared_and_the_run_is_not_changed(config):
    config.model.output_stride = 4
    model = build_model(config, CLASSES, pretrained=False)
    run = a_run(config, model)
    for name, changes in ALL.items():
        other = with_mode(run, SharingMode(changes['sharing'], 'output_stride' in changes))
        assert other.model.sharing == changes['sharing'], name
        assert other.model.backbone.stride == (4 if 'output_stride' in changes else 8)
        if changes['sharing'] != 'image':
            assert other.model.crop_size == changes['crop_size']
        jax.tree.map(np.testing.assert_array_equal, split_model(model)[1:], split_model(other.model)[1:])
    assert (run.config.model.sharing, run.config.model.output_stride) == ('image', 4)
    assert run.config.model.crop_size == WIDE_CROPS


def test_wrong_crop_sizes_are_reported(config):
    config.model.crop_size = 60
    run = a_run(config, build_model(config, CLASSES, pretrained=False))
    with pytest.raises(UserError, match='crop_size must be a multiple of 8'):
        with_mode(run, SharingMode('part'))
    assert with_mode(run, SharingMode('none')).model.crop_size == CROPS


def test_a_run_without_parts_is_rejected(config):
    run = a_run(config, None, {'backbone', 'image_classifier'})
    with pytest.raises(UserError, match='has no parts'):
        measure_sharing(run, None)


def test_predictions_are_counted_per_image():
    """By hand: four images, the last one unreadable, and one of padding."""
    answer = lambda *classes: lambda images: Answer(jnp.eye(3)[jnp.array(classes)])
    predict = {'own': answer(0, 1, 2, 0, 0), 'other': answer(1, 1, 1, 0, 0)}
    batch = {
        'image': np.zeros((5, 1)),
        'label': np.array([0, 1, 1, 0, 0]),
        'index': np.array([0, 1, 2, 3, 0]),
        'mask': np.array([True, True, True, True, False]),
        'skipped': np.array([-1, -1, -1, 3, -1]),
    }
    found = evaluate(sharing_tradeoff._make_classify(predict, 'own'), {}, {}, [batch], make_mesh(jax.devices()[:1]))
    own, other = (sharing_tradeoff._mode_result(name, found, {}) for name in ('own', 'other'))
    assert found.examples == 4
    assert found.accuracy == own.accuracy == 2 / 4  # the first two
    assert other.accuracy == 2 / 4  # the second and the third
    assert (other.won, other.lost) == (1, 1)
    assert (own.won, own.lost) == (0, 0)


class Answer:
    """Outputs of a network with only logits."""

    def __init__(self, logits):
        self.image_logits = self.logits = logits
        self.scale_logits = self.oriented_logits = self.head_logits = None
