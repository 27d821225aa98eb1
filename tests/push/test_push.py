"""Runs that are pushed to a stand-in of the hub, and loaded from it."""

import json
import os
import pickle
import sys

import numpy as np
import pytest
from commands import check_user_error, run_each, run_python
from hub_server import OWNER, TOKEN, serve_hub
from PIL import Image

import ssanet_jax
from ssanet_jax import UserError
from ssanet_jax.push.model_card import escape_markdown, is_unedited
from ssanet_jax.push.upload import check_token, upload
from ssanet_jax.runs.files import read_json
from ssanet_jax.runs.run import load_run
from ssanet_jax.runs.shared_network import load_from_hub

constants = pytest.importorskip('huggingface_hub.constants', reason='needs huggingface_hub')
pytest.importorskip('onnxruntime', reason="needs onnxruntime: pip install -e '.[export]'")
pytest.importorskip('onnx', reason="needs onnx: pip install -e '.[export]'")

NAME = f'{OWNER}/birds'
OPTIONAL = ('*/index.npz', 'parts.png')


@pytest.fixture(scope='module')
def hub():
    with serve_hub() as server:
        yield server


@pytest.fixture(scope='module')
def environment(hub, tmp_path_factory):
    """What a command needs to find the stand-in; its uploads are those of Git LFS."""
    home = str(tmp_path_factory.mktemp('hub'))
    return {'HF_ENDPOINT': hub.url, 'HF_HOME': home, 'HF_TOKEN': TOKEN, 'HF_HUB_DISABLE_XET': '1'}


