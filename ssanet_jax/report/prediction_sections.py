"""Sections of the report about the network's predictions for the test images."""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from ssanet_jax.data.dataset import Source
from ssanet_jax.data.preprocessing import preprocess_for_evaluation, to_source_pixels
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.attention import attention_sheet
from ssanet_jax.evaluation.drawing import fit_picture, part_color
from ssanet_jax.evaluation.explained_picture import mark_parts, term_text
from ssanet_jax.evaluation.explanation import Term, explain, finds_object, percent, readable_name
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.evaluation.sheets import evenly, keypoints_sheet
from ssanet_jax.models.groups import PART_HEAD
from ssanet_jax.predictor import Predictor
from ssanet_jax.report import predictions as test_predictions
from ssanet_jax.report.charts import confusion_chart, part_similarity_chart
from ssanet_jax.report.inputs import ReportInputs
from ssanet_jax.report.rendering import Bar, Table

NUM_ANNOTATED = 4  # images shown with their parts and key points
NUM_ATTENTION = 4  # images shown with what the prototypes attend to
ATTENTION_SIDE = 200  # of their pictures, pixels: five in a row are as wide as the page, with readable labels
NUM_EXAMPLES = 12  # of each kind: fills rows of two, three and four
SLOW_MILLISECONDS = 100  # if one image in twenty takes longer to load, the loading time is shown at once
PICTURE_SIDE = 300  # of an image with its parts, pixels


@dataclass(frozen=True)
class PartsTerm:
    """What the whole photo or a part says about the predicted class."""

    name: str
    color: str  # of its box, for CSS; empty for the whole photo
    words: str


@dataclass(frozen=True)
class PartsExample:
    """A test image with its parts and its prediction."""

    picture: np.ndarray  # uint8 [H, W, 3]
    description: str
    predicted: str  # class name
    probability: str  # in words
    label: str  # class name
    terms: list[PartsTerm]


@dataclass(frozen=True)
class PartsSection:
    """Test images with their parts."""

    introduction: str
    examples: list[PartsExample]


def parts_section(inputs: ReportInputs) -> PartsSection:
    """Evenly spaced test images with the located parts, and what each part says."""
    run, dataset = inputs.run, inputs.dataset
    has_parts = 'proposals' in run.active
    shown = list(readable_images(dataset.test, evenly(NUM_EXAMPLES, len(dataset.test))))
    predictions = Predictor.from_run(run).predict([example['image'] for _, example in shown])
    examples = []
    for (_, example), prediction in zip(shown, predictions):
        explanation = explain(prediction, finds_object(run.config))
        photo = prediction.photo()
        label = readable_name(run.class_names[int(example['label'])])
        examples.append(
            PartsExample(
                mark_parts(explanation, photo, PICTURE_SIDE / max(photo.shape)),
                f'{label}, with its parts' if has_parts else label,
                readable_name(prediction.label),
                percent(prediction.score),
                label,
                [_parts_term(term, prediction) for term in explanation.terms] if has_parts else [],
            )
        )
    return PartsSection(_parts_introduction(run.active, finds_object(run.config)), examples)


def _parts_term(term: Term, prediction: Prediction) -> PartsTerm:
    if term.part is None:
        return PartsTerm(term.name, '', term_text(term))
    words = [term_text(term)]
    if (prediction.scales != 1).any():
        words.append(f'scale ×{prediction.scales[term.part]:.2g}')
    words += prediction.orientations[term.part : term.part + 1]
    return PartsTerm(term.name, 'rgb({}, {}, {})'.format(*part_color(term.part)), ', '.join(words))


def _parts_introduction(active: Collection[str], has_object: bool) -> str:
    sentences = ['Evenly spaced test images, not picked by hand.']
    if 'proposals' not in active:
        return ' '.join([*sentences, 'This network does not locate parts.'])
    sentences.append(
        'A number and its color mean the same part in every image.'
        if has_object
        else 'Parts are numbered by score, highest first, and colored by number.'
    )
    if {'scale_mining', 'oriented_pooling', PART_HEAD} & set(active):
        sentences.append('The evidence of a part is what it adds to the predicted class over the next best one.')
    if has_object:
        sentences.append('A dashed frame and a question mark mean that the part is not clearly seen.')
    return ' '.join(sentences)


@dataclass(frozen=True)
class PictureSection:
    """One picture, uint8 `[H, W, 3]`."""

    introduction: str
    picture: np.ndarray
    description: str


