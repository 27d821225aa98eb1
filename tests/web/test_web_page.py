"""The folder of the page."""

import base64
import dataclasses
import hashlib
import io
import json
import re
import tarfile

import pytest
from color_network import INPUTS, NAMED_COLORS, NOVELTY_LIMIT, write_color_network
from commands import run_python
from node import PAGE

from ssanet_jax.artifact.model_file import read_model_file
from ssanet_jax.errors import UserError
from ssanet_jax.web import runtime
from ssanet_jax.web.page import write_page


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    pytest.importorskip('onnx')
    path = tmp_path_factory.mktemp('model') / 'colors.onnx'
    write_color_network(path, NAMED_COLORS)
    return read_model_file(path)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An archive with other content in place of the runtime, which the code takes for the right one."""
    contents = {'module': b'export const env = {};', 'wasm': bytes(range(200))}
    files = {}
    for key, content in contents.items():
        digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
        files[key] = runtime.RuntimeFile(runtime.FILES[key].name, len(content), f'sha384-{digest}')
    monkeypatch.setattr(runtime, 'FILES', files)
    return write_package(tmp_path / 'package.tgz', contents)


def write_package(path, contents):
    with tarfile.open(path, 'w:gz') as archive:
        for key, content in contents.items():
            entry = tarfile.TarInfo(f'package/dist/{runtime.FILES[key].name}')
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def test_folder_holds_what_its_description_names(model, package, tmp_path):
    out = tmp_path / 'page'
    size = write_page(model, out, runtime.read_runtime(package))
    assert size == sum(path.stat().st_size for path in out.rglob('*') if path.is_file())
    description = json.loads((out / 'model.json').read_text())
    assert description['class_names'] == list(NAMED_COLORS)
    assert description['part_names'] == ['part 1', 'part 2']
    assert description['preprocessing'] == vars(INPUTS)
    assert description['calibration']['novelty_limit'] == NOVELTY_LIMIT
    named = [description['files']['model'], *description['files']['runtime'].values()]
    for file in named:
        assert (out / file['url']).stat().st_size == file['bytes']
    assert (out / named[0]['url']).read_bytes() == model.data
    own = {path.name for path in PAGE.iterdir()}
    assert files_of(out) == own | {file['url'] for file in named} | {'model.json', '_headers'}


def test_first_part_of_prototypes_is_named_as_the_object(model, tmp_path):
    config = {'model': {'proposal': 'prototypes'}}
    provenance = dataclasses.replace(model.metadata.provenance, config=config)
    write_page(model._replace(metadata=dataclasses.replace(model.metadata, provenance=provenance)), tmp_path, None)
    assert json.loads((tmp_path / 'model.json').read_text())['part_names'] == ['object', 'part 2']


def test_page_asks_no_other_host_unless_told_to(model, package, tmp_path):
    write_page(model, tmp_path / 'alone', runtime.read_runtime(package))
    write_page(model, tmp_path / 'cdn', None)
    for path in (tmp_path / 'alone').glob('*.*'):
        assert not re.search(rb'https?://(?!www\.w3\.org/2000/svg|localhost)', path.read_bytes()), path
    policy = re.search('Content-Security-Policy" content="([^"]+)', (tmp_path / 'cdn/index.html').read_text())[1]
    assert f"connect-src 'self' {runtime.CDN}/;" in policy
    assert policy.count('http') == 1
    files = json.loads((tmp_path / 'cdn/model.json').read_text())['files']['runtime']
    assert files['wasm']['url'].startswith('https://') and f'@{runtime.VERSION}/' in files['wasm']['url']
    assert files['wasm']['integrity'] == runtime.FILES['wasm'].integrity
    assert not (tmp_path / 'cdn/runtime').exists()


def test_later_page_replaces_an_earlier_one(model, package, tmp_path):
    out = tmp_path / 'page'
    write_page(model, out, runtime.read_runtime(package))
    (out / 'model.000000000000.onnx').write_bytes(b'of an earlier run')
    write_page(model, out, None)
    assert not (out / 'runtime').exists()
    assert [path.name for path in out.glob('*.onnx')] == [
        json.loads((out / 'model.json').read_text())['files']['model']['url']
    ]


def test_folder_of_something_else_is_left_alone(model, package, tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work/thesis.txt').write_text('words')
    with pytest.raises(UserError, match='has other files than a page'):
        write_page(model, tmp_path / 'work', None)
    assert files_of(tmp_path / 'work') == {'thesis.txt'}


def test_runtime_is_never_loaded_without_being_asked_for():
    with pytest.raises(UserError, match='needs --runtime=PACKAGE'):
        runtime.choose_runtime(None)
    assert runtime.choose_runtime('cdn') is None


@pytest.mark.slow
def test_command_writes_a_page_of_a_run(finished_run, tmp_path):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    out = tmp_path / 'page'
    arguments = (f'--workdir={finished_run.workdir}', f'--out={out}', '--format=web', '--runtime=cdn')
    done = run_python(('-m', 'ssanet_jax', 'export'), *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'{out}: ')
    description = json.loads((out / 'model.json').read_text())
    assert description['provenance']['run'] == finished_run.workdir.name
    assert description['provenance']['weights'] == 'float16'
    network = read_model_file(out / description['files']['model']['url'])
    assert list(network.metadata.class_names) == description['class_names']


def test_unpacked_package_is_read_as_well(package, tmp_path):
    with tarfile.open(package) as archive:
        archive.extractall(tmp_path, filter='data')
    expected = runtime.read_runtime(package)
    assert runtime.read_runtime(tmp_path / 'package') == expected
    assert runtime.read_runtime(tmp_path / 'package/dist') == expected


@pytest.mark.parametrize('kind', ['missing', 'no archive', 'another archive', 'another version', 'larger'])
def test_other_packages_are_refused(kind, package, tmp_path):
    path = tmp_path / 'other.tgz'
    contents = runtime.read_runtime(package)
    if kind == 'no archive':
        path.write_bytes(b'hello')
    elif kind == 'another archive':
        write_package(path, {})
    elif kind == 'another version':
        write_package(path, contents | {'wasm': bytes(200)})
    elif kind == 'larger':
        write_package(path, contents | {'wasm': contents['wasm'] + b'more'})
    with pytest.raises(UserError, match=f'npm pack onnxruntime-web@{runtime.VERSION}') as raised:
        runtime.read_runtime(path)
    assert str(path) in str(raised.value) and '\n' not in str(raised.value)


def test_modules_import_what_exists():
    for path in PAGE.glob('*.js'):
        for names, module in re.findall(r"import \{([^}]+)\} from '\./([\w.]+)'", path.read_text()):
            exported = re.findall(r'export (?:async )?(?:function|class|const) (\w+)', (PAGE / module).read_text())
            assert {name.strip() for name in names.split(',')} <= set(exported), (path.name, module)


def test_ids_and_files_of_the_page_exist():
    page = (PAGE / 'index.html').read_text()
    ids = re.findall(r' id="([\w-]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"element\('([\w-]+)'\)", (PAGE / 'main.js').read_text())) <= set(ids)
    for name in re.findall(r'(?:href|src)="([^"]+)"', page):
        assert (PAGE / name).is_file(), name
    assert 'style=' not in page and '<script>' not in page  # the policy forbids them
