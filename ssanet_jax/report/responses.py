"""Whether the aligned parts of one class look alike to the network (the paper's Figure 5), drawn and in numbers."""

import base64
import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.transforms import preprocess_for_evaluation
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.aligned_maps import AlignedMaps, AlignedParts
from ssanet_jax.evaluation.drawing import COLOURS
from ssanet_jax.evaluation.prediction import ORIENTATIONS
from ssanet_jax.evaluation.sheets import evenly
from ssanet_jax.runs.run import Run

# What is compared of a part.
FIXED = 'pooled'  # Gamma_h with Gamma_h and Gamma_v with Gamma_v (Eq. 9, 10); the mean of the two cosines
CHOSEN = 'pooled, at the chosen orientations'  # what won Eq. 13 in the one image with what won in the other
MAP = '7 x 7 map'  # all channels of the aligned map
OTHER = '7 x 7 map of the other run'


class Likeness(NamedTuple):
    """Cosines between two images, each the mean over their parts, part k with part k."""

    same: float  # mean over pairs of one class
    different: float  # mean over pairs of different classes
    told_apart: float  # probability that a pair of one class has the higher cosine of the two; 0.5 says nothing


class Responses(NamedTuple):
    """One part of two images of one class, and how alike the parts of all compared images are."""

    label: int  # the class of both
    part: int  # k, from 0
    places: tuple[int, int]  # positions in the test set
    images: np.ndarray  # uint8 [2, S, S, 3], the network's inputs
    boxes: np.ndarray  # [2, 4], the part at the chosen scale, pixels of the input
    orientation: np.ndarray  # int [2], the chosen one, an index of `ORIENTATIONS`
    pooled: np.ndarray  # [2, 4, G * P * P], Gamma_h, Gamma_v, Gamma'_h, Gamma'_v, each the mean over channels
    maps: np.ndarray  # [2, 49], the aligned map row by row, mean over channels
    other_maps: np.ndarray | None  # [2, 49], that of the other run, from its own part k
    cosines: dict[str, float]  # between these two, of the whole vectors, not of their means over channels
    likeness: dict[str, Likeness]  # over all pairs
    same_pairs: int  # compared pairs of images of one class
    different_pairs: int  # and of different classes
    same_orientation: tuple[float, float]  # share of parts with one orientation: within a class, between classes


