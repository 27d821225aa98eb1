"""The head of a report says which network of the run it is about."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from ssanet_jax.report import run_sections

RESULTS = {'accuracy': 0.75, 'examples': 4, 'wall_seconds': 60, 'device': '1 x cpu'}


def lead(**changes):
    """Of a run at step 30 of 50, in the second of its three stages."""
    config = ConfigDict(
        {
            'stages': [{'name': name, 'epochs': 5} for name in ('one', 'two', 'three')],
            'data': {'image_size': 64, 'batch_size': 8},
            'model': {'backbone': 'resnet_tiny'},
        }
    )
    facts = dict(
        run=SimpleNamespace(config=config, class_names=('wren', 'owl'), stage='two', finished=False),
        workdir=SimpleNamespace(resolve=lambda: SimpleNamespace(name='birds')),
        dataset=SimpleNamespace(name='birds', train=range(80), test=range(4)),
        answers=SimpleNamespace(predicted=np.array([0, 1, 1, 0]), labels=np.array([0, 1, 1, 1])),
        results=None,
        steps={'one': 50, 'two': 30},
        chosen=None,
    )
    return str(run_sections.lead(SimpleNamespace(**facts | changes)))


@pytest.mark.parametrize(
    'chosen, network',
    [(None, 'its newest checkpoint'), (20, 'its network at step 20, the best so far on the validation images')],
)
def test_a_run_that_still_trains_says_of_which_network(chosen, network):
    page = lead(chosen=chosen)
    assert f'stage 2 of 3, two, is at step 30 of 50. What follows is about {network}.' in page
    assert 'accuracy so far' in page and '0.7500' in page


def test_a_finished_run_says_nothing_of_it():
    page = lead(results=RESULTS)
    assert 'not finished' not in page and 'What follows' not in page and 'accuracy so far' not in page
