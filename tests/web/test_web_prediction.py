"""What the page says about a photo, and its table, against Python."""

import csv
import io

import numpy as np
import pytest
from node import run_with_node

from ssanet_jax.data.preprocessing import InputSettings
from ssanet_jax.evaluation.prediction import Evidence, Prediction
from ssanet_jax.prediction_files import csv_table, json_lines
from ssanet_jax.prediction_files.journal import Record

SCRIPT = """
import { toPrediction, evidenceShares, percent } from './prediction.js';
import { toCsv } from './table.js';
const predictions = given.photos.map(({ outputs, size }) => {
  const tensors = Object.fromEntries(Object.entries(outputs)
    .map(([name, { data, dims }]) => [name, { data: Float32Array.from(data), dims }]));
  return toPrediction(tensors, given.model, size);
});
return {
  predictions,
  table: toCsv(predictions.map((prediction, index) => ({ file: given.files[index], prediction }))),
  without: toCsv(predictions.map((prediction) => ({ file: 'a.jpg', prediction: { ...prediction, novelty: null } }))),
  percents: given.probabilities.map(percent),
  shares: given.terms.map(evidenceShares),
};
"""
NAMES = ('heron', 'a "small", gray gull', 'tern\nof two lines', 'owl', 'Zaunkönig', 'wren')
FILES = ['a.jpg', 'b, c.jpg', '"d".jpg', 'ü.png', 'e.jpg']
HEADS, PARTS, SIZE = 2, 3, (300, 400)
SETTINGS = InputSettings(image_size=48, resize=60, interpolation='bilinear', shrink=False, bit_depth=0)
PROBABILITIES = [0, 0.004, 0.006, 0.5, 0.989, 0.99, 0.996, 1]
TERMS = [[1, 3], [1, -5, 3], [-1, -2], [0, 2]]


def network_outputs(seed):
    rng = np.random.default_rng(seed)
    count = len(NAMES)
    outputs = {
        'image_logits': rng.normal(size=(1, count)),
        'bias_logits': rng.normal(size=(1, count)),
        'part_logits': rng.normal(size=(1, HEADS, PARTS, count)),
        'boxes': rng.uniform(0, 48, (1, PARTS, 4)),
        'present': rng.integers(0, 2, (1, PARTS)),
        'novelty': np.array([[0.2, 0.949, 0.95, 1.0, 0.5][seed]]),
        'angle': np.array([[0, 90, 0, 180, 270][seed]]),
    }
    logits = outputs['image_logits'] + outputs['bias_logits'] + outputs['part_logits'].sum((1, 2))
    exponentials = np.exp(logits * (2 if seed == 4 else 0.2))
    outputs |= {'logits': logits, 'probabilities': exponentials / exponentials.sum()}
    return {name: value.astype(np.float32) for name, value in outputs.items()}


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    photos = [
        {
            'outputs': {n: {'data': v.ravel().tolist(), 'dims': v.shape} for n, v in network_outputs(seed).items()},
            'size': {'height': SIZE[0], 'width': SIZE[1]},
        }
        for seed in range(len(FILES))
    ]
    model = {
        'class_names': NAMES,
        'part_names': ['object', *(f'part {number}' for number in range(2, PARTS + 1))],
        'preprocessing': vars(SETTINGS),
        'calibration': {'novelty_limit': 0.95, 'score_limit': 0.5},
    }
    given = {'photos': photos, 'model': model, 'files': FILES, 'probabilities': PROBABILITIES, 'terms': TERMS}
    return run_with_node(tmp_path_factory.mktemp('page'), SCRIPT, given)


def by_loops(seed):
    """The prediction as docs/export.md defines it, and the terms of the parts."""
    outputs = network_outputs(seed)
    ranking = sorted(range(len(NAMES)), key=lambda c: -outputs['logits'][0, c])
    best, second = ranking[:2]
    terms = []
    for part in range(PARTS):
        terms.append(0.0)
        for head in range(HEADS):
            terms[-1] += float(outputs['part_logits'][0, head, part, best])
            terms[-1] -= float(outputs['part_logits'][0, head, part, second])
    none = np.zeros((0, 4), np.float32)
    prediction = Prediction(
        label=NAMES[best],
        class_index=best,
        score=float(outputs['probabilities'][0, best]),
        probabilities=outputs['probabilities'][0],
        class_names=NAMES,
        boxes=none,
        scales=np.zeros(0),
        orientations=(),
        evidence=Evidence(NAMES[second], tuple(terms), 0.0, 0.0),
        path=FILES[seed],
        image=np.zeros((1, 1, 3), np.uint8),
        input_boxes=none,
        input_proposals=none,
        novelty=float(outputs['novelty'][0]),
        angle=float(outputs['angle'][0]),
    )
    return outputs, prediction


@pytest.mark.parametrize('seed', range(len(FILES)))
def test_prediction_follows_the_contract(found, seed):
    outputs, expected = by_loops(seed)
    prediction = found['predictions'][seed]
    assert prediction['label'] == expected.label
    assert prediction['runnerUp'] == expected.evidence.runner_up
    assert prediction['probability'] == pytest.approx(expected.score)
    assert prediction['unsure'] == expected.unsure
    assert [(one['name'], pytest.approx(one['probability'])) for one in prediction['top']] == expected.top(5)
    best, second = expected.class_index, NAMES.index(expected.evidence.runner_up)
    image = outputs['image_logits'][0]
    assert prediction['imageTerm'] == pytest.approx(image[best] - image[second], abs=1e-6)
    for part, given in enumerate(prediction['parts']):
        assert given['term'] == pytest.approx(expected.evidence.parts[part], abs=1e-5)
        assert given['name'] == ('object' if part == 0 else f'part {part + 1}')
        assert given['seen'] is bool(outputs['present'][0, part])
        y0, x0, y1, x1 = (outputs['boxes'][0, part].astype(float) + 6) / 60
        assert given['box'] == pytest.approx([300 * y0, 400 * x0, 300 * y1, 400 * x1])
    assert len(prediction['parts']) == PARTS


def test_cases_cover_both_reasons_to_doubt_and_none(found):
    reasons = {prediction['unsure'].partition(' ')[0] for prediction in found['predictions']}
    assert reasons == {'', 'may', 'could'}


def test_table_is_that_of_predict(found):
    file = io.StringIO()
    lines = [json_lines.to_line(by_loops(seed)[1], 5) for seed in range(len(FILES))]
    csv_table.write(file, [Record(name, line) for name, line in zip(FILES, lines)], 'network')
    expected, table = (list(csv.reader(io.StringIO(text))) for text in (file.getvalue(), found['table']))
    assert table[0] == expected[0]
    assert len(table) == 1 + len(FILES)
    for row, other in zip(table[1:], expected[1:], strict=True):
        for cell, wanted in zip(row, other, strict=True):
            assert cell == wanted or float(cell) == pytest.approx(float(wanted), abs=1e-6)


def test_table_lacks_the_columns_of_trust_without_held_out_images(found):
    header = found['without'].splitlines()[0].split(',')
    assert 'angle' in header and 'novelty' not in header and 'unsure' not in header


def test_nothing_is_certain(found):
    shown = [text.replace('\xa0', ' ') for text in found['percents']]
    assert shown == ['< 1 %', '< 1 %', '1 %', '50 %', '99 %', '99 %', '99 %', '99 %']


def test_shares_are_of_what_speaks_for_the_class(found):
    assert found['shares'] == [[0.25, 0.75], [0.25, None, 0.75], [None, None], [None, 1]]
