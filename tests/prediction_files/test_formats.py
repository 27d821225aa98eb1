"""The output files, read back by readers that know nothing of this package."""

import csv
import json
import math
import os
from datetime import datetime

import pytest

from ssanet_jax.data.left_out import LeftOut
from ssanet_jax.errors import UserError
from ssanet_jax.prediction_files import camtrap
from ssanet_jax.prediction_files.formats import FORMATS, parse_formats, write_formats
from ssanet_jax.prediction_files.journal import Record
from ssanet_jax.prediction_files.left_out_file import write_left_out

NOT_UTF8 = os.fsdecode(b'birds/\xff.jpg')
ODD = 'birds/a "b", c\n;d.jpg'


def line(file, label='wren', boxes=((10.0, 20.0, 30.0, 50.0), (0.0, 0.0, 5.5, 4.0)), **fields):
    return {
        'file': file,
        'class': label,
        'probabilities': {label: 0.5, 'robin': 1e-6},
        'boxes': [list(box) for box in boxes],
        'scale': [1.0] * len(boxes),
        'orientation': [],
        **fields,
    }


RECORDS = [
    Record('birds/1.jpg', line('birds/1.jpg'), 100, 200),
    Record('birds/broken.jpg', reason='cannot read it'),
    Record(ODD, line(ODD, 'Person', boxes=[(-5.0, -3.0, 40.0, 90.0), (60.0, 60.0, 70.0, 70.0)]), 50, 60),
    Record(NOT_UTF8, line(NOT_UTF8, present=[True, False], angle=90.0), 100, 200),
    Record('birds/2.jpg', line('birds/2.jpg', unsure='may be none of the classes', novelty=0.97), 100, 200),
    Record('birds/2.jpg', line('birds/2.jpg', 'empty', boxes=[]), 100, 200),
]
READABLE = [record for record in RECORDS if record.line is not None]


@pytest.fixture
def out(tmp_path):
    write_formats(tmp_path, list(FORMATS.values()), RECORDS, 'ssanet_jax 1.0 (birds)')
    assert {path.name for path in tmp_path.iterdir()} == {chosen.file for chosen in FORMATS.values()}
    return tmp_path


def read_table(path):
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file, strict=True))


def shown(file):
    """The name of a file in a table, where bytes that are not UTF-8 are escaped."""
    return file.replace('\udcff', '\\udcff')


def check_coco(tree):
    """The rules of COCO's data format for detections."""
    assert tree.keys() == {'info', 'licenses', 'images', 'categories', 'annotations'}
    images, categories = ({entry['id']: entry for entry in tree[name]} for name in ('images', 'categories'))
    for name in ('images', 'categories', 'annotations'):
        ids = [entry['id'] for entry in tree[name]]
        assert len(set(ids)) == len(ids) and all(type(one) is int and one > 0 for one in ids)
    for image in tree['images']:
        assert type(image['width']) is type(image['height']) is int and min(image['width'], image['height']) > 0
        assert type(image['file_name']) is str
    for category in tree['categories']:
        assert category['name'] and category['supercategory'] == 'part'
    for annotation in tree['annotations']:
        image = images[annotation['image_id']]
        assert annotation['category_id'] in categories and annotation['iscrowd'] == 0
        x, y, width, height = annotation['bbox']
        assert 0 <= x < x + width <= image['width'] and 0 <= y < y + height <= image['height']
        assert math.isclose(annotation['area'], width * height, abs_tol=0.01)


def test_json_lines(out):
    assert [json.loads(text) for text in (out / 'predictions.jsonl').read_text().splitlines()] == [
        record.line for record in READABLE
    ]


def test_csv(out):
    rows = read_table(out / 'predictions.csv')
    assert list(rows[0]) == [
        'file',
        'class',
        'probability',
        'class_2',
        'probability_2',
        'angle',
        'unsure',
        'novelty',
    ]
    assert [row['file'] for row in rows] == [shown(record.file) for record in READABLE]
    for row, record in zip(rows, READABLE, strict=True):
        assert record.line is not None
        assert row['class'] == record.line['class'] and float(row['probability']) == 0.5
        assert row['class_2'] == 'robin' and float(row['probability_2']) == 1e-6
        for name in ('angle', 'unsure', 'novelty'):
            assert row[name] == str(record.line.get(name, ''))


