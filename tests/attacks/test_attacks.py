"""Files from strangers: each is refused in one line, in little time and within 200 MB; none runs code.

The files are made here, and read by child processes (`measure.py`), whose memory is measured.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_files
import numpy as np
import pytest
from commands import ROOT
from PIL import Image

from ssanet_jax.data.image_inputs import find_images, read_image
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.filesystem.regular_files import read_regular_file

WORK = 30  # three seconds of a usual processor (`measure.py`); the promise is one
MEGABYTES = 250  # the promise is 200


def write(folder, files):
    """Writes each file into a folder of its own; returns its path by name."""
    paths = {}
    for name, content in files.items():
        paths[name] = folder / name.replace('.', '_') / name
        paths[name].parent.mkdir(parents=True)
        paths[name].write_bytes(content)
    return paths


def measure(cases):
    """Reads `{name: (reader, path)}`, and returns what `measure.py` says."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name('measure.py'))],
        cwd=ROOT,
        input=json.dumps({name: [reader, str(path)] for name, (reader, path) in cases.items()}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(found, readable=()):
    """Holds what was read to the promise; `readable` files are harmless and may be read."""
    for name, result in found.items():
        assert result['outcome'] == 'refused' or (name in readable and result['outcome'] == 'read'), (name, result)
        assert result['work'] < WORK and result['megabytes'] < MEGABYTES, (name, result)
        assert '\n' not in result['message'] and len(result['message']) < 1000, (name, result)


def test_weights(tmp_path):
    paths = write(tmp_path, hostile_files.weights())
    found = measure({name: ('weights', path) for name, path in paths.items()})
    assert len(found) > 30
    check(found)


def test_images(tmp_path):
    paths = write(tmp_path, hostile_files.images())
    found = measure({name: ('image', path) for name, path in paths.items()})
    check(found, readable=['text.png', 'chunks.png', 'under.jpg', 'scans.jpg'])


@pytest.mark.slow
def test_many_threads_that_decode_large_images_take_the_memory_of_few(tmp_path):
    # With bytes after its end, so that it is not refused for its compression.
    content = hostile_files.png(5000, 5000) + bytes(1_000_000)
    path = tmp_path / 'large.png'
    path.write_bytes(content)
    found = measure({'large': ('threads', path)})['large']
    assert found['outcome'] == 'read' and found['megabytes'] < 700, found


def test_matlab_files(tmp_path):
    check(measure({name: ('cars', path) for name, path in write(tmp_path, hostile_files.matlab()).items()}))


def test_arrays_json_and_tables(tmp_path):
    arrays = hostile_files.npz()
    files = {
        'predictions.npz': ('predictions', arrays),
        'source_files.npz': ('source_files', arrays),
        'deep.json': ('json', hostile_files.deep_json(900)),
        'deeper.json': ('json', hostile_files.deep_json(100_000)),
        'wide.json': ('json', hostile_files.wide_json(3_000_000)),
        'long.csv': ('csv', b'path,label\n' + b'a' * 50_000_000),
        'commas.csv': ('csv', b'path,label\n' + b',' * 20_000_000),
        'quoted.csv': ('csv', b'path,label\n' + b'"\n",' * 8_000_000),
        'label.csv': ('csv', b'path,label\na.jpg,' + b'x' * 100_000),
        'images.txt': ('cub', b'1 a.jpg\n' * 4_000_000),
    }
    paths = write(tmp_path, {name: content for name, (_, content) in files.items()})
    check(measure({name: (reader, paths[name]) for name, (reader, _) in files.items()}))


def test_special_files_are_never_opened(tmp_path):
    readers = {
        'config.json': 'run',
        'history.jsonl': 'history',
        'predictions.npz': 'predictions',
        'list.csv': 'csv',
        'cars_train_annos.mat': 'cars',
        'imagelabels.mat': 'flowers',
        'images.txt': 'cub',
        'weights.pth': 'weights',
        'photo.jpg': 'file',
        'scan.jpg': 'scan',
    }
    cases = {}
    for kind, make in hostile_files.special_files().items():
        for name, reader in readers.items():
            path = tmp_path / kind / name.replace('.', '_') / name
            path.parent.mkdir(parents=True)
            make(path)
            cases[f'{kind} {name}'] = (reader, path)
        path = tmp_path / kind / 'folder' / 'photo.jpg'  # the only file
        path.parent.mkdir(parents=True)
        make(path)
        cases[f'{kind} folder'] = ('find', path.parent)
        cases[f'{kind} data set'] = ('folder', path.parent)
    check(measure(cases))


@pytest.mark.parametrize('kind', hostile_files.special_files())
def test_special_files_beside_images_are_left_out(kind, tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / 'a.png')
    hostile_files.special_files()[kind](folder / 'b.png')
    found = find_images([folder])
    assert [path.name for path in found.files] == ['a.png']
    assert [(Path(item.path).name, item.reason) for item in found.left_out] == [('b.png', 'not a regular file')]
    with pytest.raises(UnreadableImage, match='not a regular file'):
        read_image(folder / 'b.png')


def test_arrays_with_code_are_refused(tmp_path):
    mark = tmp_path / 'owned'
    content = hostile_files.pickled_npz(mark)
    paths = write(tmp_path, {'predictions.npz': content, 'source_files.npz': content})
    found = measure({name: (name.partition('.')[0], path) for name, path in paths.items()})
    check(found)
    assert not mark.exists()


def test_files_larger_than_their_limit_are_not_read(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'12345')
    assert read_regular_file(path, 5) == b'12345'
    for wrong, words in ((path, '0 MB'), (tmp_path, 'a folder')):
        with pytest.raises(OSError, match=words):
            read_regular_file(wrong, 4)
    with pytest.raises(FileNotFoundError):
        read_regular_file(tmp_path / 'nothing', 4)
    sparse = tmp_path / 'sparse.png'
    with open(sparse, 'wb') as file:
        os.truncate(file.fileno(), 2**40)
    with pytest.raises(UserError, match='more than 537 MB'):
        read_image(sparse)