def measure_responses(
    run: Run,
    dataset: Dataset,
    console: Console,
    other: Run | None = None,
    *,
    classes: int = 50,
    images: int = 4,
) -> Responses:
    """Compares the parts of test images of one class with those of different ones.

    Nobody picks them: of the classes with two test images or more, those at even distances, and of each the images at
    even distances. All pairs within a class are compared, and all of each class with the class compared before. Shown
    are the pair and the part in the middle of all within a class, by the cosine at the chosen orientations.

    Args:
      run: one whose network has oriented pooling.
      dataset: whose test images are compared.
      console: shows the progress.
      other: a run on the same classes with as many parts, such as one trained without oriented pooling.
      classes: to compare, at most.
      images: of each class, at least 2, at most.

    Raises:
      UserError: a run without oriented pooling, another one that cannot be compared, or too few test images.
    """
    check_comparable(run, other)
    looks = [_Looker(of, images) for of in (run, other) if of]
    names = [FIXED, CHOSEN, MAP, OTHER][: 2 + len(looks)]
    same, different = ({name: [] for name in [*names, 'orientation']} for _ in range(2))
    pairs: list[tuple[int, int]] = []
    before: dict[str, np.ndarray] = {}
    groups = _groups(dataset.test.labels, classes, images)
    for group in track(groups, 'comparing parts', console=console, transient=True):
        places, pictures = _read(dataset, group)
        if len(places) < 2:
            continue
        readings = _readings(looks[0](pictures))
        if other:
            readings[OTHER] = _readings(looks[1](pictures))[MAP]
        one, two = np.triu_indices(len(places), 1)
        pairs += [(places[i], places[j]) for i, j in zip(one, two)]
        for name, reading in readings.items():
            same[name].append(_cosines(reading, reading)[one, two])  # [pairs, K]
            if before:
                across = _cosines(reading, before[name])
                different[name].append(across.reshape(-1, across.shape[-1]))
        before = readings
    if not different[MAP]:
        raise UserError(f'{dataset.name} has too few test images to compare parts: take two classes of two images')
    same, different = ({name: np.concatenate(rows) for name, rows in kind.items()} for kind in (same, different))

    middle = np.argsort(same[CHOSEN], axis=None, kind='stable')[same[CHOSEN].size // 2]
    pair, part = (int(i) for i in np.unravel_index(middle, same[CHOSEN].shape))
    _, pictures = _read(dataset, pairs[pair])
    shown = [look(pictures) for look in looks]
    drawn_map = lambda parts: parts.maps[:, part].mean(-1).reshape(2, -1)
    channels = shown[0].maps.shape[-1]
    return Responses(
        label=int(dataset.test.labels[pairs[pair][0]]),
        part=part,
        places=pairs[pair],
        images=np.stack(looks[0].inputs(pictures)),
        boxes=shown[0].boxes[:, part],
        orientation=shown[0].orientation[:, part],
        pooled=shown[0].pooled[:, part].reshape(2, len(ORIENTATIONS), -1, channels).mean(-1),
        maps=drawn_map(shown[0]),
        other_maps=drawn_map(shown[1]) if other else None,
        cosines={name: float(same[name][pair, part]) for name in names},
        likeness={name: likeness(same[name].mean(1), different[name].mean(1)) for name in names},
        same_pairs=len(pairs),
        different_pairs=len(different[MAP]),
        same_orientation=(float(same['orientation'].mean()), float(different['orientation'].mean())),
    )


def likeness(same: np.ndarray, different: np.ndarray) -> Likeness:
    """Of the cosines of pairs of one class, `[n]`, and of different classes, `[m]`."""
    ordered = np.sort(different)
    lower = (np.searchsorted(ordered, same, 'left') + np.searchsorted(ordered, same, 'right')) / 2  # ties count half
    return Likeness(float(same.mean()), float(different.mean()), float(lower.mean() / len(ordered)))


class _Looker:
    """A run as a function of pictures of any size."""

    def __init__(self, run: Run, batch_size: int):
        self._look = AlignedMaps(run.model, run.active, batch_size)
        self._data = run.config.data

    def inputs(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [preprocess_for_evaluation(picture, self._data) for picture in pictures]

    def __call__(self, pictures: Sequence[np.ndarray]) -> AlignedParts:
        return self._look(self.inputs(pictures))


def check_comparable(run: Run, other: Run | None) -> None:
    """Raises `UserError` for a run without oriented pooling, or another one that cannot be compared with it."""
    if 'oriented_pooling' not in run.active:
        raise UserError(f'the network of stage {run.stage} has no oriented pooling: take a run that trains it')
    if other is None:
        return
    if other.class_names != run.class_names:
        raise UserError('the two runs were trained on different classes, so that their parts cannot be compared')
    if 'proposals' not in other.active or other.model.num_parts != run.model.num_parts:
        raise UserError(f'the other run has to look for {run.model.num_parts} parts, as this one does: take another')


def _groups(labels: np.ndarray, classes: int, images: int) -> list[list[int]]:
    """Positions of the images to compare, a list a class."""
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    places = [of_class for of_class in places if len(of_class) > 1]
    chosen = [places[i] for i in evenly(classes, len(places))]
    return [of_class[evenly(images, len(of_class))].tolist() for of_class in chosen]


def _read(dataset: Dataset, places: Sequence[int]) -> tuple[list[int], list[np.ndarray]]:
    """Which of the test images can be read, and those."""
    pictures = {}
    for place in places:
        with contextlib.suppress(UnreadableImage):  # an evaluation reports it
            pictures[place] = dataset.test[place]['image']
    return list(pictures), list(pictures.values())


def _readings(parts: AlignedParts) -> dict[str, np.ndarray]:
    """What is compared: vectors `[B, K, n, L]`, n of them a part."""
    chosen = np.take_along_axis(parts.pooled, parts.orientation[..., None, None], 2)
    return {
        FIXED: parts.pooled[:, :, :2],  # their reverse has the same cosine
        CHOSEN: chosen,
        MAP: parts.maps.reshape(*parts.maps.shape[:2], 1, -1),
        'orientation': np.eye(len(ORIENTATIONS), dtype=np.float32)[parts.orientation][:, :, None],  # equal is 1, else 0
    }


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between each image of the one and each of the other, `[B, K, n, L]`, `[D, K, n, L]` -> `[B, D, K]`."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12) for x in (a, b))
    return np.einsum('iknl,jknl->ijk', a, b, optimize=True) / a.shape[2]


# Units of the drawing.
_PICTURE, _GAP, _HEAD, _BAR = 124, 18, 36, 2.8


def responses_svg(responses: Responses, class_names: Sequence[str]) -> str:
    """Draws `Responses` as Figure 5: an image a row; the part, what is pooled from it, and its map.

    Returns:
      An SVG element with a viewBox and no size of its own, which holds the images too; words have the colour of the
      page's, so that it suits light and dark ones.
    """
    chosen = responses.pooled[np.arange(2), responses.orientation]
    both = np.concatenate([responses.pooled[:, 0], np.full((2, 2), np.nan), responses.pooled[:, 1]], 1)
    columns = [
        ('(a) Γh and Γv', FIXED, both),
        ('(a) as chosen', CHOSEN, chosen),
        ('(b) 7 × 7 map', MAP, responses.maps),
    ]
    if responses.other_maps is not None:
        columns.append(('(c) the other run', OTHER, responses.other_maps))
    pieces, x = list(_pictures(responses)), _PICTURE + _GAP
    for title, name, values in columns:
        width = max(values.shape[1] * _BAR, 132)  # room for the words below
        pieces.append(_words(x, 12, title, weight='bold'))
        limits = float(min(np.nanmin(values), 0)), float(max(np.nanmax(values), 0))  # of both images
        for row in range(2):
            base = _HEAD + _PICTURE + row * (_PICTURE + _GAP)
            pieces.append(_bars(x, base, width, values[row], limits, COLOURS[responses.part % len(COLOURS)]))
            if name == CHOSEN:
                pieces.append(_words(x, base - _PICTURE - 4, ORIENTATIONS[responses.orientation[row]], faint=True))
        alike, base = responses.likeness[name], _HEAD + 2 * (_PICTURE + _GAP)
        for line, words in enumerate(
            (
                f'these two {responses.cosines[name]:.3f}',
                f'one class {alike.same:.3f}',
                f'different classes {alike.different:.3f}',
                f'told apart {100 * alike.told_apart:.1f} %',
            )
        ):
            pieces.append(_words(x, base + 6 + 14 * line, words))
        x += width + _GAP
    base = _HEAD + 2 * (_PICTURE + _GAP) + 6
    for line, words in enumerate(('cosine', f'{responses.same_pairs} pairs', f'{responses.different_pairs} pairs')):
        pieces.append(_words(0, base + 14 * line, words, faint=True))
    pieces.append(_words(0, base + 60, 'Bars are means over channels, cosines are of all channels.', faint=True))
    height = base + 66
    title = f'Part {responses.part + 1} of two images of {class_names[responses.label]}'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x - _GAP:.0f} {height}" role="img" '
        f'font-family="sans-serif" font-size="11" fill="currentColor"><title>{escape(title)}</title>'
        f'{"".join(pieces)}</svg>'
    )


