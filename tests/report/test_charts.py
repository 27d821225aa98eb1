"""Charts: their points, cells and bars lie where the axes say, and their text is that of the data."""

import itertools
import re
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from ssanet_jax.evaluation.fonts import text_size
from ssanet_jax.report.charts import confusion_chart, learning_curves_chart, part_similarity_chart
from ssanet_jax.report.part_similarity import CHOSEN, FIXED, MAP, CosineStatistics, PartSimilarity

HOSTILE = '<b>"co" & \'$x$\'</b>\udce9\x1b'
SHOWN = '<b>"co" & \'$x$\'</b>? '


def texts(root):
    """The labels, (text, (x, y)) each."""
    return [(element.text, place(element)) for element in root.iter('text')]


def place(element):
    if element.get('x'):
        return float(element.get('x')), float(element.get('y'))
    return tuple(
        float(value) for value in re.findall(r'translate\(([\d.e-]+) ([\d.e-]+)\)', element.get('transform'))[0]
    )


def with_title(root):
    """{tooltip: element}, without the title of the chart itself."""
    return {e.find('title').text: e for e in root.iter() if e is not root and e.find('title') is not None}


def numbers(path):
    """The corners of a path `[n, 2]`."""
    return np.array(re.findall(r'(-?[\d.]+(?:e-?\d+)?) (-?[\d.]+(?:e-?\d+)?)', path), float)


def test_points_lie_where_the_axes_say():
    lines = {'prediction': [[(1, 0.131), (2, 0.52)], [(3, 0.871), (5, 0.9)]], HOSTILE: [[(1, 0.4), (2, 0.44)]]}
    root = ElementTree.fromstring(learning_curves_chart(HOSTILE, lines, [('one', 2), (HOSTILE, 3)]))
    assert root.find('title').text == SHOWN and root.get('width') is None

    labels = texts(root)
    on_x = {text: at for text, at in labels if text.isdigit() and at[1] > 250}
    on_y = {text: at for text, at in labels if '.' in text}
    assert on_x.keys() == {'0', '1', '2', '3', '4', '5'} and len(on_y) >= 4
    to_x = np.polyfit([x for x, _ in on_x.values()], [float(tick) for tick in on_x], 1)
    to_y = np.polyfit([y for _, y in on_y.values()], [float(tick) for tick in on_y], 1)
    assert to_x[0] > 0 > to_y[0], 'time goes to the right, and more is higher'
    marks = with_title(root)
    offsets = []
    for name, expected in lines.items():
        for x, y in itertools.chain.from_iterable(expected):
            (use,) = marks[f'{name}, epoch {x}: {y:.4g}'.replace(HOSTILE, SHOWN)].iter('use')
            assert np.polyval(to_x, float(use.get('x'))) == pytest.approx(x, abs=0.02)
            offsets.append(np.polyval(to_y, float(use.get('y'))) - y)
    assert np.ptp(offsets) < 0.002 and abs(offsets[0]) < 0.02, 'labels lie a little below their ticks'
    curves = [e for e in root.iter('g') if e.get('class') == 'curve']
    assert [len(numbers(curve.find('path').get('d'))) for curve in curves] == [2, 2, 2]
    # One rule between the two stages, and the stages' names as tooltips of their numbers.
    (rule,) = [e for e in root.iter('g') if e.get('class') == 'stage']
    assert np.polyval(to_x, numbers(rule.find('path').get('d'))[:, 0]) == pytest.approx([2, 2], abs=0.02)
    assert next(marks['one'].iter('text')).text == '1' and next(marks[SHOWN].iter('text')).text == '2'


def test_a_chart_brings_nothing_that_affects_the_page():
    svg = learning_curves_chart('t', {'prediction': [[(1, 0.2)], [(2, 0.4)]]}, [('one', 1), ('two', 1)])
    root = ElementTree.fromstring(svg)
    assert {element.tag for element in root.iter()} <= {'svg', 'g', 'path', 'use', 'defs', 'text', 'title'}
    ids = {element.get('id') for element in root.iter() if element.get('id')}
    assert ids == {use.get('href')[1:] for use in root.iter('use')}, 'only markers, which other charts do not share'
    other = learning_curves_chart('other', {'prediction': [[(1, 0.2)]]}, [('one', 1)])
    assert not ids & {element.get('id') for element in ElementTree.fromstring(other).iter()}
    assert 'var(--c-prediction)' in svg and not re.search('#0000[0-9a-f]{2}', svg)


def test_one_stage_needs_no_number_and_epochs_are_whole():
    root = ElementTree.fromstring(learning_curves_chart('t', {'a': [[(1, 0.21), (3, 0.42)]]}, [('one', 3)]))
    assert [text for text, _ in texts(root) if '.' not in text] == ['0', '1', '2', '3', 'epoch']


@pytest.mark.parametrize(
    'low, high, label', [(0.801, 0.806, '0.802'), (0, 30, '10'), (0.1, 0.4, '0.1'), (0.5, 0.5, '0.5'), (0, 0, '0.0')]
)
def test_axes_hold_all_values_with_the_digits_they_need(low, high, label):
    root = ElementTree.fromstring(learning_curves_chart('t', {'a': [[(1, low), (2, high)]]}, [('one', 2)]))
    ticks = [tick for tick, (x, _) in texts(root) if x < 60 and re.fullmatch(r'[−\d.]+', tick)]
    assert any(tick.startswith(label) for tick in ticks) and len(ticks) >= 2
    values = [float(tick.replace('−', '-')) for tick in ticks]
    assert min(values) <= low and max(values) >= high