@pytest.fixture(scope='module')
def pushed(hub, environment, finished_run):
    """The output of the command, for the run that all tests share."""
    arguments = (NAME, f'--workdir={finished_run.workdir}', '--private', '--license=apache-2.0')
    done = run_python(('-m', 'ssanet_jax', 'push'), *arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def here(hub, pushed, environment, tmp_path, monkeypatch):
    """The stand-in, for this process."""
    monkeypatch.setattr(constants, 'ENDPOINT', hub.url)
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', hub.url + '/{repo_id}/resolve/{revision}/{filename}')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    return hub


def images(count=3):
    return list(np.random.default_rng(0).integers(0, 256, (count, 80, 70, 3), np.uint8))


def test_the_command_uploads_what_it_lists_and_nothing_of_the_machine(hub, pushed, finished_run):
    files = hub.repositories[NAME][-1]
    assert sorted(files) == ['README.md', 'config.json', 'model.onnx', 'model.safetensors']
    *listed, total, uploaded, load_it = pushed.splitlines()
    assert [line.split()[0] for line in listed] == sorted(files)
    for line in listed:
        name, size, unit = line.split()
        assert float(size) * {'MB': 1e6, 'kB': 1e3}[unit] == pytest.approx(len(files[name]), rel=0.05, abs=60)
    assert total.startswith('4 files, ') and total.endswith('without --index and --pictures')
    commit = hub.commit_id(NAME)
    assert uploaded.endswith(commit) and load_it == f"load it: ssanet_jax.load('hub:{NAME}@{commit}')"
    assert hub.private == {NAME}
    folders = {str(folder) for folder in finished_run.workdir.parents if len(folder.parts) > 1}
    folders |= {os.path.expanduser('~'), '.cache', os.getcwd()}
    for name, content in files.items():
        assert not [folder for folder in folders if folder.encode() in content], name


def test_the_card_says_what_the_run_measured(hub, pushed, finished_run):
    yaml = pytest.importorskip('yaml')
    card = hub.repositories[NAME][-1]['README.md'].decode()
    header = yaml.safe_load(card.split('---\n')[1])
    results = read_json(finished_run.workdir / 'results.json', '')
    (measured,) = header['model-index'][0]['results']
    assert measured['metrics'][0]['value'] == pytest.approx(results['accuracy'], abs=1e-4)
    assert (header['library_name'], header['license']) == ('ssanet_jax', 'apache-2.0')
    # Wilson's interval of 1.96 standard deviations, written out.
    accuracy, n, z = results['accuracy'], results['examples'], 1.959964
    center, half = accuracy + z**2 / 2 / n, z * np.sqrt(accuracy * (1 - accuracy) / n + z**2 / 4 / n**2)
    low, high = (100 * (center + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    assert f'{100 * accuracy:.1f} %** on {n} test images (95 % interval {low:.1f} to {high:.1f} %)' in card
    assert '62 training images, 30 test images' in card and 'trained from random weights' in card
    assert 'no held-out images' in card and 'Robustness against rotation and lower resolution was not measured' in card
    assert f"ssanet_jax.load('hub:{NAME}')" in card
    for name in load_run(finished_run.workdir).class_names:
        assert f'* {escape_markdown(name)}\n' in card
    assert is_unedited(card)
    assert not is_unedited(card.replace('Limits', 'Limit')) and not is_unedited('# birds\n')


def test_names_of_classes_cannot_write_into_the_card():
    assert escape_markdown('a*b|<script>\n# x') == r'a\*b\|\<script\> \# x'


def test_onnxruntime_says_the_same_as_the_run_from_a_pinned_commit(here, finished_run, capsys):
    commit = here.commit_id(NAME)
    model = ssanet_jax.load(f'hub:{NAME}@{commit}')
    assert isinstance(model, ssanet_jax.OnnxPredictor)
    assert f'model.onnx of commit {commit}, sha256 ' in capsys.readouterr().err
    expected = ssanet_jax.load(finished_run.workdir).predict(images())
    for found, wanted in zip(model.predict(images()), expected, strict=True):
        assert found.label == wanted.label
        assert found.score == pytest.approx(wanted.score, abs=1e-4)
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.1)


def test_jax_computes_the_same_bits_as_the_run(here, finished_run):
    run, original = load_from_hub(NAME), load_run(finished_run.workdir)
    assert run.network_digest() == original.network_digest()
    assert (run.active, run.class_names, run.stage) == (original.active, original.class_names, original.stage)
    found, wanted = (list(model.predict(images())) for model in (
        ssanet_jax.load(f'hub:{NAME}', backend='jax'), ssanet_jax.load(finished_run.workdir)
    ))  # fmt: skip
    assert [one.score for one in found] == [one.score for one in wanted]
    with pytest.raises(UserError, match='no index of training images'):
        run.read_index()


def test_the_command_predicts_without_jax(pushed, environment, tmp_path):
    Image.fromarray(images()[0]).save(tmp_path / 'photo.png')
    program = "import sys\nsys.modules['jax'] = sys.modules['flax'] = None\nfrom ssanet_jax import cli, predict\n"
    program += 'cli.run(predict.main, accepts_arguments=True)'
    arguments = (f'--model=hub:{NAME}', f'--out={tmp_path / "out"}', '--pictures=none', tmp_path / 'photo.png')
    done = run_python(('-c', program), *arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'out' / 'predictions.jsonl').read_text())['class']


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def alter_config(files, **changes):
    """Changes `config.json` as a forger would, its checksum as well."""
    from ssanet_jax.runs.json_checksums import add_checksum

    content = json.loads(files['config.json'])
    del content['checksum']
    return files | {'config.json': json.dumps(add_checksum(content | changes)).encode()}


ALTERED = {
    'model.safetensors differs from the checksum': lambda files: files
    | {'model.safetensors': flip(files['model.safetensors'], -9)},
    'config.json is damaged': lambda files: files | {'config.json': files['config.json'].replace(b': 64', b': 96', 1)},
    'does not fit its config.json': lambda files: alter_config(files, class_names=['wren']),
    'is not of a network': lambda files: alter_config(files, sha256=None),
    'has no file model.safetensors': lambda files: {'config.json': files['config.json']},
    'differs from the checksum in': lambda files: files | {'model.safetensors': pickle.dumps(print)},
}  # fmt: skip


@pytest.mark.parametrize('words', ALTERED)
def test_altered_files_are_refused_in_one_line(words, here):
    name = f'{OWNER}/altered{list(ALTERED).index(words)}'
    here.repositories[name] = [ALTERED[words](here.repositories[NAME][-1])]
    with pytest.raises(UserError, match=words) as caught:
        load_from_hub(name)
    assert '\n' not in str(caught.value)


def test_what_cannot_be_loaded_is_named(here):
    files = here.repositories[NAME][-1]
    here.repositories |= {f'{OWNER}/{name}': [files] for name in ('gated', 'large')}
    here.repositories[f'{OWNER}/pickled'] = [{'model.onnx': pickle.dumps(print)}]
    here.gated.add(f'{OWNER}/gated')
    here.claimed_sizes['model.onnx'] = 1 << 40
    try:
        with pytest.raises(UserError, match='model.onnx of hub:me/large has 1,099,512 MB'):
            ssanet_jax.load(f'hub:{OWNER}/large')
    finally:
        here.claimed_sizes.clear()
    assert ('GET', f'/{OWNER}/large/resolve/main/model.onnx') not in here.requests
    cases = {
        'me/gated': 'is gated: accept its license at huggingface.co/me/gated, then run `hf auth login`',
        'me/pickled': 'give a file that ssanet export wrote',
        'me/absent': 'the hub has no repository me/absent',
        f'{NAME}@v7': 'the hub has no repository me/birds@v7',
        'birds': 'is no name of a repository: give hub:OWNER/NAME',
        'me/../birds': 'is no name of a repository',
    }
    for name, words in cases.items():
        with pytest.raises(UserError, match=words) as caught:
            ssanet_jax.load(f'hub:{name}')
        assert '\n' not in str(caught.value)
    with pytest.raises(UserError, match="backend='jax'"):
        ssanet_jax.load('birds.onnx', backend='jax')


def test_a_second_push_keeps_an_edited_card_and_removes_what_it_leaves_out(here, tmp_path):
    files = here.repositories[NAME][-1]
    name = f'{OWNER}/again'
    here.repositories[name] = [{'README.md': b'# by hand', 'parts.png': b'photo', 'fit/index.npz': b'x', 'more': b'y'}]
    for file, content in files.items():
        (tmp_path / 'folder').mkdir(exist_ok=True)
        (tmp_path / 'folder' / file).write_bytes(content)
    done = upload(tmp_path / 'folder', name, None, OPTIONAL)
    assert done.kept_card and done.commit == here.commit_id(name)
    assert here.repositories[name][-1] == files | {'README.md': b'# by hand', 'more': b'y'}
    here.repositories[name].append(here.repositories[name][-1] | {'README.md': files['README.md']})
    assert not upload(tmp_path / 'folder', name, None, OPTIONAL).kept_card
    with pytest.raises(UserError, match='does not let you write to you/birds: give a name of your own'):
        upload(tmp_path / 'folder', 'you/birds', None, OPTIONAL)
    assert 'you/birds' not in here.repositories


def test_the_command_refuses_in_one_line(environment, finished_run, tmp_path, monkeypatch):
    workdir = f'--workdir={finished_run.workdir}'
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cases = {
        'is no name of a repository': ['birds', workdir],
        '0 names of repositories': [workdir],
        '--dry_run needs --out': [NAME, workdir, '--dry_run'],
        'is no name of a license': [NAME, workdir, '--license=my own'],
        'is not empty': [NAME, workdir, '--dry_run', f'--out={finished_run.workdir}'],
        'holds no run': [NAME, f'--workdir={tmp_path}'],
    }
    for words, ended in run_each('ssanet_jax.push', cases, tmp_path).items():
        check_user_error(ended, [words])


def test_what_keeps_the_hub_from_taking_files_is_named(here, tmp_path, monkeypatch):
    check_token(NAME)
    monkeypatch.setattr(constants, 'HF_TOKEN_PATH', str(tmp_path / 'no token'))
    monkeypatch.setenv('HF_TOKEN', 'hf_of_nobody')
    with pytest.raises(UserError, match='does not accept your token: run `hf auth login`'):
        check_token(NAME)
    monkeypatch.delenv('HF_TOKEN')
    with pytest.raises(UserError, match='does not know who you are: run `hf auth login`'):
        check_token(NAME)
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')  # where nothing listens
    with pytest.raises(UserError, match='cannot be reached') as caught:
        check_token(NAME)
    assert '\n' not in str(caught.value)


def test_without_its_package_the_command_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    monkeypatch.setitem(sys.modules, 'huggingface_hub.errors', None)
    with pytest.raises(UserError, match='pip install huggingface_hub'):
        upload(tmp_path, NAME, None, ())
    with pytest.raises(UserError, match='pip install huggingface_hub'):
        ssanet_jax.load(f'hub:{NAME}')
