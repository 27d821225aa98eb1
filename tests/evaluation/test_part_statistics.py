"""Statistics of parts: by hand, by loops over images, in mirrored images, and the consistency by enumeration."""

import dataclasses
import itertools

import numpy as np
import pytest
from test_clustering import ari_by_pairs, nmi_by_loops

from ssanet_jax.evaluation.keypoint_layout import keypoint_layout
from ssanet_jax.evaluation.part_statistics import (
    Annotations,
    LocatedParts,
    part_consistency,
    part_distances,
    part_statistics,
)

NAMES = ('beak', 'left eye', 'tail', 'right eye', 'crown')
MERGED = {'beak': 0, 'left eye': 1, 'tail': 2, 'right eye': 1, 'crown': 3}
HEAD = ('beak', 'left eye', 'right eye', 'crown')
LAYOUT = keypoint_layout(NAMES, {'head': HEAD})
SIZE = 32


def random_scene(images=9, parts=3, seed=0):
    random = np.random.default_rng(seed)
    corners = np.sort(random.random((images, parts, 2, 2)) * SIZE, axis=2)
    visible = random.random((images, len(NAMES), 1)) < 0.6
    visible[:, 2] = True
    visible[0, [0, 1, 3, 4]] = False  # an image without the head
    keypoints = np.concatenate([random.random((images, len(NAMES), 2)) * SIZE, visible], 2)
    objects = np.sort(random.random((images, 2, 2)) * SIZE, axis=1).reshape(images, 4)
    present = random.random((images, parts)) < 0.7
    present[1] = False  # an image without any part
    return corners.reshape(images, parts, 4), present, Annotations(keypoints, objects, SIZE)


