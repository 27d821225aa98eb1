"""The page in a browser without a window, with the real onnxruntime-web."""

import csv
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, find_chromium, serve
from color_network import NAMED_COLORS, write_color_network
from PIL import Image

from ssanet_jax.artifact.model_file import read_model_file
from ssanet_jax.web.page import write_page
from ssanet_jax.web.runtime import read_runtime

pytestmark = pytest.mark.slow

RUNTIME = 'SSANET_ONNXRUNTIME_WEB'
STATUS = 'document.getElementById("status").textContent'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """The file of the network, and its predictor without a browser."""
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    from ssanet_jax.artifact.model_file import load_model

    path = tmp_path_factory.mktemp('model') / 'colors.onnx'
    write_color_network(path, NAMED_COLORS)
    return path, load_model(path)


@pytest.fixture(scope='module')
def folder(model, tmp_path_factory):
    if find_chromium() is None:
        pytest.skip('needs Chromium')
    if not os.environ.get(RUNTIME):
        pytest.skip(f'needs the package onnxruntime-web, named by {RUNTIME}')
    out = tmp_path_factory.mktemp('page') / 'page'
    write_page(read_model_file(model[0]), out, read_runtime(Path(os.environ[RUNTIME])))
    return out


@pytest.fixture(scope='module')
def browser(folder, tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp('profile'))
    yield browser
    browser.close()


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Photos of all kinds: the classes, two of them at once, turned by EXIF, transparent, larger than a strip."""
    folder = tmp_path_factory.mktemp('photos')
    names = []

    def save(name, image, **options):
        image.save(folder / name, **options)
        names.append(folder / name)

    for index, color in enumerate(NAMED_COLORS.values()):
        save(f'class {index}.png', Image.new('RGB', (50 + index, 40), color))
    halves = np.full((300, 400, 3), (30, 180, 40), np.uint8)
    halves[:, 170:] = (40, 60, 210)
    save('halves.jpg', Image.fromarray(halves), quality=95)
    strange = np.full((40, 40, 3), (200, 30, 30), np.uint8)
    strange[22:] = (40, 60, 210)
    save('strange.png', Image.fromarray(strange))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    save('turned.jpg', Image.fromarray(halves), quality=95, exif=exif)
    save('transparent.png', Image.new('RGBA', (64, 64), (200, 30, 30, 0)))
    y, x = np.mgrid[:1200, :1500]
    smooth = np.stack([127 + 120 * np.sin(x / 90), 127 + 120 * np.cos(y / 70), x * 255 / 1500], -1)
    save('large.png', Image.fromarray(smooth.astype(np.uint8)))
    return names


@pytest.fixture(scope='module')
def seen(browser, folder, photos, tmp_path_factory):
    """What the page shows and saves for the photos and a file that is none, and what the server was asked for."""
    notes = tmp_path_factory.mktemp('notes') / 'notes.txt'
    notes.write_text('no photo')
    downloads = tmp_path_factory.mktemp('downloads')
    with serve(folder) as (url, requested):
        browser.open(f'{url}/')
        browser.wait_for(f'{STATUS} === "Ready."')
        browser.choose_files('#choose', [*photos, notes])
        status = browser.wait_for(f'/done/.test({STATUS}) && {STATUS}')
        cards = browser.evaluate("""
            Array.from(document.querySelectorAll('.card'), (card) => ({
                file: card.querySelector('h2').textContent,
                label: card.querySelector('.answer')?.textContent,
                unsure: card.querySelector('.unsure')?.textContent,
                alt: card.querySelector('img')?.alt,
                boxes: Array.from(card.querySelectorAll('.box'),
                    (box) => ['x', 'y', 'width', 'height'].map((name) => Number(box.getAttribute(name)))),
                evidence: Array.from(card.querySelectorAll('.evidence li'), (line) => line.textContent),
                top: Array.from(card.querySelectorAll('.top li'), (line) => line.textContent),
            }))""")
        browser.call('Page.setDownloadBehavior', behavior='allow', downloadPath=str(downloads))
        browser.evaluate('document.getElementById("download").click()')
        table = downloads / 'predictions.csv'
        while not table.exists():
            time.sleep(0.05)
        rows = list(csv.DictReader(table.read_text().splitlines()))
        yield {'url': url, 'status': status, 'cards': cards, 'rows': rows, 'requested': requested}


def attach_workers(browser, url, session=None):
    """Sessions of the workers that a page at `url`, or the worker of another session, has started."""
    browser.call('Target.setAutoAttach', session, autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
    attached = [event['params'] for event in browser.events if event['method'] == 'Target.attachedToTarget']
    workers = [one for one in attached if one['targetInfo']['url'].startswith(f'blob:{url}/')]
    return {one['sessionId'] for one in workers}


def test_page_agrees_with_onnxruntime(seen, model, photos):
    expected = list(model[1].predict(photos))
    assert len(seen['rows']) == len(photos)
    for row, prediction, path in zip(seen['rows'], expected, photos):
        assert row['file'] == path.name
        assert row['class'] == prediction.label
        assert float(row['probability']) == pytest.approx(prediction.score, abs=0.01)
        assert float(row['novelty']) == pytest.approx(prediction.novelty, abs=0.01)
        assert row['unsure'] == prediction.unsure
    assert {prediction.label for prediction in expected} == set(NAMED_COLORS)
    assert any(prediction.unsure for prediction in expected)


def test_cards_say_it_in_words(seen, model, photos):
    assert [card['file'] for card in seen['cards']] == [*(path.name for path in photos), 'notes.txt']
    for card, prediction in zip(seen['cards'], model[1].predict(photos)):
        assert card['label'] == prediction.label
        assert (card.get('unsure', '')) == (f'unsure: {prediction.unsure}' if prediction.unsure else '')
        assert f'recognized as {prediction.label}, with 2 parts marked' in card['alt']
        assert len(card['evidence']) == 2 and len(card['top']) == len(NAMED_COLORS)
        assert not any('100\xa0%' in line for line in card['top'])
    assert 'is not an image that your browser can read' in seen['cards'][-1]['unsure']
    assert seen['status'] == f'{len(photos)} photos done. 1 file could not be read.'


def test_boxes_are_drawn_where_the_parts_are(seen, model, photos):
    for card, prediction in zip(seen['cards'], model[1].predict(photos)):
        y0, x0, y1, x1 = prediction.boxes.T
        np.testing.assert_allclose(card['boxes'], np.stack([x0, y0, x1 - x0, y1 - y0], 1), rtol=1e-4)


def test_only_the_files_of_the_page_are_requested(seen, folder):
    files = {f'/{path.relative_to(folder)}' for path in folder.rglob('*') if path.is_file()}
    assert set(seen['requested']) <= files | {'/'}
    assert f'/{next(folder.glob("*.onnx")).name}' in seen['requested']


def test_policy_keeps_page_and_worker_from_other_hosts(seen, browser, tmp_path):
    """`seen` has the page open."""
    (worker,) = attach_workers(browser, seen['url'])
    with serve(tmp_path) as (other, requested):
        send = f'fetch({json.dumps(other)}, {{method: "POST", body: "photo"}}).then(() => "sent", () => "refused")'
        for session in (None, worker):
            assert browser.evaluate(send, session) == 'refused'
        assert requested == []


def test_page_is_as_wide_as_a_phone_and_names_its_controls(seen, browser):
    browser.call('Emulation.setDeviceMetricsOverride', width=360, height=740, deviceScaleFactor=2, mobile=True)
    assert browser.evaluate('document.documentElement.scrollWidth') == 360
    browser.call('Emulation.clearDeviceMetricsOverride')
    tree = browser.call('Accessibility.getFullAXTree')['nodes']
    names = {(node['role']['value'], node.get('name', {}).get('value')) for node in tree if not node['ignored']}
    assert ('button', 'Download table (CSV)') in names
    assert any(role == 'button' and (name or '').startswith('Choose photos') for role, name in names)
    assert not [role for role, name in names if role in ('button', 'image', 'link') and not name]


def test_clear_removes_the_photos(seen, browser):
    browser.evaluate('document.getElementById("clear").click()')
    assert browser.evaluate('document.querySelectorAll(".card").length') == 0
    assert browser.evaluate('document.activeElement.id') == 'choose'


def test_threads_give_the_same_predictions(seen, browser, folder, photos):
    """With the headers that the folder names, the network runs on several threads."""
    lines = (folder / '_headers').read_text().splitlines()
    assert lines[0] == '/*'
    browser.events.clear()
    with serve(folder, dict(line.strip().split(': ') for line in lines[1:])) as (url, _):
        browser.open(f'{url}/')
        browser.wait_for(f'{STATUS} === "Ready."')
        browser.choose_files('#choose', photos)
        browser.wait_for(f'/done/.test({STATUS})')
        cards = browser.evaluate("""
            Array.from(document.querySelectorAll('.card'), (card) => [
                card.querySelector('h2').textContent,
                card.querySelector('.answer').textContent,
                Array.from(card.querySelectorAll('.top li'), (line) => line.textContent),
            ])""")
        assert browser.evaluate('crossOriginIsolated')
        (worker,) = attach_workers(browser, url)
        threads = min(4, browser.evaluate('navigator.hardwareConcurrency'))
        assert len(attach_workers(browser, url, worker) - {worker}) == threads - 1  # the page's worker is one itself
    assert cards == [[card['file'], card['label'], card['top']] for card in seen['cards'][:-1]]
    assert browser.complaints() == []


def test_page_says_what_is_missing(browser, folder, tmp_path):
    """A file of the folder was not uploaded."""
    description = json.loads((folder / 'model.json').read_text())
    for path in folder.rglob('*'):
        if path.is_file() and path.name != description['files']['model']['url']:
            copy = tmp_path / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            copy.symlink_to(path)
    with serve(tmp_path) as (url, _):
        browser.open(f'{url}/')
        status = browser.wait_for(f'/Cannot/.test({STATUS}) && {STATUS}')
    assert status.startswith('Cannot load model.') and status.endswith('Upload the whole folder again.')
    assert browser.evaluate('document.getElementById("choose").disabled')
