"""The measure command on ways to share features, on the finished tiny run."""

import json

import pytest
from commands import run_python

pytestmark = pytest.mark.slow


def test_the_table_the_file_and_the_line(workdir):
    # The crops of 224 that nobody asked for would take long: no weights depend on them.
    content = json.loads((workdir / 'config.json').read_text())
    content['config']['model']['crop_size'] = 60
    del content['checksum']
    (workdir / 'config.json').write_text(json.dumps(content))
    done = run_python(('-m', 'ssanet_jax.measure'), f'--workdir={workdir}', '--only=sharing', '--rounds=1')
    assert done.returncode == 0, done.stderr

    results = json.loads((workdir / 'results.json').read_text())
    found = json.loads((workdir / 'sharing.json').read_text())
    image, part, none = found['ways']
    assert image['trained'] and image['accuracy'] == results['accuracy'] and image['heads'] == results['heads']
    assert found['global_pooling']['accuracy'] == results['heads']['image_classifier']
    assert 'crop_size must be a multiple of 8' in part['problem']
    assert none['crop_size'] == 56 and none['lost'] - none['won'] == round(30 * (image['accuracy'] - none['accuracy']))
    assert (found['stage'], found['dataset'], found['examples']) == ('part_tuning', 'toy_birds', 30)

    for text in ('image *', 'global pooling', 'unfit', 'crop_size must be a multiple of 8', 'ms at 8'):
        assert text in ' '.join(done.stdout.split()), done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f'sharing on 30 images: image {results["accuracy"]:.4f} in ') and '(as trained)' in last
    assert not (workdir / 'robustness.json').exists()
