"""Pictures of what the network looks at."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ssanet_jax.errors import UserError

# RGB, one colour a part, told apart by people with colour-blindness too (Okabe and Ito, 2008).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_parts(
    image: np.ndarray, boxes: np.ndarray, scales: Sequence[float], caption: str = '', side: int = 448
) -> np.ndarray:
    """Draws the parts of one image, boxes coloured by part index.

    Args:
      image: uint8 `[H, H, 3]`, RGB, the network's input.
      boxes: `[K, 4]`, `(y0, x0, y1, x1)` in pixels of the input; they may reach outside.
      scales: of each part, the side that scale mining chose as a multiple of the proposal's.
      caption: a line under the picture.
      side: of the picture, pixels.

    Returns:
      uint8 `[side + 28, side, 3]`, RGB.
    """
    zoom = side / image.shape[0]
    picture = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA)
    width = max(side // 150, 1)
    for index, (box, scale) in enumerate(zip(np.clip(boxes * zoom, 1, side - 2).round().astype(int), scales)):
        y0, x0, y1, x1 = (int(v) for v in box)
        colour = COLOURS[index % len(COLOURS)]
        cv2.rectangle(picture, (x0, y0), (x1, y1), (0, 0, 0), width + 2, cv2.LINE_AA)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, width, cv2.LINE_AA)
        _label(picture, f'{index + 1} x{scale:.2g}', x0, y0, colour)
    band = np.full((28, side, 3), 255, np.uint8)
    cv2.putText(band, caption, (6, 19), _FONT, 0.45, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([picture, band])


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


def _label(picture: np.ndarray, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.42, 1)
    y = max(y, height + 5)
    cv2.rectangle(picture, (x, y - height - 5), (x + width + 5, y), colour, -1)
    cv2.putText(picture, text, (x + 3, y - 4), _FONT, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
