"""Text on the terminal: every name appears as it is."""

import ast
import io
import subprocess
import sys

import pytest
from commands import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ssanet_jax.plain_text import PlainConsole, print_table, text_column, track
from ssanet_jax.printable import one_line, printable

NAMES = [
    'birds [v2]',
    'photo [edited].jpg',
    'a [/b].jpg',
    '[bold]wren[/bold]',
    '[link=file:///x]y[/link]',
    ':bird: :smile:',
    '{task.description} {0} {} %s %(x)d',
    'back\\slash\\',
    '\\[x]',
    '[@click=app.quit]',
    'Hänfling 麻雀 عصفور 🐦 1,234.5 0x1F None True',
    'two  blanks',
]


def _printed(*objects, **options):
    file = io.StringIO()
    PlainConsole(file=file, width=500, **options).print(*objects, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('terminal', [False, True])
def test_names_are_printed_as_they_are(name, terminal):
    options = dict(force_terminal=terminal, color_system=None)
    assert _printed(f'{name}: 3 images', **options) == f'{name}: 3 images\n'
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    assert _printed(table, **options).count(name) == 3


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=['C', 'Zl', 'Zp'])))
def test_any_visible_text_is_printed_as_it_is(text):
    assert _printed(text, style='yellow') == f'{text}\n'
    assert printable(text) == text


@pytest.mark.parametrize('name', NAMES)
def test_progress_bars_show_names_as_they_are(name):
    file = io.StringIO()
    console = PlainConsole(file=file, width=300, force_terminal=True, color_system=None)
    assert list(track([1, 2], f'Copying {name}', console=console)) == [1, 2]
    assert f'Copying {name}' in file.getvalue()


def test_progress_bars_can_be_disabled():
    file = io.StringIO()
    assert list(track(iter('ab'), 'x', total=2, console=PlainConsole(file=file), disable=True)) == ['a', 'b']
    assert not file.getvalue()


def test_a_bar_that_goes_leaves_nothing_in_a_log():
    file = io.StringIO()
    assert list(track([1, 2], 'x', console=PlainConsole(file=file), transient=True)) == [1, 2]
    assert not file.getvalue()
    assert list(track([1, 2], 'x', console=PlainConsole(file=file))) == [1, 2]
    assert 'x' in file.getvalue()


@pytest.mark.parametrize(
    'text, shown',
    [
        ('\x1b[31mred', r'\x1b[31mred'),
        ('bell\a', r'bell\x07'),
        ('over\rwritten', r'over\rwritten'),
        ('title\x1b]0;x\x07', r'title\x1b]0;x\x07'),
        ('c1 \x9b2J', r'c1 \x9b2J'),
        ('\u202egpj.exe', r'\u202egpj.exe'),
        ('byte \udce9', r'byte \udce9'),
        ('line\u2028end', r'line\u2028end'),
    ],
)
def test_characters_that_terminals_obey_are_escaped(text, shown):
    assert printable(text) == shown
    assert _printed(text) == f'{shown}\n'
    assert text_column('{task.description}').markup is False


def test_line_breaks_of_our_own_stay_and_errors_are_one_line():
    assert _printed('a\n\tb') == 'a\n        b\n' or _printed('a\n\tb') == 'a\n\tb\n'
    assert one_line('  two  blanks\n  and\r\nmore\x1b ') == r'two  blanks and more\x1b'


def test_deliberate_styles_still_work():
    assert '\x1b[' in _printed(Text('ok', 'green'), force_terminal=True, color_system='standard')


def test_only_this_module_makes_consoles():
    """A console of rich itself, or its `track`, would read names as markup."""
    for path in sorted((ROOT / 'ssanet_jax').rglob('*.py')):
        if path.name == 'plain_text.py':
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ('Console', 'TextColumn'), f'{path}, line {node.lineno}'
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('rich'):
                imported = {alias.name for alias in node.names}
                assert not imported & {'track', 'escape', 'print', 'TextColumn'}, f'{path}, line {node.lineno}'


def test_an_error_with_any_name_is_one_line_of_a_command():
    name = 'no [/such] :bird: {x}\x1b[31m'
    arguments = [sys.executable, '-m', 'ssanet_jax.predict', '--workdir=x', name]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f'error: {printable(name)} does not exist: give images or folders of images\n'


def _table():
    table = Table(title='birds: 3 images', caption='in percent')
    for heading in ('', 'accuracy', 'image\nclassifier', 'names of the files that were skipped'):
        table.add_column(heading)
    table.add_row('counts', '81.25', Text('ok', 'green'), '')
    table.add_row('[files]', '', '3', Text('skipped\n  a long name [1] of a file.HEIC'))
    return table


@pytest.mark.parametrize('columns', ['40', '71', '12', '1', '0'])
def test_a_table_is_a_list_on_a_narrow_terminal(columns, monkeypatch):
    monkeypatch.setenv('COLUMNS', columns)
    file = io.StringIO()
    print_table(Group(_table(), _table()), PlainConsole(file=file))
    assert file.getvalue().splitlines() == 2 * [
        'birds: 3 images',
        'counts',
        '  accuracy: 81.25',
        '  image classifier: ok',
        '[files]',
        '  image classifier: 3',
        '  names of the files that were skipped:',
        '    skipped',
        '      a long name [1] of a file.HEIC',
        'in percent',
    ]


def test_a_table_that_fits_stays_a_table(monkeypatch):
    monkeypatch.setenv('COLUMNS', '40')
    table, file = Table(), io.StringIO()
    table.add_column('bird')
    table.add_row('wren')
    print_table(table, PlainConsole(file=file))
    assert '│ wren │' in file.getvalue() and '\x1b' not in file.getvalue()
    monkeypatch.setenv('COLUMNS', '80')
    print_table(_table(), PlainConsole(file=file))
    assert '│ counts' in file.getvalue()