def annotated_section(inputs: ReportInputs) -> PictureSection | str:
    """The centers of the parts among annotated key points, before and after scale mining (Figure 7)."""
    run, dataset = inputs.run, inputs.dataset
    if not dataset.keypoint_names:
        return 'This data set has no key points.'
    if 'proposals' not in run.active:
        return 'This network does not locate parts.'
    shown = [example for _, example in readable_images(dataset.test, evenly(NUM_ANNOTATED, len(dataset.test)))]
    predictions = list(Predictor.from_run(run).predict([example['image'] for example in shown]))
    points = [example['keypoints'] for example in shown]
    labels = [int(example['label']) for example in shown]
    introduction = 'Evenly spaced test images. Dots are annotated key points, triangles the centers of the parts'
    proposals = []
    if 'scale_mining' in run.active and run.config.model.num_scales > 1:
        introduction += ': above, the proposals before scale mining; below, the parts at the chosen scale'
        proposals = [
            to_source_pixels(prediction.input_proposals, prediction.source_size, run.config.data)
            for prediction in predictions
        ]
    picture = keypoints_sheet(predictions, labels, points, proposals, side=PICTURE_SIDE)
    return PictureSection(f'{introduction}.', picture, 'parts among key points')


def attention_section(inputs: ReportInputs) -> PictureSection | str:
    """What the object and each prototype attend to in some test images."""
    run, dataset = inputs.run, inputs.dataset
    if 'proposals' not in run.active or run.config.model.proposal != 'prototypes':
        return 'This network has no prototypes.'
    shown = readable_images(dataset.test, evenly(NUM_ATTENTION, len(dataset.test)))
    photos = [example['image'] for _, example in shown]
    if not photos:
        return 'None of the test images could be read.'
    introduction = (
        'Evenly spaced test images, one per row: the parts, then the cells of the feature map that belong to the '
        'object, and those that each prototype attends to. A part is where its prototype fits best.'
    )
    images = np.stack([preprocess_for_evaluation(photo, run.config.data) for photo in photos])
    sizes = [photo.shape[:2] for photo in photos]
    picture = attention_sheet(run.model, images, sizes, run.active, side=ATTENTION_SIDE)
    return PictureSection(introduction, picture, 'what the object and each prototype attend to')


@dataclass(frozen=True)
class SimilaritySection:
    """The similarity of parts as a chart and in numbers."""

    introduction: str
    svg: Markup
    table: Table
    note: str


def similarity_section(inputs: ReportInputs) -> SimilaritySection | str:
    """How oriented pooling changes one part of two images (Figure 5), and the similarity of parts in numbers."""
    similarity = inputs.similarity
    if 'oriented_pooling' not in inputs.run.active:
        return 'This network does not use oriented pooling.'
    if similarity is None:
        return 'There are too few test images to compare.'
    class_name = inputs.run.class_names[similarity.label]
    introduction = (
        f'Part {similarity.part + 1} of two test images of {class_name}, and the features that oriented pooling '
        'computes from it. The example is the median of all pairs and parts by cosine, not picked by hand. Bars are '
        'means over channels; the cosines in the table are of all channels.'
    )
    statistics = similarity.statistics
    rows = [
        ['these two images', *(f'{similarity.cosines[name]:.3f}' for name in statistics)],
        [
            f'same class, mean of {similarity.same_class_pairs:,} pairs',
            *(f'{of.same_class:.3f}' for of in statistics.values()),
        ],
        [
            f'different classes, mean of {similarity.different_class_pairs:,} pairs',
            *(f'{of.different_classes:.3f}' for of in statistics.values()),
        ],
        ['ROC AUC of same against different', *(f'{of.roc_auc:.3f}' for of in statistics.values())],
    ]
    same, different = (100 * share for share in similarity.same_orientation)
    return SimilaritySection(
        introduction,
        part_similarity_chart(similarity, class_name),
        Table(['cosine', *statistics], rows, 'Cosine similarity of corresponding parts'),
        f'Parts with the same chosen orientation: {same:.1f} % in pairs of one class, {different:.1f} % in pairs of '
        'different classes.',
    )


@dataclass(frozen=True)
class ConfusedPairExample:
    """Two classes that are confused, with an image of each."""

    mistake: np.ndarray  # the most confident mistake, uint8 [H, W, 3]
    other: np.ndarray | None  # an image of the predicted class
    label: str
    predicted: str
    count: int
    total: int
    file_name: str  # of the mistake


@dataclass(frozen=True)
class ConfusionSection:
    """The confusion matrix, and the most confused pairs as a table and as images."""

    svg: Markup
    table: Table
    pairs: list[ConfusedPairExample]


