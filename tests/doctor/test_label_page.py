"""`doctor --workdir` on a run whose training images have exchanged labels."""

import csv
import shutil

import numpy as np
import pytest
from commands import run_python
from rich.console import Console

from ssanet_jax.doctor.label_errors import COLUMNS, label_errors, write_label_errors
from ssanet_jax.errors import UserError
from ssanet_jax.runs.feature_index import INDEX_FILE, row_type, write_index
from ssanet_jax.runs.held_out import HELD_OUT_FILE, HeldOutPredictions, write_held_out
from ssanet_jax.runs.run import dataset_of, load_run
from ssanet_jax.training.stages import stage
from ssanet_jax.training.train import train


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A short run on drawn birds, with held-out predictions by which images 3 and 7 are labeled wrongly."""
    from tiny_config import get_config

    config, workdir = get_config(), tmp_path_factory.mktemp('labels') / 'run'
    config.stages = (stage('only', epochs=1, learning_rate=0.01, train=dict(backbone=1, image_classifier=1)),)
    train(config, workdir, Console(quiet=True))
    labels = dataset_of(load_run(workdir), workdir).train.labels
    truth = labels.copy()
    truth[[3, 7]] = (labels[[3, 7]] + 1) % 16
    predictions = HeldOutPredictions(
        log_probabilities=np.log(np.where(np.eye(16)[truth], 0.97, 0.002)),
        labels=labels.astype(np.int32),
        images=np.arange(len(labels), dtype=np.int32),
        temperature=1.0,
        split='train',
    )
    write_held_out(workdir / 'only' / HELD_OUT_FILE, predictions)
    return workdir


def test_the_page_and_the_table(workdir):
    done = run_python(['-m', 'ssanet_jax.doctor'], f'--workdir={workdir}')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f'2 labels to check among 62 images: see {workdir}/label_errors.html'
    run = load_run(workdir)
    dataset = dataset_of(run, workdir)
    header, *rows = csv.reader((workdir / 'label_errors.csv').read_text().splitlines())
    assert tuple(header) == COLUMNS
    names = [run.class_names[(dataset.train.labels[i] + shift) % 16] for i in (3, 7) for shift in (0, 1)]
    assert [cell for row in rows for cell in row[1:3]] == names
    assert [row[0] for row in rows] == [dataset.train[i]['file'] for i in (3, 7)]
    assert [row[3:] for row in rows] == [['0.0020', '0.9700', 'wrong label', '']] * 2
    page = (workdir / 'label_errors.html').read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 2 and '2 images whose label' in page
    assert 'ssanet index --workdir=' in done.stderr and 'Not looked for' in page


def test_near_duplicates_and_outliers_are_listed_too(workdir, tmp_path):
    run = load_run(workdir)
    dataset = dataset_of(run, workdir)
    labels = dataset.train.labels
    rng = np.random.default_rng(0)
    rows = np.zeros(len(labels), row_type(32, 0, 8))
    rows['image'], rows['label'], rows['position'] = 1 + rng.normal(size=(len(labels), 32)), labels, range(len(labels))
    rows['image'][9] = -rows['image'][9]
    first, second = 4, int(np.flatnonzero(labels != labels[4])[-1])
    rows['image'][second] = rows['image'][first]
    path = tmp_path / 'run'
    shutil.copytree(workdir, path)
    with write_index(path / 'only' / INDEX_FILE, 'only', run.network_digest()) as writer:
        writer.add(rows, ['' for _ in rows])
    done = run_python(['-m', 'ssanet_jax.doctor'], f'--workdir={path}')
    assert done.returncode == 0 and '1 near duplicate in two classes, 1 image unlike all others' in done.stdout
    _, *lines = csv.reader((path / 'label_errors.csv').read_text().splitlines())
    file, name = (lambda i: dataset.train[i]['file']), (lambda i: run.class_names[labels[i]])
    assert lines[2:] == [
        [file(first), name(first), name(second), '', '', 'near duplicate', file(second)],
        [file(9), name(9), '', '', '', 'outlier', ''],
    ]
    page = (path / 'label_errors.html').read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 5 and 'Not looked for' not in page


def test_names_are_text_on_the_page(workdir, tmp_path):
    run = load_run(workdir)
    hostile = run.__class__(**{**run.__dict__, 'class_names': ('<script>alert(1)</script>',) * 16})
    write_label_errors(tmp_path, label_errors(run, workdir), hostile, dataset_of(run, workdir))
    page = (tmp_path / 'label_errors.html').read_text()
    assert '<script>' not in page and page.count('&lt;script&gt;') == 6


def test_a_run_without_held_out_images(workdir, tmp_path):
    run = load_run(workdir)
    without = run.__class__(**{**run.__dict__, 'held_out': None})
    with pytest.raises(UserError, match='no predictions for images that it was not trained on: fit the heads'):
        label_errors(without, workdir)


@pytest.mark.parametrize('arguments', [(), ('--workdir=a', '--dataset=folder')])
def test_one_of_two_flags(arguments):
    done = run_python(['-m', 'ssanet_jax.doctor'], *arguments)
    assert done.returncode == 2 and done.stderr.startswith('error: give either --dataset')