def distance(first, second):
    return ((first[0] - second[0]) ** 2 + (first[1] - second[1]) ** 2) ** 0.5


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize('case', ['all present', 'some present', 'map'])
def test_by_loops(case):
    boxes, present, (keypoints, objects, _) = random_scene()
    images, num_parts = present.shape
    if case == 'all present':
        present[:] = True
    assignment = np.random.default_rng(1).integers(-1, num_parts, (images, 4, 8)) if case == 'map' else None

    distances, shares, inside = {}, {}, []
    nearest = {}
    targets = {name: [] for name in ('beak', 'eye', 'tail', 'crown', 'head')}  # the images that show it
    labels = []  # (part, annotated key point)
    for i in range(images):
        center = [((y0 + y1) / 2, (x0 + x1) / 2) for y0, x0, y1, x1 in boxes[i]]
        place = {name: point[:2] for name, point in zip(NAMES, keypoints[i]) if point[2]}
        y0, x0, y1, x1 = objects[i]
        diagonal = distance((y0, x0), (y1, x1))
        for k in range(num_parts):
            if present[i, k]:
                at = min(place, key=lambda name: distance(center[k], place[name]))
                nearest[i, k] = MERGED[at]
                distances[i, k] = distance(center[k], place[at])
                shares[i, k] = distances[i, k] / diagonal
                inside.append(y0 <= center[k][0] <= y1 and x0 <= center[k][1] <= x1)
        members = [place[name] for name in HEAD if name in place]
        ways = {name: [place[name]] for name in ('beak', 'tail', 'crown') if name in place}
        ways['eye'] = [place[name] for name in ('left eye', 'right eye') if name in place]
        ways['head'] = [(mean([y for y, _ in members]), mean([x for _, x in members]))] if members else []
        for name, places in ways.items():
            if places:
                near = [min(distance(center[k], at) for at in places) <= 0.2 * diagonal for k in range(num_parts)]
                targets[name].append([near[k] and present[i, k] for k in range(num_parts)])
        for name, (y, x) in place.items():
            candidates = [k for k in range(num_parts) if present[i, k]]
            part = min(candidates, key=lambda k: distance(center[k], (y, x)), default=num_parts)
            labels.append((part if assignment is None else assignment[i, int(y // 8), int(x // 4)], name))

    boxes = np.where(present[..., None], boxes, np.nan)  # the boxes of parts that are not present are arbitrary
    parts = LocatedParts(boxes, None if case == 'all present' else present, assignment)
    result = part_statistics(parts, Annotations(keypoints, objects, SIZE), LAYOUT)
    assert result.present == pytest.approx([mean(present[:, k].tolist()) for k in range(num_parts)])
    assert result.distance == pytest.approx(mean(list(distances.values())))
    assert result.distance_share == pytest.approx(mean(list(shares.values())))
    assert result.inside == pytest.approx(mean(inside)) and 0 < result.inside < 1
    for k in range(num_parts):
        of_part = [i for i in range(images) if present[i, k]]
        assert result.distance_of_part[k] == pytest.approx(mean([distances[i, k] for i in of_part]))
        for q in range(4):
            assert result.nearest[k][q] == pytest.approx(mean([nearest[i, k] == q for i in of_part]))
        for t, of_target in enumerate(targets.values()):
            assert result.pck[k][t] == pytest.approx(mean([near[k] for near in of_target]))
    assert 0 < np.mean(result.pck) < 1 and len(targets['head']) == images - 1
    assert result.best_part == np.argmax(result.pck, 0).tolist()
    agreed = np.array([[nearest.get((i, k), -1) for k in range(num_parts)] for i in range(images)])
    assert result.consistency == pytest.approx(agreement(agreed))
    merged = [part for part, _ in labels], [MERGED[name] for _, name in labels]
    assert (result.nmi, result.ari) == pytest.approx((nmi_by_loops(*merged), ari_by_pairs(*merged)))
    unmerged = [part for part, _ in labels], [name for _, name in labels]
    assert (result.nmi_unmerged, result.ari_unmerged) == pytest.approx(
        (nmi_by_loops(*unmerged), ari_by_pairs(*unmerged))
    )


def test_by_hand():
    """One image: a part on the hidden key point belongs to the visible one 3-4-5 pixels away."""
    boxes = np.array([[[8, 8, 12, 12], [20, 20, 30, 30]]], float)
    keypoints = np.array([[[10, 10, 0], [13, 14, 1], [25, 25, 1]]], float)
    layout = keypoint_layout(('crown', 'left eye', 'right eye'), {'head': ('crown', 'right eye'), 'top': ('crown',)})
    annotations = Annotations(keypoints, np.array([[0, 0, 12, 16]], float), SIZE)
    result = part_statistics(LocatedParts(boxes), annotations, layout)
    assert result.distance_of_part == pytest.approx([5, 0]) and result.distance == pytest.approx(2.5)
    assert result.distance_share == pytest.approx(2.5 / 20) and result.inside == pytest.approx(0.5)
    assert result.nearest == [[0, 1], [0, 1]] and result.present == [1, 1]
    # Near: within 4 pixels. The crown and the group of the crown alone are not shown.
    assert result.pck == [[None, 0, 0, None], [None, 1, 1, None]] and result.best_part == [None, 1, 1, None]
    # Two eyes, each with a part of its own.
    assert (result.nmi, result.ari) == (0, 0) and (result.nmi_unmerged, result.ari_unmerged) == (1, 1)
    nan = np.where(keypoints[..., 2:] > 0, keypoints, [np.nan, np.nan, 0])  # hidden: position is arbitrary
    assert part_statistics(LocatedParts(boxes), annotations._replace(keypoints=nan), layout) == result
    distances = part_distances(boxes, annotations, layout)
    np.testing.assert_allclose(distances.targets[0, 0], [np.inf, 5, 450**0.5, np.inf])


def test_a_part_on_the_threshold_and_parts_that_are_never_present():
    boxes = np.array([[[4, 4, 4, 4], [4, 4, 4, 4]]], float)
    annotations = Annotations(np.array([[[4, 8, 1]]], float), np.array([[0, 0, 12, 16]], float), SIZE)
    parts = LocatedParts(boxes, np.array([[True, False]]))
    result = part_statistics(parts, annotations, keypoint_layout(('beak',)))
    assert result.pck == [[1], [0]], '4 of 20 pixels; an absent part is never near'
    assert result.distance_of_part == [4, None] and result.nearest == [[1], [0]] and result.present == [1, 0]


def test_a_map_assigns_the_key_points_of_its_cells():
    """Cells of 8 x 16 pixels; a key point on the far edge of the image belongs to the last cell."""
    assignment = np.arange(8).reshape(1, 4, 2)
    points = np.array([[[7.9, 15.9, 1], [8, 0, 1], [31, 16, 1], [32, 32, 1], [np.nan, np.nan, 0]]])
    annotations = Annotations(points, np.array([[0, 0, 32, 32]]), SIZE)
    located = lambda cells: LocatedParts(np.zeros((1, 2, 4)), None, cells)
    result = part_statistics(located(assignment), annotations, LAYOUT)
    expected = [0, 2, 7, 7], [0, 1, 2, 1]
    assert (result.nmi, result.ari) == pytest.approx((nmi_by_loops(*expected), ari_by_pairs(*expected)))


@pytest.mark.parametrize('seed', range(3))
def test_a_mirrored_image_changes_nothing(seed):
    """In a mirrored image, left and right are exchanged as well."""
    boxes, present, annotations = random_scene(seed=seed)
    assignment = np.random.default_rng(seed).integers(0, 3, (len(boxes), 5, 7))
    mirror = lambda boxes: np.stack([boxes[..., 0], SIZE - boxes[..., 3], boxes[..., 2], SIZE - boxes[..., 1]], -1)
    keypoints = annotations.keypoints * (1, -1, 1) + (0, SIZE, 0)
    mirrored = Annotations(keypoints[:, [0, 3, 2, 1, 4]], mirror(annotations.objects), SIZE)
    for cells, mirrored_cells in ((None, None), (assignment, assignment[:, :, ::-1])):
        expected = part_statistics(LocatedParts(boxes, present, cells), annotations, LAYOUT)
        result = part_statistics(LocatedParts(mirror(boxes), present, mirrored_cells), mirrored, LAYOUT)
        for name, value in dataclasses.asdict(expected).items():
            if not name.endswith('_unmerged'):
                np.testing.assert_allclose(np.array(getattr(result, name), float), np.array(value, float), atol=1e-9)


def agreement(nearest):
    """By loops over pairs of images; -1 where a part is not present."""
    pairs = list(itertools.permutations(range(len(nearest)), 2))
    both = [
        (nearest[i][k], nearest[j][k])
        for i, j in pairs
        for k in range(len(nearest[0]))
        if nearest[i][k] >= 0 and nearest[j][k] >= 0
    ]
    return np.mean([first == second for first, second in both])


@pytest.mark.parametrize('images, parts, points', [(3, 2, 3), (4, 2, 2), (3, 3, 4), (2, 4, 3)])
def test_consistency_by_enumeration(images, parts, points):
    """Shuffled: the mean over every order of the parts in every image."""
    nearest = np.random.default_rng(images).integers(points, size=(images, parts))
    consistency, shuffled = part_consistency(nearest, points)
    assert consistency == pytest.approx(agreement(nearest))
    orders = itertools.product(*(list(itertools.permutations(row)) for row in nearest.tolist()))
    assert shuffled == pytest.approx(np.mean([agreement(order) for order in orders]))


def test_consistency_of_present_parts_by_enumeration():
    """Shuffled: the mean over every order of the present parts in every image."""
    nearest = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 0], [2, 1, 0]])
    present = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 0]], bool)
    consistency, shuffled = part_consistency(nearest, 3, present)
    seen = np.where(present, nearest, -1)
    assert consistency == pytest.approx(agreement(seen))
    expected = []
    for order in itertools.product(*(list(itertools.permutations(row[shown])) for row, shown in zip(nearest, present))):
        permuted = np.full(nearest.shape, -1)
        for row, shown, values in zip(permuted, present, order):
            row[shown] = values
        expected.append(agreement(permuted))
    assert shuffled == pytest.approx(np.mean(expected)) and len(expected) == 2 * 6 * 2
    assert part_consistency(nearest[:2], 3, np.eye(3, dtype=bool)[:2]) == (0, 0), 'no part is present twice'


def test_consistency_of_meaningful_parts_and_of_coinciding_parts():
    always = np.tile([0, 1, 2, 3], (50, 1))
    assert part_consistency(always, 4) == pytest.approx((1, 0.25))
    mixed = np.random.default_rng(0).permuted(np.tile([0, 1, 2, 3], (2000, 1)), axis=1)
    assert part_consistency(mixed, 4)[0] == pytest.approx(0.25, abs=0.01)
    assert part_consistency(mixed, 4)[1] == pytest.approx(0.25)
    assert part_consistency(np.full((9, 4), 2), 4) == pytest.approx((1, 1))
    assert part_consistency(always[:1], 4) == (0, 0)
