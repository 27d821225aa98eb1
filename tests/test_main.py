"""The command on bad input: one line that names the thing and the cure, exit code 2, nothing left behind."""

from pathlib import Path
from typing import NamedTuple

import pytest
from commands import Ended, check_user_error, run_each, run_python

from ssanet_jax.data.toy_birds import CLASS_NAMES
from ssanet_jax.runs.workdir import LOCK_FILE, claim_workdir

TINY = '--config=tests/tiny_config.py'
CUB = ('--config=configs/common.py', '--config.model.pretrained=none')  # reads CUB, builds a ResNet-50

# Name -> (arguments, words that the line must hold). {tmp} is a folder, see `make_folders` below.
CASES = {
    'no configuration': ([], ['--config is missing', 'configs/cub.py', '--help']),
    'only a field': (['--config.seed=1'], ['--config is missing', '--help']),
    'missing configuration': (['--config=nowhere.py'], ["no configuration file 'nowhere.py'", 'check --config']),
    'missing configuration and a field': (
        ['--config', 'nowhere.py', '--config.seed=1'],
        ["'nowhere.py'", 'check --config'],
    ),
    'unknown field': ([TINY, '--config.model.bogus=1'], ['config.model.bogus', 'check the spelling']),
    'misspelt field': (
        [TINY, '--config.data.dir=x', '--config.data.batchsize=1'],
        ['no field config.data.batchsize', 'did you mean batch_size'],
    ),
    'misspelt field of a stage': ([TINY, '--config.stages[0].epoch=1'], ['no field config.stages[0].epoch ', 'epochs']),
    'stage that is not there': (
        [TINY, '--config.data.dir=x', '--config.stages[9].epochs=1'],
        ['no field config.stages[9].epochs'],
    ),
    'stage without a number': ([TINY, '--config.stages.epochs=1'], ['no field config.stages.epochs']),
    'field of a number': ([TINY, '--config.seed.x=1'], ['no field config.seed.x']),
    'no Python': (['--config=README.md'], ['README.md is not a valid configuration file', 'README.md line']),
    'syntax error': (['--config={tmp}/syntax.py'], ['syntax.py is not a valid', 'syntax.py line 1']),
    'failing import': (
        ['--config={tmp}/import.py', '--config.seed=1'],
        ['import.py is not a valid', 'import.py line 2', "No module named 'nowhere'"],
    ),
    'failing get_config': (
        ['--config={tmp}/raises.py'],
        ['raises.py is not a valid', 'raises.py line 2: ValueError: no'],
    ),
    'file it reads': (['--config={tmp}/reads.py', '--config.seed=1'], ['reads.py is not a valid', "'nowhere.csv'"]),
    'no get_config': (['--config=tests/commands.py'], ['tests/commands.py has no get_config']),
    'no ConfigDict': (['--config={tmp}/dict.py'], ['dict.py returns no ConfigDict']),
    'no variants': (
        ['--config=tests/tiny_config.py:foo'],
        ["tests/tiny_config.py has no variants, such as 'foo'", '--config=tests/tiny_config.py'],
    ),
    'variant not given': (
        ['--config={tmp}/variant.py'],
        ['variant.py requires the name of a variant', 'variant.py:NAME'],
    ),
    'unknown section': ([TINY, '--config.modle.scales=5'], ['config.modle.scales', 'check the spelling']),
    'wrong type': ([TINY, '--config.data.batch_size=many'], ['config.data.batch_size', 'many']),
    'unknown mode': ([TINY, '--mode=dance'], ['mode', 'train|evaluate']),
    'unknown flag': ([TINY, '--speed=9'], ['speed', '--help']),
    'stray word': ([TINY, 'evaluate'], ["'evaluate'", '--help']),
    'even S': ([TINY, '--config.model.num_scales=4'], ['config.model', 'scales must be odd', '4']),
    'K above M': ([TINY, '--config.model.num_parts=5'], ['num_parts must lie between 1 and num_proposals = 3', '5']),
    'too many proposals': ([TINY, '--config.model.num_proposals=1000'], ['proposals must be at most 516', '1000']),
    'no weights for this backbone': (
        [TINY, '--config.model.pretrained=w.pth'],
        ["'resnet_tiny'", 'config.model.pretrained=none'],
    ),
    'unknown backbone': ([TINY, '--config.model.backbone=vgg'], ["'vgg'", 'choose one of', 'resnet_tiny']),
    'patches that do not tile': ([TINY, '--config.model.patch=4'], ['config.model', 'do not tile']),
    'unknown solver': ([TINY, '--config.model.solver=laplace'], ['solver', 'laplace']),
    'missing weights': (
        [TINY, '--config.model.backbone=resnet18', '--config.model.pretrained=weights.pth'],
        ['the weights file', 'weights.pth does not exist', 'give a .pth'],
    ),
    'unknown optimiser': ([TINY, '--config.optimizer.name=lion'], ['config.optimizer.name', "'lion'", 'sgd, adamw']),
    'unknown reduction': (
        [TINY, '--config.loss.mac_reduction=median'],
        ['config.loss.mac_reduction=median', 'mean or sum'],
    ),
    'batch larger than the set': (
        [TINY, '--config.data.batch_size=65'],
        ['62 training images', '65', 'reduce config.data.batch_size'],
    ),
    'empty batch': ([TINY, '--config.data.batch_size=0'], ['config.data.batch_size = 0', 'at least one']),
    'crop larger than the image': ([TINY, '--config.data.resize=32'], ['config.data.resize=32', 'increase resize']),
    'tiny birds': ([TINY, '--config.data.size=8'], ['size', 'at least 32', '8']),
    'unknown set': ([TINY, '--config.data.name=dogs'], ["'dogs'", 'config.data.name', 'toy_birds']),
    'no data folder given': ([*CUB], ['config.data.dir is not set', 'python -m ssanet_jax.download cub']),
    'missing data folder': ([*CUB, '--config.data.dir={tmp}/nowhere'], ['nowhere is not a folder', 'CUB_200_2011']),
    'home of nobody': (
        [*CUB, '--config.data.dir=~nosuchuser/x'],
        ['data.dir=~nosuchuser/x', 'no home folder ~nosuchuser', 'the full path'],
    ),
    'not CUB': ([*CUB, '--config.data.dir={tmp}/empty'], ['images.txt is missing', 'config.data.dir', 'CUB_200_2011']),
    'zero images': (
        [*CUB, '--config.data.name=folder', '--config.data.dir={tmp}/empty'],
        ['has no images', 'config.data.dir'],
    ),
    'evaluation of nothing': ([TINY, '--mode=evaluate'], ['holds no run', '--workdir']),
    'workdir is a file': ([TINY, '--workdir={tmp}/file'], ['/file is not a folder', 'another --workdir']),
    'workdir below a file': ([TINY, '--workdir={tmp}/file/run'], ['/file is not a folder', 'lies below it']),
    'evaluation of a file': ([TINY, '--workdir={tmp}/file', '--mode=evaluate'], ['/file is not a folder']),
    'workdir is a dangling link': ([TINY, '--workdir={tmp}/dangling'], ['/dangling is a link to nowhere', 'another']),
    'workdir too long with its checkpoints': (
        [TINY, '--workdir={tmp}' + 20 * ('/' + 198 * 'd')],
        ['--workdir=', 'is too long for the paths of its files', 'give a shorter one'],
    ),
    'workdir of another configuration': (
        [TINY, '--workdir={tmp}/other'],
        ['other holds a run with another seed', '--workdir'],
    ),
    'workdir of other classes': ([TINY, '--workdir={tmp}/classes'], ['other classes', '--workdir']),
    'damaged workdir': ([TINY, '--workdir={tmp}/damaged'], ['config.json is damaged', 'another --workdir']),
    'evaluation before training': (
        [TINY, '--workdir={tmp}/untrained', '--mode=evaluate'],
        ['no checkpoint yet', 'train first'],
    ),
}


