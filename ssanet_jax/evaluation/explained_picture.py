"""Pictures of explanations: the photo with its parts, and what each of them says, with similar training photos."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ssanet_jax.evaluation.drawing import BLACK, DARK, WHITE, draw_named_boxes, part_color
from ssanet_jax.evaluation.explanation import Explanation, Term, percent, readable_name
from ssanet_jax.evaluation.fonts import Color, can_draw, draw_text, fit_text, text_size

MAX_SIDE = 8000  # pixels; larger photos are shrunk, since image files and viewers have limits
MIN_SIDE = 320  # pixels; smaller photos are enlarged by a whole factor
SOFT, DOUBT, WASH = (95, 95, 95), (176, 66, 10), (243, 243, 241)
WHOLE_COLOR = (205, 205, 205)
_HEIGHT = 650  # units, of a panel with training photos
_MOST_COLUMNS = 7  # the whole photo and parts; of more, those that say most


def explained_picture(explanation: Explanation, *, details: bool = False) -> np.ndarray:
    """Draws an explanation: the photo at its own size, and beside or below it the evidence.

    Args:
      explanation: from `explain`.
      details: also write the scale and the orientation of each part, and the terms of the logits.

    Returns:
      uint8 `[H, W, 3]`, RGB. The photo is in its upper left corner.
    """
    photo = explanation.prediction.photo()
    longest = max(photo.shape)
    zoom = -(-MIN_SIDE // longest) if longest < MIN_SIDE else min(MAX_SIDE / longest, 1)
    marked = mark_parts(explanation, photo, zoom)
    height, width = marked.shape[:2]
    beside = _Panel(explanation, photo, max(height / _HEIGHT, 1.0), details)
    if width < beside.width or height > 1.5 * width:
        return _on_white([(marked, 0, 0), (beside.draw(), 0, width)])
    below = _Panel(explanation, photo, width / beside.width * beside.unit, details)
    return _on_white([(marked, 0, 0), (below.draw(), height, 0)])


def mark_parts(explanation: Explanation, photo: np.ndarray, zoom: float = 1.0) -> np.ndarray:
    """A copy of a photo with its parts and their names.

    Args:
      explanation: its explanation.
      photo: `Prediction.photo()`.
      zoom: pixels of the copy per pixel of the photo.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    prediction = explanation.prediction
    height, width = photo.shape[:2]
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    method = cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA
    picture = photo.copy() if zoom == 1 else cv2.resize(photo, size, interpolation=method)
    boxes = prediction.boxes if prediction.read_photo else prediction.input_boxes
    names = {part: str(part + 1) for part in range(len(boxes))}  # of parts that no classifier reads
    names |= {term.part: term.name.removeprefix('part ') for term in explanation.terms if term.part is not None}
    hidden = [part for part, is_seen in enumerate(prediction.present) if not is_seen]
    names |= {part: f'{names[part]}?' for part in hidden}
    draw_named_boxes(picture, {part: boxes[part] * zoom for part in names}, names, dashed=hidden)
    return picture


def headline(explanation: Explanation) -> str:
    """The class and its probability, with doubts first."""
    prediction = explanation.prediction
    text = f'{_class_text(explanation, prediction.class_index)}: {percent(prediction.score)}'
    return f'Unsure. Perhaps {text}' if prediction.unsure else text


def _class_text(explanation: Explanation, index: int) -> str:
    name = readable_name(explanation.prediction.class_names[index])
    return name if can_draw(name) else f'class {index}'


def reason_text(explanation: Explanation) -> str:
    """The next best class, and the term that decides between the two, in words; '' if there is one class only."""
    if explanation.runner_up is None:
        return ''
    other = _class_text(explanation, explanation.runner_up)
    chance = percent(float(explanation.prediction.probabilities[explanation.runner_up]))
    text = f'Next best: {other} ({chance}).'
    decisive = next((term for term in explanation.terms if term.decides), None)
    if decisive and len(explanation.terms) > 1:
        parts = [term for term in explanation.terms if term.name.startswith('part')]
        article = '' if decisive in parts else 'the '
        text += f' Between the two, {article}{decisive.name} decides.'
        most = max(parts, key=lambda term: term.value, default=decisive)
        if decisive not in parts and len(parts) > 1 and most.value > 0:  # the others do not tell where to look
            text += f' Of the parts, {most.name} says most.'
    return text


