"""Pictures of images with their parts, and contact sheets of such pictures."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.fonts import Color, draw_text, fit_text, text_size

# RGB, one color per part, distinguishable with color blindness (Okabe and Ito, 2008).
PART_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
BLACK, DARK, WHITE = (0, 0, 0), (20, 20, 20), (255, 255, 255)
# The orientations of oriented pooling, as clockwise quarter turns of an arrow that points to the right.
QUARTER_TURNS = {'horizontal': 0, 'vertical': 1, 'horizontal reversed': 2, 'vertical reversed': 3}
FRACTION_BITS = 4  # OpenCV then takes coordinates in sixteenths of a pixel
SUBPIXELS = 2**FRACTION_BITS
CAPTION_HEIGHT = 28  # pixels
# Colored lines stay sharp.
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

Box = tuple[int, int, int, int]  # (y0, x0, y1, x1), pixels of the picture


def draw_parts(
    image: np.ndarray,
    boxes: np.ndarray,
    scales: Sequence[float] | np.ndarray,
    caption: str = '',
    side: int = 448,
    *,
    orientations: Sequence[str] = (),
    names: Sequence[str] = (),
    dashed: Collection[int] = (),
    keypoints: np.ndarray | None = None,
) -> np.ndarray:
    """Draws the parts of one image (Figure 6) as boxes, colored by part index.

    Args:
      image: uint8 `[H, W, 3]`, RGB, the network's input or a photo.
      boxes: `[K, 4]`, `(y0, x0, y1, x1)` in pixels of the image; they may reach outside.
      scales: `[K]`, the side chosen by scale mining as a multiple of the proposal's; empty without scale mining.
      caption: a line below the picture.
      side: longer side of the picture, pixels.
      orientations: each part's orientation chosen by oriented pooling, a key of `QUARTER_TURNS`. It is drawn as
        an arrow: to the right for horizontal, down for vertical, and the opposite way for the reversed orientations.
      names: the name of each part; without them, parts are numbered from 1.
      dashed: the parts whose frames are dashed, from 0.
      keypoints: `[P, 3]`, (y, x, visible), pixels of the image. The visible ones are drawn as dots, and the centers of
        the boxes as triangles, as in Figure 7.

    Returns:
      uint8 `[h + 28, w, 3]`, RGB, where h and w are the proportions of the image.
    """
    picture, zoom = fit_picture(image, side)
    corners = _corners(boxes, zoom, picture)
    _draw_frames(picture, dict(enumerate(corners)), dashed, max(side // 150, 1))
    occupied: list[Box] = []  # what labels should not cover
    if keypoints is not None:
        occupied += _draw_dots(picture, keypoints[keypoints[:, 2] > 0, :2] * zoom)
        occupied += _draw_triangles(picture, (boxes[:, :2] + boxes[:, 2:]) / 2 * zoom)
    for index, box in enumerate(corners):
        name = names[index] if names else str(index + 1)
        text = f'{name} ×{scales[index]:.2g}' if len(scales) else name
        quarter_turns = QUARTER_TURNS[orientations[index]] if len(orientations) else None
        occupied.append(_draw_label(picture, text, quarter_turns, box, part_color(index), occupied))
    return np.concatenate([picture, _caption_band(caption, picture.shape[1])])


def draw_named_boxes(
    picture: np.ndarray, boxes: Mapping[int, np.ndarray], names: Mapping[int, str], dashed: Collection[int] = ()
) -> None:
    """Draws boxes with their names into a picture, in place.

    Args:
      picture: uint8 `[H, W, 3]`, RGB.
      boxes: by part, from 0: `(y0, x0, y1, x1)` in pixels of the picture; they may reach outside.
      names: the label of each of these parts.
      dashed: the parts whose frames are dashed.
    """
    corners = dict(zip(boxes, _corners(np.array([*boxes.values()]).reshape(-1, 4), 1.0, picture)))
    _draw_frames(picture, corners, dashed, max(max(picture.shape) // 250, 2))
    occupied: list[Box] = []
    for part, box in corners.items():
        occupied.append(_draw_label(picture, names[part], None, box, part_color(part), occupied))


def part_color(part: int) -> Color:
    """The color of a part, numbered from 0."""
    return PART_COLORS[part % len(PART_COLORS)]


def fit_picture(image: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """Resizes an image to a longer side of `side` pixels; also returns its pixels per pixel of the image."""
    height, width = image.shape[:2]
    zoom = side / max(height, width)
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA), zoom


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = 5, gap: int = 8) -> np.ndarray:
    """Arranges pictures row by row on a white sheet.

    Args:
      pictures: uint8 `[h, w, 3]` each, at least one. A row is as high and a column as wide as its largest picture, and
        smaller ones are in the middle of their place.
      columns: pictures per row.
      gap: pixels between the pictures and around them.

    Returns:
      uint8 `[H, W, 3]`.
    """
    columns = min(columns, len(pictures))
    sizes = [picture.shape[:2] for picture in pictures]
    heights = [max(height for height, _ in sizes[i : i + columns]) for i in range(0, len(sizes), columns)]
    widths = [max(width for _, width in sizes[i::columns]) for i in range(columns)]
    sheet = np.full((sum(heights) + gap * (len(heights) + 1), sum(widths) + gap * (columns + 1), 3), 255, np.uint8)
    for index, (picture, (height, width)) in enumerate(zip(pictures, sizes)):
        row, column = divmod(index, columns)
        y = sum(heights[:row]) + gap * (row + 1) + (heights[row] - height) // 2
        x = sum(widths[:column]) + gap * (column + 1) + (widths[column] - width) // 2
        sheet[y : y + height, x : x + width] = picture
    return sheet


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture in the format of the path's suffix (.png, .jpg).

    Args:
      path: the file; its folder is created if needed.
      picture: uint8 `[H, W, 3]`, RGB.

    Raises:
      UserError: the file cannot be written.
    """
    # cv2.imwrite only returns False when it fails, without the reason.
    options = _JPEG if path.suffix.lower() in ('.jpg', '.jpeg') else []
    _, encoded = cv2.imencode(path.suffix, picture[..., ::-1], options)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise UserError(f'cannot write {path} ({error.strerror}): free some space or choose another folder') from error


