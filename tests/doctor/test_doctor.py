"""The doctor's command: exit codes, the last line of output, and the list of files to fix."""

import os
import shutil

import cv2
import numpy as np
import pytest
from commands import ROOT, run_each, run_python
from PIL import Image

REAL_BIRDS = ROOT / '../shared/data/CUB_200_2011'


def doctor(*arguments, **environment):
    return run_python(('-m', 'ssanet_jax.doctor'), *arguments, environment={'COLUMNS': '160'} | environment)


@pytest.fixture
def photographs(tmp_path):
    """Train and test folders of two classes, one with a name that could be taken for markup."""
    root = tmp_path / 'birds'
    rng = np.random.default_rng(0)
    for split in ('train', 'test'):
        for name in ('owl', 'émeu [red]'):
            for number in range(3):
                cells = rng.integers(0, 256, (7, 9, 3), np.uint8)
                file = root / split / name / f'{split}{number}.jpg'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(cv2.resize(cells, (80, 64))).save(file)
    return root


def test_a_sound_set(photographs, tmp_path):
    done = doctor('--dataset=folder', f'--data_dir={photographs}', f'--fix_list={tmp_path / "fix.txt"}')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'ok: 6 train and 6 test images, 2 classes; 0 warnings, 0 notes'
    assert (tmp_path / 'fix.txt').read_text() == ''
    for check in ('counts', 'classes', 'files', 'annotations', 'duplicates', 'near duplicates', 'sizes', 'color'):
        assert any(check in line and ' ok ' in line for line in done.stdout.splitlines()), check


def test_all_defects_are_found_at_once(photographs, tmp_path):
    train, test = photographs / 'train', photographs / 'test'
    (train / 'owl/folder.jpg').mkdir()
    (train / 'owl/zero.jpg').touch()
    whole = (train / 'émeu [red]/train1.jpg').read_bytes()
    (train / 'émeu [red]/train1.jpg').write_bytes(whole[: len(whole) // 2])
    shutil.copy(train / 'owl/train0.jpg', test / 'owl/copy.jpg')
    shutil.copy(train / 'owl/train1.jpg', train / 'émeu [red]/copy.jpg')
    Image.new('L', (20, 20)).save(test / 'owl/small.png')
    for number in range(5):
        (train / f'owl/phone{number}.heic').write_bytes(b'of another kind')
    strange = os.fsencode(train) + b'/owl/\xff\x1b[31m.jpg'
    with open(strange, 'wb') as file:
        file.write(b'no image')

    # A terminal that cannot encode accents must not stop the report either.
    listed = tmp_path / 'fix.txt'
    listed.write_text('of an earlier run')
    done = doctor('--dataset=folder', f'--data_dir={photographs}', '--fix-list', listed, PYTHONIOENCODING='ascii')
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    verdict = '5 problems: unreadable images (3), images in both train and test (1), images in two classes (1)'
    assert done.stdout.splitlines()[-1] == verdict
    assert '1 warning' in done.stdout and '1 note' in done.stdout
    (place,) = (i for i, line in enumerate(done.stdout.splitlines()) if 'skipped files' in line)
    skipped_files = ' '.join(done.stdout.splitlines()[place : place + 6])
    assert all(f'train/owl/phone{number}.heic' in skipped_files for number in range(3))
    assert (
        'phone3' not in done.stdout and 'and 2 more' in skipped_files and 'convert them to JPEG or PNG' in skipped_files
    )
    assert '5 warnings' in done.stdout
    assert 'train/owl/train0.jpg = test/owl/copy.jpg' in done.stdout
    assert '\x1b' not in done.stdout
    assert sorted(listed.read_bytes().splitlines()) == [
        b'train/owl/train0.jpg',
        b'train/owl/train1.jpg',
        b'train/owl/zero.jpg',
        b'train/owl/\xff\x1b[31m.jpg',
        'train/émeu [red]/copy.jpg'.encode(),
        'train/émeu [red]/train1.jpg'.encode(),
    ]
    assert sorted(os.listdir(tmp_path)) == ['birds', 'fix.txt']


def test_missing_images_of_a_set_below_the_folder(tmp_path):
    root = tmp_path / 'archive/CUB_200_2011'
    (root / 'parts').mkdir(parents=True)
    for file, lines in {
        'images.txt': '1 001.Owl/a.jpg\n2 001.Owl/b.jpg\n',
        'classes.txt': '1 001.Owl\n',
        'image_class_labels.txt': '1 1\n2 1\n',
        'train_test_split.txt': '1 1\n2 0\n',
        'bounding_boxes.txt': '1 1 1 5 5\n2 1 1 5 5\n',
        'parts/part_locs.txt': '1 1 3 3 1\n2 1 3 3 1\n',
    }.items():
        (root / file).write_text(lines)
    done = doctor('--dataset=cub', f'--data_dir={root.parent}', f'--fix_list={tmp_path / "fix.txt"}')
    assert done.returncode == 1 and 'missing images (2)' in done.stdout.splitlines()[-1], done.stderr
    assert 'data sets of a single class (1)' in done.stdout.splitlines()[-1]
    listed = (tmp_path / 'fix.txt').read_text().splitlines()
    assert listed == ['CUB_200_2011/images/001.Owl/a.jpg', 'CUB_200_2011/images/001.Owl/b.jpg']


def test_user_errors_are_one_line(photographs, tmp_path, tmp_path_factory):
    folder = f'--data_dir={photographs}'
    cases = {
        '--data_dir=/nowhere is not a folder': ['--dataset=cub', '--data_dir=/nowhere'],
        'images.txt is missing': ['--dataset=cub', folder],
        'set --csv to': ['--dataset=folder', folder, '--csv=nothing.csv'],
        'cannot write --fix_list': ['--dataset=folder', folder, f'--fix_list={tmp_path}'],
    }
    for message, (code, stdout, stderr) in run_each('ssanet_jax.doctor', cases, tmp_path_factory.mktemp('out')).items():
        assert code == 2 and message in stderr, stderr
        assert len(stderr.strip().splitlines()) == 1 and 'config.' not in stderr
        assert stdout == ''
    assert os.listdir(tmp_path) == ['birds']
    assert not [name for name in os.listdir(tmp_path.parent) if name.startswith(f'.{tmp_path.name}')]


@pytest.mark.slow
@pytest.mark.skipif(not REAL_BIRDS.is_dir(), reason='needs the real CUB_200_2011 in ../shared/data')
def test_real_birds():
    done = doctor('--dataset=cub', f'--data_dir={REAL_BIRDS}')
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    # One part-of-the-set warning, three boxes, one photograph that is there twice.
    assert lines[-1] == 'ok: 1500 train and 1389 test images, 50 classes; 5 warnings, 2 notes'
    row = lambda check: next(line for line in lines if line.startswith(f'│ {check} '))
    assert '3 warnings' in row('annotations') and '1 warning' in row('near duplicates') and '2 notes' in row('color')
    for check in ('classes', 'files', 'duplicates', 'sizes'):
        assert ' ok ' in row(check), check
