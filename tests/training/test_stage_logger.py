"""The history of a stage: one line for each thing that happened, whatever killed it in between."""

import io
import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from ssanet_jax.distributed import processes
from ssanet_jax.runs.history import read_history
from ssanet_jax.runs.json_checksums import remove_checksum
from ssanet_jax.runs.results import EvaluationResult
from ssanet_jax.training import stage_logger
from ssanet_jax.training.stage_logger import StageLogger
from ssanet_jax.training.triggers import Triggers

IMAGES, BATCH, EPOCHS = 10, 4, 4  # 10 steps; epochs end after steps 3, 5, 8 and 10


class NoEvents:
    """An `EventFile` that writes nothing."""

    def __init__(self, *arguments, **options):
        pass

    def add_scalar(self, *arguments):
        pass

    def close(self):
        pass


def metrics(step):
    return {'loss/total': np.float32(10 / step), 'loss/mac': np.float32(step), 'accuracy': np.float32(step / 16)}


def result(step):
    return EvaluationResult(accuracy=step / 10, examples=30, heads={'image_classifier': step / 20}, unreadable=[])


def run(directory, first=0, last=10, split='test'):
    """Steps first + 1 to last, as the loop does them: an evaluation after the second epoch and one at the end."""
    triggers = Triggers(IMAGES, BATCH, EPOCHS, first)
    text = io.StringIO()
    with StageLogger(Console(file=text, width=200), directory, 'stage', triggers, split) as logger:
        for step in range(first + 1, last + 1):
            logger.log_metrics(step, metrics(step))
            if step == 5:
                logger.log_evaluation(step, result(step))
        if last == 10:
            logger.log_evaluation(10, result(10))
    return text.getvalue()


def lines(directory):
    """The history without the one thing that no two starts share, and without the checksums, which depend on it."""
    found = [remove_checksum(json.loads(text)) for text in (directory / 'history.jsonl').read_text().splitlines()]
    for line in found:
        assert line.pop('stage') == directory.name
        if line['kind'] == 'epoch':
            assert line['values'].pop('images_per_second') > 0
    return found


def test_every_epoch_and_evaluation_is_a_line(tmp_path):
    printed = run(tmp_path)
    found = lines(tmp_path)
    assert [(line['kind'], line['step'], line['epoch']) for line in found] == [
        ('epoch', 3, 1),
        ('epoch', 5, 2),
        ('evaluation', 5, 2),
        ('epoch', 8, 3),
        ('epoch', 10, 4),
        ('evaluation', 10, 4),
    ]
    epochs = [line for line in found if line['kind'] == 'epoch']
    for line, steps in zip(epochs, ([1, 2, 3], [4, 5], [6, 7, 8], [9, 10])):
        assert line['steps'] == len(steps)
        assert line['values'] == {
            'loss/total': pytest.approx(np.mean([10 / s for s in steps])),
            'loss/mac': pytest.approx(np.mean(steps)),
            'accuracy': pytest.approx(np.mean(steps) / 16),
        }
        assert f'epoch {line["epoch"]}/4  loss {line["values"]["loss/total"]:.3f}' in printed
    assert found[2]['values'] == {'image_classifier': 0.25, 'prediction': 0.5}
    assert found[2]['split'] == 'test' and found[2]['examples'] == 30
    assert read_history(tmp_path / 'history.jsonl')[2] == found[2]


def test_a_stage_that_ends_within_an_epoch(tmp_path):
    triggers = Triggers(IMAGES, BATCH, epochs=0.5)
    with StageLogger(Console(file=io.StringIO()), tmp_path, 'stage', triggers, 'validation') as logger:
        logger.log_metrics(1, metrics(1))
        logger.log_metrics(2, metrics(2))
        logger.log_evaluation(2, result(2))
    assert [(line['kind'], line['epoch'], line['split']) for line in lines(tmp_path)] == [
        ('evaluation', 0.5, 'validation')
    ]


@pytest.mark.parametrize('checkpoint', [0, 3, 5, 8, 10])  # ends of epochs
def test_killed_at_any_byte_it_goes_on_to_the_same_lines(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_logger, 'EventFile', NoEvents)  # it would take most of the time
    run(tmp_path / 'whole')
    expected = lines(tmp_path / 'whole')
    path = tmp_path / 'killed' / 'history.jsonl'
    run(path.parent)
    written = path.read_bytes()
    # Lines written before the checkpoint are complete; of the rest, any beginning.
    safe = sum(len(text) + 1 for text in written.splitlines() if json.loads(text)['step'] <= checkpoint)
    if checkpoint == 10:  # the last checkpoint comes before the last evaluation
        safe = written.rindex(b'\n', 0, -1) + 1
    ends = [match.end() for match in re.finditer(b'\n', written)]
    near = {end + off for end in ends for off in (-2, -1, 0, 1, 2)}  # where cuts may look like whole lines
    for cut in sorted(cut for cut in near | set(range(safe, len(written), 11)) if safe <= cut <= len(written)):
        path.write_bytes(written[:cut])
        run(path.parent, first=checkpoint)
        assert lines(path.parent) == expected, cut
    assert not list(path.parent.glob('*.partial'))


