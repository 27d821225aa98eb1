"""Key points: their places in the input, excluded images, controls, and arrays of each image."""

import jax.numpy as jnp
import numpy as np
import pytest
from data_samples import make_config

from ssanet_jax.data import toy_birds
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.preprocessing import preprocess_for_evaluation, to_input_pixels, to_source_pixels
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.keypoint_layout import keypoint_layout
from ssanet_jax.evaluation.keypoints import (
    CENTER,
    RANDOM_BOXES,
    RANDOM_POINTS,
    annotated_batches,
    annotations_in_input_pixels,
    check_keypoints,
    control_parts,
    evaluate_keypoints,
)
from ssanet_jax.evaluation.part_statistics import Annotations, LocatedParts, part_statistics

NAMES = ('head', 'left wing', 'right wing')
LAYOUT = keypoint_layout(NAMES, {'front': ('head', 'left wing')})
DATA = make_config(resize=40, image_size=32, eval_batch_size=4, num_workers=2)


class Birds:
    """Random images of many shapes with three key points; some may be broken."""

    def __init__(self, count=10, broken=(), hidden=()):
        random = np.random.default_rng(2)
        self.labels = np.zeros(count, np.int32)
        self.broken = broken
        self.examples = []
        for i in range(count):
            height, width = random.integers(30, 90, 2)
            points = np.column_stack([random.random((3, 2)) * (height, width), random.random(3) < 0.7])
            points[0, 2] = 1
            points[:, 2] *= i not in hidden
            low, high = np.sort(random.random((2, 2)), 0) * (height, width)
            self.examples.append(
                {
                    'image': random.integers(0, 256, (height, width, 3), np.uint8),
                    'label': np.int32(0),
                    'file': f'{i}',
                    'keypoints': points.astype(np.float32),
                    'box': np.array([*low, *high], np.float32),
                }
            )
        self.reads = np.zeros(count, int)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        self.reads[index] += 1
        if index in self.broken:
            raise UnreadableImage(f'{index} cannot be read')
        return dict(self.examples[index])


def dataset(source):
    return Dataset('birds', ('bird',), source, source, keypoint_names=NAMES)


def test_places_by_hand():
    """100 x 200 squeezed to 40 x 40, of which the middle 32 x 32 is the input."""
    example = {
        'image': np.zeros((100, 200, 3), np.uint8),
        'keypoints': np.array([[50, 100, 1], [5, 100, 1], [10, 180, 1], [60, 40, 0]], np.float32),
        'box': np.array([0, 50, 100, 150], np.float32),
    }
    keypoints, box = annotations_in_input_pixels(example, DATA)
    np.testing.assert_allclose(keypoints, [[16, 16, 1], [-2, 16, 0], [0, 32, 1], [20, 4, 0]], atol=1e-5)
    np.testing.assert_allclose(box, [-4, 6, 36, 26], atol=1e-5)
    assert example['keypoints'][1, 2] == 1, 'the example is not modified'


def test_to_input_pixels_is_the_reverse_and_follows_the_image():
    boxes = np.random.default_rng(0).random((5, 4)) * 32
    np.testing.assert_allclose(to_input_pixels(to_source_pixels(boxes, (70, 51), DATA), (70, 51), DATA), boxes)
    image = np.zeros((120, 80, 3), np.uint8)
    image[66:72, 30:34] = 255  # center (69, 32)
    bright = preprocess_for_evaluation(image, DATA)[..., 0].astype(float)
    center = [(bright.sum(1 - axis) @ (np.arange(32) + 0.5)) / bright.sum() for axis in (0, 1)]
    np.testing.assert_allclose(to_input_pixels(np.array([69.0, 32.0]), (120, 80), DATA), center, atol=0.1)