def test_coco(out):
    tree = json.loads((out / 'predictions_coco.json').read_text())
    check_coco(tree)
    assert [image['file_name'] for image in tree['images']] == [record.file for record in READABLE]
    assert [(image['height'], image['width']) for image in tree['images']] == [
        (record.height, record.width) for record in READABLE
    ]
    assert [category['name'] for category in tree['categories']] == ['part 1', 'part 2']
    found = [(one['image_id'], one['category_id'], one['bbox']) for one in tree['annotations']]
    whole = [[20, 10, 30, 20], [0, 0, 4, 5.5]]
    assert found == [
        (1, 1, whole[0]),
        (1, 2, whole[1]),
        (2, 1, [0, 0, 60, 40]),  # clipped; the second part lies outside of the image
        (3, 1, whole[0]),  # the second part is not to be seen
        (4, 1, whole[0]),
        (4, 2, whole[1]),
    ]


def test_coco_of_a_network_without_parts(tmp_path):
    record = Record('a.jpg', line('a.jpg', boxes=()), 5, 5)
    for records in ([record], [], [Record('b.jpg', reason='damaged')]):
        write_formats(tmp_path, [FORMATS['coco']], records, 'network')
        tree = json.loads((tmp_path / 'predictions_coco.json').read_text())
        check_coco(tree)
        assert len(tree['images']) == sum(record.line is not None for record in records)
        assert tree['categories'] == tree['annotations'] == []


def test_camtrap(out):
    """By the constraints of the standard's table schema, but for the columns that only the user knows."""
    rows = read_table(out / 'observations.csv')
    for row in rows:
        assert tuple(row) == camtrap.COLUMNS and len(row) == 28
        assert row['observationLevel'] == 'media' and row['classificationMethod'] == 'machine'
        assert row['observationType'] in ('animal', 'human', 'vehicle', 'blank', 'unknown', 'unclassified')
        assert row['classifiedBy'] == 'ssanet_jax 1.0 (birds)'
        assert row['classificationProbability'] == '' or 0 <= float(row['classificationProbability']) <= 1
        known = {'observationID', 'mediaID', 'observationLevel', 'observationType', 'scientificName'}
        known |= {'classificationMethod', 'classifiedBy', 'classificationProbability', 'observationComments'}
        assert {name for name in row if row[name]} <= known
    assert len({row['observationID'] for row in rows}) == len(rows)  # though a file is there twice
    assert [row['mediaID'] for row in rows] == [shown(record.file) for record in READABLE]
    assert [(row['observationType'], row['scientificName']) for row in rows] == [
        ('animal', 'wren'),
        ('human', ''),
        ('animal', 'wren'),
        ('unknown', ''),
        ('blank', ''),
    ]
    comment = 'may be none of the classes; most probable class: wren (0.5)'
    assert [row['observationComments'] for row in rows] == ['', '', '', comment, '']


def test_files_are_the_same_when_they_are_written_again(out):
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write_formats(out, list(FORMATS.values()), RECORDS, 'ssanet_jax 1.0 (birds)')
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert str(datetime.now().year) not in before['observations.csv'].decode()


def test_left_out_files(tmp_path):
    write_left_out(tmp_path, iter([LeftOut(ODD, 'not an image'), LeftOut(NOT_UTF8, 'damaged, "truncated"')]))
    assert read_table(tmp_path / 'left_out.csv') == [
        {'file': ODD, 'reason': 'not an image'},
        {'file': shown(NOT_UTF8), 'reason': 'damaged, "truncated"'},
    ]
    write_left_out(tmp_path, iter([]))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
    (tmp_path / 'predictions.csv').write_text('earlier')
    (tmp_path / 'predictions.csv.partial').symlink_to('/dev/full')
    with pytest.raises(UserError, match='predictions.csv .No space left'):
        write_formats(tmp_path, [FORMATS['csv']], RECORDS, 'network')
    assert (tmp_path / 'predictions.csv').read_text() == 'earlier'


def test_names_of_formats():
    assert parse_formats(['jsonl']) == [FORMATS['jsonl']]
    assert parse_formats(['csv, coco', 'csv', 'camtrap']) == [FORMATS[name] for name in ('csv', 'coco', 'camtrap')]
    for value in ('xml', '', 'csv,', 'CSV'):
        with pytest.raises(UserError, match='choose from jsonl, csv, coco, camtrap'):
            parse_formats([value])