class Case(NamedTuple):
    ended: Ended
    before: dict[str, bytes]  # every file of the work directory, by path
    after: dict[str, bytes]


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder except the lock, which a refused command may leave."""
    paths = [folder] if folder.is_file() else [path for path in folder.rglob('*') if path.name != LOCK_FILE]
    return {str(path): path.read_bytes() if path.is_file() else b'' for path in paths}


def make_folders(tmp: Path) -> None:
    """Makes the folders that the cases name."""
    import tiny_config

    (tmp / 'empty' / 'one-class').mkdir(parents=True)
    (tmp / 'file').write_text('in the way')
    (tmp / 'dangling').symlink_to('nowhere')
    (tmp / 'syntax.py').write_text('def get_config(:\n')
    (tmp / 'import.py').write_text('import sys\nimport nowhere\n')
    (tmp / 'raises.py').write_text('def get_config():\n    raise ValueError("no")\n')
    (tmp / 'reads.py').write_text('def get_config():\n    open("nowhere.csv")\n')
    (tmp / 'dict.py').write_text('def get_config():\n    return dict(seed=1)\n')
    (tmp / 'variant.py').write_text('def get_config(name):\n    return name\n')
    for name in ('other', 'classes', 'untrained'):
        config = tiny_config.get_config()
        config.seed = 1 if name == 'other' else 0
        config.model.geometry = 'standard'  # as training records it
        config.data.interpolation = 'bilinear'  # as the backbone asks
        claim_workdir(tmp / name, config, ('a', 'b') if name == 'classes' else CLASS_NAMES)
    for name in ('other', 'classes', 'damaged'):  # runs that have begun
        (tmp / name / 'scale_mining' / 'checkpoints' / '3').mkdir(parents=True)
    (tmp / 'damaged' / 'config.json').write_text('{"config": {')


@pytest.fixture(scope='module')
def cases(tmp_path_factory) -> dict[str, Case]:
    """The outcome of every case."""
    tmp = tmp_path_factory.mktemp('main')
    make_folders(tmp)
    commands, workdirs = {}, {}
    for number, (name, (arguments, _)) in enumerate(CASES.items()):
        arguments = [argument.format(tmp=tmp) for argument in arguments]
        given = [argument.partition('=')[2] for argument in arguments if argument.startswith('--workdir')]
        workdirs[name] = Path(given[0]) if given else tmp / f'run{number}'
        commands[name] = arguments if given else [*arguments, f'--workdir={workdirs[name]}']
    before = {name: files(workdir) for name, workdir in workdirs.items()}
    ended = run_each('ssanet_jax.main', commands, tmp)
    return {name: Case(ended[name], before[name], files(workdirs[name])) for name in CASES}


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_bad_input_ends_with_one_line(cases, name):
    ended, before, after = cases[name]
    check_user_error(ended, CASES[name][1])
    assert after == before


def python(script: str) -> str:
    done = run_python(('-c', script))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_imports_without_jax():
    assert python('import sys, ssanet_jax; print("jax" in sys.modules, ssanet_jax.__version__)').startswith('False 0.')


def test_starting_loads_no_matplotlib():
    """Pictures are drawn at the end, and only its font is used: a quarter of a second of each start."""
    assert python('import sys, ssanet_jax.main; print("matplotlib" in sys.modules)') == 'False'


def test_starting_loads_no_pytorch(tmp_path):
    """tensorboardX would import it, which takes two seconds. Later it can be imported as ever."""
    (tmp_path / 'torch.py').write_text('')
    script = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); import ssanet_jax.main; print("torch" in sys.modules)'
    assert python(f'{script}; import torch; print(torch.__file__)').split() == ['False', str(tmp_path / 'torch.py')]


def test_each_variant_has_a_folder_of_its_own(tmp_path):
    """The configuration's, unless --workdir names one."""
    expected = {
        'configs/demo.py': 'runs/demo',
        'configs/demo.py:joint': 'runs/demo_joint',
        'configs/rows.py:demo:ablation/op': 'runs/rows_demo_ablation_op',
    }
    before = """
import types
def train(config, workdir, console, messages):
    print(workdir)
    return types.SimpleNamespace(accuracy=1, examples=1)
module.train = train
"""
    cases = {config: [f'--config={config}'] for config in expected}
    ended = run_each('ssanet_jax.main', cases | {'given': [*cases['configs/demo.py'], '--workdir=x']}, tmp_path, before)
    folders = {config: case.stdout.splitlines()[0] for config, case in ended.items()}
    assert folders == expected | {'given': 'x'}


def test_importing_the_loop_starts_no_backend():
    """A backend would ignore later flags, such as the platform, and multi-process initialization."""
    backends = (
        'import ssanet_jax.training.train, ssanet_jax.main; from jax._src import xla_bridge; '
        'print(len(xla_bridge._backends)); '
    )
    assert python(backends + 'import jax; jax.devices(); print(len(xla_bridge._backends) > 0)') == '0\nTrue'
