"""The wheel: real files in place of links, and commands that work from an empty folder."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from commands import ROOT

pytestmark = pytest.mark.slow

_BUILD = 'import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))'


def run(program, folder, **environment):
    return subprocess.run(
        [sys.executable, *program],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def build(kind: str, source: Path, target: Path) -> Path:
    """Builds 'build_wheel' or 'build_sdist' as pip does it, without a network."""
    target.mkdir(exist_ok=True)
    done = run(['-c', _BUILD, kind, str(target)], source)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope='module')
def wheels(tmp_path_factory) -> dict[str, Path]:
    """Wheels built from a copy of the files that git tracks, and from its source distribution."""
    pytest.importorskip('setuptools', minversion='77')
    if not (ROOT / '.git').exists():
        pytest.skip('needs a checkout')
    folder = tmp_path_factory.mktemp('wheel')
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True).stdout
    packed = subprocess.run(
        ['tar', '--create', '--null', '--files-from=-'], cwd=ROOT, input=listed, capture_output=True, check=True
    ).stdout
    checkout = folder / 'checkout'
    checkout.mkdir()
    subprocess.run(['tar', '--extract'], cwd=checkout, input=packed, check=True)
    assert (checkout / 'ssanet_jax' / 'configs').is_symlink()
    sdist = build('build_sdist', checkout, folder / 'sdist')
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / 'unpacked', filter='data')
    (unpacked,) = (folder / 'unpacked').iterdir()
    assert not (unpacked / 'ssanet_jax' / 'configs').is_symlink()
    return {
        'checkout': build('build_wheel', checkout, folder / 'from_checkout'),
        'sdist': build('build_wheel', unpacked, folder / 'from_sdist'),
    }


@pytest.fixture(scope='module', params=['checkout', 'sdist'])
def installed(request, wheels, tmp_path_factory) -> Path:
    """The unpacked wheel, as `pip install` puts it among the packages."""
    folder = tmp_path_factory.mktemp('installed')
    with zipfile.ZipFile(wheels[request.param]) as archive:
        archive.extractall(folder)
    return folder


def test_every_file_is_in_the_wheel(installed):
    tracked = subprocess.run(['git', 'ls-files', '-z', 'ssanet_jax'], cwd=ROOT, capture_output=True, text=True).stdout
    expected = {name for name in tracked.split('\0') if name and name != 'ssanet_jax/configs'}
    expected |= {f'ssanet_jax/configs/{path.name}' for path in (ROOT / 'configs').glob('*.py')}
    found = {str(path.relative_to(installed)) for path in (installed / 'ssanet_jax').rglob('*') if path.is_file()}
    assert found == expected
    assert (installed / 'ssanet_jax/configs/demo.py').read_bytes() == (ROOT / 'configs/demo.py').read_bytes()
    assert {path.name for path in installed.iterdir() if path.suffix != '.dist-info'} == {'ssanet_jax'}


def test_metadata(installed):
    (folder,) = installed.glob('*.dist-info')
    metadata = Parser().parsestr((folder / 'METADATA').read_text())
    assert metadata['Name'] == 'ssanet-jax' and metadata['License-Expression'] == 'Apache-2.0'
    assert any(name.startswith('jax>=') for name in metadata.get_all('Requires-Dist'))
    assert 'ssanet = ssanet_jax.__main__:main' in (folder / 'entry_points.txt').read_text()


def test_commands_find_the_configurations_of_the_package(installed, tmp_path):
    tiny = ['--config.data.train_count=32', '--config.data.test_count=8', '--config.data.batch_size=16']
    tiny += ['--config.data.eval_batch_size=8', '--config.data.size=64', '--config.data.resize=64']
    tiny += ['--config.data.image_size=64', '--config.model.num_parts=2', '--config.model.num_proposals=3']
    config = '--config=configs/demo.py:global_pooling'
    done = run(
        ['-m', 'ssanet_jax.main', config, *tiny, '--config.stages[0].epochs=1'], tmp_path, PYTHONPATH=str(installed)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('accuracy ')
    assert (tmp_path / 'runs/demo_global_pooling/results.json').exists()
    done = run(
        ['-m', 'ssanet_jax', 'evaluate', '--config', 'configs/demo.py', '--workdir=x'],
        tmp_path,
        PYTHONPATH=str(installed),
    )
    assert done.returncode == 2 and 'holds no run' in done.stderr


def test_a_configuration_in_the_working_directory_wins_and_may_import_shared_ones(installed, tmp_path):
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/demo.py').write_text(
        'from ssanet_jax.configs import common, demo\n'
        'def get_config():\n'
        '    config = demo.get_config()\n'
        "    config.model.backbone = 'mine'\n"
        '    return config\n'
    )
    done = run(['-m', 'ssanet_jax.main', '--config=configs/demo.py'], tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 2 and "'mine'" in done.stderr, done.stderr
    done = run(['-m', 'ssanet_jax.main', '--config=configs/oops.py'], tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 2 and "no configuration file 'configs/oops.py'" in done.stderr


def test_shared_configurations_are_loaded_once():
    program = 'from configs import common; import ssanet_jax.configs.common as same; assert common is same'
    done = run(['-c', program], ROOT)
    assert done.returncode == 0, done.stderr
