"""Figure 5: the aligned maps against public functions, and the similarity of parts on maps of known geometry."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.aligned_maps import AlignedMaps, AlignedParts
from ssanet_jax.models.groups import GROUPS
from ssanet_jax.models.oriented_pooling import oriented_features
from ssanet_jax.models.regions import resample
from ssanet_jax.models.ssanet import merge_model, split_model
from ssanet_jax.report import part_similarity
from ssanet_jax.report.part_similarity import CHOSEN, FIXED, MAP, OTHER_MAP, compare_parts, cosine_statistics
from ssanet_jax.runs.run import Run, build_model

QUIET = Console(file=io.StringIO())


@pytest.fixture
def run(tiny_config):
    tiny_config.data.interpolation = 'bilinear'
    model = build_model(tiny_config, 3, pretrained=False)
    return Run(tiny_config, ('wren', 'robin', 'owl'), model, frozenset(GROUPS), 'part_tuning', True)


def photos(count, side=64, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8))


def outputs_of(model, images):
    model.eval()
    graph, params, stats = split_model(model)
    return jax.jit(lambda images: merge_model(graph, params, stats)(images))(jnp.stack(images))


def test_the_maps_are_cut_from_the_map_of_the_image(run):
    model = run.model
    images = photos(3)
    outputs = outputs_of(model, images)
    graph, weights = nnx.split(model.backbone)
    normal = (jnp.stack(images) - jnp.array(model.backbone.mean)) / jnp.array(model.backbone.std)
    feature_map = jax.jit(lambda images: nnx.merge(graph, weights)(images))(normal)
    for active in (run.active, run.active - {'oriented_pooling'}):
        found = AlignedMaps(model, active, batch_size=4)(images)
        np.testing.assert_allclose(found.boxes, outputs.aligned_boxes, atol=1e-3)
        for image in range(3):
            cut = resample(
                feature_map[image], found.boxes[image], 7, model.backbone.stride, 2, model.backbone.center(64), True
            )
            np.testing.assert_allclose(found.maps[image], cut, atol=1e-4)
    assert np.ptp(found.maps) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    'settings',
    [dict(sharing='none', crop_size=56), dict(sharing='part', crop_size=64), dict(features='flat')],
    ids=str,
)
def test_the_maps_are_those_that_are_classified(tiny_config, settings):
    """However the regions are described."""
    tiny_config.model.update(settings)
    model = build_model(tiny_config, 3, pretrained=False)
    model.oriented_pooling.weights[...] = 100 * model.oriented_pooling.weights[...]
    images = photos(2)
    outputs = outputs_of(model, images)
    found = AlignedMaps(model, GROUPS, batch_size=2)(images)
    best = np.einsum('bkol,ln->bkon', found.pooled, model.oriented_pooling.weights[...]).max(2).sum(1)
    np.testing.assert_allclose(best + model.oriented_pooling.bias[...], outputs.oriented_logits, atol=1e-3)
    np.testing.assert_array_equal(found.orientation, outputs.orientation)
    pooling = model.oriented_pooling
    one = oriented_features(jnp.array(found.maps[1, 0]), pooling.patch, pooling.grid, pooling.orientation)
    np.testing.assert_allclose(found.pooled[1, 0], one, atol=1e-6)


def test_cosine_statistics_by_all_comparisons():
    random = np.random.default_rng(1)
    same, different = random.integers(0, 8, 30) / 8, random.integers(0, 6, 40) / 8  # with ties
    won = np.mean([1.0 if s > d else 0.5 if s == d else 0.0 for s in same for d in different])
    found = cosine_statistics(same, different)
    assert found.roc_auc == pytest.approx(won)
    assert (found.same_class, found.different_classes) == pytest.approx((same.mean(), different.mean()))


class Turned:
    """In place of the network: image i of a class has the class's maps, turned back by i quarters; OP finds that out.

    Images say by their first two pixels which class they are of and how they are turned.
    """

    def __init__(self, model, active, batch_size):
        # Orthogonal classes, so that different ones have nothing in common, and channels that tell places apart.
        self._bases = np.zeros((4, 2, 7, 7, 4), np.float32)
        for label in range(4):
            self._bases[label, ..., label] = np.random.default_rng(label).random((2, 7, 7)) ** 4
        self.batch_size = batch_size

    def __call__(self, images):
        assert 1 <= len(images) <= self.batch_size
        labels, turns = (np.array([int(image[0, place, 0]) for image in images]) for place in (0, 1))
        maps = np.stack([np.rot90(self._bases[label], -turn, (1, 2)) for label, turn in zip(labels, turns)])
        pool = lambda x: oriented_features(x, 3, 3, 'exact')
        pooled = np.asarray(jax.vmap(jax.vmap(pool))(jnp.array(maps)))
        boxes = np.tile(np.float32([[10, 10, 30, 30], [20, 20, 50, 70]]), (len(images), 1, 1))
        return AlignedParts(maps, pooled, np.tile(turns[:, None], (1, 2)), boxes)


class Birds:
    """Class and turn in the first pixels, as `Turned` reads them; the last class has one image."""

    def __init__(self, per_class=(4, 4, 6, 1), broken=()):
        self.labels = np.repeat(np.arange(len(per_class)), per_class).astype(np.int32)
        self.broken = broken

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        if index in self.broken:
            raise UnreadableImage(f'{index}')
        image = np.zeros((64, 64, 3), np.uint8)
        image[0, 0], image[0, 1] = self.labels[index], index % 4
        return {'image': image, 'label': self.labels[index], 'file': f'{index}'}


def of(source):
    return Dataset('birds', ('wren', 'robin', 'owl', 'tit'), source, source)


def test_turned_maps_are_alike_at_the_chosen_orientations(run, monkeypatch):
    monkeypatch.setattr(part_similarity, 'AlignedMaps', Turned)
    found = compare_parts(run, of(Birds(broken=(1,))), QUIET, run)
    # 3 readable images, then 4, then 4 of 6 at even distances.
    assert (found.same_class_pairs, found.different_class_pairs) == (3 + 6 + 6, 3 * 4 + 4 * 4)
    assert list(found.statistics) == list(found.cosines) == [FIXED, CHOSEN, MAP, OTHER_MAP]
    for name in found.statistics:
        assert found.statistics[name].different_classes == pytest.approx(0, abs=1e-6)
    assert found.statistics[CHOSEN].same_class == pytest.approx(1, abs=1e-5)
    assert found.statistics[FIXED].same_class < 0.95 and found.statistics[MAP].same_class < 0.8
    assert found.statistics[MAP] == found.statistics[OTHER_MAP]
    assert found.statistics[CHOSEN].roc_auc == 1
    # Which pairs have the same turn: none of {0, 2, 3}, none of {0, 1, 2, 3}, those of the third class by hand.
    third = [8, 9, 11, 13]
    equal = sum(a % 4 == b % 4 for i, a in enumerate(third) for b in third[:i])
    assert found.same_orientation[0] == pytest.approx(equal / 15)

    one, two = found.indices
    assert found.label == of(Birds()).test.labels[one] == of(Birds()).test.labels[two] and one != two
    assert found.orientation.tolist() == [one % 4, two % 4]
    maps = Turned(None, None, 4)([found.images[0], found.images[1]])
    np.testing.assert_allclose(found.maps, maps.maps[:, found.part].mean(-1).reshape(2, 49))
    np.testing.assert_allclose(
        found.pooled[0, 1],
        oriented_features(maps.maps[0, found.part], 3, 3, 'exact')[1].reshape(-1, 4).mean(-1),
        atol=1e-6,
    )
    whole = maps.maps[:, found.part].reshape(2, -1)
    cosine = whole[0] @ whole[1] / np.linalg.norm(whole[0]) / np.linalg.norm(whole[1])
    assert found.cosines[MAP] == pytest.approx(cosine, abs=1e-5)
    assert found.boxes.tolist() == maps.boxes[:, found.part].tolist()


def test_classes_are_taken_at_even_distances():
    labels = np.repeat([0, 1, 2, 3, 4, 9], [5, 1, 2, 3, 10, 4])
    groups = part_similarity._image_groups(labels, 3, 3)
    assert groups == [[0, 2, 4], [8, 9, 10], [21, 22, 24]]
    assert [len(group) for group in part_similarity._image_groups(labels, 50, 4)] == [4, 2, 3, 4, 4]


def test_a_network_from_end_to_end(run):
    source = Birds()
    source.__class__ = type(
        'Noise',
        (Birds,),
        {'__getitem__': lambda self, i: {'image': photos(1, 80, seed=i)[0], 'label': self.labels[i], 'file': f'{i}'}},
    )
    without = dataclasses.replace(run, active=run.active - {'oriented_pooling'})
    found = compare_parts(run, of(source), QUIET, without, num_classes=2, images_per_class=3)
    assert found.same_class_pairs == 6 and found.different_class_pairs == 9
    assert found.images.shape == (2, 64, 64, 3) and found.pooled.shape == (2, 4, 27) and found.maps.shape == (2, 49)
    # The same weights, which oriented pooling does not change on the way to its maps.
    assert found.cosines[OTHER_MAP] == pytest.approx(found.cosines[MAP], abs=1e-4)
    np.testing.assert_allclose(found.other_maps, found.maps, atol=1e-4)


def test_runs_that_cannot_be_compared(run):
    lacks = lambda *groups: dataclasses.replace(run, active=run.active - set(groups))
    with pytest.raises(UserError, match='part_tuning has no oriented pooling'):
        compare_parts(lacks('oriented_pooling'), of(Birds()), QUIET)
    with pytest.raises(UserError, match='different classes'):
        compare_parts(run, of(Birds()), QUIET, dataclasses.replace(run, class_names=('a', 'b', 'c')))
    with pytest.raises(UserError, match='must locate 2 parts'):
        compare_parts(run, of(Birds()), QUIET, lacks('proposals'))
    for per_class in ((1, 1, 1), (5,), (1,)):
        with pytest.raises(UserError, match='birds has too few test images'):
            compare_parts(run, of(Birds(per_class)), QUIET)
