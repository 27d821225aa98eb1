"""The header of a report names the network of the run it is about."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from ssanet_jax.errors import UnreadableImage
from ssanet_jax.report import run_sections
from ssanet_jax.report.curves import LearningCurves
from ssanet_jax.report.result_files import RunSummary, StageSummary

RESULT = RunSummary(accuracy=0.75, examples=4, heads={}, wall_seconds=60, seed=0, device='1 x cpu')


def make_header(**changes):
    """The header of a run at step 30 of 50, in the second of its three stages."""
    config = ConfigDict(
        {
            'stages': [{'name': name, 'epochs': 5} for name in ('one', 'two', 'three')],
            'data': {'image_size': 64, 'batch_size': 8},
            'model': {'backbone': 'resnet_tiny'},
        }
    )
    inputs = dict(
        run=SimpleNamespace(config=config, class_names=('wren', 'owl'), stage='two', finished=False),
        workdir=SimpleNamespace(resolve=lambda: SimpleNamespace(name='birds')),
        dataset=SimpleNamespace(name='birds', train=range(80), test=range(4)),
        predictions=SimpleNamespace(predicted=np.array([0, 1, 1, 0]), labels=np.array([0, 1, 1, 1])),
        result=None,
        steps={'one': 50, 'two': 30},
        best_step=None,
    )
    return run_sections.header(SimpleNamespace(**inputs | changes))


@pytest.mark.parametrize(
    'best_step, network',
    [(None, 'the newest checkpoint'), (20, 'the network at step 20, the best so far on the validation images')],
)
def test_the_warning_of_an_unfinished_run_names_the_network(best_step, network):
    header = make_header(best_step=best_step)
    assert f'stage 2 of 3, two, is at step 30 of 50. This report is about {network}.' in header.warning
    assert (header.figures[0].name, header.figures[0].value) == ('accuracy so far', '0.7500')


@pytest.mark.parametrize('finished', [True, False])
def test_the_header_names_unreadable_images_beside_the_accuracy(finished):
    class Broken:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            raise UnreadableImage(f'cannot read the image {index}.jpg')

    header = make_header(
        result=replace(RESULT, unreadable=['cannot read the image 1.jpg']) if finished else None,
        dataset=SimpleNamespace(name='birds', train=range(80), test=Broken()),
        predictions=SimpleNamespace(predicted=np.array([0, -1, 1, 0]), labels=np.array([0, 1, 1, 1])),
    )
    assert header.unreadable == '1 of 4 images cannot be read and count as wrong: cannot read the image 1.jpg'
    assert not make_header(result=RESULT if finished else None).unreadable


def test_a_finished_run_has_no_warning():
    header = make_header(result=RESULT)
    assert not header.warning and header.figures[0].name == 'accuracy'
    assert header.figures[-1].value == '1 min 0 s' and header.figures[-1].note == 'on 1 x cpu'


def make_inputs(**changes):
    """The inputs of a run with a stage `fit` with `fit=True` and a stage `tune` that stopped early."""
    stages = [{'name': 'fit', 'epochs': 2}, {'name': 'tune', 'epochs': 9}]
    of_stage = dict(accuracy=0.75, examples=4, heads={'image_classifier': 0.5, 'scale_mining': 0.25}, wall_seconds=60)
    reason = 'stopped early after epoch 4 of 9: none of the last 2 was more accurate'
    inputs = dict(
        run=SimpleNamespace(config=ConfigDict({'stages': stages, 'model': {'num_scales': 1}})),
        stage_results={
            'fit': StageSummary(**of_stage, steps=20, epochs=2),
            'tune': StageSummary(**of_stage, steps=40, epochs=4, stopped_early=reason),
        },
        result=None,
        curves=LearningCurves([('fit', 2)], 'test', {'prediction': [[(2, 0.75)]]}, [[]]),
        damaged_histories=[],
    )
    return SimpleNamespace(**inputs | changes)


def test_a_stage_that_stopped_early_says_so():
    inputs = make_inputs(predictions=SimpleNamespace(predicted=np.zeros(4), labels=np.zeros(4)))
    section = run_sections.results_section(inputs)
    assert [row[4] for row in section.table.rows] == ['2', '4 of 9']
    assert section.stopped == [f'Stage tune {inputs.stage_results["tune"].stopped_early}.']
    assert section.table.headings[2:4] == ['image classifier', 'parts']  # which mines no scales


def test_one_evaluation_is_no_curve():
    assert 'there are no learning curves' in run_sections.curves_section(make_inputs())
    lines = {'prediction': [[(1, 0.5), (2, 0.75)]]}
    section = run_sections.curves_section(make_inputs(curves=LearningCurves([('fit', 2)], 'test', lines, [[]])))
    assert len(section.charts) == 1
