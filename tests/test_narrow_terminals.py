"""Commands on narrow and simple terminals, without colors, and in pipes: nothing is cut, garbled or crashes."""

import re

import pytest
from data_samples import write_image
from pseudo_terminals import Started, run_on_terminals

_CODES = re.compile(r'\x1b\[[0-9;?]*[a-zA-Z]')
_COLORS = re.compile(r'\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7])(?:;[0-9;]*)?m')

CASES = {
    'wide': Started((), 120),
    'narrow': Started((), 40),
    'COLUMNS': Started((), 80, {'COLUMNS': '40'}),
    'a character': Started((), 1),
    'none': Started((), 0, {'COLUMNS': '0'}),
    'no number': Started((), 80, {'COLUMNS': 'wide'}),
    'no color': Started((), 120, {'NO_COLOR': '1'}),
    'dumb': Started((), 120, {'TERM': 'dumb'}),
    'unknown': Started((), 120, {'TERM': ''}),
    'pipe': Started((), 120, {}, True),
    'narrow pipe': Started((), 40, {'COLUMNS': '40'}, True),
}
NAME = 'a photo with [quite] a long name.HEIC'


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp('set') / 'birds'
    for split, count in (('train', 3), ('test', 2)):
        for name in ('crow', 'wren'):
            for number in range(count):
                write_image(folder / split / name / f'{name}{split}{number}.jpg')
    (folder / 'train/crow' / NAME).write_bytes(b'\0\0\0\x18ftypheic' + bytes(40))
    arguments = ('--dataset=folder', f'--data_dir={folder}')
    cases = {name: case._replace(arguments=arguments) for name, case in CASES.items()}
    return run_on_terminals('ssanet_jax.doctor', cases)


@pytest.mark.parametrize('name', CASES)
def test_nothing_is_lost(shown, name):
    code, terminal, pipe = shown[name]
    text = _CODES.sub('', terminal + pipe)
    assert code == 0 and 'Traceback' not in text
    unbroken = ' '.join(re.sub(r'[│┃\s]+', ' ', text).split())
    for part in ('near duplicates', 'skipped files', 'needs the package', NAME.partition(' with')[0]):
        assert part in unbroken, part
    assert 'understood as 2 classes: crow, wren; 6 training, 4 test images\n' in text
    assert text.rstrip('\n').split('\n')[-1].startswith('ok: 6 train and 4 test images')


@pytest.mark.parametrize('name', ['narrow', 'COLUMNS', 'a character', 'none', 'narrow pipe'])
def test_a_narrow_terminal_keeps_names_whole(shown, name):
    _, terminal, pipe = shown[name]
    assert f'train/crow/{NAME}' in _CODES.sub('', terminal + pipe)


def test_colors_only_on_terminals_that_want_them(shown):
    assert _COLORS.search(shown['wide'].terminal)
    for name in ('no color', 'dumb'):
        assert not _COLORS.search(shown[name].terminal), name
    assert '\x1b' not in shown['dumb'].terminal
    for name in ('pipe', 'narrow pipe'):
        assert '\x1b' not in shown[name].pipe and '\r' not in shown[name].pipe
