"""The report command on the finished tiny run: complete, safe, and consistent with the files of the run."""

import dataclasses
import json
import re
import shutil
import subprocess

import pytest
from commands import MOVED_DATA_WITHOUT_PARTS, changed, run_each, run_python
from measurement_files import OLD_KEYPOINTS
from page_checks import check_page

from ssanet_jax.report.run_sections import confidence_interval
from ssanet_jax.runs.json_checksums import remove_checksum
from ssanet_jax.runs.results import BestResult

SECTIONS = 'results curves robustness keypoints sharing parts explained attention annotated responses'.split()
SECTIONS += 'confidence confusion mistakes reading data settings'.split()
MODULE = 'ssanet_jax.report'
BEST_FIELDS = [field.name for field in dataclasses.fields(BestResult)]
# Starts the code that replaces the data or the network of the command.
ORIGINALS = """
import dataclasses
from ssanet_jax.runs import run as runs
load, load_run = runs.load_dataset, module.load_run
"""
HOSTILE = '<script>alert(1)</script>'
TREATMENTS = ('count as wrong', 'are left out')


def make(*arguments, changes=''):
    return run_python(changed(MODULE, ORIGINALS + changes) if changes else ('-m', MODULE), *arguments)


def read(path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_finished_run(workdir):
    robustness = {
        'dataset': 'toy_birds', 'stage': 'part_tuning', 'examples': 30, 'unreadable': [], 'seed': 0,
        'accuracy': {'original': 0.4321, 'reduced': 0.1234}, 'drop': {'reduced': 30.87},
    }  # fmt: skip
    (workdir / 'robustness.json').write_text(json.dumps(robustness))
    sharing = {
        'dataset': 'toy_birds', 'stage': 'part_tuning', 'examples': 30, 'unreadable': [], 'device': '1 x cpu',
        'global_pooling': {'accuracy': 0.25, 'milliseconds': {'1': 2.0}},
        'ways': [
            {'way': 'image', 'trained': True, 'accuracy': 0.5, 'difference': 0, 'half_width': 0,
             'milliseconds': {'1': 3.0}},
            {'way': 'part', 'trained': False, 'problem': 'too small'},
            {'way': 'none', 'trained': False, 'accuracy': 0.4, 'difference': -10.0, 'half_width': 3.25,
             'milliseconds': {'1': 7.0}},
        ],
    }  # fmt: skip
    (workdir / 'sharing.json').write_text(json.dumps(sharing))
    done = make(f'--workdir={workdir}')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f'report written: {workdir / "report.html"}'
    assert not list(workdir.rglob('*.partial'))
    page = check_page((workdir / 'report.html').read_text())
    results = read(workdir / 'results.json')
    assert 'left out' not in page.text

    # Sections of interest to few are folded away at the end; the other ids are of markers in charts.
    folded = ['keypoints', 'attention', 'reading']
    ordered = [id for id in SECTIONS if id not in folded] + folded
    assert [id for id in page.ids if id in SECTIONS] == ordered and page.links == [f'#{id}' for id in ordered]
    assert [value for tag, name, value in page.attributes if tag == 'details' and name == 'id'] == folded
    assert f'accuracy{results["accuracy"]:.4f}' in page.text and 'not finished' not in page.text
    for name, stage in results['stages'].items():
        heads = ['image_classifier', 'scale_mining', 'oriented_pooling']
        shown = [f'{stage["heads"][head]:.4f}' if head in stage['heads'] else '' for head in heads]
        (row,) = [cells for cells in page.cells if cells[:1] == [name] and len(cells) == 8]
        assert row[1:5] == [f'{stage["accuracy"]:.4f}', *shown] and row[6] == str(stage['steps'])
    assert 'Evaluated again' not in page.text, 'the accuracy is that of the training'
    # Learning curves: a point for each evaluation and each epoch.
    history = [json.loads(line) for path in workdir.glob('*/history.jsonl') for line in path.read_text().splitlines()]
    evaluations = [line for line in history if line['kind'] == 'evaluation']
    content = (workdir / 'report.html').read_text()
    assert content.count('<title>prediction, epoch ') == len(evaluations) == 3
    assert content.count('<title>training loss, epoch ') == len(history) - len(evaluations) == 4
    # Measurements are shown; for a missing one, the command that makes it.
    assert ['original', '0.4321', '', ''] in page.cells and ['reduced', '0.1234', '30.9', ''] in page.cells
    assert f'python -m ssanet_jax.measure --workdir={workdir} --only=keypoints' in page.text
    assert ['image, as trained', '0.5000', '', '3.0 (1.50)'] in page.cells
    assert ['none', '0.4000', '-10.0 ± 3.2', '7.0 (3.50)'] in page.cells
    assert ['part', 'does not fit: too small', '', ''] in page.cells
    # 12 images with parts; pairs of confused classes and single hard examples.
    wrong = round((1 - results['accuracy']) * 30)
    assert len(page.images) >= 12 + min(wrong, 12) + 2
    labels = [read(workdir / 'config.json')['class_names'][i] for i in (0, 15)]
    for name in labels:
        assert [cells for cells in page.cells if cells[0] == name and len(cells) == 5]
    for field in (
        'config.model.num_parts',
        'config.stages[2].train.backbone',
        'config.data.train_count',
        'config.seed',
    ):
        assert ('dt', 'title', field) in page.attributes
    assert len(content) < 2e6


@pytest.mark.slow
def test_names_are_not_trusted(workdir):
    content = read(workdir / 'config.json')
    del content['checksum']
    content['class_names'] = [f'{name} {HOSTILE}' for name in content['class_names']]
    (workdir / 'config.json').write_text(json.dumps(content))
    changes = f"""
from ssanet_jax.data.splits import Subset
from ssanet_jax.errors import UnreadableImage
import numpy as np
class Renamed(Subset):
    def __getitem__(self, index):
        if index == 2:  # one that would be shown with its parts
            raise UnreadableImage('cannot read {HOSTILE}.jpg')
        return super().__getitem__(index) | {{'file': '"><img src=x onerror=alert(1)>\\udce9'}}
def hostile(config, class_names=()):
    d = load(config)
    return dataclasses.replace(d, name='{HOSTILE}', test=Renamed(d.test, np.arange(len(d.test))),
        class_names=tuple(name + ' {HOSTILE}' for name in d.class_names))
runs.load_dataset = hostile
"""
    with (workdir / 'scale_mining/history.jsonl').open('a') as file:
        file.write('{"kind": "epoch", "step"\n[3]\n')
    (workdir / 'part_tuning/history.jsonl').write_text('')
    problem = f'cannot read {HOSTILE}.jpg'
    for name in ('results.json', 'part_tuning/evaluation.json'):
        (workdir / name).write_text(json.dumps(remove_checksum(read(workdir / name)) | {'unreadable': [problem]}))
    measured = {'dataset': 'toy_birds', 'stage': 'part_tuning', 'unreadable': [problem]}
    robustness = measured | {'examples': 30, 'accuracy': {'original': 0.5}, 'drop': {}}
    (workdir / 'robustness.json').write_text(json.dumps(robustness))
    keypoints = OLD_KEYPOINTS | measured | {'images': 28, 'without_keypoints': 1}
    (workdir / 'keypoints.json').write_text(json.dumps(keypoints))
    out = workdir.parent / 'new' / 'folder' / 'page.html'
    done = make(f'--workdir={workdir}', f'--out={out}', changes=changes)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f'report written: {out}'
    page = check_page(out.read_text())
    assert page.text.count(HOSTILE) > 30 and '"><img src=x onerror=alert(1)>?' in page.text
    assert HOSTILE not in out.read_text()
    lacking = 'Damaged and left out: 2 lines of scale_mining/history.jsonl, all of part_tuning/history.jsonl.'
    assert lacking in page.text and out.read_text().count('<title>prediction, epoch ') == 2
    assert f'1 of 30 test images, which count as wrong: cannot read {HOSTILE}.jpg' in page.text
    lines = [f'1 of 30 images cannot be read and {treated}: cannot read {HOSTILE}.jpg' for treated in TREATMENTS]
    assert [page.text.count(line) for line in lines] == [3, 1], 'header, results and robustness; key points'


@pytest.mark.slow
def test_a_run_of_global_pooling_that_is_not_finished_and_data_that_moved(workdir):
    """No proposals, an unfinished last stage, and no history, as in a run of an early version."""
    evaluation = read(workdir / 'part_tuning/evaluation.json')
    best = {name: evaluation[name] for name in BEST_FIELDS} | {'accuracy': 0.5, 'step': 8}
    for name in ('results.json', 'part_tuning/evaluation.json'):
        (workdir / name).unlink()
    for path in workdir.glob('*/history.jsonl'):
        path.unlink()
    (workdir / 'part_tuning/best.json').write_text(json.dumps(best))  # as with validation images
    done = make(f'--workdir={workdir}', '--data_dir=elsewhere', changes=MOVED_DATA_WITHOUT_PARTS)
    assert done.returncode == 0, done.stderr
    page = check_page((workdir / 'report.html').read_text())
    assert 'The training of this run is not finished: stage 3 of 3, part_tuning, is at step 8 of 8.' in page.text
    assert 'about the network at step 8, the best so far on the validation images.' in page.text
    assert 'accuracy so far' in page.text and 'recorded no history' in page.text
    assert 'This network does not locate parts.' in page.text
    assert 'This network does not use oriented pooling.' in page.text
    assert ['part_tuning', '', '', '', '', '1', '8 of 8', ''] in page.cells


def check_errors(folder, cases, changes=''):
    """Checks that each case, {message: arguments}, ends with one line that contains its message."""
    for message, (code, stdout, stderr) in run_each(MODULE, cases, folder, ORIGINALS + changes).items():
        assert code == 2 and message in stderr and 'Traceback' not in stderr and not stdout, stderr
        assert len(stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_errors_are_one_line(workdir, tmp_path):
    before = sorted(workdir.rglob('*'))
    (tmp_path / 'cub').mkdir()
    cub = shutil.copytree(workdir, tmp_path / 'of_cub')
    content = read(cub / 'config.json')
    del content['checksum']
    content['config']['data'] |= {'name': 'cub', 'dir': str(tmp_path / 'cub')}
    (cub / 'config.json').write_text(json.dumps(content))
    cases = {
        '--workdir is missing: Folder of a trained run': [],
        'holds no run': [f'--workdir={tmp_path / "nothing"}'],
        "unexpected argument 'more': see --help": [f'--workdir={workdir}', 'more'],
        'is a folder: give the name of a file': [f'--workdir={workdir}', f'--out={tmp_path}'],
        'cannot write': [f'--workdir={workdir}', f'--out={workdir}/config.json/page.html'],
        'is missing': [f'--workdir={cub}'],
        'nowhere is not a folder': [f'--workdir={cub}', f'--data_dir={tmp_path}/nowhere'],
    }
    check_errors(tmp_path, cases)
    other = (
        "runs.load_dataset = lambda config, names=(): dataclasses.replace(load(config, names), class_names=('wren',))"
    )
    message = 'trained on other classes than toy_birds has: check --data_dir'
    check_errors(tmp_path, {message: [f'--workdir={workdir}']}, other)
    assert sorted(workdir.rglob('*')) == before


@pytest.mark.slow
def test_damaged_files_are_named_before_any_work(workdir, tmp_path):
    whole = (workdir / 'results.json').read_bytes()
    damages = {
        'results.json is damaged, it is not JSON: restore it': ('results.json', whole[: len(whole) // 2]),
        'part_tuning/evaluation.json is damaged, it is not JSON': ('part_tuning/evaluation.json', b''),
        'robustness.json is damaged or of another version: move it away': ('robustness.json', b'{"accuracy": 3}'),
        'keypoints.json is damaged, it is not JSON: move it away, or measure': ('keypoints.json', b'{"boxes": {'),
        'sharing.json is damaged or of another version: move it away': ('sharing.json', b'{"ways": [3]}'),
    }
    cases = {}
    for number, (message, (file, content)) in enumerate(damages.items()):
        copy = shutil.copytree(workdir, tmp_path / f'{number}')
        (copy / file).write_bytes(content)
        cases[message] = [f'--workdir={copy}']
    check_errors(
        tmp_path, cases, 'def predict_test_set(*_): raise SystemExit(7)\nmodule.predict_test_set = predict_test_set'
    )
    assert not list(tmp_path.glob('*/report.html'))


@pytest.mark.parametrize(
    ('accuracy', 'images', 'low', 'high'),
    [(0.8, 10, 0.4902, 0.9433), (1.0, 512, 0.99255, 1.0), (0.0, 10, 0.0, 0.2775), (0.5, 10000, 0.4902, 0.5098)],
)
def test_the_interval_is_wilsons(accuracy, images, low, high):
    assert confidence_interval(accuracy, images) == pytest.approx((low, high), abs=2e-4)


def browser() -> str:
    for name in ('chromium', 'chromium-browser', 'google-chrome', 'chrome'):
        if shutil.which(name):
            return name
    pytest.skip('no chromium or chrome is on PATH')


def dump(name, page, folder):
    """The page's document after loading, and the browser's console messages."""
    command = [name, '--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr', '--dump-dom']
    command += [f'--user-data-dir={folder / "profile"}', '--window-size=800,800', '--virtual-time-budget=10000']
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=300)
    return done.stdout, [line for line in done.stderr.splitlines() if 'CONSOLE' in line]


@pytest.mark.slow
@pytest.mark.parametrize('width', [360, 1280])
def test_a_browser_shows_it_without_scrolling_sideways(workdir, tmp_path, width):
    name = browser()
    control = tmp_path / 'control.html'
    control.write_text('<!DOCTYPE html><title>control</title>')
    if 'control' not in dump(name, control, tmp_path)[0]:
        pytest.skip(f'{name} opens no file of {tmp_path}')
    assert make(f'--workdir={workdir}', f'--out={tmp_path / "report.html"}').returncode == 0

    _, complaints = dump(name, tmp_path / 'report.html', tmp_path)
    assert not complaints
    # The policy is removed in a copy, so that a script can report its width to the enclosing frame.
    content = re.sub('<meta http-equiv[^>]*>', '', (tmp_path / 'report.html').read_text())
    tell = """<script>addEventListener('load', () => parent.postMessage([
        document.documentElement.scrollWidth, innerWidth, document.images.length,
        [...document.images].filter(image => !image.naturalWidth).length].join(' '), '*'))</script>"""
    (tmp_path / 'copy.html').write_text(content.replace('</head>', f'{tell}</head>'))
    frame = tmp_path / 'frame.html'
    frame.write_text(
        '<!DOCTYPE html><title>nothing</title>'
        "<script>addEventListener('message', event => { document.title = event.data })</script>"
        f'<iframe src="copy.html" style="width:{width}px;height:800px;border:0"></iframe>'
    )
    found = re.search('<title>(.*?)</title>', dump(name, frame, tmp_path)[0])[1]
    scroll, inner, images, broken = map(int, found.split())
    assert scroll <= inner == width and images >= 12 and not broken
