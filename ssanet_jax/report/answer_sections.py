"""Sections of the report about what the network says of the test images, right and wrong."""

import contextlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ssanet_jax.data.dataset import Source
from ssanet_jax.data.pipeline import list_unreadable
from ssanet_jax.data.transforms import preprocess_for_evaluation
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.drawing import confusion_svg, draw_parts
from ssanet_jax.evaluation.keypoints import in_input_pixels
from ssanet_jax.evaluation.sheets import evenly, keypoints_sheet
from ssanet_jax.predictor import Predictor
from ssanet_jax.report.facts import Facts
from ssanet_jax.report.page import Html, bar, card, cards, element, join, paragraph, picture, table, text
from ssanet_jax.report.responses import responses_svg

ANNOTATED = 4  # images among whose key points the parts are shown
EXAMPLES = 12  # images with their parts, mistakes, pairs of classes, ...: full rows of two, three and four
SIDE = 300  # of a picture with parts, pixels


def parts(facts: Facts) -> Html:
    """Test images with the parts that the network found."""
    run, dataset = facts.run, facts.dataset
    located, mined, oriented = (group in run.active for group in ('proposals', 'scale_mining', 'oriented_pooling'))
    shown = list(_readable(dataset.test, evenly(EXAMPLES, len(dataset.test))))
    predictions = Predictor.from_run(run).predict([example['image'] for _, example in shown])
    figures = []
    for (_, example), found in zip(shown, predictions):
        drawn = draw_parts(
            found.image,
            found.input_boxes,
            found.scales,
            side=SIDE,
            orientations=found.orientations,
            proposals=found.input_proposals if mined else None,
        )[:SIDE]
        truth = run.class_names[int(example['label'])]
        right = found.class_index == int(example['label'])
        verdict = element('span', 'right' if right else f'wrong: is {truth}', class_='right' if right else 'wrong')
        figures.append(
            card(
                picture(drawn, f'{truth}, with its parts' if located else truth),
                element('b', found.label),
                f' ({found.score:.2f}), ',
                verdict,
            )
        )
    chosen = ['the scale that was chosen, as a multiple of the proposal’s'] if mined else []
    chosen += ['the orientation that was chosen'] if oriented else []
    about = 'This network looks for no parts.'
    if located:
        about = 'Parts are numbered by their scores, best first, and coloured by their numbers. '
        about += f'Beside the number stands {", and ".join(chosen)}. ' if chosen else ''
        about += 'Dashed is the part as it was proposed, before scale mining.' if mined else ''
    about = f'Test images at even distances, so that nobody picked them. {about.strip()}'
    return join(paragraph(about), cards(figures, 'wide'))


def annotated(facts: Facts) -> Html:
    """Figure 7: the centres of the parts before and after scale mining, among annotated key points."""
    run, dataset = facts.run, facts.dataset
    if not dataset.keypoint_names:
        return paragraph('This data set has no key points.')
    if 'scale_mining' not in run.active:
        return paragraph('This network does not mine scales.')
    shown = [example for _, example in _readable(dataset.test, evenly(ANNOTATED, len(dataset.test)))]
    predictions = list(Predictor.from_run(run).predict([example['image'] for example in shown]))
    points = [in_input_pixels(example, run.config.data)[0] for example in shown]
    labels = [int(example['label']) for example in shown]
    sheet = keypoints_sheet(predictions, labels, points, side=SIDE)
    about = (
        'Test images at even distances. Dots are annotated key points, triangles the centres of the parts: above as '
        'they were proposed, below at the scale that was chosen.'
    )
    drawing = element('div', picture(sheet, 'parts among key points'), class_='scroll large')
    return join(paragraph(about), element('figure', drawing))


def responses(facts: Facts) -> Html:
    """Figure 5: what oriented pooling makes of a part of two images."""
    found = facts.responses
    if 'oriented_pooling' not in facts.run.active:
        return paragraph('Oriented pooling takes no part in this network.')
    if found is None:
        return paragraph('There are too few test images to compare.')
    about = (
        f'Part {found.part + 1} of two test images of {facts.run.class_names[found.label]}, and what oriented pooling '
        'makes of it. The pair lies in the middle of all of one class, so that nobody picked it. Below: the cosine of '
        'the two, its mean over pairs of one class and of different classes, and how often a pair of one class is more '
        'alike than one of different classes.'
    )
    alike = (100 * share for share in found.same_orientation)
    orientation = 'Parts with the same chosen orientation: {:.1f} % in pairs of one class, {:.1f} % of different ones.'
    drawing = element('div', Html(responses_svg(found, facts.run.class_names)), class_='scroll large')
    return join(paragraph(about), element('figure', drawing), paragraph(orientation.format(*alike)))


