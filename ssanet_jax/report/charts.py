"""Charts of the report: learning curves, confusions and the similarity of parts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ssanet_jax.evaluation.drawing import PART_COLORS
from ssanet_jax.evaluation.prediction import ORIENTATIONS
from ssanet_jax.report.curves import TRAINING_BATCHES, TRAINING_LOSS, Line
from ssanet_jax.report.part_similarity import CHOSEN, FIXED, MAP, OTHER_MAP, PartSimilarity
from ssanet_jax.report.rendering import printable
from ssanet_jax.report.svg import HOVER, PLACEHOLDER, UNIT, style_axes, to_svg
from ssanet_jax.runs.history import PREDICTION

_STEPS = [1, 2, 5, 10]  # ticks are multiples of these


class CurveStyle(NamedTuple):
    """How a curve is drawn, in the chart and in its legend."""

    color: str  # CSS variable
    linestyle: str = 'solid'  # a name that both Matplotlib and CSS know
    width: float = 1.8


_CURVE_STYLES = {
    PREDICTION: CurveStyle('c-prediction', width=2.6),
    'image_classifier': CurveStyle('c-image'),
    'scale_mining': CurveStyle('c-mining', 'dashed'),
    'oriented_pooling': CurveStyle('c-pooling', 'dotted'),
    TRAINING_BATCHES: CurveStyle('c-batches', width=1.2),
    TRAINING_LOSS: CurveStyle('c-image'),
}


def curve_style(name: str) -> CurveStyle:
    """The style of the curve of a head, of the prediction, or of the training."""
    return _CURVE_STYLES.get(name, CurveStyle('c-other'))


def learning_curves_chart(
    title: str, curves: Mapping[str, Sequence[Line]], stages: Sequence[tuple[str, float]]
) -> Markup:
    """Draws curves over epochs, with a rule between stages and their numbers above.

    Args:
      title: describes the chart for screen readers.
      curves: name -> lines; at least one point.
      stages: name and number of epochs of each.

    Returns:
      An `<svg>` element. Hovering over a point shows its value.
    """
    width, height, left, right, top, bottom = 640, 320, 62, 14, 30, 56  # leaves room for text 20 units high
    figure = Figure(figsize=(width * UNIT, height * UNIT))
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    total = sum(epochs for _, epochs in stages)
    values = [y for lines in curves.values() for line in lines for _, y in line]
    low, high = min(values), max(values)
    if np.isclose(low, high, rtol=1e-9):  # a range without extent
        high = low + (abs(low) or 1) / 10
    ticks = MaxNLocator(5, steps=_STEPS).tick_values(low, high)
    axes.set_yticks(ticks)
    axes.set_ylim(ticks[0], ticks[-1])
    axes.set_xlim(0, total)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=_STEPS, integer=total >= 1))
    axes.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
    axes.grid(axis='y', color=PLACEHOLDER['rule'], linewidth=1)
    style_axes(axes)
    axes.tick_params('y', length=0, pad=8)
    axes.tick_params('x', pad=8)
    axes.set_xlabel('epoch', color=PLACEHOLDER['soft'], fontsize=12)
    first_epoch = 0.0
    for number, (name, epochs) in enumerate(stages, 1):
        if first_epoch:
            axes.axvline(first_epoch, color=PLACEHOLDER['soft'], linestyle=(0, (2, 3)), linewidth=1, gid='stage')
        if len(stages) > 1:
            axes.text(
                first_epoch + epochs / 2,
                1.03,
                str(number),
                transform=axes.get_xaxis_transform(),
                ha='center',
                color=PLACEHOLDER['soft'],
                fontsize=12,
                gid=HOVER + printable(name),
            )
        first_epoch += epochs
    for name, lines in curves.items():
        style = curve_style(name)
        color = PLACEHOLDER[style.color]
        for line in lines:
            x, y = zip(*line) if line else ((), ())
            axes.plot(x, y, color=color, linestyle=style.linestyle, linewidth=style.width, gid='curve')
            for epoch, value in line:
                tooltip = printable(f'{HOVER}{name}, epoch {epoch:g}: {value:.4g}')
                axes.plot(epoch, value, color=color, marker='o', markersize=6, markeredgewidth=0, gid=tooltip)
    return to_svg(figure, title, 'curves')


def confusion_chart(matrix: np.ndarray, class_names: Sequence[str]) -> Markup:
    """Draws a confusion matrix as colored cells; empty cells are left out.

    The opacity of a cell grows with the square root of its share of the class (its row), so that single mistakes
    remain visible. With many classes only every n-th label is drawn; hovering names a cell.

    Args:
      matrix: int `[N, N]`, rows are true classes (`predictions.confusion_matrix`).
      class_names: name of each class.

    Returns:
      An `<svg>` element without a size of its own.
    """
    num_classes = len(class_names)
    cell = 24 if num_classes <= 25 else 12 if num_classes <= 100 else 6
    font_size = 16 if num_classes > 100 else 11
    step = -(-font_size // cell) if num_classes > 25 else 1  # labels must not overlap
    side = num_classes * cell
    figure = Figure(figsize=(side * UNIT, side * UNIT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, num_classes)
    axes.set_ylim(num_classes, 0)
    axes.xaxis.tick_top()
    names = [_shorten(printable(name)) for name in class_names[::step]]
    centers = np.arange(0, num_classes, step) + 0.5
    axes.set_xticks(centers, names, rotation=90, parse_math=False)
    axes.set_yticks(centers, names, parse_math=False)
    style_axes(axes, font_size, 'ink', frame=True)
    axes.tick_params(length=0, pad=5)
    totals = matrix.sum(1)
    for label, predicted in np.argwhere(matrix):
        count, total = int(matrix[label, predicted]), int(totals[label])
        opacity = 0.2 + 0.8 * (count / total) ** 0.5
        outcome = 'recognized' if label == predicted else f'predicted as {class_names[predicted]}'
        tooltip = printable(f'{HOVER}{count} of {total} {class_names[label]} {outcome}')
        color = PLACEHOLDER['matrix']
        axes.add_patch(Rectangle((predicted, label), 1, 1, facecolor=color, alpha=opacity, linewidth=0, gid=tooltip))
        if num_classes <= 25:
            color = '#ffffff' if opacity > 0.75 else PLACEHOLDER['ink']
            place = (predicted + 0.5, label + 0.5)
            axes.text(*place, str(count), ha='center', va='center', color=color, fontsize=font_size)
    for text, offset in (('true ↓', 5), ('predicted →', 9 + font_size)):
        axes.annotate(
            text,
            (0, 1),
            (-5, offset),
            xycoords='axes fraction',
            textcoords='offset points',
            ha='right',
            style='italic',
            fontsize=font_size,
            color=PLACEHOLDER['soft'],
        )
    return to_svg(figure, 'Confusion matrix: rows are true classes, columns predicted classes', 'confusion', tight=True)


def part_similarity_chart(similarity: PartSimilarity, class_name: str) -> Markup:
    """Draws one part of two images as the paper's Figure 5: the image, what is pooled from the part, and its map.

    Each image is a row. Bars are means over channels; the two bar charts of a column share their scale.
    """
    chosen = similarity.pooled[np.arange(2), similarity.orientation]
    gap = np.full((2, 2), np.nan)
    columns = [
        ('(a) Γh and Γv', FIXED, np.concatenate([similarity.pooled[:, 0], gap, similarity.pooled[:, 1]], 1)),
        ('(a) as chosen', CHOSEN, chosen),
        ('(b) 7 × 7 map', MAP, similarity.maps),
    ]
    if similarity.other_maps is not None:
        columns.append(('(c) the other run', OTHER_MAP, similarity.other_maps))
    color = PART_COLORS[similarity.part % len(PART_COLORS)]
    side = 124
    widths = [side, *(max(2.8 * values.shape[1], side) for _, _, values in columns)]
    figure = Figure(figsize=((sum(widths) + 18 * len(columns)) * UNIT, 310 * UNIT), layout='constrained')
    grid = figure.subplots(2, len(widths), width_ratios=widths)
    for row, (image, box) in enumerate(zip(similarity.images, similarity.boxes)):
        grid[row, 0].imshow(_draw_box(image, box, 2 * side, color), interpolation='none')
        grid[row, 0].set_axis_off()
    for column, (heading, name, values) in enumerate(columns, 1):
        low, high = min(np.nanmin(values), 0), max(np.nanmax(values), 0)
        for axes, bars in zip(grid[:, column], values):
            finite = np.flatnonzero(np.isfinite(bars))  # NaN is a gap
            axes.bar(finite, bars[finite], width=0.85, color=np.array(color) / 255, gid='bar')
            axes.axhline(0, color=PLACEHOLDER['soft'], linewidth=1)
            axes.set(xlim=(-0.5, len(bars) - 0.5), ylim=(low, high if high > low else low + 1), xticks=[], yticks=[])
            style_axes(axes)
        if name == CHOSEN:
            for axes, orientation in zip(grid[:, column], similarity.orientation):
                axes.set_xlabel(ORIENTATIONS[orientation], color=PLACEHOLDER['soft'], fontsize=11)
        grid[0, column].set_title(heading, color=PLACEHOLDER['ink'], fontsize=11, loc='left', fontweight='bold')
    return to_svg(figure, f'Part {similarity.part + 1} of two images of {class_name}', 'similarity')


def _draw_box(image: np.ndarray, box: np.ndarray, side: int, color: Sequence[int]) -> np.ndarray:
    picture = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    y0, x0, y1, x1 = (int(v) for v in np.clip(box * side / len(image), 1, side - 2).round())
    cv2.rectangle(picture, (x0, y0), (x1, y1), (0, 0, 0), 5)
    cv2.rectangle(picture, (x0, y0), (x1, y1), tuple(color), 3)
    return picture


def _shorten(name: str, longest: int = 30) -> str:
    return name if len(name) <= longest else f'{name[: longest - 9]}…{name[-8:]}'