def test_what_lies_beyond_the_checkpoint_goes_at_once(tmp_path):
    run(tmp_path)
    run(tmp_path, first=7, last=7)  # killed again before it wrote a line
    assert [line['step'] for line in lines(tmp_path)] == [3, 5, 5]


def test_taken_up_within_an_epoch_the_means_are_over_the_steps_since(tmp_path):
    run(tmp_path, last=7)
    run(tmp_path, first=6)
    found = [line for line in lines(tmp_path) if line['kind'] == 'epoch']
    assert [(line['step'], line['steps']) for line in found] == [(3, 3), (5, 2), (8, 2), (10, 2)]
    assert found[2]['values']['loss/mac'] == 7.5


def test_a_damaged_line_in_the_middle_goes(tmp_path):
    run(tmp_path, last=5)
    path = tmp_path / 'history.jsonl'
    first, *rest = path.read_text().splitlines()
    path.write_text('\n'.join([first, first[:20], *rest, '']))
    run(tmp_path, first=5)
    assert [line['step'] for line in lines(tmp_path)] == [3, 5, 5, 8, 10, 10]


def test_only_the_leading_process_writes(tmp_path, monkeypatch):
    run(tmp_path)
    before = (tmp_path / 'history.jsonl').read_bytes()
    monkeypatch.setattr(processes, 'is_primary_process', lambda: False)
    run(tmp_path, first=5)
    assert (tmp_path / 'history.jsonl').read_bytes() == before
    run(tmp_path / 'other')
    assert not (tmp_path / 'other' / 'history.jsonl').exists()


def test_a_terminal_shows_a_progress_bar(tmp_path):
    """The bar is drawn, with the stage, the steps and the loss."""
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    with StageLogger(console, tmp_path, 'scale_mining', Triggers(IMAGES, BATCH, EPOCHS), 'test') as logger:
        logger.log_metrics(1, metrics(1))
    assert re.search(r'scale_mining.*1/10.*loss 10\.000', re.sub(r'\x1b\[[\d;?]*\w', '', text.getvalue()))


def test_a_log_says_what_goes_on_and_the_time_left_of_all_stages(tmp_path, monkeypatch):
    clock = itertools.count(0, 10)
    monkeypatch.setattr(stage_logger, 'time', SimpleNamespace(monotonic=lambda: next(clock)))
    text = io.StringIO()
    triggers = Triggers(IMAGES, BATCH, EPOCHS)
    with StageLogger(Console(file=text, width=200), tmp_path, 'tune', triggers, 'test', later_steps=8) as logger:
        with logger.doing('compiling'):
            pass
        for step in range(1, 4):
            logger.log_metrics(step, metrics(step))
        with logger.doing('evaluating test images'):
            pass
        logger.log_evaluation(3, result(3))
        logger._print_state()  # as every ten seconds
    # The third step after 30 seconds: 7 steps of this stage and 8 of later ones are left.
    pace = '0.4 images/s  0:02:30 left'
    assert text.getvalue().splitlines() == [
        'tune  compiling',
        f'tune  epoch 1/4  loss 6.111  batch accuracy 0.125  {pace}',
        'tune  step 3 of 10  evaluating test images',
        'tune  test accuracy: image_classifier 0.1500  prediction 0.3000',
        f'tune  step 3 of 10  loss 3.333  {pace}',
    ]


@pytest.mark.slow
def test_a_run_tells_what_its_results_say(finished_run):
    for stage, epochs in (('scale_mining', [1, 2]), ('oriented_pooling', [1]), ('part_tuning', [1])):
        found = lines(finished_run.workdir / stage)
        expected = json.loads((finished_run.workdir / stage / 'evaluation.json').read_text())
        assert [line['epoch'] for line in found if line['kind'] == 'epoch'] == epochs
        last = found[-1]
        assert last['kind'] == 'evaluation' and last['split'] == 'test' and last['step'] == expected['steps']
        assert last['values'] == {**expected['heads'], 'prediction': expected['accuracy']}
        assert last['examples'] == 30
