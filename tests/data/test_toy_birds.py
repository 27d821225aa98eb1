"""toy_birds: determinism and labels; classes differ in their small parts only."""

import collections
import itertools
import pickle

import ml_collections
import numpy as np
import pytest

from ssanet_jax.data.toy_birds import CLASS_NAMES, ToyBirds, draw_bird, load, part_forms
from ssanet_jax.data.toy_drawing import KEYPOINT_NAMES, draw_forms

RADIUS = 0.3  # of a part around its key point, in longer sides of the bird's box


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)


def test_element_shapes_and_types():
    for size in (64, 128):
        source = ToyBirds(3, 'train', size=size)
        assert len(source) == 3
        element = source[np.int64(2)]
        assert element['image'].shape == (size, size, 3) and element['image'].dtype == np.uint8
        assert element['label'].shape == () and element['label'].dtype == np.int32
        assert element['keypoints'].shape == (len(KEYPOINT_NAMES), 3) and element['keypoints'].dtype == np.float32
        assert element['box'].shape == (4,) and element['box'].dtype == np.float32
        assert element['file'] == 'toy_birds/train/00002'


def test_same_pictures_in_any_order_count_and_copy():
    forwards = list(ToyBirds(40, 'train', seed=3))
    assert len(forwards) == 40
    other = pickle.loads(pickle.dumps(ToyBirds(1000, 'train', seed=3)))
    np.random.seed(5)  # noqa: NPY002, the global generator must not matter
    for index in reversed(range(40)):
        assert same(forwards[index], other[index])
    again = other[7]
    again['label'] = again.pop('image')  # the caller's own dict
    assert same(forwards[7], other[7])


def test_splits_and_seeds_differ():
    sources = ToyBirds(20, 'train'), ToyBirds(20, 'test'), ToyBirds(20, 'train', seed=1)
    pictures = {source[index]['image'].tobytes() for source in sources for index in range(20)}
    assert len(pictures) == 60
    orders = {tuple(int(source[index]['label']) for index in range(16)) for source in sources}
    assert len(orders) == 3


def test_labels_are_balanced_and_shuffled():
    source = ToyBirds(16 * 5, 'test', size=32)
    labels = [int(source[index]['label']) for index in range(len(source))]
    assert collections.Counter(labels) == dict.fromkeys(range(16), 5)
    assert labels[:16] != labels[16:32] and labels[:16] != sorted(labels[:16])


def test_two_classes_share_the_form_of_one_part_at_most():
    for left, right in itertools.combinations(range(16), 2):
        shared = 0
        for one, other in zip(part_forms(left), part_forms(right), strict=True):
            shared += one == other
        assert shared <= 1, (left, right)


def test_forms_are_balanced_over_classes():
    assert KEYPOINT_NAMES == ('beak', 'crown', 'wing', 'tail')
    columns = list(zip(*map(part_forms, range(16)), strict=True))
    assert len(columns) == 4
    for column in columns:
        assert collections.Counter(column) == dict.fromkeys(range(4), 4)


def test_class_names_tell_beak_and_crown():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 16
    for name, (beak, crown, *_) in zip(CLASS_NAMES, map(part_forms, range(16)), strict=True):
        assert ('sicklebill' in name, 'slate' in name) == (beak >= 2, beak % 2 == 1)
        assert ('crested' in name, 'blue' in name) == (crown >= 2, crown % 2 == 1)


def test_bird_and_keypoints_lie_inside():
    source = ToyBirds(100, 'train')
    for element in source:
        y0, x0, y1, x1 = element['box']
        assert 0 <= y0 < y1 <= 128 and 0 <= x0 < x1 <= 128
        assert 0.3 * 128 < max(y1 - y0, x1 - x0) < 0.9 * 128
        assert np.array_equal(element['keypoints'][:, 2], np.ones(4))
        y, x = element['keypoints'][:, 0], element['keypoints'][:, 1]
        assert np.all((y > y0) & (y < y1) & (x > x0) & (x < x1))


def distances(keypoints, size=128):
    """Distances [size, size, 4] of the center of each pixel from each key point."""
    centres = np.stack(np.mgrid[:size, :size], axis=-1) + 0.5
    return np.linalg.norm(centres[:, :, None] - keypoints[:, :2], axis=-1)


def extent(*boxes):
    return max(max(y1 - y0, x1 - x0) for y0, x0, y1, x1 in boxes)