def _draw_frames(picture: np.ndarray, corners: Mapping[int, Box], dashed: Collection[int], width: int) -> None:
    """Draws the frames of parts in their colors, the dashed ones below the others."""
    for part in dashed:
        _draw_dashed(picture, corners[part], part_color(part), 4 * width, width)
    for part, (y0, x0, y1, x1) in corners.items():
        if part not in dashed:
            cv2.rectangle(picture, (x0, y0), (x1, y1), BLACK, width + 2, cv2.LINE_AA)
            cv2.rectangle(picture, (x0, y0), (x1, y1), part_color(part), width, cv2.LINE_AA)


def _corners(boxes: np.ndarray, zoom: float, picture: np.ndarray) -> list[Box]:
    """Boxes in pixels of the image -> integer pixels of the picture, clipped to it."""
    height, width = picture.shape[:2]
    farthest = np.maximum(np.array([height, width, height, width]) - 2, 1)
    corners = np.clip(boxes * zoom, 1, farthest).round().astype(int)
    return [(y0, x0, y1, x1) for y0, x0, y1, x1 in corners.tolist()]


def _draw_dashed(picture: np.ndarray, box: Box, color: Color, dash: int, width: int) -> None:
    """Draws a frame that alternates between the color and black, visible on any background."""
    y0, x0, y1, x1 = box
    frame = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    cv2.polylines(picture, [frame], True, BLACK, width)
    for x in range(x0, x1, 2 * dash):
        for y in (y0, y1):
            cv2.line(picture, (x, y), (min(x + dash, x1), y), color, width)
    for y in range(y0, y1, 2 * dash):
        for x in (x0, x1):
            cv2.line(picture, (x, y), (x, min(y + dash, y1)), color, width)


