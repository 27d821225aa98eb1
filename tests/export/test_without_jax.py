"""Exported networks run without JAX, from Python and on the command line, and say what the run says."""

import csv
import json

import numpy as np
import pytest
from commands import changed, check_user_error, run_each, run_python
from PIL import Image

pytest.importorskip('onnxruntime', reason="needs onnxruntime: pip install -e '.[export]'")
pytest.importorskip('onnx', reason="needs onnx: pip install -e '.[export]'")

# Refuses to import packages, as if they were not installed.
REFUSE = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in refused:
            raise ModuleNotFoundError(f'refused: {name}', name=name)
sys.meta_path.insert(0, Refuse())
"""
JAX = 'jax jaxlib flax optax orbax grain chex tensorflow_datasets'.split()
ALL_BUT_ONNXRUNTIME_NUMPY_AND_PILLOW = [
    *JAX,
    *'cv2 scipy rich absl ml_collections matplotlib yaml etils onnx google pandas jinja2 torch safetensors'.split(),
]


def run_without(refused, program, *arguments):
    return run_python(('-c', f'refused = {refused!r}\n{REFUSE}\n{program}'), *arguments)


@pytest.fixture(scope='module')
def exported(finished_run, tmp_path_factory):
    """The file that the command writes for the run that all tests share."""
    out = tmp_path_factory.mktemp('exported') / 'birds.onnx'
    done = run_python(('-m', 'ssanet_jax', 'export'), f'--workdir={finished_run.workdir}', f'--out={out}')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'{out}: ') and 'on 16 training images, probabilities within' in done.stdout
    assert done.stdout.endswith('32 of 32 parts the same\n')
    assert [path.name for path in out.parent.iterdir()] == ['birds.onnx']
    return out


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(64, 64), (90, 70), (40, 200), (300, 260)]):
        pixels = rng.integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(folder / f'{index}.png')
    (folder / '4.png').write_bytes(b'no image')
    return folder


def predictions(out):
    lines = [json.loads(line) for line in (out / 'predictions.jsonl').read_text().splitlines()]
    return lines, list(csv.reader((out / 'predictions.csv').open()))


def test_the_command_gives_the_same_files_without_jax(finished_run, exported, photos, tmp_path):
    program = 'sys.argv[0] = "ssanet"\nrunpy.run_module("ssanet_jax.predict", run_name="__main__", alter_sys=True)'
    common = ['--format=jsonl,csv', photos]
    done = run_without(JAX, program, f'--model={exported}', f'--out={tmp_path / "model"}', *common)
    assert done.returncode == 2 and '1 of 5 images cannot be read' in done.stderr, done.stderr
    other = run_python(
        ('-m', 'ssanet_jax.predict'), f'--workdir={finished_run.workdir}', f'--out={tmp_path / "run"}', *common
    )
    assert other.returncode == 2 and '1 of 5 images cannot be read' in other.stderr
    (found, table), (expected, other_table) = (predictions(tmp_path / name) for name in ('model', 'run'))
    assert len(found) == 4 and len(table) == len(other_table)
    for one, two in zip(found, expected, strict=True):
        assert one.keys() == two.keys()
        for key in ('file', 'class', 'scale', 'orientation'):
            assert one[key] == two[key]
        np.testing.assert_allclose(one['boxes'], two['boxes'], atol=0.11)  # rounded to tenths
        assert one['probabilities'] == pytest.approx(two['probabilities'], abs=2e-6)
    for path in sorted((tmp_path / 'run').glob('*.png')):
        pictures = [np.asarray(Image.open(folder / path.name)) for folder in (path.parent, tmp_path / 'model')]
        assert (pictures[0] != pictures[1]).mean() < 0.001


def test_onnxruntime_numpy_and_pillow_are_enough(finished_run, exported, photos):
    import ssanet_jax

    program = """
import json, ssanet_jax
model = ssanet_jax.load(sys.argv[1])
found = [one.to_dict() for one in model.predict(sys.argv[2], on_error=lambda error: None)]
print(json.dumps(found))
try:
    next(model.predict(sys.argv[2], on_error='skip')).plot()
except ssanet_jax.UserError as error:
    print(error)
"""
    done = run_without(ALL_BUT_ONNXRUNTIME_NUMPY_AND_PILLOW, program, exported, photos)
    assert done.returncode == 0, done.stderr
    found, refusal = done.stdout.splitlines()
    assert refusal.startswith('pictures need OpenCV')
    expected = list(ssanet_jax.load(finished_run.workdir).predict(photos, on_error=lambda error: None))
    for one, two in zip(json.loads(found), expected, strict=True):
        assert one['label'] == two.label
        # NumPy resizes as OpenCV to one level of 255.
        assert one['score'] == pytest.approx(two.score, abs=0.02)


def test_bad_arguments(exported, finished_run, photos, tmp_path):
    cut = tmp_path / 'cut.onnx'
    cut.write_bytes(exported.read_bytes()[:5000])
    image = photos / '0.png'
    cases = {
        'damaged': [f'--model={cut}', image],
        'no ONNX file': [f'--model={image}', image],
        'cannot read': [f'--model={tmp_path / "absent.onnx"}', image],
        'both --workdir and --model': [f'--model={exported}', f'--workdir={finished_run.workdir}', image],
    }
    arguments = {name: [f'--out={tmp_path / "out"}', *map(str, case)] for name, case in cases.items()}
    for name, ended in run_each('ssanet_jax.predict', arguments, tmp_path).items():
        check_user_error(ended, [name])
    assert not (tmp_path / 'out').exists()
    workdir, out = f'--workdir={finished_run.workdir}', f'--out={tmp_path / "x.onnx"}'
    cases = {
        'is a folder': [workdir, f'--out={tmp_path}'],
        'holds no run': [f'--workdir={photos}', out],
        '--out is missing': [workdir],
        'format': [workdir, out, '--format=tflite'],
        'needs --runtime=PACKAGE': [workdir, out, '--format=web'],
        'cannot read onnxruntime-web': [workdir, out, '--format=web', f'--runtime={image}'],
        'has other files than a page': [workdir, f'--out={photos}', '--format=web', '--runtime=cdn'],
    }
    (tmp_path / 'outputs').mkdir()
    for name, ended in run_each('ssanet_jax.export', cases, tmp_path / 'outputs').items():
        check_user_error(ended, [name])
    assert not (tmp_path / 'x.onnx').exists()


def test_packages_that_are_missing_are_named(exported, finished_run, tmp_path):
    program = 'import ssanet_jax\ntry:\n    ssanet_jax.load(sys.argv[1])\nexcept ssanet_jax.UserError as error:\n'
    done = run_without(['onnxruntime'], f'{program}    print(error)', exported)
    assert "pip install -e '.[export]'" in done.stdout, done.stderr
    missing = 'import importlib.util as u\nfind = u.find_spec\n'
    missing += 'u.find_spec = lambda name, *more: None if name == "onnx" else find(name, *more)\n'
    arguments = [f'--workdir={finished_run.workdir}', f'--out={tmp_path / "x.onnx"}']
    done = run_python(changed('ssanet_jax.export', missing), *arguments)
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert "--format=onnx needs onnx: in a checkout, pip install -e '.[export]'" in done.stderr
