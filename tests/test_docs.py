"""The documents name only what exists: files, modules, names, configuration fields, commands, flags and extras."""

import ast
import functools
import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import ROOT
from ml_collections import ConfigDict
from PIL import Image

DOCUMENTS = sorted(['README.md', 'CONTRIBUTING.md', *(f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md'))])
FILE = re.compile(r'(?:[\w.-]+/)*[\w.-]*\w\.(?:py|md|sh|bash|sbatch|yaml|toml|cff)(?!\w)')
FIELD = re.compile(r'(?<![\w./-])(?:--)?config((?:\.[a-z_]\w*|\[\d+\])+)(?![\w/])')
COMMAND = re.compile(r'-m (ssanet_jax[\w.]*)((?:[^\n`\\]|\\\n)*)')
CONFIGURATION = re.compile(r'configs/(\w+)\.py(?::([\w:/.-]*\w))?')

# A file that the reader makes.
FILES_OF_OTHERS = {'configs/NAME.py'}
# Files of runs and of published data sets.
FILE_SUFFIXES = set('bin csv gz jpg json jsonl mat npz onnx partial pbtxt png safetensors tar tgz txt'.split())
LIBRARIES = {'jax', 'nnx', 'optax', 'torch'}


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding='utf-8')


def code_spans(document: str) -> Iterator[str]:
    """Texts in single backticks, outside blocks of code."""
    text = re.sub(r'^ *```.*?^ *```', '', read(document), flags=re.DOTALL | re.MULTILINE)
    return (match[1] for match in re.finditer(r'`([^`\n]+)`', text))


@functools.cache
def repository_files() -> tuple[str, ...]:
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return tuple(path for path in listed.stdout.splitlines() if (ROOT / path).exists())
    return tuple(str(path.relative_to(ROOT)) for path in ROOT.rglob('*') if path.is_file())


@functools.cache
def words_of_the_code() -> frozenset[str]:
    """Every word of the code, apart from the table that lists names of old versions."""
    suffixes = ('.py', '.sh', '.bash', '.sbatch', '.yaml', '.toml', 'Makefile')
    paths = [path for path in repository_files() if path.endswith(suffixes)]
    paths = [path for path in paths if path not in ('ssanet_jax/runs/aliases.py', 'tests/test_docs.py')]
    return frozenset(word for path in paths for word in re.findall(r'\w+', read(path)))


def module_file(name: str) -> Path | None:
    base = ROOT / name.replace('.', '/')
    return next((path for path in (base.with_suffix('.py'), base / '__init__.py') if path.exists()), None)


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module of the package or a name in one: `ssanet_jax.load`, `losses.mac_loss`."""
    paths = [path.removesuffix('.py').removesuffix('/__init__') for path in repository_files()]
    if any(f'/{path}'.endswith('/' + dotted.replace('.', '/')) for path in paths):
        return True
    parent, _, name = dotted.rpartition('.')
    files = [path for path in repository_files() if path.startswith('ssanet_jax/') and path.endswith('.py')]
    if parent == 'ssanet_jax':
        files = [path for path in files if path == 'ssanet_jax/__init__.py']
    else:
        end = '/' + parent.replace('.', '/')
        files = [path for path in files if path.removesuffix('.py').removesuffix('/__init__').endswith(end)]
    return any(re.search(rf'\b{name}\b', read(path)) for path in files)


@functools.cache
def configurations() -> tuple[ConfigDict, ...]:
    names = sorted(path.stem for path in (ROOT / 'configs').glob('*.py') if path.stem not in ('__init__', 'rows'))
    return tuple(importlib.import_module(f'ssanet_jax.configs.{name}').get_config() for name in names)


def is_field(path: str) -> bool:
    """Whether a configuration has the field, for a path such as `.stages[0].epochs`."""
    for value in configurations():
        for name, index in re.findall(r'\.(\w+)|\[(\d+)\]', path):
            if index:
                value = value[0]  # other configurations may have more stages
            elif isinstance(value, ConfigDict) and name in value:
                value = value[name]
            else:
                break
        else:
            return True
    return False


@functools.cache
def flags_of(module: str) -> frozenset[str]:
    """The flags that a command defines, read from its source."""
    path = module_file(module)
    if path.name == '__init__.py':
        path = path.with_name('__main__.py')
    names = {'help', 'helpfull'}
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Call):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if function.startswith('DEFINE_') or function in ('define_path', 'define_paths'):
                names.add(node.args[0].value)
    return frozenset(names)


@pytest.mark.parametrize('document', DOCUMENTS)
def test_links_lead_to_files_and_headings(document):
    for target in re.findall(r'\]\(([^)\s]+)\)', read(document)):
        if target.startswith(('http:', 'https:', 'mailto:')):
            continue
        name, _, anchor = target.partition('#')
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r'^#+ (.+)$', path.read_text(encoding='utf-8'), re.MULTILINE)
            slugs = {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}
            assert anchor in slugs, target


@pytest.mark.parametrize('document', DOCUMENTS)
def test_files_exist(document):
    """A file may be named by the end of its path, such as `models/ssanet.py`."""
    names = {match[0] for span in code_spans(document) for match in FILE.finditer(span)} - FILES_OF_OTHERS
    missing = [name for name in names if not any(f'/{path}'.endswith(f'/{name}') for path in repository_files())]
    assert not missing


@pytest.mark.parametrize('document', DOCUMENTS)
def test_names_exist(document):
    for span in code_spans(document):
        if in_file := re.fullmatch(r'([\w/]+\.py): (\w+)', span):  # `models/sharing.py: make_regions`
            paths = [path for path in repository_files() if f'/{path}'.endswith(f'/{in_file[1]}')]
            assert any(re.search(rf'\b{in_file[2]}\b', read(path)) for path in paths), span
        name = re.match(r'[A-Za-z_][\w.]*\w(?=\(|$)', span)
        if not name or FILE.fullmatch(name[0]):
            continue
        name = name[0]
        if '.' in name:
            of_others = name.partition('.')[0] in LIBRARIES or name.rpartition('.')[2] in FILE_SUFFIXES
            assert of_others or name.startswith('config.') or resolves(name) or is_field(f'.{name}'), span
        elif '_' in name or re.search('[a-z][A-Z]', name) or span.endswith(')'):
            assert name in words_of_the_code(), span


@pytest.mark.parametrize('document', DOCUMENTS)
def test_configuration_fields_exist(document):
    missing = [path for path in FIELD.findall(read(document)) if path != '.json' and not is_field(path)]
    assert not missing


@pytest.mark.parametrize('document', DOCUMENTS)
def test_configurations_exist(document):
    for name, variant in set(CONFIGURATION.findall(read(document))):
        if f'configs/{name}.py' in FILES_OF_OTHERS:
            continue
        module = importlib.import_module(f'ssanet_jax.configs.{name}')
        if variant and not variant.isupper():
            assert module.get_config(variant), f'configs/{name}.py:{variant}'


@pytest.mark.parametrize('document', DOCUMENTS)
def test_commands_and_their_flags_exist(document):
    for module, arguments in COMMAND.findall(read(document)):
        path = module_file(module)
        assert path, module
        assert path.name != '__init__.py' or path.with_name('__main__.py').exists(), f'{module} is not a command'
        for flag in re.findall(r'(?<!\S)--(\w+)', arguments.partition(' #')[0]):
            assert {flag, flag.removeprefix('no')} & flags_of(module), f'{module} has no flag --{flag}'


@pytest.mark.parametrize('document', DOCUMENTS)
def test_make_targets_and_extras_exist(document):
    text = read(document)
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE))
    named = re.findall(r'(?:^|`)make ((?:[a-z][\w-]* ?)+)', text, re.MULTILINE)
    assert {target for line in named for target in line.split()} <= targets
    with open(ROOT / 'pyproject.toml', 'rb') as file:
        extras = tomllib.load(file)['project']['optional-dependencies']
    assert {extra for group in re.findall(r"'\.\[([\w,-]+)\]'", text) for extra in group.split(',')} <= extras.keys()


@pytest.mark.slow
def test_python_lines_of_the_readme_run(workdir, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r'^```python\n(.*?)^```', read('README.md'), re.DOTALL | re.MULTILINE)
    named = Path(re.search(r"load\('([^']+)'\)", blocks[0])[1])
    monkeypatch.chdir(tmp_path)
    named.parent.mkdir(parents=True)
    named.symlink_to(workdir, target_is_directory=True)
    Path('more_photos').mkdir()
    for name, color in (('photo.jpg', 'red'), ('more_photos/wren.png', 'blue')):
        Image.new('RGB', (80, 60), color).save(name)
    exec('\n'.join(blocks), {})
    printed = capsys.readouterr().out
    assert re.findall(r'^(\S+\.\w+) ', printed, re.MULTILINE) == ['photo.jpg', 'more_photos/wren.png']
    assert Path('parts.png').is_file()