def _draw_dots(picture: np.ndarray, points: np.ndarray) -> list[Box]:
    """Draws key points as white dots with a black outline; returns the boxes around them."""
    radius = max(max(picture.shape) / 110, 2.2)
    for point in points[:, ::-1]:
        for size, color in ((radius + 1.2, BLACK), (radius, WHITE)):
            x, y = (SUBPIXELS * point).round().astype(int).tolist()
            cv2.circle(picture, (x, y), round(SUBPIXELS * size), color, -1, cv2.LINE_AA, FRACTION_BITS)
    return _boxes_around(points, radius + 1)


def _draw_triangles(picture: np.ndarray, points: np.ndarray) -> list[Box]:
    """Draws the centers of the parts as triangles in their colors; returns the boxes around them."""
    radius = max(max(picture.shape) / 45, 5)
    shape = np.array([[0, -1], [0.87, 0.5], [-0.87, 0.5]])  # (x, y)
    for index, point in enumerate(points[:, ::-1]):
        for size, color in ((radius + 2.5, BLACK), (radius, PART_COLORS[index % len(PART_COLORS)])):
            corners = ((point + size * shape) * SUBPIXELS).round().astype(np.int32)
            cv2.fillPoly(picture, [corners], color, cv2.LINE_AA, FRACTION_BITS)
    return _boxes_around(points, radius + 2)


def _boxes_around(points: np.ndarray, radius: float) -> list[Box]:
    return [(int(y - radius), int(x - radius), int(y + radius), int(x + radius)) for y, x in points]


def _draw_label(
    picture: np.ndarray, text: str, quarter_turns: int | None, box: Box, color: Color, occupied: Sequence[Box]
) -> Box:
    """Draws a label at the corner of a box where it covers the least of `occupied`; returns the label's box."""
    picture_height, picture_width = picture.shape[:2]
    font_size = max(max(picture_height, picture_width) // 34, 10)
    height, text_width = text_size(text, font_size)
    width = text_width + 5 + (0 if quarter_turns is None else height)
    y0, x0, y1, x1 = box
    corners = [(y0 - height, x0), (y1, x0), (y0 - height, x1 - width), (y1, x1 - width), (y0, x0), (y1 - height, x0)]
    corners += [(y0, x1 - width), (y1 - height, x1 - width)]
    candidates = [(max(min(y, picture_height - height), 0), max(min(x, picture_width - width), 0)) for y, x in corners]

    def covered_area(corner: tuple[int, int]) -> int:
        y, x = corner
        overlaps = [
            (min(y + height, bottom) - max(y, top), min(x + width, right) - max(x, left))
            for top, left, bottom, right in occupied
        ]
        return sum(max(h, 0) * max(w, 0) for h, w in overlaps)

    y, x = min(candidates, key=covered_area)  # the first of several minima
    cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), color, -1)
    draw_text(picture[y : y + height, x : x + width], text, 0, 2, font_size, BLACK)
    if quarter_turns is not None:
        _draw_arrow(picture, y + height / 2 - 0.5, x + text_width + height / 2 + 1.5, 0.4 * height, quarter_turns)
    return y, x, y + height, x + width


def _draw_arrow(picture: np.ndarray, y: float, x: float, size: float, quarter_turns: int) -> None:
    """Draws a thick arrow centered on (y, x), rotated clockwise from pointing to the right."""
    outline = np.array([[-1, -0.25], [0, -0.25], [0, -0.85], [1, 0], [0, 0.85], [0, 0.25], [-1, 0.25]])  # (x, y)
    for _ in range(quarter_turns):
        outline = np.column_stack([-outline[:, 1], outline[:, 0]])
    corners = ((outline * size + (x, y)) * SUBPIXELS).round().astype(np.int32)
    cv2.fillPoly(picture, [corners], BLACK, cv2.LINE_AA, FRACTION_BITS)


def _caption_band(caption: str, width: int) -> np.ndarray:
    """A white band with a line of text that fits: `[28, width, 3]`."""
    band = np.full((CAPTION_HEIGHT, width, 3), 255, np.uint8)
    text, font_size = fit_text(caption, width - 10, 13)
    draw_text(band, text, 5, 5, font_size, DARK)
    return band