def test_batches_carry_the_annotations_of_their_images():
    source = Birds(10, broken=(5,))
    batches = list(annotated_batches(dataset(source), DATA))
    assert [len(batch['box']) for batch in batches] == [4, 4, 4]
    keypoints, boxes, images = (np.concatenate([b[name] for b in batches]) for name in ('keypoints', 'box', 'image'))
    assert keypoints.shape == (12, 3, 3) and keypoints.dtype == boxes.dtype == np.float32
    for i, example in enumerate(source.examples):
        if i == 5:
            continue
        expected = annotations_in_input_pixels(example, DATA)
        np.testing.assert_array_equal(keypoints[i], expected[0])
        np.testing.assert_array_equal(boxes[i], expected[1])
        np.testing.assert_array_equal(images[i], preprocess_for_evaluation(example['image'], DATA))
    assert not keypoints[[5, 10, 11]].any() and not boxes[[5, 10, 11]].any()
    np.testing.assert_array_equal(source.reads, 1)


def boxes_around(points, size=2.0):
    return jnp.concatenate([points - size, points + size], -1)


def evaluate(locate, source):
    return evaluate_keypoints(locate, annotated_batches(dataset(source), DATA), sharding.make_mesh(), LAYOUT)


SPOTS = jnp.array([[8.0, 8.0], [20.0, 24.0]])


def test_excluded_images():
    """One image cannot be read, two show no key point; the last batch is half empty."""
    source = Birds(10, broken=(5,), hidden=(2, 8))
    seen = []

    def locate(images):
        seen.append(len(images))
        boxes = jnp.tile(boxes_around(SPOTS), (len(images), 1, 1))
        return {'second': LocatedParts(boxes + 1), 'first': LocatedParts(boxes)}

    result = evaluate(locate, source)
    assert seen == [4, 4, 4]
    assert (result.images, result.without_keypoints, result.unreadable) == (7, 2, [5])
    assert list(result.boxes) == ['second', 'first', CENTER, RANDOM_POINTS, RANDOM_BOXES], 'in their order'
    assert result.controls == [CENTER, RANDOM_POINTS, RANDOM_BOXES]
    used = [i for i in range(10) if i not in (2, 5, 8)]
    keypoints, objects = (
        np.stack(column) for column in zip(*(annotations_in_input_pixels(source.examples[i], DATA) for i in used))
    )
    annotations = Annotations(keypoints, objects, 32)
    boxes = np.tile(np.asarray(boxes_around(SPOTS)), (7, 1, 1))
    assert (keypoints[..., 2] > 0).any(1).all()
    expected = {'first': boxes, 'second': boxes + 1, CENTER: np.tile([0, 0, 32, 32], (7, 1, 1))}
    expected |= {name: parts.boxes for name, parts in control_parts(np.array(used), objects, 2, 32).items()}
    for name, value in expected.items():
        assert result.boxes[name] == part_statistics(LocatedParts(value), annotations, LAYOUT)

    # What is kept of each image agrees with the means.
    arrays = result.per_image
    assert arrays['index'].tolist() == used
    for name in expected:
        distance, front = arrays[f'{name}/distance'], arrays[f'{name}/front']
        assert distance.shape == front.shape == expected[name].shape[:2] and distance.dtype == np.float32
        assert distance.mean() == pytest.approx(result.boxes[name].distance)
        shown = (keypoints[:, :2, 2] > 0).any(1)
        np.testing.assert_array_equal(np.isinf(front), np.broadcast_to(~shown[:, None], front.shape))
        near = (front <= 0.2 * arrays['diagonal'][:, None])[shown]
        assert near.mean(0).tolist() == pytest.approx([shares[-1] for shares in result.boxes[name].pck])


def test_presence_and_assignment_of_all_batches():
    """The second part is present in even images; a map assigns every key point to part 1."""
    source = Birds(10, broken=(5,))
    count = iter(range(3))

    def locate(images):
        index = 4 * next(count) + np.arange(4)
        present = np.stack([np.ones(4, bool), index % 2 == 0], -1)
        boxes = np.tile(np.asarray(boxes_around(SPOTS)), (4, 1, 1))
        boxes[~present] = np.nan
        return {'parts': LocatedParts(boxes, jnp.asarray(present), np.ones((4, 3, 3), int))}

    result = evaluate(locate, source)
    parts, index = result.boxes['parts'], result.per_image['index']
    assert parts.present == pytest.approx([1, np.mean(index % 2 == 0)])
    assert parts.nmi == 0 and parts.ari == 0, 'one part has no information'
    distance = result.per_image['parts/distance']
    np.testing.assert_array_equal(np.isnan(distance), np.stack([np.zeros(len(index), bool), index % 2 == 1], -1))
    assert parts.distance == pytest.approx(np.nanmean(distance))
    assert parts.distance_of_part == pytest.approx(np.nanmean(distance, 0))


