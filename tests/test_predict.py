"""The predict command, on the finished tiny run."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import ROOT, changed, run_python

from ssanet_jax.data.registry import load_dataset
from ssanet_jax.data.transforms import preprocess_for_evaluation, to_source_pixels
from ssanet_jax.predict import find_images, picture_names
from ssanet_jax.predictor import load
from ssanet_jax.runs.run import load_run

pytestmark = pytest.mark.slow


def predict(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'ssanet_jax.predict', *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture(scope='module')
def photos(tmp_path_factory, finished_run):
    """Nine test images as files, one of them in a sub-folder, one wider than high, and one that is not an image."""
    folder = tmp_path_factory.mktemp('photos')
    test = load_dataset(load_run(finished_run.workdir).config.data).test
    (folder / 'more').mkdir()
    for i in range(9):
        image = cv2.resize(test[i]['image'], (192, 96)) if i == 3 else test[i]['image']
        name = folder / ('more' if i == 8 else '') / f'{i}.png'
        cv2.imwrite(str(name), image[..., ::-1])
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8\xff\xe0 not a picture')
    return folder


def test_predict_writes_a_line_and_a_picture_an_image(finished_run, photos, tmp_path):
    done = predict(f'--workdir={finished_run.workdir}', f'--out={tmp_path}', '--top=3', photos)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'error: 1 of 10 images cannot be read' in done.stderr and 'broken.jpg' in done.stderr

    lines = [json.loads(line) for line in (tmp_path / 'predictions.jsonl').read_text().splitlines()]
    assert [line['file'] for line in lines] == [str(photos / f'{i}.png') for i in range(8)] + [
        str(photos / 'more/8.png')
    ]
    model = load(finished_run.workdir)
    images = [cv2.imread(line['file'])[..., ::-1] for line in lines]
    for line, one in zip(lines, model.predict(images, batch_size=1), strict=True):
        assert line['class'] == one.label
        assert list(line['probabilities']) == [model.class_names[i] for i in np.argsort(-one.probabilities)[:3]]
        assert len(line['boxes']) == len(line['scale']) == len(line['orientation']) == model.config.model.num_parts
    assert len(list(tmp_path.glob('*.png'))) == 9


def test_boxes_are_in_pixels_of_the_image(finished_run, photos, tmp_path):
    """The picture that was stretched to twice its width has its boxes stretched too."""
    done = predict(f'--workdir={finished_run.workdir}', f'--out={tmp_path}', photos / '3.png')
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, (tmp_path / 'predictions.jsonl').read_text().splitlines())
    model = load(finished_run.workdir)
    squeezed = preprocess_for_evaluation(
        cv2.imread(str(photos / '3.png'))[..., ::-1], model.config.data
    )  # 192 x 96 -> 64 x 64
    (found,) = model.predict(squeezed)
    np.testing.assert_allclose(line['boxes'], found.boxes * [1.5, 3, 1.5, 3], atol=0.06)


@pytest.mark.parametrize('end, left', [('1 / 0', set()), ('os.kill(os.getpid(), 9)', {'predictions.jsonl.partial'})])
def test_what_is_broken_off_leaves_the_earlier_lines(finished_run, photos, tmp_path, end, left):
    earlier = '{"file": "an earlier image"}\n'
    (tmp_path / 'predictions.jsonl').write_text(earlier)
    before = f"""
import os
def save(prediction, path):
    {end}
module.Prediction.save = save
"""
    arguments = [f'--workdir={finished_run.workdir}', f'--out={tmp_path}', photos / '3.png']
    done = run_python(changed('ssanet_jax.predict', before), *arguments)
    assert done.returncode not in (0, 2), done.stderr
    assert (tmp_path / 'predictions.jsonl').read_text() == earlier
    assert {path.name for path in tmp_path.iterdir()} == {'predictions.jsonl'} | left
    done = predict(*arguments)
    assert done.returncode == 0, done.stderr
    assert '3.png' in (tmp_path / 'predictions.jsonl').read_text()
    assert not list(tmp_path.glob('*.partial'))


def test_every_image_has_its_own_picture_and_no_picture_is_an_image(finished_run, photos, tmp_path):
    image = (photos / '3.png').read_bytes()
    for name in ('x.png', 'x.bmp', 'l' * 240 + '.png'):
        (tmp_path / name).write_bytes(image)
    for _ in range(2):
        done = predict(f'--workdir={finished_run.workdir}', f'--out={tmp_path / "out"}', tmp_path)
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / 'out' / 'predictions.jsonl').read_text().splitlines()) == 3
        assert len(list((tmp_path / 'out').glob('*.png'))) == 3


def test_picture_names():
    names = picture_names(
        [Path(p) for p in ('a/x.jpg', 'a/x.jpeg', 'b/x.jpg', 'x.png', '../x.png', 'y' * 240, 'é' * 120)]
    )
    assert list(names.values())[:3] == ['a_x.jpg.png', 'a_x.jpeg.png', 'b_x.jpg.png']
    assert len({name.lower() for name in names.values()}) == len(names) == 7
    assert all(len(name.encode()) < 255 for name in names.values())
    assert picture_names([Path('x.png')] * 2) == {Path('x.png'): 'x.png.png'}


def test_to_source_pixels_undoes_resize_and_crop():
    class data:
        resize, image_size = 100, 80

    whole_crop = np.array([[0.0, 0, 80, 80]])
    np.testing.assert_allclose(to_source_pixels(whole_crop, (200, 400), data), [[20, 40, 180, 360]])


def test_bad_arguments(finished_run, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
    (tmp_path / 'photo.png').touch()
    (tmp_path / 'taken' / 'predictions.jsonl').mkdir(parents=True)
    for arguments, message in (
        ((f'--workdir={tmp_path / "nothing"}', tmp_path / 'absent.jpg'), 'does not exist'),
        ((f'--workdir={tmp_path / "nothing"}', ROOT / 'docs'), 'holds no run'),
        ((f'--workdir={finished_run.workdir}', tmp_path / 'empty'), 'no image'),
        ((f'--workdir={finished_run.workdir}',), 'no image'),
        ((f'--workdir={finished_run.workdir}', f'--out={tmp_path / "file"}', tmp_path / 'photo.png'), 'another --out'),
        ((f'--workdir={finished_run.workdir}', f'--out={tmp_path / "taken"}', tmp_path / 'photo.png'), 'is a folder'),
        ((f'--workdir={finished_run.workdir}', f'--out={tmp_path}', tmp_path), 'give another --out'),
        ((tmp_path,), '--workdir is missing: Folder of a trained run; see --help'),
    ):
        done = predict(*arguments)
        assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_find_images_sorts_and_takes_only_images(tmp_path):
    for name in ('b.JPG', 'a.png', 'notes.txt'):
        (tmp_path / name).touch()
    assert [file.name for file in find_images([str(tmp_path)]).files] == ['a.png', 'b.JPG']
