"""Sections of the report about the run: what it noted in training, what was measured of it, its data and settings."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssanet_jax.data.pipeline import num_steps
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import HEADS
from ssanet_jax.evaluation.robustness import ORIGINAL
from ssanet_jax.report.answers import class_accuracy
from ssanet_jax.report.curves import BATCHES, LOSS, curve_class, curves_svg
from ssanet_jax.report.facts import Facts
from ssanet_jax.report.files import MEASURE_AGAIN
from ssanet_jax.report.page import Html, bar, element, folded, join, paragraph, table, tiles, tree
from ssanet_jax.runs.files import read_json
from ssanet_jax.runs.history import PREDICTION

FEW = 20  # classes that are listed without being asked for


def lead(facts: Facts) -> Html:
    """Title, what the page is about, and the figures to see first."""
    run, results = facts.run, facts.results
    config, right = run.config, facts.answers.predicted == facts.answers.labels
    accuracy, images = (results['accuracy'], results['examples']) if results else (right.mean(), len(right))
    low, high = confidence_interval(accuracy, images)
    first = {
        'accuracy' if results else 'accuracy so far': join(
            f'{accuracy:.4f}', element('small', f'{low:.3f} to {high:.3f}, 95 % interval for {images:,} images')
        ),
        'classes': f'{len(run.class_names):,}',
        'training images': f'{len(facts.dataset.train):,}',
        'test images': f'{len(facts.dataset.test):,}',
    }
    if results:
        first['training time'] = join(_duration(results['wall_seconds']), element('small', f'on {results["device"]}'))
    about = (
        f'{config.model.backbone} at {config.data.image_size} pixels, the network after stage {run.stage}; '
        f'run {facts.workdir.resolve().name}'
    )
    return join(element('h1', facts.dataset.name), paragraph(about, class_='soft'), *_unfinished(facts), tiles(first))


def confidence_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy measured on so many independent images; sound near 0 and 1 too."""
    z = 1.96
    centre = accuracy + z**2 / (2 * images)
    spread = z * (accuracy * (1 - accuracy) / images + z**2 / (4 * images**2)) ** 0.5
    return tuple((centre + sign * spread) / (1 + z**2 / images) for sign in (-1, 1))


def _unfinished(facts: Facts) -> list[Html]:
    if facts.results:
        return []
    rows = list(facts.run.config.stages)
    number = 1 + [row['name'] for row in rows].index(facts.run.stage)
    step, total = facts.steps[facts.run.stage], _steps(facts, rows[number - 1])
    where = 'is over' if facts.run.finished else f'is at step {step:,} of {total:,}'
    network = 'its newest checkpoint'
    if facts.chosen is not None:
        network = f'its network at step {facts.chosen:,}, the best so far on the validation images'
    message = (
        f'The training of this run is not finished: stage {number} of {len(rows)}, {facts.run.stage}, {where}. '
        f'What follows is about {network}.'
    )
    return [paragraph(message, class_='notice')]


def results(facts: Facts) -> Html:
    """Accuracy of every head after every stage."""
    found = [*facts.stages.values(), *([facts.results] if facts.results else [])]
    heads = _ordered({name for result in found for name in result['heads']})
    splits = {result['split'] for result in facts.stages.values()}
    share = lambda value: '' if value is None else f'{value:.4f}'
    rows = []
    for row in facts.run.config.stages:
        name, epochs = row['name'], f'{row["epochs"]:g}'
        result = facts.stages.get(name)
        if result is None:
            done = f'{facts.steps.get(name, 0):,} of {_steps(facts, row):,}'
            rows.append([name, epochs, done, *([''] * (len(heads) + 2))])
            continue
        accuracies = [share(result['heads'].get(head)) for head in heads]
        time = _duration(result['wall_seconds'])
        rows.append([name, epochs, f'{result["steps"]:,}', *accuracies, share(result['accuracy']), time])
    if splits == {'validation'} and facts.results:
        accuracies = [share(facts.results['heads'].get(head)) for head in heads]
        time = _duration(facts.results['wall_seconds'])
        rows.append(['test images, once at the end', '', '', *accuracies, share(facts.results['accuracy']), time])
    on = 'validation' if 'validation' in splits else 'test'
    headings = ['after stage', 'epochs', 'steps', *(_words(head) for head in heads), PREDICTION, 'time']
    pieces = [table(headings, rows, f'Accuracy on the {on} images. The prediction is the sum of what is fused.')]
    again = float((facts.answers.predicted == facts.answers.labels).mean())
    if facts.results and abs(again - facts.results['accuracy']) > 0.5 / len(facts.answers.labels):
        pieces.append(
            paragraph(
                f'Asked again for this page, the network has {again:.4f} on {len(facts.answers.labels):,} test images: '
                'data, program or device are not what they were then.',
                class_='notice',
            )
        )
    if facts.results:
        about = [f'{name} {version}' for name, version in facts.results['versions'].items()]
        about = ['seed {seed}, on {device}'.format_map(facts.results), *about]
        pieces.append(paragraph(f'Trained with {", ".join(about)}.', class_='soft'))
    return join(*pieces)


