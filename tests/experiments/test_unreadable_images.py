"""The lines about unreadable test images beside the results of several runs."""

import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.experiments.unreadable_images import measurement_line, result_lines
from ssanet_jax.runs.files import write_json
from ssanet_jax.runs.results import unreadable_line

PROBLEMS = [f'cannot read the image {i}.jpg' for i in range(5)]


@pytest.mark.parametrize(
    'problems, options, line',
    [
        ([], {}, ''),
        (PROBLEMS[:1], {}, f'1 of 9 images cannot be read and count as wrong: {PROBLEMS[0]}'),
        (PROBLEMS[:3], {}, f'3 of 9 images cannot be read and count as wrong: {"; ".join(PROBLEMS[:3])}'),
        (PROBLEMS, {}, f'5 of 9 images cannot be read and count as wrong: {"; ".join(PROBLEMS[:3])}; ...'),
        ([], {'count': 2}, '2 of 9 images cannot be read and count as wrong'),
        (PROBLEMS[:1], {'treatment': 'are left out'}, f'1 of 9 images cannot be read and are left out: {PROBLEMS[0]}'),
    ],
)
def test_the_line(problems, options, line):
    assert unreadable_line(problems, 9, **options) == line


def test_measurements():
    count = '1 of 9 images cannot be read and'
    robustness = measurement_line('robustness', {'examples': 9, 'unreadable': PROBLEMS[:1]})
    assert robustness == f'{count} count as wrong: {PROBLEMS[0]}'
    keypoints = measurement_line('keypoints', {'images': 6, 'without_keypoints': 2, 'unreadable': PROBLEMS[:1]})
    assert keypoints == f'{count} are left out: {PROBLEMS[0]}'
    assert measurement_line('sharing', {'examples': 9}) == '', 'files of early versions lack the list'


def test_runs_that_agree_share_a_line(tmp_path):
    workdirs = [tmp_path / f'[{i}]' for i in range(6)]
    for number, workdir in enumerate(workdirs):
        write_json(workdir / 'results.json', {'examples': 9, 'unreadable': PROBLEMS[: 1 + (number < 4)]})
    wrong = 'images cannot be read and count as wrong'
    assert result_lines(workdirs, []) == [
        f'{workdirs[0]}, {workdirs[1]}, {workdirs[2]} and 1 more: 2 of 9 {wrong}: {PROBLEMS[0]}; {PROBLEMS[1]}',
        f'{workdirs[4]}, {workdirs[5]}: 1 of 9 {wrong}: {PROBLEMS[0]}',
    ]
    measured = {'images': 8, 'without_keypoints': 0, 'unreadable': PROBLEMS[:1]}
    write_json(workdirs[5] / 'keypoints.json', measured)
    assert result_lines(workdirs[5:], ['robustness', 'keypoints']) == [
        f'all runs: 1 of 9 {wrong}: {PROBLEMS[0]}',
        f'all runs: 1 of 9 images cannot be read and are left out: {PROBLEMS[0]}',
    ]
    (workdirs[0] / 'results.json').write_text('{')
    with pytest.raises(UserError, match='is damaged'):
        result_lines(workdirs, [])
