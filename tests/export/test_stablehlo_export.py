"""Networks exported by `jax.export` say what the run says, on any number of images, and lower for every platform."""

import json

import jax
import numpy as np
import pytest
from commands import ROOT, run_python
from exported_networks import ALL, NAMES, SIDE, make_predictor, random_images
from PIL import Image

import ssanet_jax
from ssanet_jax import UserError
from ssanet_jax.artifact.outputs import OUTPUTS
from ssanet_jax.artifact.stablehlo_file import read_content
from ssanet_jax.artifact.stablehlo_predictor import StableHloPredictor
from ssanet_jax.export import stablehlo_export
from ssanet_jax.export.checking import Difference
from ssanet_jax.export.description import describe
from ssanet_jax.export.stablehlo_export import PLATFORMS, export_stablehlo

PROTOTYPES = dict(proposal='prototypes', sharing='none', num_scales=1)
SETTINGS = {
    'prototypes': (ALL[:3], PROTOTYPES),
    'ranking, upright': ((*ALL, 'upright'), dict(upright=4, upright_size=32)),
}
FAST = ('prototypes',)


@pytest.mark.parametrize('name', [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in SETTINGS])
def test_exported_networks_say_what_the_run_says(name):
    active, settings = SETTINGS[name]
    predictor, images = make_predictor(active, held_out=40, **settings), random_images()
    file, difference = export_stablehlo(predictor, 'birds', 'float32', images)
    assert difference.probability < 1e-5 and difference.parts == difference.classes == 0
    exported = StableHloPredictor(read_content(file.data, 'file'))
    found = exported.run(images.inputs)
    assert {key for key, output in OUTPUTS.items() if output.required} <= found.keys()
    assert all(array.dtype == OUTPUTS[key].dtype for key, array in found.items())
    photos = list(np.random.default_rng(0).integers(0, 256, (6, 90, 70, 3), np.uint8))
    for one, other in zip(*(some.predict(photos, batch_size=6) for some in (predictor, exported)), strict=True):
        assert one.label == other.label and one.orientations == other.orientations and one.present == other.present
        assert one.angle == other.angle and abs(one.novelty - other.novelty) < 0.03
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
        np.testing.assert_allclose(one.scales, other.scales, rtol=1e-6)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
        np.testing.assert_allclose(one.evidence.parts, other.evidence.parts, atol=1e-4)


@pytest.fixture(scope='module')
def small():
    """A network, and its file."""
    predictor = make_predictor(ALL[:3], held_out=40, **PROTOTYPES)
    return predictor, export_stablehlo(predictor, 'birds', 'float32', random_images(2))[0]


def test_the_file_says_what_it_is(small):
    predictor, file = small
    again = read_content(file.data, 'file')
    assert again.metadata == file.metadata and again.network == file.network
    assert again.metadata.class_names == NAMES and again.metadata.preprocessing == predictor.inputs
    assert again.metadata.provenance.digest == predictor.digest()
    assert again.metadata.provenance.checked_on.startswith('2 noise: probabilities within')


def test_every_platform_is_in_the_file(small):
    network = jax.export.deserialize(bytearray(small[1].network))
    spec = jax.ShapeDtypeStruct((2, SIDE, SIDE, 3), np.uint8)
    for platform in PLATFORMS:
        jax.jit(network.call).trace(spec).lower(lowering_platforms=(platform,))
    with pytest.raises(ValueError, match='rocm'):
        jax.jit(network.call).trace(spec).lower(lowering_platforms=('rocm',))


def test_no_path_of_this_machine_is_in_the_file(small):
    predictor, file = small
    assert str(ROOT).encode() not in file.data and b'.py' not in file.network
    predictor.config.data.dir = '/home/anna/photos/'
    assert describe(predictor, 'birds', 'float32').provenance.config['data']['dir'] == 'photos'


def test_weights_of_16_bits_halve_the_file(small):
    predictor, full = small
    half, difference = export_stablehlo(predictor, 'birds', 'float16', random_images(2))
    assert len(half.network) < 0.75 * len(full.network)
    assert 0 < difference.probability < 0.01
    assert half.metadata.provenance.weights == 'float16'


def test_a_network_that_differs_is_refused(small, monkeypatch):
    """Nothing is returned that `compare` finds to differ; `test_onnx_export.py` tests what it finds."""
    predictor, _ = small
    monkeypatch.setattr(stablehlo_export, 'compare', lambda *arguments: Difference(2e-4, 0, 8, 0))
    with pytest.raises(UserError, match='not written: the exported network differs from the run'):
        export_stablehlo(predictor, 'birds', 'float32', random_images(2))


def test_what_cannot_be_exported_is_named(small, monkeypatch):
    with pytest.raises(UserError, match='config.model.proposal=random'):
        export_stablehlo(make_predictor(proposal='random'), 'birds', 'float32', random_images(2))
    calls_python = lambda images: {'logits': jax.pure_callback(np.asarray, images, images)}
    monkeypatch.setattr(stablehlo_export, 'build_program', lambda *arguments: calls_python)
    with pytest.raises(UserError, match='birds cannot be exported for cpu, cuda, tpu: .*callback'):
        export_stablehlo(small[0], 'birds', 'float32', random_images(2))


NO_FLAX = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in 'flax optax orbax onnx onnxruntime'.split():
            raise ModuleNotFoundError(f'refused: {name}', name=name)
sys.meta_path.insert(0, Refuse())
sys.argv[0] = 'ssanet'
runpy.run_module('ssanet_jax.predict', run_name='__main__', alter_sys=True)
"""


@pytest.mark.slow
def test_the_commands(finished_run, tmp_path):
    """`export` writes a file that `predict` reads without Flax, with the predictions of the run."""
    model, out = tmp_path / 'birds.stablehlo', tmp_path / 'out'
    done = run_python(
        ('-m', 'ssanet_jax', 'export'), '--format=stablehlo', f'--workdir={finished_run.workdir}', f'--out={model}'
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('32 of 32 parts the same\n')
    photos = []
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (7, 9, 3), np.uint8)
        photos.append(tmp_path / f'{index}.png')
        Image.fromarray(pixels).resize((90, 70), Image.Resampling.BICUBIC).save(photos[-1])
    done = run_python(('-c', NO_FLAX), f'--model={model}', f'--out={out}', '--pictures=none', *photos)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / 'predictions.jsonl').read_text().splitlines()]
    expected = list(ssanet_jax.load(finished_run.workdir).predict(photos, batch_size=3))
    assert len(lines) == len(expected) == 3
    for line, prediction in zip(lines, expected, strict=True):
        assert line['class'] == prediction.label
        assert line['probabilities'][prediction.label] == pytest.approx(prediction.score, abs=2e-6)
        np.testing.assert_allclose(line['boxes'], prediction.boxes, atol=0.11)  # rounded to tenths