def cells(root):
    """The cells of a matrix: {(row, column): (opacity, tooltip)}."""
    found = {}
    for tooltip, element in with_title(root).items():
        path = element.find('path')
        corners = numbers(path.get('d'))
        opacity = re.search(r'opacity: ([\d.]+)', path.get('style'))
        found[tooltip] = corners.min(0), corners.max(0), float(opacity[1]) if opacity else 1.0
    low, high, _ = next(iter(found.values()))
    side = (high - low)[0]
    origin = np.min([low for low, _, _ in found.values()], 0)
    return {
        tuple(((low - origin) / side).round().astype(int)[::-1].tolist()): (opacity, tooltip)
        for tooltip, (low, _, opacity) in found.items()
    }


def test_names_in_any_script_are_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        root = ElementTree.fromstring(confusion_chart(np.eye(2, dtype=int), ['鷦鷯', 'жаворонок']))
    assert [text.text for text in root.iter('text')].count('鷦鷯') == 2


def test_the_confusion_matrix_has_a_cell_for_each_pair_that_occurs():
    matrix = np.array([[5, 0, 0], [2, 6, 1], [0, 0, 0]])
    root = ElementTree.fromstring(confusion_chart(matrix, ['wren', HOSTILE, 'owl']))
    found = cells(root)
    assert found.keys() == {(0, 0), (1, 0), (1, 1), (1, 2)}
    assert found[0, 0] == (1.0, '5 of 5 wren recognized')
    assert found[1, 0][1] == f'2 of 9 {SHOWN} predicted as wren'
    assert found[1, 1][0] > found[1, 0][0] > found[1, 2][0] > 0.1
    labels = [text.text for text in root.iter('text')]
    assert labels.count('wren') == labels.count('owl') == labels.count(SHOWN) == 2
    assert {'5', '2', '6', '1'} <= set(labels) and root.get('width') is None


@pytest.mark.parametrize('classes', [1, 16, 50, 200, 1000])
def test_names_of_many_classes_neither_touch_nor_leave_the_picture(classes):
    names = [f'{index:03}.a bird with quite a long name of its own' for index in range(classes)]
    root = ElementTree.fromstring(confusion_chart(np.eye(classes, dtype=int), names))
    assert len(with_title(root)) == classes
    left = [text for text in root.iter('text') if '…' in text.text and 'rotate(-90)' not in text.get('transform', '')]
    size = float(re.search(r'([\d.]+)px', left[0].get('style'))[1])
    places = np.array([place(text)[1] for text in left])
    assert (np.diff(places) >= size).all() and len(left) >= min(classes, 50)
    width, height = (float(value) for value in root.get('viewBox').split()[2:])
    assert places[-1] < height
    for text in left:
        assert text_size(text.text, round(size))[1] < place(text)[0] + size < width, 'the margin holds the name'


@pytest.mark.parametrize(
    'values',
    [
        [[4.0, 1, 0, 2], [1, 3, 2, 1]],  # as behind a ReLU
        [[-1.0, 3, -0.5, 0], [0.5, 1, -0.25, 1]],
        [[-4.0, -1, -2, -3], [-2, -1, -1, -1]],
        [[0.0, 0, 0, 0], [0, 0, 0, 0]],
    ],
)
def test_bars_start_at_zero_and_share_their_scale(values):
    """Maps may be negative, behind a backbone that does not end in a ReLU."""
    values = np.array(values)
    similarity = PartSimilarity(
        label=0,
        part=0,
        indices=(0, 1),
        images=np.zeros((2, 64, 64, 3), np.uint8),
        boxes=np.tile([10.0, 10, 30, 30], (2, 1)),
        orientation=np.array([0, 1]),
        pooled=np.tile(values[:, None], (1, 4, 1)),
        maps=values,
        other_maps=None,
        cosines=dict.fromkeys((FIXED, CHOSEN, MAP), 0.5),
        statistics=dict.fromkeys((FIXED, CHOSEN, MAP), CosineStatistics(0.5, 0.25, 0.75)),
        same_class_pairs=1,
        different_class_pairs=1,
        same_orientation=(0.5, 0.25),
    )
    root = ElementTree.fromstring(part_similarity_chart(similarity, HOSTILE))
    assert root.find('title').text == f'Part 1 of two images of {SHOWN}' and len(list(root.iter('image'))) == 2
    assert {'horizontal', 'vertical', '(b) 7 × 7 map'} <= {text for text, _ in texts(root)}
    assert not {element.tag for element in root.iter()} & {'style', 'metadata', 'clipPath'}
    paths = [numbers(e.find('path').get('d'))[:, 1] for e in root.iter('g') if e.get('class') == 'bar']
    bars = np.array([[path[0], path[0] - path[2]] for path in paths])  # (y of zero, height above it)
    assert len(bars) == 2 * (8 + 4 + 4)
    rows = np.split(bars, 2)
    scale = np.abs(bars[:, 1]).max() / max(np.abs(values).max(), 1)
    for row, expected in zip(rows, values):
        np.testing.assert_allclose(row[:, 1], np.tile(expected, 4) * scale, atol=0.01)
        assert np.ptp(row[:, 0]) < 0.01, 'all columns have the same range here, so that zero lies at one height'
    extents = [np.concatenate([row[:, 0], row[:, 0] - row[:, 1]]) for row in rows]
    assert extents[0].max() < extents[1].min(), 'rows do not overlap'