def curves(facts: Facts) -> Html:
    """Accuracy and loss over epochs."""
    found = facts.curves
    lacking = f'Left out, since it is damaged: {", ".join(facts.damaged)}.'
    notice = [paragraph(lacking, class_='notice')] if facts.damaged else []
    if found is None:
        old = 'This run noted no history, so there is no curve: it was trained by an earlier version.'
        return join(*notice) if notice else paragraph(old)
    names = [PREDICTION, *_ordered(found.accuracy.keys() - {PREDICTION, BATCHES}), BATCHES]
    accuracy = {name: found.accuracy[name] for name in names if name in found.accuracy}
    pieces = notice
    for title, lines in ((f'Accuracy on {found.split} images', accuracy), ('Training loss', {LOSS: found.loss})):
        if any(len(line) for parts in lines.values() for line in parts):
            legend = _legend(lines) if len(lines) > 1 else Html()
            chart = Html(curves_svg(f'{title} over epochs', lines, found.stages))
            pieces += [element('h3', title), element('figure', legend, chart)]
    about = f'The loss and “{BATCHES}” are means over an epoch, of augmented images and of weights that still change.'
    if len(found.stages) > 1:
        numbered = ', '.join(f'{i} {name}' for i, (name, _) in enumerate(found.stages, 1))
        about = f'Stages: {numbered}. They weigh losses differently, so their losses do not compare. {about}'
    return join(*pieces, paragraph(about, class_='soft'))


def _legend(lines: Iterable[str]) -> Html:
    stroke = Html('<line x1="0" y1="6" x2="28" y2="6"/>')
    swatch = lambda name: element(
        'svg', element('g', stroke, class_=curve_class(name)), viewBox='0 0 28 10', aria_hidden='true'
    )
    return element('ul', *(element('li', swatch(name), _words(name)) for name in lines), class_='legend')


def read_measured(workdir: Path) -> dict[str, dict[str, Any]]:
    """What `ssanet_jax.measure` wrote to the folder of a run, by the names of its measurements.

    Raises:
      UserError: a file holds something else than can be shown.
    """
    found = {}
    for name, show in _SHOWN.items():
        path = workdir / f'{name}.json'
        content = read_json(path, MEASURE_AGAIN)
        if content is None:
            continue
        try:
            show(content)  # now, before minutes of other work
            if not all(isinstance(content[field], str) for field in ('stage', 'dataset')):
                raise TypeError('of what it was measured')
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
            raise UserError(f'{path} is damaged or of another version: {MEASURE_AGAIN}') from error
        found[name] = content
    return found


def _measured(facts: Facts, name: str) -> Html:
    """Shows a measurement, or names the command that makes it."""
    found = facts.measured.get(name)
    if found is None:
        command = f'python -m ssanet_jax.measure --workdir={shlex.quote(str(facts.workdir))} --only={name}'
        return paragraph('Not measured. This command does it: ', element('code', command, class_='command'))
    pieces = [_SHOWN[name](found)]
    if (found['stage'], found['dataset']) != (facts.run.stage, facts.dataset.name):
        pieces.insert(0, paragraph(f'Measured after stage {found["stage"]}, on {found["dataset"]}.', class_='notice'))
    return join(*pieces)


def robustness(facts: Facts) -> Html:
    """What `ssanet_jax.measure` found on changed images."""
    return _measured(facts, 'robustness')


def keypoints(facts: Facts) -> Html:
    """What `ssanet_jax.measure` found of parts and key points."""
    if not facts.dataset.keypoint_names:
        return paragraph('This data set has no key points.')
    if 'proposals' not in facts.run.active:
        return paragraph('This network looks for no parts.')
    return _measured(facts, 'keypoints')


def sharing(facts: Facts) -> Html:
    """What `ssanet_jax.measure` found of the ways to share features."""
    if 'proposals' not in facts.run.active:
        return paragraph('This network looks for no parts.')
    return _measured(facts, 'sharing')


def _robustness(found: dict[str, Any]) -> Html:
    rows = [
        [name, f'{value:.4f}', '' if name == ORIGINAL else f'{found["drop"][name]:.1f}', bar(value)]
        for name, value in found['accuracy'].items()
    ]
    headings = ['input', 'accuracy', 'drop, points', '']
    return table(headings, rows, f'Accuracy on {found["examples"]:,} test images that are rotated or reduced')


