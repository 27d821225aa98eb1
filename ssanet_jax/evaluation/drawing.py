"""Draws the parts of images, and contact sheets of such pictures."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.lettering import Colour, extent, fitted, write

# RGB, one colour a part, told apart by people with colour-blindness too (Okabe and Ito, 2008).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
BLACK, DARK, GREY, WHITE = (0, 0, 0), (20, 20, 20), (90, 90, 90), (255, 255, 255)
# What oriented pooling chose, by the names of `prediction.ORIENTATIONS`, as quarter turns of an arrow to the right.
ARROWS = {'horizontal': 0, 'vertical': 1, 'horizontal reversed': 2, 'vertical reversed': 3}
SHIFT = 4  # OpenCV takes places in sixteenths of a pixel then
FINE = 2**SHIFT
BAND = 28  # height of a caption, pixels


def draw_parts(
    image: np.ndarray,
    boxes: np.ndarray,
    scales: Sequence[float] | np.ndarray,
    caption: str = '',
    side: int = 448,
    *,
    orientations: Sequence[str] = (),
    proposals: np.ndarray | None = None,
    keypoints: np.ndarray | None = None,
) -> np.ndarray:
    """Draws the parts of one image (Figure 6), boxes coloured by part index.

    Args:
      image: uint8 `[H, H, 3]`, RGB, the network's input.
      boxes: `[K, 4]`, `(y0, x0, y1, x1)` in pixels of the input; they may reach outside.
      scales: of each part, the side that scale mining chose as a multiple of the proposal's; empty without it.
      caption: a line under the picture.
      side: of the picture, pixels.
      orientations: of each part, the one that oriented pooling chose, a key of `ARROWS`. It becomes an arrow: to the
        right for horizontal, down for vertical, and the other way for their reverse.
      proposals: `[K, 4]`, the parts before scale mining, dashed.
      keypoints: `[P, 3]`, (y, x, visible), pixels of the input. The visible ones become dots, and the centres of
        the boxes triangles, as in Figure 7.

    Returns:
      uint8 `[side + 28, side, 3]`, RGB.
    """
    zoom = side / image.shape[0]
    picture = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA)
    width = max(side // 150, 1)
    for index, box in enumerate(_corners(np.zeros((0, 4)) if proposals is None else proposals, zoom, side)):
        _dashed(picture, box, COLOURS[index % len(COLOURS)])
    corners = _corners(boxes, zoom, side)
    for index, (y0, x0, y1, x1) in enumerate(corners):
        cv2.rectangle(picture, (x0, y0), (x1, y1), BLACK, width + 2, cv2.LINE_AA)
        cv2.rectangle(picture, (x0, y0), (x1, y1), COLOURS[index % len(COLOURS)], width, cv2.LINE_AA)
    taken: list[tuple[int, ...]] = []  # where no label may lie
    if keypoints is not None:
        taken += _dots(picture, keypoints[keypoints[:, 2] > 0, :2] * zoom)
        taken += _triangles(picture, (boxes[:, :2] + boxes[:, 2:]) / 2 * zoom)
    for index, box in enumerate(corners):
        words = f'{index + 1} ×{scales[index]:.2g}' if len(scales) else f'{index + 1}'
        turns = ARROWS[orientations[index]] if len(orientations) else None
        taken.append(_label(picture, words, turns, box, COLOURS[index % len(COLOURS)], taken))
    return np.concatenate([picture, _band([(caption, DARK)], side)])


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = 5, gap: int = 8) -> np.ndarray:
    """Pictures of one size, row by row on one white sheet."""
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = (gap + (index // columns) * (height + gap), gap + (index % columns) * (width + gap))
        sheet[y : y + height, x : x + width] = picture
    return sheet


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Writes an RGB picture as the path's suffix says (.png, .jpg).

    Raises:
      UserError: it cannot be written.
    """
    # Not by cv2.imwrite, which only returns False when it fails, and does not say why.
    _, encoded = cv2.imencode(path.suffix, picture[..., ::-1])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise UserError(f'cannot write {path} ({error.strerror}): make room, or give another folder') from error


def _corners(boxes: np.ndarray, zoom: float, side: int) -> list[tuple[int, ...]]:
    """Boxes in pixels of the input -> whole pixels of the picture, inside it."""
    return [tuple(int(v) for v in box) for box in np.clip(boxes * zoom, 1, side - 2).round()]


