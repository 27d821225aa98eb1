"""The predict command, on the finished tiny run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from commands import ROOT, changed, run_python

from ssanet_jax.data.preprocessing import preprocess_for_evaluation, to_source_pixels
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.predict import find_images
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


@pytest.mark.parametrize('end, left', [('1 / 0', set()), ('os.kill(os.getpid(), 9)', {'predictions.partial'})])
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


FILES = ('predictions.jsonl', 'predictions.csv', 'predictions_coco.json', 'observations.csv', 'left_out.csv')
ALL_FORMATS = '--format=jsonl,csv,coco,camtrap'


@pytest.fixture(scope='module')
def many_photos(tmp_path_factory):
    """120 small photos, of which every 20th is damaged, and a file that is not an image."""
    folder = tmp_path_factory.mktemp('many')
    random = np.random.default_rng(0)
    for i in range(120):
        path = folder / f'{i:03d}.png'
        cv2.imwrite(str(path), random.integers(0, 256, (48, 40, 3), np.uint8))
        if i % 20 == 3:
            path.write_bytes(path.read_bytes()[:100])
    (folder / 'notes.txt').touch()
    return folder


def contents(out, pattern='*'):
    return {path.name: path.read_bytes() for path in out.glob(pattern)}


def test_a_killed_prediction_goes_on_to_the_same_files(finished_run, many_photos, tmp_path):
    arguments = [f'--workdir={finished_run.workdir}', ALL_FORMATS, many_photos]
    done = predict(*arguments, f'--out={tmp_path / "whole"}')
    assert done.returncode == 2 and '6 of 120 images cannot be read' in done.stderr
    expected = contents(tmp_path / 'whole')
    assert set(FILES) < expected.keys() and len(expected) == len(FILES) + 114

    out, slowly = tmp_path / 'killed', 'import time\nsave = module.Prediction.save\n'
    slowly += 'module.Prediction.save = lambda self, path: (time.sleep(0.05), save(self, path))'
    command = [sys.executable, *changed('ssanet_jax.predict', slowly), *map(str, arguments), f'--out={out}']
    journal, deadline = out / 'predictions.partial', time.monotonic() + 600
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not journal.exists() or journal.read_bytes().count(b'\n') < 4:  # settings and three batches
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
                time.sleep(0.01)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    records = [record for text in journal.read_text().splitlines()[1:] for record in json.loads(text)]
    assert 24 <= len(records) < 120 and not any((out / name).exists() for name in FILES)
    pictures = {path.name: path.stat().st_mtime_ns for path in out.glob('*.png')}

    again = predict(*arguments, f'--out={out}')
    assert again.returncode == 2
    assert f'going on after {len(records)} of 120 images of an earlier start\n' in again.stderr
    assert again.stderr.count('images of none of its classes are not recognized as such') == 1
    assert contents(out) == expected
    kept = [name for record in records if 'line' in record for name in pictures if record['file'][-7:] in name]
    assert len(kept) >= 23 and all((out / name).stat().st_mtime_ns == pictures[name] for name in kept)


def test_a_killed_prediction_of_another_network_starts_again(finished_run, workdir, photos, tmp_path):
    """The other network is the same run after its second stage: its training is not over, which is said."""
    die = 'import os\nmodule.write_formats = lambda *given: os.kill(os.getpid(), 9)'  # when all is predicted
    arguments = [f'--workdir={finished_run.workdir}', f'--out={tmp_path}', '--pictures=none', photos]
    assert run_python(changed('ssanet_jax.predict', die), *arguments).returncode == -signal.SIGKILL
    assert not (tmp_path / 'predictions.jsonl').exists()

    shutil.rmtree(workdir / 'part_tuning')
    done = predict(f'--workdir={workdir}', *arguments[1:])
    assert done.returncode == 2
    assert 'changed since: the network): starting again' in done.stderr
    assert (
        f'the training in {workdir} is not over: the network is that of stage oriented_pooling, 2 of 3' in done.stderr
    )
    found = (tmp_path / 'predictions.jsonl').read_text()

    assert run_python(changed('ssanet_jax.predict', die), *arguments).returncode == -signal.SIGKILL
    done = predict(*arguments, '--format=csv,jsonl')  # the files are written from what is there
    assert 'going on after 10 of 10 images' in done.stderr and 'not over' not in done.stderr
    lines = (tmp_path / 'predictions.jsonl').read_text()
    assert lines != found and len(lines.splitlines()) == 9
    assert (tmp_path / 'predictions.csv').exists() and not list(tmp_path.glob('*.png'))


def test_memory_does_not_grow_with_the_images(finished_run, tmp_path):
    """Of 3000 images, the second half may not keep their inputs, 12 kB each."""
    image = tmp_path / 'photos' / '0.png'
    image.parent.mkdir()
    cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    for i in range(1, 3000):
        os.link(image, image.with_name(f'{i}.png'))
    sampled = f"""