def confusion(facts: Facts) -> Html:
    """Which classes are taken for which."""
    run, answers = facts.run, facts.answers
    names, classes = run.class_names, len(run.class_names)
    matrix = answers.confusion_matrix(answers.labels, answers.predicted, classes)
    drawing = element('div', Html(confusion_svg(matrix, names)), class_='scroll large')
    pieces = [
        element(
            'figure',
            drawing,
            element('figcaption', 'Rows are the classes, columns what their images were called; darker is more often.'),
        )
    ]
    confused = answers.most_confused(answers, classes, EXAMPLES)
    pieces.append(element('h3', 'Most confused classes'))
    if not confused:
        return join(*pieces, paragraph('No image was called by another class.'))
    rows = [[names[c.label], names[c.predicted], c.count, c.total] for c in confused]
    pieces.append(table(['class', 'called', 'images', 'of'], rows, words=2))
    figures = []
    for confusion, (mistaken, example) in zip(
        confused, answers.confusion_images(confused, answers, facts.dataset, run.config.data)
    ):
        is_, called = names[confusion.label], names[confusion.predicted]
        other = picture(example, called) if example is not None else element('div', 'no image', class_='none')
        figures.append(
            card(
                element('div', picture(mistaken, is_), other, class_='pair'),
                element('b', is_),
                ', called ',
                element('b', called),
                f': {confusion.count} of {confusion.total}. ',
                _file(answers.files[confusion.examples[0]]),
            )
        )
    about = 'Left the mistake of which the network was surest, right the image that it recognises best of the class.'
    return join(*pieces, paragraph(about), cards(figures, 'pairs'))


def errors(facts: Facts) -> Html:
    """Worst classes, wrongest images, unreadable ones."""
    run, answers = facts.run, facts.answers
    names = run.class_names
    matrix = answers.confusion_matrix(answers.labels, answers.predicted, len(names))
    accuracy = answers.class_accuracy(answers, len(names))
    totals = np.bincount(answers.labels, minlength=len(names))
    rows = []
    for label in np.argsort(accuracy, kind='stable')[:EXAMPLES]:  # nan, for no images, comes last
        if np.isnan(accuracy[label]) or accuracy[label] == 1:
            break
        others = np.where(np.arange(len(names)) == label, 0, matrix[label])
        called = names[others.argmax()] if others.max() else ''
        right = f'{matrix[label, label]} of {totals[label]}'
        rows.append([names[label], called, right, f'{accuracy[label]:.3f}', bar(accuracy[label])])
    headings = ['class', 'most often called', 'right', 'accuracy', '']
    pieces = [element('h3', 'Worst classes')]
    pieces.append(table(headings, rows, words=2) if rows else paragraph('Every class is recognised without a mistake.'))

    pieces.append(element('h3', 'Wrongest images'))
    figures = []
    for index, example in _readable(facts.dataset.test, answers.wrongest(answers, EXAMPLES)):
        is_, called = names[answers.labels[index]], names[answers.predicted[index]]
        image = picture(preprocess_for_evaluation(example['image'], run.config.data), is_)
        words = (
            'is ',
            element('b', is_),
            f' ({_probability(answers.right_probability[index])}), called ',
            element('b', called),
        )
        figures.append(card(image, *words, f' ({answers.confidence[index]:.2f}). ', _file(answers.files[index])))
    about = 'The wrong answers that give the right class the smallest probability. Labels may be wrong, too.'
    pieces += [paragraph(about), cards(figures)] if figures else [paragraph('No answer is wrong.')]

    missing = np.flatnonzero(answers.predicted == answers.UNREAD)
    if len(missing):
        problems = list_unreadable(facts.dataset.test, missing.tolist())
        pieces.append(element('h3', 'Unreadable images'))
        pieces.append(paragraph(f'{len(missing)} of {len(answers.labels):,} test images, which count as wrong:'))
        pieces.append(element('ul', *(element('li', problem) for problem in problems)))
    return join(*pieces)


def reading(facts: Facts) -> Html:
    """Which images take long to read."""
    answers = facts.answers
    milliseconds = 1000 * answers.seconds
    rows = [
        [_file(answers.files[index] or f'number {index}, unreadable'), f'{milliseconds[index]:.1f}']
        for index in answers.slowest(answers, EXAMPLES)
    ]
    caption = (
        f'The slowest test images to read, decode and prepare, in milliseconds. The median is '
        f'{np.median(milliseconds):.1f}; of 100 images, 95 take less than {np.percentile(milliseconds, 95):.1f}.'
    )
    return table(['image', 'ms'], rows, caption)


def _readable(source: Source, places: Iterable[int]) -> Iterable[tuple[int, dict[str, Any]]]:
    for index in places:
        with contextlib.suppress(UnreadableImage):  # listed among the mistakes
            yield index, source[index]


def _file(name: str) -> Html:
    """A file's name, which may go on in a new line after each `/` and `_`."""
    pieces = [piece for piece in re.split('(?<=[/_])', name) if piece]
    return element('span', Html('<wbr>'.join(map(text, pieces))), class_='file')


def _probability(value: float) -> str:
    return f'{value:.4f}' if value >= 1e-4 else 'below 0.0001'