def _dashed(picture: np.ndarray, box: tuple[int, ...], colour: Colour, dash: int = 4) -> None:
    """A thin frame of the colour and black by turns, so that it shows on any ground."""
    y0, x0, y1, x1 = box
    frame = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    cv2.polylines(picture, [frame], True, BLACK)
    for x in range(x0, x1, 2 * dash):
        for y in (y0, y1):
            cv2.line(picture, (x, y), (min(x + dash, x1), y), colour)
    for y in range(y0, y1, 2 * dash):
        for x in (x0, x1):
            cv2.line(picture, (x, y), (x, min(y + dash, y1)), colour)


def _dots(picture: np.ndarray, places: np.ndarray) -> list[tuple[int, ...]]:
    """Key points, white with a black rim; returns the boxes around them."""
    radius = max(len(picture) / 110, 2.2)
    for place in places[:, ::-1]:
        for size, colour in ((radius + 1.2, BLACK), (radius, WHITE)):
            centre = tuple((FINE * place).round().astype(int).tolist())
            cv2.circle(picture, centre, round(FINE * size), colour, -1, cv2.LINE_AA, SHIFT)
    return _around(places, radius + 1)


def _triangles(picture: np.ndarray, places: np.ndarray) -> list[tuple[int, ...]]:
    """Centres of the parts, in their colours, with a black rim; returns the boxes around them."""
    radius = max(len(picture) / 45, 5)
    shape = np.array([[0, -1], [0.87, 0.5], [-0.87, 0.5]])  # (x, y)
    for index, place in enumerate(places[:, ::-1]):
        for size, colour in ((radius + 2.5, BLACK), (radius, COLOURS[index % len(COLOURS)])):
            corners = ((place + size * shape) * FINE).round().astype(np.int32)
            cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA, SHIFT)
    return _around(places, radius + 2)


def _around(places: np.ndarray, radius: float) -> list[tuple[int, ...]]:
    return [(int(y - radius), int(x - radius), int(y + radius), int(x + radius)) for y, x in places]


def _label(
    picture: np.ndarray,
    words: str,
    turns: int | None,
    box: tuple[int, ...],
    colour: Colour,
    taken: Sequence[tuple[int, ...]],
) -> tuple[int, ...]:
    """Names a box at one of its corners, where that hides least of what is drawn already; returns the label's box."""
    side = len(picture)
    size = max(side // 34, 10)
    height, length = extent(words, size)
    width = length + 5 + (0 if turns is None else height)
    y0, x0, y1, x1 = box
    corners = [(y0 - height, x0), (y1, x0), (y0 - height, x1 - width), (y1, x1 - width), (y0, x0), (y1 - height, x0)]
    corners += [(y0, x1 - width), (y1 - height, x1 - width)]
    places = [(min(max(y, 0), side - height), min(max(x, 0), side - width)) for y, x in corners]

    def hidden(place: tuple[int, int]) -> int:
        y, x = place
        across = [
            (min(y + height, bottom) - max(y, top), min(x + width, right) - max(x, left))
            for top, left, bottom, right in taken
        ]
        return sum(max(h, 0) * max(w, 0) for h, w in across)

    y, x = min(places, key=hidden)  # the first of equals
    cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), colour, -1)
    write(picture[y : y + height, x : x + width], words, 0, 2, size, BLACK)
    if turns is not None:
        _arrow(picture, y + height / 2 - 0.5, x + length + height / 2 + 1.5, 0.4 * height, turns)
    return y, x, y + height, x + width


def _arrow(picture: np.ndarray, y: float, x: float, reach: float, turns: int) -> None:
    """A thick arrow about (y, x), to the right, turned clockwise by so many quarters."""
    outline = np.array([[-1, -0.25], [0, -0.25], [0, -0.85], [1, 0], [0, 0.85], [0, 0.25], [-1, 0.25]])  # (x, y)
    for _ in range(turns):
        outline = np.column_stack([-outline[:, 1], outline[:, 0]])
    corners = ((outline * reach + (x, y)) * FINE).round().astype(np.int32)
    cv2.fillPoly(picture, [corners], BLACK, cv2.LINE_AA, SHIFT)


def _band(lines: Sequence[tuple[str, Colour]], width: int) -> np.ndarray:
    """Lines of words under a picture, each as large as fits: `[28, width, 3]` for one, 16 more for each further."""
    band = np.full((BAND + 16 * (len(lines) - 1), width, 3), 255, np.uint8)
    for index, (words, colour) in enumerate(lines):
        words, size = fitted(words, width - 10, 13)
        write(band, words, 5 + 17 * index, 5, size, colour)
    return band
