"""docs/your_own_photos.md and its notebook, word by word: from a folder of drawn birds to predictions and a report."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from PIL import Image

from ssanet_jax.data.toy_birds import ToyBirds

PAGE, NOTEBOOK = ROOT / 'docs' / 'your_own_photos.md', ROOT / 'docs' / 'your_own_photos.ipynb'
# Beside the page's training command: a random network and small images, so that it takes seconds.
TINY = [
    '--config.model.backbone=resnet_tiny',
    '--config.model.pretrained=none',
    '--config.model.crop_size=56',
    '--config.data.image_size=64',
    '--config.data.resize=64',
    '--config.data.batch_size=8',
]


def page_commands() -> list[str]:
    """The lines of the page's blocks of shell code, except the installation."""
    blocks = re.findall(r'^```sh\n(.*?)^```', PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks[1:] for line in block.splitlines()]


def cells() -> list[str]:
    """The notebook's cells of code."""
    notebook = json.loads(NOTEBOOK.read_text())
    return [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'XDG_CACHE_HOME': str(folder / 'cache')}
    environment |= {'HOME': str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope='module')
def followed(tmp_path_factory):
    """The folder of someone who has followed the page, and what each command has said."""
    folder = tmp_path_factory.mktemp('own')
    source = ToyBirds(80, 'train', size=96)
    kept = [index for index in range(len(source)) if source.labels[index] < 4]
    for index in kept:
        path = folder / 'photos' / f'kind_{source.labels[index]}' / f'{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source[index]['image']).save(path)
    (folder / 'new_photos').mkdir()
    Image.fromarray(ToyBirds(1, 'test', size=96)[0]['image']).save(folder / 'new_photos' / 'new.png')
    said = {}
    for line in page_commands():
        command = line.split()
        assert command[0] == 'python'
        options = TINY if 'ssanet_jax.main' in command else []
        said[line] = run([sys.executable, *command[1:], *options], folder)
        assert said[line].returncode == 0, said[line].stderr
    return folder, said


@pytest.mark.slow
def test_the_page_leads_to_an_answer(followed):
    folder, said = followed
    checked, trained, predicted, reported, labels = said.values()
    assert checked.stdout.splitlines()[-1].startswith('ok: 16 train and 4 test images, 4 classes')
    assert re.match(r'accuracy \d\.\d{4} on 4 images', trained.stdout)
    assert predicted.stdout == '1 image recognized: see predictions\n'
    assert json.loads((folder / 'predictions/predictions.jsonl').read_text())['class'].startswith('kind_')
    assert reported.stdout == 'report written: runs/photos/report.html\n'
    assert 'label_errors.html' in labels.stdout
    for name in ('predictions/new_photos_new.png.png', 'runs/photos/report.html', 'runs/photos/label_errors.html'):
        assert (folder / name).stat().st_size, name


@pytest.mark.slow
def test_the_log_of_a_training_says_what_goes_on(followed):
    log = list(followed[1].values())[1].stderr
    words = [
        'photos (random 80/20 split)',
        'recipe full: ',
        'another choice is --config.recipe=quick',
        'stage 1 of 1: fit, a fit by L-BFGS to 2 views of each image',
        'fit: looking for parts: 16 views of 16 images',
        'fit: choosing parts',
        'fit: computing features: 32 views of 16 images',
        'fit: fitting classifiers',
        'fit  evaluating 4 test images',
        'fit  test accuracy: ',
        'drawing the parts on 10 test images',
    ]
    places = [log.find(word) for word in words]
    assert -1 not in places and places == sorted(places), log
    recorded = json.loads((followed[0] / 'runs/photos/config.json').read_text())['config']
    assert (recorded['recipe'], recorded['model']['num_parts'], recorded['stages'][0]['epochs']) == ('full', 4, 2)


@pytest.mark.slow
def test_the_notebook_leads_to_an_answer(followed):
    """Its training cell finds the run of the page, which has the same name, and fits nothing again."""
    code = '\n'.join(cells())
    assert code.count('\noptions = []') == 1
    code = code.replace('\noptions = []', f'\noptions = {TINY}')
    done = run([sys.executable, '-c', code], followed[0])
    assert done.returncode == 0, done.stderr
    assert re.search(r'^new_photos/new\.png kind_\d \d\.\d\d', done.stdout, re.MULTILINE)
    assert 'computing features' not in done.stderr
    assert done.stdout.splitlines()[-1] == 'runs/photos/report.html runs/photos/label_errors.html'


def test_the_notebook_says_the_same_as_the_page():
    """The same commands in the same order, and nothing that a reader would not see or could not share."""
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook['nbformat'] == 4
    for cell in notebook['cells']:
        assert cell['cell_type'] == 'markdown' or (cell['outputs'], cell['execution_count']) == ([], None)
    calls = [
        node
        for node in ast.walk(ast.parse('\n'.join(cells())))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'run'
    ]
    modules = [call.args[0].value for call in sorted(calls, key=lambda call: call.lineno)]
    on_page = [line.split()[2] for line in page_commands()]
    assert modules == [module for module in on_page if module != 'ssanet_jax.predict']  # the notebook asks in Python


def test_the_notebook_is_valid():
    nbformat = pytest.importorskip('nbformat', reason='the package nbformat validates notebooks')
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