def _keypoints(found: dict[str, Any]) -> Html:
    measured = found['boxes']
    rows = [
        [title, *(show(values) for values in measured.values())]
        for title, show in (
            ('distance, pixels', lambda m: f'{m["distance"]:.2f}'),
            ('as a share of the object’s diagonal', lambda m: f'{m["distance_share"]:.4f}'),
            ('centres inside the object', lambda m: f'{m["inside"]:.4f}'),
            ('consistency', lambda m: f'{m["consistency"]:.4f}'),
            ('consistency, parts shuffled', lambda m: f'{m["consistency_shuffled"]:.4f}'),
        )
    ]
    caption = (
        f'From the centres of the parts to the nearest visible key point, in {found["images"]:,} test images '
        f'of {found["image_size"]} pixels'
    )
    *boxes, _ = measured.items()  # the last is the centre of the image, which is no part
    name, last = boxes[-1]
    parts = len(last['nearest'])
    shares = [
        [point, *(f'{100 * last["nearest"][part][index]:.0f}' for part in range(parts))]
        for index, point in enumerate(found['keypoint_names'])
    ]
    nearest = table(
        ['key point', *(f'part {part + 1}' for part in range(parts))],
        shares,
        f'In how many percent of the images the key point is the one nearest to the part ({name})',
    )
    return join(table(['', *measured], rows, caption), folded('Which key points are nearest', nearest))


def _sharing(found: dict[str, Any]) -> Html:
    bare = found['global_pooling']
    batches = list(bare['milliseconds'])

    def times(milliseconds: Mapping[str, float]) -> list[str]:
        return [f'{milliseconds[b]:.1f} ({milliseconds[b] / bare["milliseconds"][b]:.2f})' for b in batches]

    accuracy = '' if bare['accuracy'] is None else f'{bare["accuracy"]:.4f}'
    rows = [['global pooling', accuracy, '', *times(bare['milliseconds'])]]
    for row in found['ways']:
        name = f'{row["way"]}, as trained' if row['trained'] else row['way']
        if 'problem' in row:
            rows.append([name, f'does not fit: {row["problem"]}', '', *[''] * len(batches)])
            continue
        difference = '' if row['trained'] else f'{row["difference"]:+.1f} ± {row["half_width"]:.1f}'
        rows.append([name, f'{row["accuracy"]:.4f}', difference, *times(row['milliseconds'])])
    headings = ['way to share', 'accuracy', 'difference, points', *(f'ms an image, batch {b}' for b in batches)]
    caption = (
        f'The same weights with each config.model.sharing, on {found["examples"]:,} test images; {found["device"]}; '
        f'in brackets, how many times the backbone with global pooling'
    )
    return table(headings, rows, caption)


_SHOWN: dict[str, Callable[[dict[str, Any]], Html]] = {
    'robustness': _robustness,
    'keypoints': _keypoints,
    'sharing': _sharing,
}


def data(facts: Facts) -> Html:
    """How many images there are, of which classes."""
    dataset, classes = facts.dataset, len(facts.run.class_names)
    sets = {'training': dataset.train, 'validation': dataset.validation, 'test': dataset.test}
    counts = {
        name: np.bincount(source.labels, minlength=classes) for name, source in sets.items() if source is not None
    }
    rows = [[name, f'{n.sum():,}', n.min(), f'{np.median(n):g}', n.max()] for name, n in counts.items()]
    caption = f'{dataset.name}: images, and how many a class'
    accuracy = class_accuracy(facts.answers, classes)
    known = lambda value: '' if np.isnan(value) else f'{value:.3f}'
    each = [
        [name, *(n[label] for n in counts.values()), known(accuracy[label]), bar(np.nan_to_num(accuracy[label]))]
        for label, name in enumerate(facts.run.class_names)
    ]
    headings = ['class', *counts, 'accuracy', '']
    about = {'folder': facts.run.config.data.get('dir'), 'key points': ', '.join(dataset.keypoint_names)}
    pairs = (join(element('dt', name), element('dd', value or 'none')) for name, value in about.items())
    listed = folded(f'All {classes:,} classes', table(headings, each), is_open=classes <= FEW)
    return join(
        table(['', 'images', 'fewest', 'median', 'most'], rows, caption), element('dl', *pairs, class_='fields'), listed
    )


def settings(facts: Facts) -> Html:
    """Every field of the configuration."""
    about = paragraph('Pointing at a field tells its name on the command line.', class_='soft')
    groups = {name: value for name, value in facts.settings.items() if isinstance(value, Mapping)}
    rest = {name: value for name, value in facts.settings.items() if name not in groups and name != 'stages'}
    stages = [
        folded(f'stage {i + 1}: {row["name"]}', tree(row, f'config.stages[{i}]'), is_open=True)
        for i, row in enumerate(facts.settings['stages'])
    ]
    branches = element('div', tree(groups), class_='trees'), element('div', *stages, class_='trees')
    return join(about, tree(rest), *branches)


def _steps(facts: Facts, row: Mapping[str, Any]) -> int:
    return num_steps(row['epochs'], len(facts.dataset.train), facts.run.config.data.batch_size)


def _ordered(heads: Iterable[str]) -> list[str]:
    return sorted(heads, key=lambda head: (HEADS.index(head) if head in HEADS else len(HEADS), head))


def _words(head: str) -> str:
    return head.replace('_', ' ')


def _duration(seconds: float) -> str:
    """'42 s', '12 min 5 s', '1 h 1 min'."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f'{hours:,} h {minutes} min'
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'