import resource
from pathlib import Path
samples, add = [], module.ImageProgress.advance
def advance(self, count):
    samples.append(int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize())
    add(self, count)
module.ImageProgress.advance = advance
main = module.main
def measured(given):
    main(given)
    Path({str(tmp_path / 'samples')!r}).write_text(' '.join(map(str, samples)))
module.main = measured
"""
    arguments = [f'--workdir={finished_run.workdir}', f'--out={tmp_path / "out"}', '--pictures=none', ALL_FORMATS]
    done = run_python(changed('ssanet_jax.predict', sampled), *arguments, image.parent)
    assert done.returncode == 0, done.stderr
    samples = [int(text) for text in (tmp_path / 'samples').read_text().split()]
    assert len(samples) == 3000 / 8
    assert samples[-1] - samples[len(samples) // 2] < 6e6
    assert len((tmp_path / 'out' / 'predictions.csv').read_text().splitlines()) == 3001


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
    full = tmp_path / 'full'  # a folder in which no file can be created, even by root
    full.symlink_to('/proc/self')
    for arguments, message in (
        ((f'--workdir={tmp_path / "nothing"}', tmp_path / 'absent.jpg'), 'does not exist'),
        ((f'--workdir={tmp_path / "nothing"}', ROOT / 'docs'), 'holds no run'),
        ((f'--workdir={finished_run.workdir}', tmp_path / 'empty'), 'no image'),
        ((f'--workdir={finished_run.workdir}',), 'no image'),
        ((f'--workdir={finished_run.workdir}', f'--out={tmp_path / "file"}', tmp_path / 'photo.png'), 'another --out'),
        ((f'--workdir={finished_run.workdir}', f'--out={tmp_path / "taken"}', tmp_path / 'photo.png'), 'is a folder'),
        ((f'--workdir={finished_run.workdir}', f'--out={tmp_path}', tmp_path), 'give another --out'),
        ((f'--workdir={finished_run.workdir}', '--format=xml', tmp_path / 'photo.png'), '--format=xml: choose from'),
        ((f'--workdir={finished_run.workdir}', '--pictures=all', tmp_path / 'photo.png'), 'pictures'),
        ((f'--workdir={finished_run.workdir}', f'--out={full}', tmp_path / 'photo.png'), 'give another --out'),
        ((tmp_path,), '--workdir or --model is missing: give the folder of a trained run'),
        (
            (f'--workdir={finished_run.workdir}', f'--data_dir={tmp_path}', tmp_path),
            '--data_dir is for --pictures=explain',
        ),
    ):
        done = predict(*arguments)
        assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_find_images_sorts_and_takes_only_images(tmp_path):
    for name in ('b.JPG', 'a.png', 'notes.txt'):
        (tmp_path / name).touch()
    assert [file.name for file in find_images([str(tmp_path)]).files] == ['a.png', 'b.JPG']


def test_explanations(workdir, photos, tmp_path):
    """Without training photos first, which is said once; then with them."""
    arguments = [f'--workdir={workdir}', '--pictures=explain', photos / '0.png', photos / '3.png']
    done = predict(*arguments, f'--out={tmp_path / "without"}')
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('explained without training photos') == 1
    assert 'index.npz is missing: ssanet index --workdir=' in done.stderr
    assert run_python(('-m', 'ssanet_jax.index'), f'--workdir={workdir}').returncode == 0
    done = predict(*arguments, f'--out={tmp_path / "with"}', '--details')
    assert done.returncode == 0 and 'training photos' not in done.stderr, done.stderr
    names = sorted(file.name for file in (tmp_path / 'with').iterdir())
    assert len(names) == 4 and names[:2] == ['contact_sheet_1.jpg', 'predictions.jsonl']
    (wide,) = (tmp_path / 'with').glob('*3.png.jpg')
    shown = cv2.imread(str(wide))
    small = cv2.imread(str(tmp_path / 'without' / wide.name))
    assert shown.shape[0] > small.shape[0] >= 2 * 96, '96 x 192 pixels are shown at twice their size'
