"""docs/paper_map.md names code that exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = re.findall(r'`([\w/]+\.py)(?:: ([\w.]+))?`', (ROOT / 'docs/paper_map.md').read_text())


@pytest.mark.parametrize('path, symbol', sorted(set(CODE)))
def test_the_code_exists(path, symbol):
    file = ROOT / path if path.startswith('configs/') else ROOT / 'ssanet_jax' / path
    source = file.read_text()
    for name in filter(None, symbol.split('.')):  # Class.method: both are defined in the file
        assert re.search(rf'^ *(?:def|class) {name}\b|^{name} = ', source, re.MULTILINE), f'{path} lacks {name}'


def test_the_equations_name_their_code():
    assert len(CODE) > 25
    for equation, path in (('Eq. 2', 'losses'), ('Eq. 6, 7', 'scale_mining'), ('Eq. 9–13', 'oriented_pooling')):
        (row,) = re.findall(rf'^\| {equation} \|.*', (ROOT / 'docs/paper_map.md').read_text(), re.MULTILINE)
        assert f'models/{path}.py' in row