def test_controls():
    """Points lie in the visible part of the object, and boxes in the image; each image has its own, in any batch."""
    count = 500
    objects = np.tile(np.array([-8, 4, 12, 24], np.float32), (count, 1))
    parts = control_parts(np.arange(count), objects, 3, 32)
    assert list(parts) == [CENTER, RANDOM_POINTS, RANDOM_BOXES]
    points, boxes = parts[RANDOM_POINTS].boxes, parts[RANDOM_BOXES].boxes
    assert points.shape == boxes.shape == (count, 3, 4)
    np.testing.assert_array_equal(points[..., :2], points[..., 2:])
    np.testing.assert_allclose(points.reshape(-1, 4).min(0)[:2], [0, 4], atol=0.2)
    np.testing.assert_allclose(points.reshape(-1, 4).max(0)[:2], [12, 24], atol=0.2)
    np.testing.assert_allclose(points.reshape(-1, 4).mean(0)[:2], [6, 14], atol=1)
    assert (boxes >= 0).all() and (boxes <= 32).all() and (boxes[..., :2] <= boxes[..., 2:]).all()
    np.testing.assert_allclose(boxes.reshape(-1, 4).mean(0), 32 * np.array([1, 1, 2, 2]) / 3, atol=1)
    assert len(np.unique(boxes)) == boxes.size
    some = control_parts(np.array([7, 3]), objects[:2], 3, 32)
    np.testing.assert_array_equal(some[RANDOM_POINTS].boxes, points[[7, 3]])
    np.testing.assert_array_equal(some[RANDOM_BOXES].boxes, boxes[[7, 3]])
    assert control_parts(np.zeros(0, int), objects[:0], 3, 32)[RANDOM_POINTS].boxes.shape == (0, 3, 4)


def test_parts_on_the_key_points_of_drawn_birds():
    """A network that knows the key points is at distance 0, inside the bird and fully consistent."""
    config = make_config(
        name='toy_birds', train_count=16, test_count=18, size=64, distractors=0, seed=0, resize=40, image_size=40
    )
    birds = toy_birds.load(config)
    check_keypoints(birds)
    places = iter([birds.test[i]['keypoints'][:, :2] * 40 / 64 for i in range(18)])

    def locate(images):
        points = jnp.stack([jnp.asarray(next(places, np.zeros((4, 2)))) for _ in images])
        return {'parts': LocatedParts(boxes_around(points))}

    layout = keypoint_layout(birds.keypoint_names, birds.keypoint_groups)
    result = evaluate_keypoints(locate, annotated_batches(birds, config), sharding.make_mesh(), layout)
    parts = result.boxes['parts']
    assert result.images == 18 and parts.distance == pytest.approx(0, abs=1e-4) and parts.inside == 1
    np.testing.assert_array_equal(parts.nearest, np.eye(4))
    assert parts.consistency == 1 and parts.consistency_shuffled == pytest.approx(0.25)
    assert parts.nmi == parts.ari == parts.nmi_unmerged == parts.ari_unmerged == pytest.approx(1)
    assert np.diag(parts.pck).tolist() == [1, 1, 1, 1] and parts.best_part[:4] == [0, 1, 2, 3]
    assert layout.targets == ('beak', 'crown', 'wing', 'tail', 'head')


def test_sets_that_cannot_be_measured():
    source = Birds(3, hidden=(0, 1, 2))
    with pytest.raises(UserError, match='flowers has no key points'):
        check_keypoints(Dataset('flowers', ('rose',), source, source))
    boxes = lambda images: jnp.zeros((len(images), 2, 4))
    with pytest.raises(UserError, match='no test image has a visible key point'):
        evaluate(lambda images: {'parts': LocatedParts(boxes(images))}, source)
    with pytest.raises(UserError, match='no part is present in any test image'):
        evaluate(lambda images: {'parts': LocatedParts(boxes(images), jnp.zeros((4, 2), bool))}, Birds(3))