@pytest.mark.parametrize('flip', [1, 2, 3], ids=('colour', 'shape', 'both'))
@pytest.mark.parametrize('part', range(4), ids=KEYPOINT_NAMES)
def test_the_form_of_one_part_changes_pixels_near_its_keypoint_only(part, flip):
    for seed in range(12):
        forms = list(part_forms(seed))
        image, keypoints, box = draw_forms(forms, np.random.default_rng(seed))
        forms[part] ^= flip
        other, other_keypoints, other_box = draw_forms(forms, np.random.default_rng(seed))
        assert np.array_equal(keypoints, other_keypoints)
        changed, length = np.any(image != other, axis=-1), extent(box, other_box)
        # Neither a detail of a few pixels, nor more than a part, nor elsewhere.
        assert 10 < changed.sum() < 0.15 * length**2
        assert distances(keypoints)[changed, part].max() < RADIUS * length + 1
        # Large differences, which a human sees.
        assert np.abs(image.astype(int) - other).max() > 40


def test_two_classes_differ_only_at_the_parts_whose_forms_differ():
    for seed, (left, right) in enumerate(itertools.combinations(range(0, 16, 3), 2)):
        image, keypoints, box = draw_bird(left, np.random.default_rng(seed))
        other, other_keypoints, other_box = draw_bird(right, np.random.default_rng(seed))
        assert np.array_equal(keypoints, other_keypoints)
        differ = np.array(part_forms(left)) != part_forms(right)
        changed = distances(keypoints)[np.any(image != other, axis=-1)][:, differ]
        nearby = changed < RADIUS * extent(box, other_box) + 1
        assert nearby.any(axis=1).all()  # no change elsewhere
        assert nearby.any(axis=0).all()  # some at each part


@pytest.mark.parametrize('size', [32, 104, 256])
def test_the_box_holds_everything_that_any_form_changes(size):
    for seed in range(12):
        drawn = [draw_forms([form] * 4, np.random.default_rng(seed), size) for form in range(4)]
        for (image, _, box), (other, _, other_box) in itertools.combinations(drawn, 2):
            rows, columns = np.nonzero(np.any(image != other, axis=-1))
            y0, x0 = np.minimum(box, other_box)[:2]
            y1, x1 = np.maximum(box, other_box)[2:]
            # A box ends anywhere within a pixel: each changed pixel must lie in it with some of its area.
            assert rows.min() + 1 > y0 and columns.min() + 1 > x0
            assert rows.max() < y1 and columns.max() < x1


def test_forms_leave_the_generator_in_the_same_state():
    states = []
    for forms in [*map(part_forms, range(16)), (0, 0, 0, 1), (3, 3, 3, 3)]:
        rng = np.random.default_rng(0)
        draw_forms(forms, rng, size=32)
        states.append(rng.bit_generator.state)
    assert all(state == states[0] for state in states)


def test_distractors_change_the_background_and_can_be_left_out():
    plain, *_ = draw_bird(0, np.random.default_rng(0), distractors=0)
    crowded, *_ = draw_bird(0, np.random.default_rng(0), distractors=8)
    assert plain.shape == crowded.shape and not np.array_equal(plain, crowded)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(split='val'), "train, test, not 'val'"),
        (dict(count=0), 'count'),
        (dict(count=2.5), 'count'),
        (dict(seed=-1), 'seed'),
        (dict(size=8), 'size to be an integer of at least 32, not 8'),
        (dict(distractors=-1), 'distractors'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ToyBirds(**{'count': 4, 'split': 'train', **arguments})


def test_bad_label_and_index():
    with pytest.raises(ValueError, match='0 to 15, not 16'):
        draw_bird(16, np.random.default_rng(0))
    for index in (4, -1):
        with pytest.raises(IndexError, match='4 images'):
            ToyBirds(4, 'train')[index]


def test_load_reads_the_config():
    config = ml_collections.ConfigDict(dict(train_count=5, test_count=3, size=48, distractors=2, seed=7))
    dataset = load(config)
    assert dataset.name == 'toy_birds' and dataset.class_names == CLASS_NAMES
    assert len(dataset.train) == 5 and len(dataset.test) == 3
    assert same(dataset.train[4], ToyBirds(5, 'train', seed=7, size=48, distractors=2)[4])
    assert dataset.test[0]['file'] == 'toy_birds/test/00000'
