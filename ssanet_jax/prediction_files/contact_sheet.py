"""Contact sheets of a prediction: small photos with their parts and classes, in the order of the files."""

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data.image_inputs import read_image
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.drawing import DARK, contact_sheet, draw_named_boxes, fit_picture, save_picture
from ssanet_jax.evaluation.explained_picture import DOUBT, WASH
from ssanet_jax.evaluation.explanation import part_name, percent, readable_name
from ssanet_jax.evaluation.fonts import can_draw, draw_text, fit_text
from ssanet_jax.prediction_files.journal import Record

COLUMNS, ROWS = 5, 4
MOST_PAGES = 10
_SIDE, _CAPTION = 260, 40  # pixels


def write_contact_sheets(
    out: Path, records: Iterable[Record], class_names: Sequence[str], has_object: bool
) -> list[Path]:
    """Writes `contact_sheet_1.jpg`, ..., at most `MOST_PAGES`, and deletes those of an earlier prediction.

    Args:
      out: the folder.
      records: of the predicted images; those that could not be read are passed over.
      class_names: of the network; a name without a font becomes its number.
      has_object: whether part 0 is the object as a whole.

    Returns:
      The files; none for a single image.

    Raises:
      UserError: a file cannot be written.
    """
    for old in out.glob('contact_sheet_*.jpg'):
        old.unlink()
    readable = (record for record in records if record.line is not None)
    chosen = list(itertools.islice(readable, MOST_PAGES * COLUMNS * ROWS))
    if len(chosen) < 2:
        return []
    files = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        for page, start in enumerate(range(0, len(chosen), COLUMNS * ROWS), 1):
            of_page = chosen[start : start + COLUMNS * ROWS]
            tiles = list(pool.map(lambda record: _tile(record, class_names, has_object), of_page))
            files.append(out / f'contact_sheet_{page}.jpg')
            save_picture(files[-1], contact_sheet(tiles, COLUMNS, gap=12))
    return files


def _tile(record: Record, class_names: Sequence[str], has_object: bool) -> np.ndarray:
    """A small photo with its parts, and its class below: uint8 `[_SIDE + _CAPTION, _SIDE, 3]`."""
    line = record.line or {}
    tile = np.full((_SIDE + _CAPTION, _SIDE, 3), 255, np.uint8)
    tile[:_SIDE] = WASH
    try:
        photo, zoom = fit_picture(read_image(record.file), _SIDE)
    except UnreadableImage:  # it was there a moment ago
        photo, zoom = tile[:1, :1], 0.0
    boxes = np.array(line.get('boxes', []), np.float32).reshape(-1, 4)
    present = line.get('present') or [True] * len(boxes)
    shown = [part for part in range(len(boxes)) if present[part] and zoom]
    names = {part: part_name(part, has_object).removeprefix('part ') for part in shown}
    draw_named_boxes(photo, {part: boxes[part] * zoom for part in shown}, names)
    y, x = (_SIDE - photo.shape[0]) // 2, (_SIDE - photo.shape[1]) // 2
    tile[y : y + photo.shape[0], x : x + photo.shape[1]] = photo
    name = readable_name(line['class'])
    drawn = name if can_draw(name) else f'class {class_names.index(line["class"])}'
    text = f'{drawn}: {percent(line["probabilities"][line["class"]])}'
    unsure = bool(line.get('unsure'))
    lines = [(f'unsure: {text}' if unsure else text, 14, DOUBT if unsure else DARK), (Path(record.file).name, 11, DARK)]
    for number, (words, size, color) in enumerate(lines):
        fitted, font_size = fit_text(words, _SIDE - 4, size)
        draw_text(tile[_SIDE + 2 + 19 * number :], fitted, 0, 2, font_size, color)
    return tile