def confusion_section(inputs: ReportInputs) -> ConfusionSection:
    """The confusion matrix and the most confused pairs of classes."""
    predictions, names = inputs.predictions, inputs.run.class_names
    matrix = test_predictions.confusion_matrix(predictions.labels, predictions.predicted, len(names))
    pairs = test_predictions.most_confused(predictions, len(names), NUM_EXAMPLES)
    images = test_predictions.confused_pair_images(pairs, predictions, inputs.dataset, PICTURE_SIDE)
    examples = [
        ConfusedPairExample(
            mistake,
            other,
            names[pair.label],
            names[pair.predicted],
            pair.count,
            pair.total,
            predictions.file_names[pair.examples[0]],
        )
        for pair, (mistake, other) in zip(pairs, images)
    ]
    rows = [[example.label, example.predicted, example.count, example.total] for example in examples]
    table = Table(['class', 'predicted as', 'images', 'of'], rows, text_columns=2)
    return ConfusionSection(confusion_chart(matrix, names), table, examples)


@dataclass(frozen=True)
class HardExample:
    """A misclassified image."""

    image: np.ndarray  # uint8 [H, W, 3]
    label: str
    label_probability: str
    predicted: str
    confidence: float
    file_name: str


@dataclass(frozen=True)
class MistakesSection:
    """Mistakes; `unreadable` holds the error message of each unreadable image."""

    worst_classes: Table
    hardest_examples: list[HardExample]
    unreadable_summary: str
    unreadable: list[str]


def mistakes_section(inputs: ReportInputs) -> MistakesSection:
    """The classes with the lowest accuracy, the hardest examples and the unreadable images."""
    predictions, names = inputs.predictions, inputs.run.class_names
    examples = [
        HardExample(
            fit_picture(example['image'], PICTURE_SIDE)[0],
            names[predictions.labels[index]],
            _format_probability(predictions.label_probability[index]),
            names[predictions.predicted[index]],
            float(predictions.confidence[index]),
            predictions.file_names[index],
        )
        for index, example in readable_images(
            inputs.dataset.test, test_predictions.hardest_examples(predictions, NUM_EXAMPLES)
        )
    ]
    unreadable = test_predictions.unreadable_images(inputs.dataset, predictions)
    summary = f'{len(unreadable)} of {len(predictions.labels):,} test images, which count as wrong:'
    return MistakesSection(_worst_classes(inputs), examples, summary, unreadable)


def _worst_classes(inputs: ReportInputs) -> Table:
    predictions, names = inputs.predictions, inputs.run.class_names
    matrix = test_predictions.confusion_matrix(predictions.labels, predictions.predicted, len(names))
    accuracy = test_predictions.class_accuracy(predictions, len(names))
    totals = np.bincount(predictions.labels, minlength=len(names))
    rows = []
    for label in np.argsort(accuracy, kind='stable')[:NUM_EXAMPLES]:  # NaN, a class without images, sorts last
        if np.isnan(accuracy[label]) or accuracy[label] == 1:
            break
        others = np.where(np.arange(len(names)) == label, 0, matrix[label])
        confused_with = names[others.argmax()] if others.max() else ''
        correct = f'{matrix[label, label]} of {totals[label]}'
        rows.append([names[label], confused_with, correct, f'{accuracy[label]:.3f}', Bar(float(accuracy[label]))])
    return Table(['class', 'most often predicted as', 'correct', 'accuracy', ''], rows, text_columns=2)


@dataclass(frozen=True)
class LoadingSection:
    """The images that take longest to load; folded if all could be read in a short time."""

    caption: str
    slowest: list[tuple[str, float]]  # file name, milliseconds
    folded: bool = False


def loading_section(inputs: ReportInputs) -> LoadingSection:
    """The images that take longest to load."""
    predictions = inputs.predictions
    milliseconds = 1000 * predictions.load_seconds
    slowest = [
        (predictions.file_names[index] or f'number {index}, unreadable', float(milliseconds[index]))
        for index in test_predictions.slowest_images(predictions, NUM_EXAMPLES)
    ]
    caption = (
        'The test images that take the most CPU time to read, decode and resize, in milliseconds. Median '
        f'{np.median(milliseconds):.1f}, 95th percentile {np.percentile(milliseconds, 95):.1f}.'
    )
    all_readable = (predictions.predicted != test_predictions.UNREADABLE).all()
    return LoadingSection(caption, slowest, bool(all_readable and np.percentile(milliseconds, 95) < SLOW_MILLISECONDS))


def readable_images(source: Source, indices: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Position and example of those of these images that can be read."""
    for index in indices:
        with contextlib.suppress(UnreadableImage):  # listed among the mistakes
            yield index, source[index]


def _format_probability(value: float) -> str:
    return f'{value:.4f}' if value >= 1e-4 else 'below 0.0001'
