"""`ssanet download` against a server on this machine: sets made by the test, whole and with every fault."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from commands import ROOT, changed, run_each
from data_samples import write_image

# Replaces the published sets by those of the test.
BEFORE = """
import dataclasses, json
from ssanet_jax.download.sources import Archive
from ssanet_jax.download import fetch
fetch._PAUSES, fetch._CHUNK = (0.01,), 64
offer = json.load(open({path!r}))
archives = tuple(Archive(*fields) for fields in offer['archives'])
module.PUBLISHED_SETS[offer['name']] = dataclasses.replace(
    module.PUBLISHED_SETS[offer['name']], archives=archives, published=offer['published'])
"""


def pack(folder: Path, *names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as file:
        for name in names:
            file.add(folder / name, name)
    return out.getvalue()


class Offer:
    """What the server has, and the sets that the command knows."""

    def __init__(self, mirror, folder):
        self.mirror, self.folder = mirror, folder
        self.data = folder / 'data'

    def offer(self, name: str, files: dict[str, bytes], **published: int) -> None:
        """Serves the files of a data set, each under two paths."""
        archives = []
        for file, content in files.items():
            paths = [f'/first/{file}', f'/second/{file}']
            self.mirror.files.update(dict.fromkeys(paths, content))
            digest = 'sha256:' + hashlib.sha256(content).hexdigest()
            archives.append((file, [self.mirror.url(path) for path in paths], digest, len(content)))
        given = dict(name=name, archives=archives, published=published)
        (self.folder / 'given.json').write_text(json.dumps(given))
        self.before = BEFORE.format(path=str(self.folder / 'given.json'))

    def run(self, *arguments):
        outputs = Path(tempfile.mkdtemp(dir=self.folder))
        (ended,) = run_each('ssanet_jax.download', {'': arguments}, outputs, self.before).values()
        return ended


@pytest.fixture
def shop(mirror, tmp_path) -> Offer:
    return Offer(mirror, tmp_path)


@pytest.fixture
def cub(shop, cub_folder) -> Offer:
    shop.offer('cub', {'CUB.tgz': pack(cub_folder.parent, cub_folder.name)}, classes=2, train=4, test=3)
    return shop


def test_a_set_is_downloaded_checked_and_unpacked_once(cub):
    arguments = ['cub', f'--data_dir={cub.data}']
    code, stdout, stderr = cub.run(*arguments)
    assert code == 0, stderr
    first, last = stdout.splitlines()
    assert first == f'{cub.data}: 4 train and 3 test images of 2 classes, as published'
    train = 'python -m ssanet_jax.main --config=configs/cub.py --workdir=runs/cub'
    assert last == f'train with: {train} --config.data.dir={cub.data}'
    assert stderr.startswith('CUB-200-2011, https://') and 'license: ' in stderr
    assert (cub.data / 'CUB_200_2011/images.txt').is_file() and not (cub.folder / 'data.download').exists()
    asked = len(cub.mirror.requests)
    code, again, stderr = cub.run(*arguments)
    assert (code, again) == (0, stdout) and 'is complete already' in stderr and len(cub.mirror.requests) == asked


def test_a_dead_mirror_is_passed_over(cub):
    cub.mirror.faults['/first/CUB.tgz'] = 404
    code, stdout, stderr = cub.run('cub', f'--data_dir={cub.data}', '--keep_archives')
    assert code == 0 and 'as published' in stdout, stderr
    assert [path for path, _ in cub.mirror.requests] == ['/first/CUB.tgz', '/second/CUB.tgz']
    assert (cub.folder / 'data.download/CUB.tgz').is_file()


def test_dead_mirrors_are_explained_and_files_from_elsewhere_are_taken(cub):
    content = cub.mirror.files['/first/CUB.tgz']
    cub.mirror.faults.update({'/first/CUB.tgz': 404, '/second/CUB.tgz': 'dropped'})
    code, stdout, stderr = cub.run('cub', f'--data_dir={cub.data}')
    line = stderr.splitlines()[-1]
    assert (code, stdout) == (2, '') and line.startswith('error: no server has CUB.tgz: ')
    for words in (
        '404 Not Found',
        'cannot be reached',
        str(cub.folder / 'data.download'),
        'run the same command again',
    ):
        assert words in line
    assert not cub.data.exists()
    (cub.folder / 'data.download/CUB.tgz').write_bytes(content)
    code, stdout, stderr = cub.run('cub', f'--data_dir={cub.data}')
    assert code == 0 and 'as published' in stdout, stderr


def test_a_download_that_was_killed_goes_on(cub):
    cub.mirror.faults['/first/CUB.tgz'] = 'slow'
    part = cub.folder / 'data.download/CUB.tgz.part'
    command = [sys.executable, *changed('ssanet_jax.download', cub.before), 'cub', f'--data_dir={cub.data}']
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert 0 < kept < len(cub.mirror.files['/first/CUB.tgz']) and not cub.data.exists()
    cub.mirror.faults.clear()
    code, stdout, stderr = cub.run('cub', f'--data_dir={cub.data}')
    assert code == 0 and 'as published' in stdout, stderr
    assert cub.mirror.requests[-1] == ('/first/CUB.tgz', f'bytes={kept}-')


def flowers(folder):
    for image in range(1, 7):
        write_image(folder / f'jpg/image_{image:05d}.jpg')
    scipy.io.savemat(folder / 'imagelabels.mat', {'labels': np.array([[1, 2, 1, 2, 1, 2]], np.uint8)})
    sets = {'trnid': [[1, 2]], 'valid': [[4]], 'tstid': [[3, 5, 6]]}
    scipy.io.savemat(folder / 'setid.mat', {name: np.array(ids, np.uint16) for name, ids in sets.items()})
    files = {name: (folder / name).read_bytes() for name in ('imagelabels.mat', 'setid.mat')}
    return {'102flowers.tgz': pack(folder, 'jpg'), **files}, ('001', '002')


def pets(folder):
    lines = {'trainval': ['# a comment', 'Abyssinian_1 1 1 1', 'great_dane_2 2 2 1', 'great_dane_7 2 2 1']}
    lines['test'] = ['Abyssinian_3 1 1 1', 'great_dane_4 2 2 1', 'great_dane_5 2 2 1']
    (folder / 'annotations').mkdir()
    for name, rows in lines.items():
        (folder / f'annotations/{name}.txt').write_text('\n'.join(rows) + '\n')
        for row in rows:
            if row[0] != '#':
                write_image(folder / f'images/{row.split()[0]}.jpg')
    return {name + '.tar.gz': pack(folder, name) for name in ('images', 'annotations')}, ('Abyssinian', 'great_dane')


def dogs(folder):
    for split, images in {'train': (1, 2, 3), 'test': (4, 5, 6)}.items():
        names = [f'n0{image % 2}-Dog{image % 2}/n0{image % 2}_{image}.jpg' for image in images]
        for name in names:
            write_image(folder / f'Images/{name}')
        cells = np.array([[np.array([name])] for name in names], object)
        scipy.io.savemat(folder / f'{split}_list.mat', {'file_list': cells})
    return {'images.tar': pack(folder, 'Images'), 'lists.tar': pack(folder, 'train_list.mat', 'test_list.mat')}, (
        'n00-Dog0',
        'n01-Dog1',
    )


@pytest.mark.parametrize('make', [flowers, pets, dogs])
def test_sets_without_a_reader_get_a_csv_file(shop, make, tmp_path):
    (tmp_path / 'made').mkdir()
    files, classes = make(tmp_path / 'made')
    name = make.__name__
    shop.offer(name, files, classes=2, train=3, test=3)
    code, stdout, stderr = shop.run(name, f'--data_dir={shop.data}')
    assert code == 0, stderr
    first, last = stdout.splitlines()
    assert '3 train and 3 test images of 2 classes' in first
    assert last.endswith(f'--config.data.dir={shop.data} --config.data.csv={name}.csv') and 'configs/folder.py' in last
    rows = (shop.data / f'{name}.csv').read_text().splitlines()
    assert rows[0] == 'path,label,split' and {row.split(',')[1] for row in rows[1:]} == set(classes)


def test_a_folder_with_something_else_is_left_alone(cub):
    cub.data.mkdir()
    (cub.data / 'thesis.txt').write_text('mine')
    code, stdout, stderr = cub.run('cub', f'--data_dir={cub.data}')
    assert (code, stdout) == (2, '') and 'is not empty, and does not hold CUB-200-2011' in stderr
    assert os.listdir(cub.data) == ['thesis.txt'] and cub.mirror.requests == []


def test_a_set_with_other_counts_is_an_error(shop, cub_folder):
    shop.offer('cub', {'CUB.tgz': pack(cub_folder.parent, cub_folder.name)}, classes=2, train=5, test=3)
    code, stdout, stderr = shop.run('cub', f'--data_dir={shop.data}')
    assert (code, stdout) == (2, '') and '4 train images, 5 were published' in stderr.splitlines()[-1]


@pytest.mark.parametrize('fault', ['outside', 'no image', 'not the set'])
def test_an_archive_that_cannot_be_used_leaves_no_folder(shop, cub_folder, fault):
    if fault == 'no image':
        next(cub_folder.rglob('*.jpg')).unlink()
    content = pack(cub_folder.parent, cub_folder.name)
    if fault != 'no image':
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode='w') as file:
            file.addfile(tarfile.TarInfo('../../evil' if fault == 'outside' else 'readme.txt'))
        content = out.getvalue()
    shop.offer('cub', {'CUB.tgz': content}, classes=2, train=4, test=3)
    code, stdout, stderr = shop.run('cub', f'--data_dir={shop.data}')
    words = {'outside': 'is refused', 'no image': '.jpg is missing', 'not the set': 'images.txt is missing'}
    assert (code, stdout) == (2, '') and words[fault] in stderr.splitlines()[-1]
    assert not shop.data.exists() and not list(shop.folder.parent.rglob('evil'))


def test_the_default_place_is_where_training_looks(cub, monkeypatch):
    monkeypatch.setenv('SSANET_DATA_DIR', str(cub.data))
    code, stdout, stderr = cub.run('cub')
    assert code == 0, stderr
    assert (cub.data / 'cub/CUB_200_2011').is_dir() and stdout.endswith('--workdir=runs/cub\n')


def test_wrong_arguments_are_one_line(cub, tmp_path):
    (tmp_path / 'file').touch()
    cases = {
        'the name of a data set is missing: give one of cub, cars': [],
        "'birds' is not the name of a data set": ['birds'],
        "'cub cars' is not the name": ['cub', 'cars'],
        'is a file: give another --data_dir': ['cub', f'--data_dir={tmp_path / "file"}'],
        '--data_dir is empty': ['cub', '--data_dir='],
        'cannot write': ['cub', '--data_dir=/proc/cub'],
    }
    for words, (code, stdout, stderr) in run_each('ssanet_jax.download', cases, tmp_path, cub.before).items():
        assert (code, stdout) == (2, '') and words in stderr.splitlines()[-1], stderr
        assert 'Traceback' not in stderr


def test_two_downloads_of_one_folder_do_not_mix(cub):
    from ssanet_jax.filesystem.locks import lock_file

    downloads = cub.folder / 'data.download'
    downloads.mkdir()
    with lock_file(downloads / '.lock', wait=False):
        code, _, stderr = cub.run('cub', f'--data_dir={cub.data}')
    assert code == 2 and 'another process downloads to' in stderr.splitlines()[-1]
