"""The compare command, on files as runs leave them."""

import numpy as np
import pytest
from commands import check_user_error, run_each
from run_samples import image_predictions, write_finished_run

from ssanet_jax.experiments.run_comparison import compare_runs
from ssanet_jax.runs.evaluation_count import count_test_evaluation
from ssanet_jax.runs.files import write_json
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, SUM, write_predictions

COUNT = 60


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Folders of runs: a and b with two seeds each, and some that cannot be compared with them."""
    import tiny_config

    root = tmp_path_factory.mktemp('runs')
    config = tiny_config.get_config()
    number = np.arange(COUNT)
    correct = {'a0': number < 50, 'b0': number < 38, 'a1': number < 49, 'b1': (number < 41) | (number == 59)}
    for name, answers in correct.items():
        write_finished_run(root / name, config)
        write_predictions(root / name / PREDICTIONS_FILE, image_predictions(answers))
        count_test_evaluation(root / name, 'evaluation')
    write_finished_run(root / 'heads', config)
    two = image_predictions(number < 50)
    two.classes['image_classifier'] = np.where(number < 45, two.classes[SUM], 1).astype(np.int32)
    write_predictions(root / 'heads' / PREDICTIONS_FILE, two)
    for name in ('unreadable', 'unnamed'):  # in `unnamed`, results.json is of an earlier evaluation
        write_finished_run(root / name, config)
        answers = image_predictions(number < 50)
        answers.unreadable[:4] = True
        write_predictions(root / name / PREDICTIONS_FILE, answers)
        problems = [f'cannot read the image [{i}].jpg' for i in range(4 if name == 'unreadable' else 3)]
        write_json(root / name / 'results.json', {'unreadable': problems})
    write_finished_run(root / 'old', config)
    write_finished_run(root / 'other', config)
    write_predictions(root / 'other' / PREDICTIONS_FILE, image_predictions(number < 5, 'others'))
    write_finished_run(root / 'damaged', config)
    (root / 'damaged' / PREDICTIONS_FILE).write_bytes(b'PK')
    config.data.validation = 0.2
    for name, answers in {'valid_a': [1, 1, 1, 1, 0], 'valid_b': [1, 0, 0, 0, 0]}.items():
        write_finished_run(root / name, config)
        write_predictions(root / name / 'part_tuning' / PREDICTIONS_FILE, image_predictions(answers))
    return root, correct


@pytest.fixture(scope='module')
def ended(runs, tmp_path_factory):
    root, _ = runs
    flags = lambda first, second: [f'--workdir={root / x}' for x in first] + [f'--against={root / x}' for x in second]
    cases = {
        'one': flags(['a0'], ['b0']),
        'two': flags(['a0', 'a1'], ['b0', 'b1']),
        'heads': [*flags(['heads'], ['heads']), '--against_head=image_classifier'],
        'no head': [*flags(['heads'], ['a0']), '--head=image_classifier'],
        'validation': [*flags(['valid_a'], ['valid_b']), '--split=validation'],
        'unreadable': flags(['a0'], ['unreadable']),
        'unnamed': flags(['unnamed'], ['unnamed']),
        'old': flags(['a0'], ['old']),
        'other': flags(['a0'], ['other']),
        'damaged': flags(['a0'], ['damaged']),
        'nothing': flags(['a0'], ['nothing']),
        'uneven': flags(['a0', 'a1'], ['b0']),
        'flag': flags(['a0'], []),
        'no validation': [*flags(['a0'], ['b0']), '--split=validation'],
    }
    return run_each('ssanet_jax.compare', cases, tmp_path_factory.mktemp('compare'))


def _summary(correct, names):
    found = compare_runs(*([image_predictions(correct[name]) for name in some] for some in names)).comparison
    return (
        f'difference {found.difference.mean:+.2f} points, 95 % interval {found.low:+.2f} to {found.high:+.2f}, '
        f'p {found.p:.4f}'
    )


def test_two_runs(runs, ended):
    _, correct = runs
    code, stdout, stderr = ended['one']
    assert (code, stderr) == (0, '')
    assert f'accuracy on {COUNT} test images:' in stdout
    assert 'a0 83.33 %' in stdout and 'b0 63.33 %' in stdout
    assert "right for 12 images, only the second for 0 (McNemar's exact test: p 0.0005)" in stdout  # 2 / 2**12
    assert 'not another training run' in stdout and 'test images evaluated 2 times by these 2 runs' in stdout
    assert stdout.splitlines()[-1] == f'{_summary(correct, [["a0"], ["b0"]])} (bootstrap over images)'
    assert stdout.splitlines()[-1].startswith('difference +20.00 points')


def test_series_of_runs(runs, ended):
    _, correct = runs
    code, stdout, stderr = ended['two']
    assert (code, stderr) == (0, '')
    assert 'not another training run' not in stdout
    summary = _summary(correct, [['a0', 'a1'], ['b0', 'b1']])
    assert stdout.splitlines()[-1] == f'{summary} (bootstrap over 2 seeds and images)'


def test_a_prediction_against_one_of_its_classifiers(ended):
    code, stdout, stderr = ended['heads']
    assert (code, stderr) == (0, '')
    assert 'heads 83.33 %, ' in stdout and 'heads, image_classifier 75.00 %: only the first is right for 5' in stdout
    assert stdout.splitlines()[-1].startswith('difference +8.33 points')


def test_unreadable_images_are_named_beside_the_accuracies(runs, ended):
    root, _ = runs
    line = '4 of 60 images cannot be read and count as wrong'
    named = '; '.join(f'cannot read the image [{i}].jpg' for i in range(3))
    stdout = ended['unreadable'].stdout.splitlines()
    assert f'{root}/unreadable: {line}: {named}; ...' in stdout and 'unreadable 76.67 %' in stdout[1]
    assert f'all runs: {line}' in ended['unnamed'].stdout.splitlines()
    assert 'cannot be read' not in ended['one'].stdout


def test_validation_images(ended):
    code, stdout, _ = ended['validation']
    assert code == 0 and 'accuracy on 5 validation images' in stdout and 'test images' not in stdout
    assert stdout.splitlines()[-1].startswith('difference +60.00 points')


@pytest.mark.parametrize(
    'name, words',
    {
        'old': ['old/predictions.npz is missing', '--mode=evaluate'],
        'other': ['evaluated on different images', 'compare runs on the same data set'],
        'damaged': ['predictions.npz is damaged', '--mode=evaluate'],
        'nothing': ['nothing holds no run', 'check --workdir'],
        'uneven': ['2 --workdir and 1 --against', 'one of each per seed'],
        'no head': ["no head 'image_classifier'", 'its heads are sum'],
        'flag': ['--against', 'see --help'],
        'no validation': ['has no validation images', '--split=test'],
    }.items(),
)
def test_what_cannot_be_compared_ends_with_one_line(ended, name, words):
    check_user_error(ended[name], words)
