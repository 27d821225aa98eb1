"""The number of evaluations on test images, also with several processes at once and after a kill."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.runs.evaluation_count import (
    COUNT_FILE,
    count_test_evaluation,
    evaluation_count_line,
    num_test_evaluations,
)


def test_each_evaluation_counts(tmp_path):
    assert num_test_evaluations(tmp_path) == 0
    for number, words in enumerate(('1 time', '2 times', '3 times'), 1):
        count_test_evaluation(tmp_path, 'evaluation')
        assert num_test_evaluations(tmp_path) == number
        assert evaluation_count_line(tmp_path) == f'test images evaluated {words} in this work directory'


def test_evaluations_at_the_same_time_all_count(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: count_test_evaluation(tmp_path, f'evaluation {number}'), range(100)))
    assert num_test_evaluations(tmp_path) == 100


def test_half_a_line_of_a_killed_process_is_not_counted(tmp_path):
    count_test_evaluation(tmp_path, 'evaluation')
    with (tmp_path / COUNT_FILE).open('a') as file:
        file.write('{"time": "20')
    assert num_test_evaluations(tmp_path) == 1


@pytest.mark.parametrize('make', [Path.mkdir, os.mkfifo], ids=['folder', 'pipe'])
def test_errors_end_with_one_line(make, tmp_path):
    make(tmp_path / COUNT_FILE)
    for call in (lambda: count_test_evaluation(tmp_path, 'evaluation'), lambda: num_test_evaluations(tmp_path)):
        with pytest.raises(UserError, match=COUNT_FILE):
            call()