def _pictures(responses: Responses) -> Iterator[str]:
    colour = COLOURS[responses.part % len(COLOURS)]
    for row, (image, box) in enumerate(zip(responses.images, responses.boxes)):
        picture = cv2.resize(image, (2 * _PICTURE, 2 * _PICTURE), interpolation=cv2.INTER_AREA)
        scaled = np.clip(box * len(picture) / len(image), 1, len(picture) - 2)
        y0, x0, y1, x1 = (int(v) for v in scaled.round())
        cv2.rectangle(picture, (x0, y0), (x1, y1), (0, 0, 0), 5)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 3)
        data = base64.b64encode(cv2.imencode('.jpg', picture[..., ::-1])[1].tobytes()).decode()
        yield (
            f'<image x="0" y="{_HEAD + row * (_PICTURE + _GAP)}" width="{_PICTURE}" height="{_PICTURE}" '
            f'href="data:image/jpeg;base64,{data}"/>'
        )


def _bars(
    x: float, base: float, width: float, values: np.ndarray, limits: tuple[float, float], colour: Sequence[int]
) -> str:
    """A bar a value, from zero upwards or downwards; a gap where it is not a number.

    Means over channels are negative, too, behind a backbone that does not end in a ReLU.

    Args:
      x, base: lower left corner.
      width: of all bars.
      values: to draw.
      limits: (at most 0, at least 0), of the values that the height of a row stands for.
      colour: RGB.
    """
    low, high = limits
    step, unit = width / len(values), (_PICTURE - 4) / max(high - low, 1e-12)
    zero = base + low * unit
    path = ''.join(
        f'M{x + i * step:.1f} {zero:.1f}v{-h:.1f}h{0.85 * step:.2f}v{h:.1f}z'
        for i, h in enumerate(values * unit)
        if not np.isnan(h)
    )
    axis = f'<path d="M{x:.1f} {zero:.1f}h{width:.1f}" stroke="currentColor" stroke-opacity="0.4"/>'
    return f'<path d="{path}" fill="rgb{tuple(colour)}"/>{axis}'


def _words(x: float, y: float, words: str, *, weight: str = 'normal', faint: bool = False) -> str:
    opacity = 0.7 if faint else 1
    return f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}" opacity="{opacity}">{escape(words)}</text>'
