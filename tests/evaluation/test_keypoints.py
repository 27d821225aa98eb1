"""Key points: distances by hand and by loops, the crop, excluded images, and the consistency by enumeration."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from data_samples import make_config

from ssanet_jax.data import toy_birds
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.transforms import preprocess_for_evaluation, to_input_pixels, to_source_pixels
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.keypoints import (
    annotated_batches,
    annotations_in_input_pixels,
    check_keypoints,
    evaluate_keypoints,
    part_consistency,
    part_statistics,
)

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
    return Dataset('birds', ('bird',), source, source, keypoint_names=('head', 'wing', 'tail'))


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


def random_scene(images=7, parts=3, points=4, seed=0):
    random = np.random.default_rng(seed)
    corners = np.sort(random.random((images, parts, 2, 2)) * 32, axis=2)
    keypoints = np.concatenate([random.random((images, points, 2)) * 32, random.random((images, points, 1)) < 0.6], 2)
    keypoints[:, 1, 2] = 1
    objects = np.sort(random.random((images, 2, 2)) * 32, axis=1).reshape(images, 4)
    return corners.reshape(images, parts, 4), keypoints, objects


def test_summary_by_loops():
    boxes, keypoints, objects = random_scene()
    images, parts, points = 7, 3, 4
    distances, shares, inside = np.zeros((images, parts)), np.zeros((images, parts)), 0
    nearest = np.zeros((parts, points))
    for i in range(images):
        for k in range(parts):
            y, x = (boxes[i, k, 0] + boxes[i, k, 2]) / 2, (boxes[i, k, 1] + boxes[i, k, 3]) / 2
            best = None
            for p in range(points):
                if keypoints[i, p, 2]:
                    distance = ((y - keypoints[i, p, 0]) ** 2 + (x - keypoints[i, p, 1]) ** 2) ** 0.5
                    if best is None or distance < best[0]:
                        best = distance, p
            y0, x0, y1, x1 = objects[i]
            distances[i, k] = best[0]
            shares[i, k] = best[0] / ((y1 - y0) ** 2 + (x1 - x0) ** 2) ** 0.5
            nearest[k, best[1]] += 1 / images
            inside += y0 <= y <= y1 and x0 <= x <= x1
    result = part_statistics(boxes, keypoints, objects)
    assert result.distance == pytest.approx(distances.mean())
    assert result.distance_of_part == pytest.approx(distances.mean(0).tolist())
    assert result.distance_share == pytest.approx(shares.mean())
    assert result.inside == pytest.approx(inside / (images * parts)) and 0 < result.inside < 1
    np.testing.assert_allclose(result.nearest, nearest)


def test_summary_by_hand():
    """One image: a part on the hidden key point belongs to the visible one 3-4-5 pixels away."""
    boxes = np.array([[[8, 8, 12, 12], [20, 20, 30, 30]]], float)
    keypoints = np.array([[[10, 10, 0], [13, 14, 1], [25, 25, 1]]], float)
    result = part_statistics(boxes, keypoints, np.array([[0, 0, 12, 16]], float))
    assert result.distance_of_part == pytest.approx([5, 0]) and result.distance == pytest.approx(2.5)
    assert result.distance_share == pytest.approx(2.5 / 20) and result.inside == pytest.approx(0.5)
    assert result.nearest == [[0, 1, 0], [0, 0, 1]]
    nan = np.where(keypoints[..., 2:] > 0, keypoints, [np.nan, np.nan, 0])  # hidden: position is arbitrary
    assert part_statistics(boxes, nan, np.array([[0, 0, 12, 16]], float)) == result


def agreement(nearest):
    """By loops over pairs of images."""
    pairs = list(itertools.permutations(range(len(nearest)), 2))
    return np.mean([nearest[i][k] == nearest[j][k] for i, j in pairs for k in range(len(nearest[0]))])


@pytest.mark.parametrize('images, parts, points', [(3, 2, 3), (4, 2, 2), (3, 3, 4), (2, 4, 3)])
def test_consistency_by_enumeration(images, parts, points):
    """Shuffled: the mean over every order of the parts in every image."""
    nearest = np.random.default_rng(images).integers(points, size=(images, parts))
    consistency, shuffled = part_consistency(nearest, points)
    assert consistency == pytest.approx(agreement(nearest))
    orders = itertools.product(*(list(itertools.permutations(row)) for row in nearest.tolist()))
    assert shuffled == pytest.approx(np.mean([agreement(order) for order in orders]))


def test_consistency_of_meaningful_parts_and_of_coinciding_parts():
    always = np.tile([0, 1, 2, 3], (50, 1))
    assert part_consistency(always, 4) == pytest.approx((1, 0.25))
    mixed = np.random.default_rng(0).permuted(np.tile([0, 1, 2, 3], (2000, 1)), axis=1)
    assert part_consistency(mixed, 4)[0] == pytest.approx(0.25, abs=0.01)
    assert part_consistency(mixed, 4)[1] == pytest.approx(0.25)
    assert part_consistency(np.full((9, 4), 2), 4) == pytest.approx((1, 1))
    assert part_consistency(always[:1], 4) == (0, 0)


def boxes_around(points, size=2.0):
    return jnp.concatenate([points - size, points + size], -1)


def test_excluded_images():
    """One image cannot be read, two show no key point; the last batch is half empty."""
    source = Birds(10, broken=(5,), hidden=(2, 8))
    same_spots = jnp.array([[8.0, 8.0], [20.0, 24.0]])
    seen = []

    def locate(images):
        seen.append(len(images))
        boxes = jnp.tile(boxes_around(same_spots), (len(images), 1, 1))
        return {'second': boxes + 1, 'first': boxes}

    result = evaluate_keypoints(locate, annotated_batches(dataset(source), DATA), sharding.make_mesh())
    assert seen == [4, 4, 4]
    assert (result.images, result.without_keypoints, result.unreadable) == (7, 2, [5])
    assert list(result.boxes) == ['second', 'first'], 'in their order'
    kept = [annotations_in_input_pixels(source.examples[i], DATA) for i in range(10) if i not in (2, 5, 8)]
    keypoints, objects = (np.stack(column) for column in zip(*kept))
    boxes = np.tile(np.asarray(boxes_around(same_spots)), (7, 1, 1))
    assert (keypoints[..., 2] > 0).any(1).all()
    assert result.boxes['first'] == part_statistics(boxes, keypoints, objects)
    assert result.boxes['second'] == part_statistics(boxes + 1, keypoints, objects)


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
        return {'parts': boxes_around(points)}

    result = evaluate_keypoints(locate, annotated_batches(birds, config), sharding.make_mesh())
    parts = result.boxes['parts']
    assert result.images == 18 and parts.distance == pytest.approx(0, abs=1e-4) and parts.inside == 1
    np.testing.assert_array_equal(parts.nearest, np.eye(4))
    assert parts.consistency == 1 and parts.consistency_shuffled == pytest.approx(0.25)
    assert birds.keypoint_names == ('beak', 'crown', 'wing', 'tail')


def test_sets_that_cannot_be_measured():
    source = Birds(3, hidden=(0, 1, 2))
    with pytest.raises(UserError, match='flowers has no key points'):
        check_keypoints(Dataset('flowers', ('rose',), source, source))
    locate = lambda images: {'parts': jnp.zeros((len(images), 2, 4))}
    with pytest.raises(UserError, match='no test image has a visible key point'):
        evaluate_keypoints(locate, annotated_batches(dataset(source), DATA), sharding.make_mesh())