def term_text(term: Term) -> str:
    """What a part says, in words."""
    if not term.is_present:  # its best place takes part in the prediction all the same
        share = f': {round(100 * term.share)} %' if term.share >= 0.005 else ''
        return f'not clearly seen{share}'
    if term.value < 0:
        return 'speaks against it'
    return f'{round(100 * term.share)} % of the evidence'


@dataclass
class _Panel:
    """The evidence of an explanation, as a picture in which lines of text and rows of tiles are stacked.

    Attributes:
      explanation: what is drawn.
      photo: `Prediction.photo()`.
      unit: pixels per unit, in which sizes are given.
      details: whether to write what only readers of the method understand.
    """

    explanation: Explanation
    photo: np.ndarray
    unit: float
    details: bool
    _rows: list[np.ndarray] = field(default_factory=list)

    def draw(self) -> np.ndarray:
        """Returns the panel, uint8 `[H, W, 3]`."""
        explanation, prediction = self.explanation, self.explanation.prediction
        self._text(headline(explanation), 21, DARK)
        if prediction.unsure:
            self._text(self._doubt(), 14, DOUBT)
        if reason := reason_text(self.explanation):
            self._text(reason, 14, DARK)
        terms = self._shown_terms()
        if any(term.part is not None for term in terms):
            self._gap(4)
            self._tiles([self._header(term) for term in terms])
            self._text('in this photo', 12, SOFT)
            self._tiles([self._own_tile(term) for term in terms])
            for of_class in explanation.classes:
                name = _class_text(explanation, of_class.class_index)
                self._text(f'most similar in the training photos of {name}', 12, SOFT)
                examples = dict(zip(explanation.terms, of_class.examples))
                found = [examples[term] for term in terms]
                self._tiles([self._blank() if one is None else self._tile(one.photo, one.box) for one in found])
        if self.details:
            self._details(terms)
        self._gap(10)
        return np.concatenate(self._rows)

    @property
    def width(self) -> int:
        """Of the panel, pixels."""
        columns = max(len(self._shown_terms()), 3)
        return columns * (self._px(150) + self._px(8)) + 2 * self._px(12) - self._px(8)

    def _px(self, units: float) -> int:
        return max(round(units * self.unit), 1)

    def _shown_terms(self) -> list[Term]:
        terms = self.explanation.terms
        if len(terms) <= _MOST_COLUMNS:
            return terms
        kept = sorted(terms, key=lambda term: -abs(term.value))[:_MOST_COLUMNS]
        return [term for term in terms if term in kept]

    def _doubt(self) -> str:
        reason = self.explanation.prediction.unsure
        if self.explanation.runner_up is not None and reason.startswith('could also be'):
            reason = f'could also be {_class_text(self.explanation, self.explanation.runner_up)}'
        return f'It {reason}.'

    def _gap(self, units: float) -> None:
        self._rows.append(np.full((self._px(units), self.width, 3), 255, np.uint8))

    def _text(self, text: str, size: float, color: Color) -> None:
        """Adds a paragraph, with line breaks where they are needed."""
        margin, font_size = self._px(12), self._px(size)
        if not can_draw(text):  # two scripts without a common font
            names = self.explanation.prediction.class_names
            for index in sorted(range(len(names)), key=lambda i: -len(names[i])):
                if (name := readable_name(names[index])) and name in text:
                    text = text.replace(name, f'class {index}')
        for line in wrap_text(text, self.width - 2 * margin, font_size):
            height = text_size(line, font_size)[0] + self._px(5)
            band = np.full((height, self.width, 3), 255, np.uint8)
            fitted, fitted_size = fit_text(line, self.width - 2 * margin, font_size)
            draw_text(band, fitted, self._px(5), margin, fitted_size, color)
            self._rows.append(band)

    def _tiles(self, tiles: Sequence[np.ndarray]) -> None:
        """Adds a row of tiles of the same height."""
        margin, gap, width = self._px(12), self._px(8), self._px(150)
        row = np.full((tiles[0].shape[0] + self._px(4), self.width, 3), 255, np.uint8)
        for number, tile in enumerate(tiles):
            x = margin + number * (width + gap)
            row[self._px(4) : self._px(4) + len(tile), x : x + width] = tile
        self._rows.append(row)

    def _header(self, term: Term) -> np.ndarray:
        """The name of a part on its color, and what it says."""
        width = self._px(150)
        color = WHOLE_COLOR if term.part is None else part_color(term.part)
        tile = np.full((self._px(44), width, 3), 255, np.uint8)
        tile[: self._px(22)] = color
        name = f'{term.name}: decides' if term.decides else term.name
        for text, y, size, ink in ((name, 2, 14, BLACK), (term_text(term), 25, 12.5, DARK)):
            fitted, font_size = fit_text(text, width - self._px(8), self._px(size))
            draw_text(tile, fitted, self._px(y), self._px(4), font_size, ink)
        return tile

    def _own_tile(self, term: Term) -> np.ndarray:
        prediction = self.explanation.prediction
        boxes = prediction.boxes if prediction.read_photo else prediction.input_boxes
        return self._tile(self.photo, None if term.part is None else boxes[term.part])

    def _blank(self) -> np.ndarray:
        return np.full((self._px(150), self._px(150), 3), WASH, np.uint8)

    def _tile(self, photo: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """A part of a photo, or the whole, as large as fits into a square tile."""
        side = self._px(150)
        if box is not None:
            photo = crop_part(photo, box)
        zoom = side / max(photo.shape[:2])
        height, width = (max(round(length * zoom), 1) for length in photo.shape[:2])
        method = cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA
        tile = self._blank()
        y, x = (side - height) // 2, (side - width) // 2
        tile[y : y + height, x : x + width] = cv2.resize(photo, (width, height), interpolation=method)
        return tile

    def _details(self, terms: Sequence[Term]) -> None:
        explanation, prediction = self.explanation, self.explanation.prediction
        self._gap(4)
        for term in terms:
            if term.part is None:
                continue
            facts = []
            if (prediction.scales != 1).any():
                facts.append(f'scale ×{prediction.scales[term.part]:.2g}')
            if prediction.orientations:
                facts.append(f'turn: {prediction.orientations[term.part]}')
            if facts:
                self._text(f'{term.name}: {", ".join(facts)}', 12, SOFT)
        sums = [f'{term.name} {term.value:+.2f}' for term in explanation.terms]
        total = prediction.evidence.total
        self._text(f'difference of the logits {total:+.2f} = {", ".join(sums)}, bias {explanation.bias:+.2f}', 12, SOFT)


def crop_part(photo: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The pixels of a box within the photo, at least one."""
    height, width = photo.shape[:2]
    y0, x0 = (int(np.clip(np.floor(low), 0, size - 1)) for low, size in zip(box[:2], (height, width)))
    y1, x1 = (int(np.clip(np.ceil(high), low + 1, size)) for high, low, size in zip(box[2:], (y0, x0), (height, width)))
    return photo[y0:y1, x0:x1]


def wrap_text(text: str, width: int, font_size: int) -> list[str]:
    """Breaks a text between words so that each line fits into `width` pixels, if its words do."""
    lines: list[str] = []
    for word in text.split():
        longer = f'{lines[-1]} {word}' if lines else word
        if lines and text_size(longer, font_size)[1] <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _on_white(pieces: Sequence[tuple[np.ndarray, int, int]]) -> np.ndarray:
    """Puts pictures at (y, x) on a white sheet that holds them all."""
    height = max(y + piece.shape[0] for piece, y, _ in pieces)
    width = max(x + piece.shape[1] for piece, _, x in pieces)
    sheet = np.full((height, width, 3), WHITE, np.uint8)
    for piece, y, x in pieces:
        sheet[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
    return sheet
