"""The layers of the package: imports point down the list of floors, and no modules import each other in a circle."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import ROOT

PACKAGE = 'ssanet_jax'

# From the lowest floor to the highest. A module may import its own package and every lower floor.
FLOORS = (
    ('startup',),
    ('terminal',),
    ('activity',),
    ('errors', 'printable', 'cpu_limit'),
    ('plain_text',),
    ('image_progress',),
    ('filesystem',),
    ('models',),
    ('pretrained',),
    ('distributed',),
    ('data',),
    ('runs',),
    ('evaluation',),
    ('artifact',),
    ('predictor', 'factory'),
    ('loading',),
    ('training',),
    ('experiments',),
    ('report', 'doctor', 'preflight', 'download', 'prediction_files', 'export', 'web'),
    ('serving', 'push'),
    ('config_imports',),
    ('config_files', 'path_flags'),
    ('cli',),
)
# Commands are above all floors, like the `__main__` of a package. Nothing imports a command.
COMMANDS = ('main', 'predict', 'measure', 'ablate', 'compare', 'app', 'index', 'pack')
# The data pipeline must not import networks, though the floor of `models` is lower.
FORBIDDEN = {'data': ('models', 'pretrained')}
# Configuration files are data: they may name stages and raise errors; configs/rows.py picks rows of the tables.
CONFIGS_MAY_IMPORT = ('training.stages', 'errors', 'experiments.tables')

_HEIGHTS = {room: height for height, floor in enumerate(FLOORS) for room in floor}


def find_modules(root: Path, package: str) -> dict[str, Path]:
    """The modules of `root/package`, a package's `__init__.py` under the name of the package."""
    modules = {}
    for path in sorted((root / package).rglob('*.py')):
        parts = path.relative_to(root).with_suffix('').parts
        modules['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return modules


def find_imports(path: Path, name: str, modules: dict[str, Path], package: str) -> Iterator[tuple[int, str]]:
    """Line and target of each import of `package` in the file, those inside functions and `if TYPE_CHECKING` too.

    `from a import b` targets `a.b` if that is a module, else `a`. A call of `import_module` or `__import__` with
    a literal name is an import as well.
    """

    def resolve(target: str) -> Iterator[str]:
        if target.partition('.')[0] == package:
            while target not in modules and '.' in target:
                target = target.rpartition('.')[0]
            yield target

    parent = name if path.name == '__init__.py' else name.rpartition('.')[0]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'), str(path))):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                ancestors = parent.split('.')
                base = '.'.join(filter(None, [*ancestors[: len(ancestors) - node.level + 1], base]))
            targets = [f'{base}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Call):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if function in ('import_module', '__import__') and node.args and isinstance(node.args[0], ast.Constant):
                target = str(node.args[0].value)
                targets = [f'{parent}{target}' if target.startswith('.') else target]
        for target in targets:
            for module in resolve(target):
                yield node.lineno, module


def find_violations(root: Path, package: str = PACKAGE) -> list[str]:
    """One line for each import that breaks the layers, and one for a circle of imports, if there is one."""
    modules = find_modules(root, package)
    violations, graph = [], {name: set() for name in modules}

    def room(name: str) -> str:
        return (name.split('.') + [''])[1]

    def is_command(name: str) -> bool:
        return room(name) in COMMANDS or name.endswith('.__main__')

    for name, path in modules.items():
        own = room(name)
        if own and own not in _HEIGHTS and not is_command(name):
            violations.append(f'{name} is on no floor: add it to FLOORS')
            continue
        for line, target in find_imports(path, name, modules, package):
            other = room(target)
            where = f'{path.relative_to(root)}:{line}: {name} imports {target}'
            if target != package:  # the version, which every module may read
                graph[name].add(target)
            if is_command(target):
                violations.append(f'{where}, a command')
            elif not own:
                if _HEIGHTS.get(other, 0) > _HEIGHTS['loading']:
                    violations.append(f'{where}, which is above the public API')
            elif other in FORBIDDEN.get(own, ()):
                violations.append(f'{where}, which {own} must not know')
            elif other in _HEIGHTS and other != own and not is_command(name) and _HEIGHTS[other] >= _HEIGHTS[own]:
                violations.append(f'{where}, which is not on a lower floor')
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        violations.append('circle: ' + ' -> '.join(reversed(error.args[1])))
    return violations


def test_imports_point_down_and_run_in_no_circle():
    assert find_violations(ROOT) == []


def test_package_reads_only_its_version_from_its_top():
    """Modules import each other, and not the public API in `__init__.py`, which imports them."""
    modules = find_modules(ROOT, PACKAGE)
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.ImportFrom) and node.module == PACKAGE and not node.level:
                wrong = [
                    alias.name
                    for alias in node.names
                    if alias.name != '__version__' and f'{PACKAGE}.{alias.name}' not in modules
                ]
                assert not wrong, f'{name} imports {wrong} from {PACKAGE}'


def test_configurations_import_little():
    allowed = {f'{PACKAGE}.{name}' for name in CONFIGS_MAY_IMPORT}
    modules = find_modules(ROOT, PACKAGE)
    for path in sorted((ROOT / 'configs').glob('[!_]*.py')):
        targets = {target for _, target in find_imports(path, f'configs.{path.stem}', modules, PACKAGE)}
        assert targets <= allowed | {PACKAGE}, path  # importing the package means its other configurations


@pytest.mark.parametrize(
    ('files', 'expected'),
    [
        ({'models/net.py': 'from pkg import errors', 'errors.py': ''}, None),
        ({'main.py': 'from pkg.data import images', 'data/images.py': 'from pkg.data.sets import x'}, None),
        ({'data/a.py': 'from pkg import __version__'}, None),
        ({'models/net.py': 'from pkg.data import images', 'data/images.py': ''}, 'not on a lower floor'),
        ({'models/net.py': 'def f():\n  from pkg.data import images', 'data/images.py': ''}, 'net.py:2'),
        (
            {'models/net.py': 'if TYPE_CHECKING:\n  import pkg.data.images', 'data/images.py': ''},
            'not on a lower floor',
        ),
        ({'runs/a.py': 'from ..training import loop', 'training/loop.py': ''}, 'not on a lower floor'),
        ({'runs/a.py': 'import_module("pkg.training.loop")', 'training/loop.py': ''}, 'not on a lower floor'),
        ({'report/a.py': 'import pkg.doctor.b', 'doctor/b.py': ''}, 'not on a lower floor'),
        ({'data/a.py': 'from pkg.models.net import f', 'models/net.py': ''}, 'must not know'),
        ({'report/a.py': 'import pkg.predict', 'predict.py': ''}, 'a command'),
        ({'main.py': 'import pkg.report.__main__', 'report/__main__.py': ''}, 'a command'),
        ({'__init__.py': 'import pkg.cli', 'cli.py': ''}, 'above the public API'),
        ({'tools.py': ''}, 'on no floor'),
        ({'runs/a.py': 'import pkg.runs.b', 'runs/b.py': 'def f():\n  from pkg.runs import a'}, 'circle'),
        ({'runs/a.py': 'from . import b', 'runs/b.py': 'from .a import f'}, 'circle'),
        ({'models/__init__.py': 'from pkg.models.a import A', 'models/a.py': 'from pkg.models import A'}, 'circle'),
    ],
)
def test_checker_finds_what_is_wrong_in_a_small_tree(tmp_path, files, expected):
    for name in ('__init__.py', *files):
        path = tmp_path / 'pkg' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.get(name, ''))
        for folder in path.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / '__init__.py').touch()
    violations = find_violations(tmp_path, 'pkg')
    if expected is None:
        assert violations == []
    else:
        assert len(violations) == 1
        assert expected in violations[0]
