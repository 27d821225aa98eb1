"""Configuration files in any folder: their paths, and what they import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

PROGRAM = """
import sys
from ssanet_jax import config_files
argv = config_files.use_packaged_files(['command', *sys.argv[1:]])
config_files.check_exists(argv)
print(config_files.load(argv).seed, argv[1])
"""
OWN = 'from configs import common\n\ndef get_config(variant=None):\n    return common.get_config()\n'
COMMON = 'from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict(dict(seed=77))\n'


def load(argument, folder, home='/nowhere'):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, f'--config={argument}'],
        cwd=folder,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'HOME': str(home), 'PYTHONSAFEPATH': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.fixture
def folders(tmp_path):
    """A working directory with a `configs` of its own, and a project elsewhere with another one."""
    for name in ('work/configs', 'project/configs', 'plain', 'a:b'):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'work/configs/__init__.py').touch()
    for name in ('plain/own.py', 'a:b/own.py', 'project/configs/own.py'):
        (tmp_path / name).write_text(OWN)
    (tmp_path / 'project/configs/common.py').write_text(COMMON)
    return tmp_path


def test_shared_configurations_are_found_from_any_folder(folders):
    assert load(folders / 'plain/own.py', folders / 'work').startswith('0 ')
    assert load(ROOT / 'configs/demo.py', folders / 'work').startswith('0 ')
    assert load('configs/demo.py:joint', folders / 'work').startswith('0 ')


def test_a_configs_folder_of_the_user_wins(folders):
    assert load(folders / 'project/configs/own.py', folders).startswith('77 ')
    assert load('configs/own.py', folders / 'project').startswith('77 ')


def test_a_path_below_the_home_folder(folders):
    assert load('~/plain/own.py', folders / 'work', home=folders).startswith('0 ')
    assert load('~/plain/own.py:x', folders / 'work', home=folders) == f'0 --config={folders}/plain/own.py:x'


def test_a_colon_in_a_folder(folders):
    assert load(folders / 'a:b/own.py', folders / 'a:b') == '0 --config=own.py'
    assert "a ':' separates the variant" in load(folders / 'a:b/own.py', folders / 'work')
    assert "no configuration file 'nowhere.py'" in load(Path('nowhere.py:x'), folders)
