"""Learning curves: what a run noted of its epochs and evaluations, and a drawing of it as SVG."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ssanet_jax.runs.history import EVALUATION, HISTORY_FILE, read_history

BATCHES, LOSS = 'training batches', 'training loss'

# Of the drawing, in units of its view box. A page may set letters up to 20 units high.
_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 30, 56

Line = list[tuple[float, float]]  # (epochs since the first stage began, value)


class Curves(NamedTuple):
    """What there is to draw. A curve is a list of lines, one a stage, since stages learn different things."""

    stages: list[tuple[str, float]]  # name and epochs, of those that have begun
    split: str  # of the images that evaluations were made on, 'test' or 'validation'
    accuracy: dict[str, list[Line]]  # of each head, of the prediction, and of the batches trained on
    loss: list[Line]  # means over an epoch


def learning_curves(workdir: Path, stages: Sequence[Mapping[str, Any]]) -> Curves | None:
    """The curves of a run over all its stages; None if it noted no history, as runs of old did.

    Args:
      workdir: of the run.
      stages: rows of its configuration, with `name` and `epochs`.

    Raises:
      UserError: a history cannot be read.
    """
    histories = [read_history(workdir / row['name'] / HISTORY_FILE) for row in stages]
    while histories and not histories[-1]:
        histories.pop()
    if not histories:
        return None
    split, accuracy, loss = 'test', {}, []
    begun = 0.0
    for row, lines in zip(stages, histories):
        here: dict[str, Line] = {}
        for line in lines:
            x, values = begun + line['epoch'], line['values']
            if line['kind'] == EVALUATION:
                split = line.get('split', split)
                found = values
            else:
                found = {BATCHES: values.get('accuracy'), LOSS: values.get('loss/total')}
            for name, value in found.items():
                if value is not None:
                    here.setdefault(name, []).append((x, value))
        loss.append(here.pop(LOSS, []))
        for name, points in here.items():
            accuracy.setdefault(name, []).append(points)
        begun += row['epochs']
    return Curves([(row['name'], row['epochs']) for row, _ in zip(stages, histories)], split, accuracy, loss)


def curves_svg(title: str, curves: Mapping[str, Sequence[Line]], stages: Sequence[tuple[str, float]]) -> str:
    """Draws curves over epochs; stages are told apart by rules and numbered from 1.

    Colours come from the page: each curve has a class (`curve-prediction`, `curve-scale_mining`, ...; see
    `page_style`), so that one drawing serves light and dark.

    Args:
      title: what the drawing shows, for those who cannot see it.
      curves: name -> lines.
      stages: name and epochs of each.

    Returns:
      An `<svg>` element. Every point tells its value when it is pointed at.
    """
    total = sum(epochs for _, epochs in stages)
    values = [y for lines in curves.values() for line in lines for _, y in line]
    ticks = nice_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    inner = (_WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)
    to_x = lambda x: round(_LEFT + inner[0] * x / total, 1)
    to_y = lambda y: round(_TOP + inner[1] * (high - y) / (high - low), 1)

    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>']
    for tick in ticks:
        y = to_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 8}" y="{y}" dy="0.35em">{tick:.{_digits(ticks)}f}</text>')
    for tick in nice_ticks(0, total, most=8):
        if tick <= total and (tick == round(tick) or total < 1):
            x = to_x(tick)
            parts.append(f'<line class="tick" x1="{x}" y1="{to_y(low)}" x2="{x}" y2="{to_y(low) + 4}"/>')
            parts.append(f'<text class="x" x="{x}" y="{to_y(low) + 9}" dy="0.8em">{tick:g}</text>')
    parts.append(f'<text class="x" x="{to_x(total / 2)}" y="{_HEIGHT - 4}">epoch</text>')
    begun = 0.0
    for number, (name, epochs) in enumerate(stages, 1):
        if begun:
            parts.append(f'<line class="stage" x1="{to_x(begun)}" y1="{_TOP}" x2="{to_x(begun)}" y2="{to_y(low)}"/>')
        if len(stages) > 1:
            middle = to_x(begun + epochs / 2)
            parts.append(f'<text class="x" x="{middle}" y="{_TOP - 10}">{number}<title>{escape(name)}</title></text>')
        begun += epochs
    for name, lines in curves.items():
        parts.append(f'<g class="{curve_class(name)}">')
        for line in lines:
            path = ' '.join(f'{to_x(x)},{to_y(y)}' for x, y in line)
            parts.append(f'<polyline points="{path}"/>')
            parts += [
                f'<circle cx="{to_x(x)}" cy="{to_y(y)}" r="2.6">'
                f'<title>{escape(name)}, epoch {x:g}: {y:.4g}</title></circle>'
                for x, y in line
            ]
        parts.append('</g>')
    return ''.join(parts) + '</svg>'


def curve_class(name: str) -> str:
    """The class of a curve's colour in the page's style."""
    return 'curve-' + ''.join(letter if letter.isalnum() else '_' for letter in name)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers at even distances, of which the first is at most `low` and the last at least `high`.

    Args:
      low, high: finite, low <= high.
      most: about how many.
    """
    if high - low < 1e-9 * max(abs(low), abs(high), 1):  # less than can be told apart
        high = low + (abs(low) if abs(low) > 1e-9 else 1) / 10
    rough = (high - low) / (most - 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _digits(ticks: Sequence[float]) -> int:
    """Digits after the point that tell the ticks apart."""
    return max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
